//! How soon all of three hosts obey a rollback while orders come: that of a person, and that of a canary which fails.

use std::fs;
use std::time::Duration;

use async_nats::jetstream::{self, kv};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::orders::Orders;
use crate::read::messages;
use crate::shared::percentile;
use crate::support::{Host, NatsServer};
use crate::{CONFIG, PATIENT, push};

const HOSTS: usize = 3;
/// How long orders come on each version.
const WHILE: Duration = Duration::from_secs(2);

/// The record of what is promoted, as a person or a host writes it.
async fn serve(versions: &kv::Store, digest: &str, act: &str, rollout: Value) -> u64 {
    let record = json!({ "format": 1, "digest": digest, "act": act, "by": "bench", "at": "2026-01-01T00:00:00Z", "note": null,
        "hold": null, "rollout": rollout });
    let stored = versions.put("serving.probe", record.to_string().into()).await;
    stored.expect("the bucket takes it")
}

pub async fn run(rollbacks: usize, rate: u64) {
    let server = NatsServer::start().await;
    let dir = TempDir::with_prefix("jetmesh-bench-").expect("a temporary folder");
    let text = format!("[nats]\nurl = {:?}\n{CONFIG}", server.url());
    let config = dir.path().join("bench.toml");
    fs::write(&config, &text).expect("the folder is writable");
    let [first, second] = push(&dir, config.to_str().expect("UTF-8")).await;
    let js = jetstream::new(server.client().await);
    let versions = js.get_key_value("mesh_modules").await.expect("it was pushed");
    serve(&versions, &first, "promoted", Value::Null).await;
    let hosts: Vec<Host> = (0..HOSTS).map(|_| Host::start(&text, dir.path(), &[])).collect();
    for host in &hosts {
        host.wait_for_line(|line| line.contains("serving"), PATIENT).await;
    }
    let orders = Orders::new(js.clone(), rate);
    let mut back = Vec::new();
    eprintln!("{rollbacks} rollbacks by a person, {HOSTS} hosts");
    for _ in 0..rollbacks {
        serve(&versions, &second, "promoted", Value::Null).await;
        orders.for_some_time(WHILE).await;
        back.push(serve(&versions, &first, "rolled-back", Value::Null).await);
        orders.for_some_time(WHILE).await;
    }
    orders.settled(PATIENT).await;
    let by_person = by_person(&js, &back, &second).await;
    let orders = orders.spoilt();
    let mut numbers = Vec::new();
    eprintln!("{rollbacks} canaries that fail, {HOSTS} hosts");
    for _ in 0..rollbacks {
        let number = back.last().map_or(0, |last| last + 1_000) + numbers.len() as u64;
        let rollout = json!({ "number": number, "name": "probe", "serving": first, "canary": second, "alpha": 10_000, "margin": 10_000,
            "steps": [{ "share": 200_000, "events": 1_000_000, "seconds": 3_600 }] });
        serve(&versions, &first, "rollout-begun", rollout).await;
        orders.for_some_time(WHILE).await;
        numbers.push(number);
    }
    orders.settled(PATIENT).await;
    let by_verdict = by_verdict(&js, &numbers).await;
    println!("\n| rollback, {HOSTS} hosts, {rate} orders/s | times | p50 ms | most ms |\n|---|---:|---:|---:|");
    let ms = |times: &[u64], p: usize| percentile(times, p) as f64 / 1e6;
    for (name, times) in [("by a person", &by_person), ("by a verdict", &by_verdict)] {
        println!(
            "| {name} | {} | {:.0} | {:.0} |",
            times.len(),
            ms(times, 50),
            ms(times, 100)
        );
    }
    for host in &hosts {
        host.signal(crate::support::Signal::TERM);
        host.wait_exit(PATIENT).await;
    }
}

/// Entries of the ledger, each with its time.
async fn entries(js: &jetstream::Context) -> Vec<(u64, Value)> {
    let all = messages(js, "KV_probe").await.into_iter();
    let entry = |payload: &[u8]| {
        serde_json::from_slice::<Value>(payload)
            .ok()
            .filter(|value| value["decisions"].is_array())
    };
    all.filter_map(|message| Some((message.at, entry(&message.payload)?)))
        .collect()
}

/// From the record of each rollback, by its sequence, to the last decision by the version that was left; sorted.
async fn by_person(js: &jetstream::Context, back: &[u64], left: &str) -> Vec<u64> {
    let stream = js.get_stream("KV_mesh_modules").await.expect("it is there");
    let entries = entries(js).await;
    let is_by = |entry: &Value| {
        let decisions = entry["decisions"].as_array().into_iter().flatten();
        decisions.into_iter().any(|decision| decision["module"] == left[..12])
    };
    let mut times = Vec::new();
    for sequence in back {
        let message = stream.get_raw_message(*sequence).await.expect("the history is kept");
        let at = u64::try_from(message.time.unix_timestamp_nanos()).expect("after 1970");
        let until = at + u64::try_from(WHILE.as_nanos()).expect("it fits");
        let late = entries
            .iter()
            .filter(|(time, entry)| (at..until).contains(time) && is_by(entry));
        times.push(late.map(|(time, _)| time - at).max().unwrap_or(0));
    }
    times.sort_unstable();
    times
}

/// From the entry with which each rollout came to its verdict to the last first attempt on its canary; sorted.
async fn by_verdict(js: &jetstream::Context, numbers: &[u64]) -> Vec<u64> {
    let entries = entries(js).await;
    let failed = |entry: &Value, number: u64| {
        let trials = entry["trials"].as_array().into_iter().flatten();
        trials
            .filter(|trial| trial["rollout"] == number && trial["canary"] == "failed")
            .count()
    };
    let mut times = Vec::new();
    for number in numbers {
        let met: Vec<u64> = entries
            .iter()
            .flat_map(|(at, entry)| std::iter::repeat_n(*at, failed(entry, *number)))
            .collect();
        // Against none of the serving version the fourth is enough at a fifth.
        assert!(met.len() >= 4, "rollout {number} met {} events", met.len());
        times.push(met[met.len() - 1] - met[3]);
    }
    times.sort_unstable();
    times
}
