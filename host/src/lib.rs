//! jetmesh: an event mesh on NATS JetStream whose handlers are sandboxed WebAssembly components, with effects that
//! happen exactly once. `ARCHITECTURE.md` beside `src` says how the parts work together.

#![warn(missing_docs)]

#[macro_use]
mod trouble;

mod admin;
mod app;
mod broker;
mod calendar;
pub mod cli;
mod config;
mod console;
mod control;
mod dlq;
mod event;
mod failpoint;
mod fit;
mod handler_task;
mod histogram;
mod http;
#[cfg(test)]
mod invariants;
mod ledger;
mod mesh_streams;
mod micro;
mod oci;
mod outbox;
mod plan;
mod process;
mod random;
mod redrive;
mod report;
mod schedule;
mod spans;
mod text;
mod trace;
mod wasm;

/// What a test of the wire format, which needs the real client, stands on, and benchmarks of what counting and spans cost; nothing else
/// is for use from outside.
pub mod tested {
    pub use crate::broker::error::SERVER_MIN;
    pub use crate::broker::screen::Screen;
    pub use crate::broker::{Malformed, wire};
    pub use crate::event::{Headers, headers_of};
    pub use crate::handler_task::metrics::CountedEvent;
    pub use crate::handler_task::spanned_event::SpannedEvent;
}
