//! WebAssembly: compiling modules, the engine and its places for instances, one run of a handler, and what a guest sees and may
//! take of the host.

pub mod cache;
pub mod compile;
mod ended;
pub mod engine;
pub mod guest;
pub mod library;
pub mod module;
mod pool;
pub mod sandbox;
pub mod source;
