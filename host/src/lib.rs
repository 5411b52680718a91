//! jetmesh: an event mesh on NATS JetStream whose handlers are sandboxed WebAssembly components, with effects that
//! happen exactly once. `ARCHITECTURE.md` beside `src` says how the parts work together.

#[macro_use]
mod trouble;

pub mod app;
mod attempts;
pub mod broker;
pub mod cli;
mod config;
mod dead_letter;
mod delayed;
mod dlq;
mod effects;
mod failpoint;
mod fit;
pub mod handler_task;
mod identity;
#[cfg(test)]
mod invariants;
mod ledger;
pub mod message;
mod micro;
mod outcome;
mod payload;
mod plan;
mod process;
mod random;
mod replay_queue;
mod text;
mod trace;
mod wasm;
