//! What a host knows of a ledger and how it decides, without I/O, clock or chance: `book` and what it is made of. Whether effects
//! happen once is decided here, so it can be run without a server.

pub mod append;
pub mod book;
mod cache;
mod consequence;
pub mod entry;
pub mod fate;
pub mod group;
mod id;
pub mod ids;
mod incarnation;
pub mod index;
pub mod join;
mod maps;
mod memory;
pub mod opening;
pub mod outs;
pub mod record;
mod replayed;
pub mod rollout;
#[cfg(any(feature = "failpoints", test))]
mod spoilt;
mod standing;
pub mod transaction;
mod view;
