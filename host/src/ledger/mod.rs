//! The ledger of a state bucket: one append-only log whose entries say which events are decided, how, and what follows.
//! `decisions/0001-ledger.md` tells the protocol. `book` and what it is made of (`append`, `cache`, `consequence`,
//! `entry`, `fate`, `group`, `id`, `ids`, `index`, `join`, `opening`, `outs`, `replayed`, `standing`, `view`) are pure; the
//! rest speaks to NATS.

pub mod core;
#[cfg(test)]
mod model;
pub mod relay;
pub mod store;

pub use self::core::fate::{Committed, Fault};
pub use self::core::index::Decided;
pub use store::bucket::{Bucket, Trouble};
