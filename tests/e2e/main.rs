//! The promises, against a real nats-server, real components and the real command line.

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod cli;
mod compile;
mod config;
mod corrupt;
mod dead_letters;
mod deaths;
mod delayed;
mod dev;
mod disasters;
mod dlq;
mod effects;
mod faults;
mod guests;
mod hosts;
mod identity;
mod ledger;
mod letters;
mod log;
mod mesh;
mod modules;
mod opening;
mod panics;
mod payloads;
mod permissions;
mod poison;
mod poisoned;
mod refused;
mod rehearse;
mod remade;
mod replay;
mod replay_lists;
mod reset;
mod retry;
mod retrying;
mod schemas;
mod storage;
mod sweep;
mod trace;
mod unread;
mod whereabouts;
