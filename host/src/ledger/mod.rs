//! The ledger of a state bucket: one append-only log whose entries say which events are decided, how, and what follows.
//! `decisions/0001-ledger.md` tells the protocol. `book` and what it is made of (`append`, `cache`, `consequence`,
//! `entry`, `fate`, `group`, `id`, `ids`, `index`, `join`, `opening`, `outs`, `replayed`, `standing`, `view`) are pure; the
//! rest speaks to NATS.

pub mod append;
pub mod at_work;
pub mod book;
pub mod bucket;
pub mod cache;
pub mod collect;
pub mod committer;
pub mod consequence;
pub mod death;
pub mod entry;
pub mod fate;
pub mod follow;
pub mod group;
pub mod id;
pub mod ids;
pub mod incarnation;
pub mod index;
pub mod join;
pub mod keys;
pub mod known;
pub mod memory;
pub mod mend;
pub mod mistake;
#[cfg(test)]
mod model;
pub mod opening;
pub mod outs;
pub mod read;
pub mod relay;
pub mod replayed;
pub mod reset;
pub mod send;
pub mod session;
pub mod standing;
pub mod view;

pub use bucket::{Bucket, Trouble};
pub use fate::{Committed, Fault};
pub use index::Decided;
