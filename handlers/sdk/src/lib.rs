//! Write jetmesh event handlers in Rust.
//!
//! A handler is a plain function and one line:
//!
//! ```
//! use jetmesh_sdk::{Error, Json, events, state};
//!
//! #[derive(serde::Deserialize)]
//! struct Order {
//!     order_id: String,
//! }
//!
//! fn on_order(Json(order): Json<Order>) -> Result<(), Error> {
//!     let seen: u64 = state::get_parsed("orders")?.unwrap_or(0);
//!     state::set("orders", (seen + 1).to_string())?;
//!     events::emit("orders.counted", &order.order_id)?;
//!     Ok(())
//! }
//!
//! jetmesh_sdk::handler!(on_order);
//! ```
//!
//! On `Ok`, all state writes and emitted events of the call are committed together; on an error or a panic, none of
//! them happens. With `crate-type = ["cdylib"]`, compile for
//!
//! - `wasm32-unknown-unknown` with `linker = "wasm-component-ld"`, which ships with Rust: the handler imports nothing but
//!   the mesh and is the quickest. It has no standard output and error, no clock and no source of randomness: the
//!   standard library's panic, or do nothing.
//! - `wasm32-wasip2`, if it needs one of these.
//!
//! On any other target the imports are an in-memory mock, the module `testing`, so that handlers are tested with a plain
//! `cargo test`.

pub mod context;
mod error;
mod event;
pub mod events;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
#[cfg(all(target_arch = "wasm32", target_os = "unknown", feature = "heap"))]
mod heap;
pub mod log;
pub mod settings;
pub mod state;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod timers;

#[cfg(target_arch = "wasm32")]
use guest as host;
#[cfg(not(target_arch = "wasm32"))]
use testing::host;

pub use error::Error;
pub use event::{Event, FromEvent, Handler, Json};
pub use serde_json::{self, json};

/// Makes a function the handler of this component.
///
/// The function takes one or two arguments that are [`FromEvent`] and returns `Result<(), Error>`.
#[macro_export]
macro_rules! handler {
    ($function:path) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Component;

            impl $crate::guest::Guest for Component {
                fn handle(event: $crate::guest::Event) -> Result<(), $crate::guest::Failure> {
                    $crate::guest::handle($function, event)
                }
            }

    $crate::guest::bindings::export_component!(Component with_types_in $crate::guest::bindings);
        };

        #[cfg(not(target_arch = "wasm32"))]
        const _: fn($crate::Event) -> Result<(), $crate::Error> = |event| $crate::Handler::call($function, event);
    };
}

/// What the README and the documents show in Rust compiles.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../../README.md")]
    mod readme {}
    #[doc = include_str!("../../../docs/write-a-handler.md")]
    mod write_a_handler {}
}
