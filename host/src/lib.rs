//! jetmesh: an event mesh on NATS JetStream whose handlers are sandboxed WebAssembly components, with effects that
//! happen exactly once. `ARCHITECTURE.md` beside `src` says how the parts work together.

#[macro_use]
pub mod trouble;

pub mod advisory;
pub mod app;
pub mod attempts;
pub mod broker;
pub mod burial;
pub mod cli;
pub mod clock;
pub mod compile;
pub mod config;
pub mod dead_letter;
pub mod delayed;
pub mod delivery;
pub mod dispatch;
pub mod display;
pub mod dlq;
pub mod drain;
pub mod due;
pub mod effects;
pub mod engine;
pub mod fault;
pub mod fit;
pub mod guest;
pub mod handler;
pub mod history;
pub mod identity;
#[cfg(test)]
mod invariants;
pub mod lane;
pub mod ledger;
pub mod library;
pub mod limits;
pub mod lost;
pub mod message;
pub mod micro;
pub mod outcome;
pub mod panics;
pub mod payload;
pub mod peers;
pub mod plan;
pub mod poison;
pub mod pool;
pub mod random;
pub mod record;
pub mod repeat;
pub mod replay;
pub mod report;
pub mod sandbox;
pub mod secret;
pub mod serve;
pub mod settle;
pub mod source;
pub mod swap;
pub mod sweep;
pub mod telemetry;
pub mod trace;
pub mod transaction;
