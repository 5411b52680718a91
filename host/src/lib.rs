//! jetmesh: an event mesh on NATS JetStream whose handlers are sandboxed WebAssembly components, with effects that
//! happen exactly once. `ARCHITECTURE.md` beside `src` says how the parts work together.

pub mod advisory;
pub mod app;
pub mod attempts;
pub mod broker;
pub mod burial;
pub mod cli;
pub mod compile;
pub mod config;
pub mod dead_letter;
pub mod delayed;
pub mod delivery;
pub mod dispatch;
pub mod dlq;
pub mod drain;
pub mod due;
pub mod effects;
pub mod engine;
pub mod fault;
pub mod guest;
pub mod handler;
pub mod history;
pub mod identity;
#[cfg(test)]
mod invariants;
pub mod lane;
pub mod ledger;
pub mod message;
pub mod micro;
pub mod outcome;
pub mod panics;
pub mod payload;
pub mod plan;
pub mod poison;
pub mod record;
pub mod repeat;
pub mod replay;
pub mod report;
pub mod sandbox;
pub mod serve;
pub mod settle;
pub mod swap;
pub mod sweep;
pub mod telemetry;
pub mod trace;
pub mod transaction;
