//! What the mesh costs. In one run, against one nats-server with file storage, the same orders are taken by
//!
//! - `empty`: the client library alone, pull and ack;
//! - `native`: the same, and each order is read in Rust;
//! - `fresh`: the mesh, each order read in WebAssembly, a fresh instance for each;
//! - `reused`: the mesh, with reused instances.
//!
//! Each is a process of its own and is measured from outside, all in the same way. They take turns, so that a machine
//! whose speed changes is as unkind to one as to the other, and a ratio is taken within one turn.
//!
//! `cargo bench -p jetmesh --bench dispatch`; `BENCH_EVENTS`, `BENCH_ROUNDS` and `BENCH_CONCURRENCY` (`1,64,256`) change
//! how much is measured. The table goes to standard output, progress to standard error.

mod baseline;
mod measure;
mod mesh;
#[path = "../../../handlers/parse/src/order.rs"]
mod order;
mod report;
#[path = "../shared.rs"]
mod shared;
#[path = "../../support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the benchmark stands on a part of what the tests stand on"
)]
mod support;

use std::env;

use measure::{Bench, Measured};
use shared::{number, variable};
use support::{Host, NatsServer};

/// Who takes the orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taker {
    Empty,
    Native,
    Fresh,
    Reused,
}

impl Taker {
    pub const ALL: [Taker; 4] = [Taker::Empty, Taker::Native, Taker::Fresh, Taker::Reused];

    pub fn name(self) -> &'static str {
        match self {
            Taker::Empty => "empty",
            Taker::Native => "native",
            Taker::Fresh => "fresh",
            Taker::Reused => "reused",
        }
    }
}

/// A taker at work; it ends when this is dropped.
pub enum Running {
    Baseline(tokio::process::Child),
    Mesh(Host),
}

impl Running {
    pub fn pid(&self) -> u32 {
        match self {
            // An id is there until the child has been waited for, and it never is before it is dropped.
            Running::Baseline(child) => child.id().expect("the baseline runs"),
            Running::Mesh(host) => host.pid(),
        }
    }
}

/// One turn of one taker at one concurrency.
pub struct Turn {
    pub taker: Taker,
    pub concurrency: usize,
    pub round: usize,
    pub measured: Measured,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if baseline::asked_for() {
        return baseline::run().await;
    }
    let events: usize = variable("BENCH_EVENTS", 100_000);
    let rounds: usize = variable("BENCH_ROUNDS", 3);
    let concurrencies = env::var("BENCH_CONCURRENCY").unwrap_or_else(|_| "1,64,256".to_owned());
    let concurrencies: Vec<usize> = concurrencies
        .split(',')
        .map(|n| number("BENCH_CONCURRENCY", n.trim()))
        .collect();

    let server = NatsServer::start().await;
    let bench = Bench::new(&server, events).await;
    let mut turns = Vec::new();
    for &concurrency in &concurrencies {
        for round in 0..rounds {
            for taker in Taker::ALL {
                let measured = bench.turn(taker, concurrency).await;
                eprintln!("{concurrency} {round} {:6} {measured:?}", taker.name());
                turns.push(Turn {
                    taker,
                    concurrency,
                    round,
                    measured,
                });
            }
        }
    }
    println!("{}", report::table(&turns, events, rounds, bench.server_version()));
}
