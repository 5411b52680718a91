//! The promises, against a real nats-server, real components and the real command line.

#![cfg_attr(
    not(feature = "failpoints"),
    expect(dead_code, unused_imports, reason = "the tests that need a failpoint stand on it")
)]

#[path = "../support/mod.rs"]
mod support;

mod ahead;
mod asked;
mod audit;
mod blocked;
mod bounded;
mod check;
mod circuit;
mod cli;
mod clocks;
mod compile;
mod config;
mod corrupt;
mod crowded;
mod cut;
mod dead_letters;
mod deaths;
mod delayed;
mod dev;
mod disasters;
mod display;
mod dlq;
mod docs;
mod domains;
mod effects;
mod failure_modes;
mod faults;
mod fit;
mod foreign;
mod guests;
mod hosts;
mod identity;
mod interrupted;
mod ledger;
mod letters;
mod limits;
mod listing;
mod log;
mod login;
mod malformed;
mod mapped;
mod mesh;
mod modules;
mod opening;
mod order_service;
mod outbox;
mod outbox_faults;
mod outbox_postgres;
mod outbox_postgres_faults;
mod panics;
mod payloads;
mod permissions;
mod pg_shop;
mod poison;
mod poisoned;
mod randomness;
mod readme;
mod recorded;
mod refused;
mod rehearse;
mod remade;
mod replay;
mod replay_lists;
mod replay_told;
mod reset;
mod retry;
mod retrying;
mod schedule_commands;
mod schedules;
mod schemas;
mod secrets;
mod shop;
mod status;
mod storage;
mod swaps;
mod sweep;
mod takeover;
mod ticking;
mod timers;
mod torn;
mod trace;
mod traced_streams;
mod troubles;
mod unable;
mod undelivered;
mod unread;
mod whereabouts;
mod wide;
mod wire;
