//! What an outbox takes from the commit of a service to the stream, and how many events a second it carries: rows of SQLite, rows of
//! PostgreSQL, the log of PostgreSQL. What is in the stream afterwards is audited.
//!
//! `cargo bench -p jetmesh --bench outbox`. `BENCH_OUTBOX`: events of the backlog, 100,000 unless said; `BENCH_COMMITS`: commits whose
//! latency is measured, 2,000; `BENCH_PAUSE_MS`: between two of these, 5. The table goes to standard output, progress to standard
//! error.

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

mod service;

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{self, Context};
use futures_util::TryStreamExt;
use service::{Kind, Service};
use shared::{percentile, variable};
use support::postgres::PostgresServer;
use support::{Host, NatsServer, cli, eventually, modules};
use tempfile::TempDir;

/// More than any machine needs for one backlog.
const PATIENCE: Duration = Duration::from_secs(600);
/// Events of one transaction of the backlog.
const TRANSACTION: u64 = 10;

/// What one kind of outbox does.
struct Measured {
    /// From commit to stream, sorted.
    latencies: Vec<Duration>,
    rate: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let events: u64 = variable("BENCH_OUTBOX", 100_000);
    let commits: u64 = variable("BENCH_COMMITS", 2_000);
    let pause = Duration::from_millis(variable("BENCH_PAUSE_MS", 5));
    println!(
        "## Outboxes\n\n{}. {commits} commits of one event, {pause:?} apart, and then a backlog of {events} events in transactions of \
         {TRANSACTION}.\n\n\
         | outbox | commit to stream, p50 | p99 | events/s of a backlog |\n|---|---:|---:|---:|",
        shared::machine(),
    );
    for kind in [Kind::Sqlite, Kind::Table, Kind::Log] {
        let Some(measured) = measure(kind, events, commits, pause).await else {
            continue;
        };
        let of = |p| percentile(&measured.latencies, p).as_secs_f64() * 1000.0;
        println!(
            "| {} | {:.1} ms | {:.1} ms | {:.0} |",
            kind.name(),
            of(50),
            of(99),
            measured.rate
        );
    }
}

/// `None`: there is no such database here.
async fn measure(kind: Kind, events: u64, commits: u64, pause: Duration) -> Option<Measured> {
    let postgres = match kind {
        Kind::Sqlite => None,
        Kind::Table | Kind::Log => Some(PostgresServer::with("fsync = on").await?),
    };
    let nats = NatsServer::start().await;
    let js = jetstream::new(nats.client().await);
    let dir = TempDir::with_prefix("jetmesh-bench-").expect("a temporary folder");
    let (mut service, outbox) = Service::open(kind, dir.path(), postgres.as_ref()).await;
    let config = format!(
        "[nats]\nurl = \"{}\"\n[log]\nfilter = \"error,jetmesh::app=info,jetmesh::outbox=info\"\n\
         [streams.ORDERS]\nsubjects = [\"orders.>\"]\n{outbox}\n\
         [handlers.probe]\nmodule = {:?}\nstream = \"ORDERS\"\nsubjects = [\"orders.probe\"]\n",
        nats.url(),
        modules::handler("probe")
    );
    std::fs::write(dir.path().join("jetmesh.toml"), &config).expect("the folder is ours");
    let init = ["outbox", "init", "orders", "--config", "jetmesh.toml"];
    let (status, sql, stderr) = cli::jetmesh_in(dir.path(), &init).await;
    assert!(status.success(), "{stderr}");
    service.init(&sql).await;

    let host = Host::start(&config, dir.path(), &[]);
    service.commit(0..1).await;
    stored(&js, 1).await;
    let mut committed = Vec::new();
    for number in 1..=commits {
        service.commit(number..number + 1).await;
        committed.push(now_ns());
        tokio::time::sleep(pause).await;
    }
    let times = stored(&js, commits + 1).await;
    let ns = |(stored, committed): (&i128, &i128)| u64::try_from(stored - committed).unwrap_or(0);
    let taken = times[1..].iter().zip(&committed).map(ns);
    let mut latencies: Vec<Duration> = taken.map(Duration::from_nanos).collect();
    latencies.sort_unstable();
    eprintln!("{}: {commits} commits", kind.name());

    host.stop().await;
    let first = commits + 1;
    for number in (first..first + events).step_by(TRANSACTION as usize) {
        service.commit(number..(number + TRANSACTION).min(first + events)).await;
    }
    eprintln!("{}: a backlog of {events}", kind.name());
    let host = Host::start(&config, dir.path(), &[]);
    let times = stored(&js, first + events).await;
    let took = times[times.len() - 1] - times[first as usize];
    host.stop().await;
    Some(Measured {
        latencies,
        rate: events as f64 / (took as f64 / 1e9),
    })
}

fn now_ns() -> i128 {
    jiff::Timestamp::now().as_nanosecond()
}

/// Waits until so many events are stored; when each of them was. They must be the numbers from 0 on, in order, and nothing else.
async fn stored(js: &Context, count: u64) -> Vec<i128> {
    eventually("the events", PATIENCE, async || {
        let stream = js.get_stream("ORDERS").await.ok()?;
        let mut subjects = stream.info_with_subjects("orders.created").await.ok()?;
        let (_, found) = subjects.try_next().await.ok()??;
        assert!(found as u64 <= count, "{found} events of {count}");
        (found as u64 == count).then_some(())
    })
    .await;
    let stream = js.get_stream("ORDERS").await.expect("it is there");
    let reader = pull::OrderedConfig {
        filter_subject: "orders.created".to_owned(),
        ..pull::OrderedConfig::default()
    };
    let consumer = stream.create_consumer(reader).await.expect("it can be made");
    let mut messages = consumer.messages().await.expect("it answers");
    let mut times = Vec::new();
    while (times.len() as u64) < count {
        let message = messages.try_next().await.expect("it is read").expect("one more");
        let number = std::str::from_utf8(&message.payload).expect("a number");
        assert_eq!(number, times.len().to_string(), "each once and in order");
        let info = message.info().expect("it is of a stream");
        times.push(info.published.unix_timestamp_nanos());
    }
    times
}
