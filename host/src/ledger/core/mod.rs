//! ROOM

pub mod append;
pub mod book;
pub mod cache;
pub mod consequence;
pub mod entry;
pub mod fate;
pub mod group;
pub mod id;
pub mod ids;
pub mod index;
pub mod join;
pub mod memory;
pub mod opening;
pub mod outs;
pub mod replayed;
pub mod standing;
pub mod view;
