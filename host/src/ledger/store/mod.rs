//! The ledger in its bucket: reading it, appending to it, following other hosts, repairing and collecting it.

pub mod at_work;
pub mod bucket;
mod collect;
pub mod committer;
mod death;
pub mod follow;
pub mod incarnation;
pub mod keys;
pub mod known;
pub mod read;
mod repair;
mod reset;
mod rollout;
mod send;
mod session;
mod torn;
