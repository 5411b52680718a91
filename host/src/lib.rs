//! jetmesh: an event mesh on NATS JetStream whose handlers are sandboxed WebAssembly components, with effects that
//! happen exactly once. `ARCHITECTURE.md` beside `src` says how the parts work together.

#[macro_use]
pub mod trouble;

pub mod app;
pub mod attempts;
pub mod broker;
pub mod cli;
pub mod config;
pub mod dead_letter;
pub mod delayed;
pub mod dlq;
pub mod effects;
pub mod failpoint;
pub mod fit;
pub mod handler_task;
pub mod identity;
#[cfg(test)]
mod invariants;
pub mod ledger;
pub mod message;
pub mod micro;
pub mod outcome;
pub mod payload;
pub mod plan;
pub mod process;
pub mod random;
mod replay_queue;
pub mod text;
pub mod trace;
pub mod wasm;
