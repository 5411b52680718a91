//! ROOM

pub mod at_work;
pub mod bucket;
pub mod collect;
pub mod committer;
pub mod death;
pub mod follow;
pub mod incarnation;
pub mod keys;
pub mod known;
pub mod mend;
pub mod read;
pub mod reset;
pub mod send;
pub mod session;
