//! The promises, against a real nats-server, real components and the real command line.

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod dead_letters;
mod effects;
mod faults;
mod hosts;
mod mesh;
mod modules;
mod payloads;
mod poison;
mod refused;
mod retry;
mod sweep;
