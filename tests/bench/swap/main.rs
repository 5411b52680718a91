//! What swaps of a module cost the events that flow meanwhile. A handler follows the registry, and emits one event for each order, which says
//! by which version. Orders come at a steady pace: first while nothing else happens, then for as long while two versions are promoted
//! in turn, as often as a host looks. Each order must have exactly one event; a lost or a doubled one ends the benchmark with a panic.
//!
//! `cargo bench -p jetmesh --bench swap`. `BENCH_SWAPS`: how many, 1000 unless said; `BENCH_RATE`: orders a second, 1000 unless
//! said. Then, on a fleet of three hosts, how soon a rollback is obeyed. `BENCH_ROLLBACKS`: how many, 20 unless said. The tables go to standard output, progress to standard error.

mod fleet;
mod orders;
mod read;
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

use std::cell::RefCell;
use std::fs;
use std::time::Duration;

use async_nats::jetstream;
use orders::Orders;
use read::{Run, read};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use shared::{machine, percentile, variable};
use support::{Host, NatsServer, cli, eventually, modules};
use tempfile::TempDir;

/// A host looks at the registry four times a second. A little slower, so that it sees each promotion.
const EVERY: Duration = Duration::from_millis(300);
const PATIENT: Duration = Duration::from_secs(120);

const CONFIG: &str = "[log]\nfilter = \"warn,jetmesh::handler_task::serve=info\"\n[streams.ORDERS]\nsubjects = [\"orders.>\"]\n\
    [streams.EVENTS]\nsubjects = [\"events.>\"]\n[handlers.probe]\nmodule = \"registry\"\nstream = \"ORDERS\"\n\
    instance = \"reused\"\nbucket = \"probe\"\npublish = [\"events.>\"]\n";

/// Both versions of the module, by their digests, in the registry of a server.
async fn push(dir: &TempDir, config: &str) -> [String; 2] {
    let first = fs::read(modules::handler("probe")).expect("the probe is readable");
    let place = first.windows(15).position(|bytes| bytes == b"probe-version=1");
    let mut second = first.clone();
    second[place.expect("the probe says its version") + 14] = b'2';
    let mut digests = Vec::new();
    for bytes in [first, second] {
        fs::write(dir.path().join("m.wasm"), &bytes).expect("the folder is writable");
        let args = ["modules", "push", "m.wasm", "--as", "probe", "--config", config];
        let (status, _, error) = cli::jetmesh_in(dir.path(), &args).await;
        assert!(status.success(), "{error}");
        digests.push(
            Sha256::digest(&bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        );
    }
    digests.try_into().expect("two")
}

/// Resident memory of a process, in KiB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let digits = line
        .and_then(|line| line.split_whitespace().next())
        .expect("it has memory");
    digits.parse().expect("a number")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (swaps, rate) = (variable("BENCH_SWAPS", 1000_usize), variable("BENCH_RATE", 1000_u64));
    let server = NatsServer::start().await;
    let dir = TempDir::with_prefix("jetmesh-bench-").expect("a temporary folder");
    let text = format!("[nats]\nurl = {:?}\n{CONFIG}", server.url());
    let config = dir.path().join("bench.toml");
    fs::write(&config, &text).expect("the folder is writable");
    let digests = push(&dir, config.to_str().expect("UTF-8")).await;
    let js = jetstream::new(server.client().await);
    let versions = js.get_key_value("mesh_modules").await.expect("it was pushed");
    let promoted = RefCell::new(Vec::new());
    let promote = async |n: usize| {
        // The server's clock is that of this machine.
        let now = u64::try_from(jiff::Timestamp::now().as_nanosecond()).expect("after 1970");
        promoted
            .borrow_mut()
            .push((now, if n.is_multiple_of(2) { b'1' } else { b'2' }));
        let record = json!({ "format": 1, "digest": digests[n % 2], "act": "promoted", "by": "bench", "at": "2026-01-01T00:00:00Z",
            "note": null, "hold": null });
        let stored = versions.put("serving.probe", record.to_string().into()).await;
        stored.expect("the bucket takes it");
    };
    promote(0).await;
    let host = Host::start(&text, dir.path(), &[]);
    host.wait_for_line(|line| line.contains("serving"), PATIENT).await;

    // Both versions have served once, so that each is compiled and has its memory.
    let orders = Orders::new(js.clone(), rate);
    for n in 1..=4 {
        promote(n).await;
        orders.for_some_time(EVERY * 4).await;
    }
    let warm = orders.settled(PATIENT).await;
    let before = memory(host.pid());
    eprintln!("without swaps");
    orders
        .for_some_time(EVERY * u32::try_from(swaps).expect("it fits"))
        .await;
    let quiet = orders.settled(PATIENT).await;
    let between = memory(host.pid());
    eprintln!("{swaps} swaps");
    let promotions = async {
        for n in 0..swaps {
            promote(n + 1).await;
            tokio::time::sleep(EVERY).await;
        }
    };
    orders.while_it_lasts(promotions).await;
    let busy = orders.settled(PATIENT).await;
    let after = memory(host.pid());
    let all = read(&js, busy, promoted.take()).await;
    let version = js.client().server_info().version;
    report(
        &all.part(warm, quiet),
        &all.part(quiet, busy),
        (swaps, rate, &version),
        [before, between, after],
    );
    eventually("the host to end", PATIENT, async || {
        host.ended().or_else(|| {
            host.signal(support::Signal::TERM);
            None
        })
    })
    .await;
    fleet::run(variable("BENCH_ROLLBACKS", 20_usize), rate).await;
}

fn report(quiet: &Run, busy: &Run, (swaps, rate, version): (usize, u64, &str), memory: [u64; 3]) {
    let ms = |times: &[u64], p: usize| percentile(times, p) as f64 / 1e6;
    println!("## Swaps\n\n{}, nats-server {version}\n", machine());
    println!("| {rate} orders/s | orders | p50 ms | p99 ms | most ms |\n|---|---:|---:|---:|---:|");
    for (name, run) in [("without swaps", quiet), ("with swaps", busy)] {
        let times = &run.took;
        println!(
            "| {name} | {} | {:.1} | {:.1} | {:.1} |",
            times.len(),
            ms(times, 50),
            ms(times, 99),
            ms(times, 100)
        );
    }
    let first = &busy.first_after;
    println!(
        "\n| swaps | seen by events | from promotion to the first event on it, p50 ms | p99 ms | most ms | memory MiB before both | after the part without | after the swaps |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|\n| {swaps} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} |",
        first.len(),
        ms(first, 50),
        ms(first, 99),
        ms(first, 100),
        memory[0] as f64 / 1024.0,
        memory[1] as f64 / 1024.0,
        memory[2] as f64 / 1024.0
    );
}
