//! The ledger of a state bucket: one append-only log whose entries say which events are decided, how, and what follows.
//! `decisions/0001-ledger.md` tells the protocol. `core` is pure; `store` and `relay` speak to NATS.

pub mod core;
pub mod identity;
#[cfg(test)]
mod model;
pub mod relay;
pub mod store;

pub use self::core::fate::{CommitError, Committed};
pub use self::core::index::Decided;
pub use store::bucket::{Bucket, Trouble};
