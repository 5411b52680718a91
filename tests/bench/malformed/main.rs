//! What messages that no client can read cost the others: a backlog with none, with one after each hundred good ones, and
//! with one after each two, is decided by a host that starts. The cases take turns; of each the median counts. Each
//! malformed message must have its letter.
//!
//! `cargo bench -p jetmesh --bench malformed`. `BENCH_MALFORMED`: good messages in a backlog, 60,000 unless said;
//! `BENCH_ROUNDS`: 5. The table goes to standard output, progress to standard error.

#[path = "../shared.rs"]
#[expect(dead_code, reason = "the other benchmarks stand on the rest")]
mod shared;
#[path = "../../support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the benchmark stands on a part of what the tests stand on"
)]
mod support;

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context, stream};
use serde_json::{Value, json};
use shared::variable;
use support::wait::SOON;
use support::{Host, NatsServer, Raw, eventually, modules};
use tempfile::TempDir;

/// More than any machine needs for one backlog.
const PATIENCE: Duration = Duration::from_secs(600);
/// A server throws away what comes faster than a stream takes it.
const CHUNK: u64 = 2_000;
/// How many good ones come before a malformed message; 0: none is malformed.
const CASES: [u64; 3] = [0, 100, 2];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let good: u64 = variable("BENCH_MALFORMED", 60_000);
    let rounds: usize = variable("BENCH_ROUNDS", 5);
    let mut took = [const { Vec::new() }; CASES.len()];
    for round in 1..=rounds {
        for (nth, took) in CASES.into_iter().zip(&mut took) {
            took.push(decided(good, nth).await);
            eprintln!("round {round}, one after {nth}: {:.2?}", took[round - 1]);
        }
    }
    println!(
        "## Malformed messages\n\n{}. A handler that does nothing, with a ledger; backlogs of {good} good messages, the median \
         of {rounds} rounds.\n\n\
         | one malformed after | good ones/s | of those without | all messages/s |\n|---:|---:|---:|---:|",
        shared::machine(),
    );
    let mut without = None;
    for (nth, mut took) in CASES.into_iter().zip(took) {
        took.sort_unstable();
        let seconds = took[took.len() / 2].as_secs_f64();
        let rate = good as f64 / seconds;
        let without = *without.get_or_insert(rate);
        let all = (good + malformed(good, nth)) as f64 / seconds;
        let name = if nth == 0 {
            "none".to_owned()
        } else {
            format!("{nth} good ones")
        };
        println!("| {name} | {rate:.0} | {:.0} % | {all:.0} |", 100.0 * rate / without);
    }
}

fn malformed(good: u64, nth: u64) -> u64 {
    good.checked_div(nth).unwrap_or(0)
}

/// How long a host takes from serving to having decided everything.
async fn decided(good: u64, nth: u64) -> Duration {
    let server = NatsServer::start().await;
    let js = jetstream::new(server.client().await);
    fill(&server, &js, good, nth).await;
    let dir = TempDir::with_prefix("jetmesh-bench-").expect("a temporary folder");
    let host = Host::start(&config(&server.url()), dir.path(), &[]);
    host.wait_for_line(|line| line.contains("serving"), SOON).await;
    let began = Instant::now();
    let all = good + malformed(good, nth);
    eventually("everything to be decided", PATIENCE, async || {
        let info: Value = js.request("CONSUMER.INFO.ORDERS.probe", &json!({})).await.ok()?;
        (info["ack_floor"]["stream_seq"] == all).then_some(())
    })
    .await;
    let took = began.elapsed();
    eventually("the letters", PATIENCE, async || {
        let dead = js.get_stream("MESH_DEAD").await.ok()?;
        (dead.cached_info().state.messages == malformed(good, nth)).then_some(())
    })
    .await;
    took
}

async fn fill(server: &NatsServer, js: &Context, good: u64, nth: u64) {
    let config = stream::Config {
        name: "ORDERS".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        ..stream::Config::default()
    };
    let mut stream = js.create_stream(config).await.expect("the stream is made");
    let mut stored = 0;
    for from in (0..good).step_by(CHUNK as usize) {
        let mut raw = Raw::default();
        for number in from..good.min(from + CHUNK) {
            raw.add(b"orders.probe", b"NATS/1.0\r\nA: b\r\n\r\n", b"{\"op\":\"ok\"}");
            stored += 1;
            if nth > 0 && number % nth == nth - 1 {
                raw.add(
                    b"orders.probe",
                    b"NATS/1.0\r\nno colon here\r\n\r\n",
                    b"{\"op\":\"ok\"}",
                );
                stored += 1;
            }
        }
        raw.publish(server);
        eventually("the backlog to be stored", SOON, async || {
            let info = stream.info().await.ok()?;
            (info.state.messages == stored).then_some(())
        })
        .await;
    }
}

fn config(url: &str) -> String {
    let module = modules::handler("probe");
    format!(
        r#"
        [nats]
        url = "{url}"

        [log]
        filter = "error,jetmesh::handler_task::serve=info"

        [handlers.probe]
        module = {module:?}
        stream = "ORDERS"
        bucket = "probe"
        start = "all"
        in_flight = 512
        "#
    )
}
