//! ROOM

pub mod compile;
pub mod engine;
pub mod guest;
pub mod library;
pub mod module;
pub mod pool;
pub mod sandbox;
pub mod source;
