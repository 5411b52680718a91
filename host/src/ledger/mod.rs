//! The ledger of a state bucket: one append-only log whose entries say which events are decided, how, and what follows.
//! `decisions/0001-ledger.md` tells the protocol. `entry`, `index` and `append` are pure; the rest speaks to NATS.

pub mod append;
pub mod at_work;
pub mod bucket;
pub mod carry;
pub mod entry;
pub mod incarnation;
pub mod index;
pub mod keys;
pub mod read;
pub mod relay;
pub mod send;
pub mod session;

pub use bucket::{Bucket, Committed, Fault};
pub use index::Decided;
