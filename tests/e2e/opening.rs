//! A host that starts, or connects again, reads what its ledgers remember, piece by piece.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::wait::SOON;
use crate::support::{Host, eventually, modules};

/// A handler that knows message ids, and a neighbour on its thread without a ledger.
fn config() -> Config {
    let source = "[streams.SOURCE]\nsubjects = [\"source.*\"]\nduplicate_window = \"100ms\"";
    let probe = "stream = \"SOURCE\"\nstart = \"all\"\nbucket = \"probe\"\nidentity = \"message-id\"";
    Config::new()
        .top("threads = 1")
        .table(source)
        .handler("probe", &modules::handler("probe"), probe)
        .handler("neighbour", &modules::handler("probe"), "")
}

async fn add(mesh: &Mesh, id: &str) {
    let order = json!({ "op": "add", "key": "n", "by": 1 }).to_string();
    let before = mesh.messages_left("SOURCE").await;
    eventually("the stream to have forgotten the id", SOON, async || {
        mesh.publish_with("source.a", &[("Nats-Msg-Id", id)], order.clone())
            .await;
        (mesh.messages_left("SOURCE").await > before).then_some(())
    })
    .await;
}

/// After a first event, the ledger gets entries of this many more, of an earlier incarnation of the stream, each with an id.
async fn remember(mesh: &Mesh, count: u64) {
    let host = mesh.host(&[]).await;
    add(mesh, "first").await;
    mesh.wait_value("probe", "n", "1").await;
    host.stop().await;
    let of = async |subject: &str| -> Value {
        let found = mesh.messages("KV_probe", subject).await;
        found[0].json()
    };
    let entry = of("$MESH.state.probe.ledger.1").await;
    let mut head = of("$MESH.state.probe.head").await;
    let mut stored = FuturesUnordered::new();
    for n in 2..=count + 1 {
        let mut next = entry.clone();
        next["n"] = json!(n);
        next["append"] = json!(format!("append{n:06}"));
        next["writes"] = json!([]);
        next["decisions"][0]["event"] = json!(format!("before.{n}"));
        // Spread as a hash is.
        let hash = u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        next["decisions"][0]["id"]["hash"] = json!(format!("{hash:032x}"));
        next["decisions"][0]["writes"] = json!([]);
        let subject = format!("$MESH.state.probe.ledger.{n}");
        stored.push(
            mesh.js
                .publish(subject, next.to_string().into())
                .await
                .expect("sent")
                .into_future(),
        );
        // No more than the server keeps for a stream.
        if stored.len() >= 5_000 {
            stored.next().await.expect("one is on its way").expect("it is stored");
        }
    }
    while let Some(stored) = stored.next().await {
        stored.expect("it is stored");
    }
    head["n"] = json!(count + 1);
    head["index_from"] = json!(1);
    // All of them lie below the floor, as they do where a handler has come past them.
    head["floors"]["probe"] = json!({ "incarnation": "before", "floor": count + 1 });
    mesh.publish("$MESH.state.probe.head", head.to_string()).await;
}

#[tokio::test]
async fn a_host_that_starts_or_connects_again_knows_each_of_thousands_of_ids() {
    let mut mesh = Mesh::new(config()).await;
    remember(&mesh, 3_000).await;
    let host = mesh.host(&[]).await;
    for round in 1..=2 {
        add(&mesh, "first").await;
        let decisions = mesh.wait_decisions("probe", 3_001 + round).await;
        assert_eq!(
            decisions.last().expect("there are some")["same_as"],
            decisions[0]["event"]
        );
        let mark = host.lines().len();
        mesh.server.restart().await;
        host.wait_for_line_after(mark, says(&["serving", "handler=probe "]), PATIENT)
            .await;
    }
    add(&mesh, "second").await;
    mesh.wait_value("probe", "n", "2").await;
    host.stop().await;
}

/// Memory of a process in MiB.
fn resident(host: &Host) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{}/statm", host.pid())).expect("it runs");
    let pages: u64 = pages
        .split(' ')
        .nth(1)
        .expect("a second number")
        .parse()
        .expect("a number");
    pages * 4096 / 1024 / 1024
}

/// What a million remembered ids cost, for `ids.rs` and `docs/configuration.md`: `IDS=10000000 cargo test --release … -- --ignored`.
#[tokio::test]
#[ignore = "a measurement: minutes, and gigabytes of disk"]
async fn what_remembered_ids_cost_a_host_that_starts() {
    let ids = std::env::var("IDS").map_or(1_000_000, |ids| ids.parse().expect("a number"));
    let mut mesh = Mesh::new(config()).await;
    remember(&mesh, 0).await;
    let host = Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &[]);
    host.wait_for_line(says(&["serving", "handler=probe "]), PATIENT).await;
    let empty = resident(&host);
    host.stop().await;
    remember(&mesh, ids).await;
    let host = Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &[]);
    for way in ["starts", "connects again"] {
        let (mark, began) = (host.lines().len() * usize::from(way != "starts"), Instant::now());
        if way != "starts" {
            mesh.server.restart().await;
        }
        host.wait_for_line_after(mark, says(&["serving", "handler=neighbour "]), PATIENT)
            .await;
        let (mut slowest, mut orders, mut most) = (Duration::ZERO, 0, 0);
        let read = says(&["the ledger has been read"]);
        while !host.lines()[mark..].iter().any(|line| read(line)) {
            let sent = Instant::now();
            mesh.publish("orders.probe", "{\"op\":\"log\",\"level\":\"info\",\"message\":\"-\"}")
                .await;
            mesh.wait_settled("ORDERS", "neighbour").await;
            slowest = slowest.max(sent.elapsed());
            orders += 1;
            most = most.max(resident(&host));
        }
        let read = host.lines().split_off(mark);
        let read = read.iter().find(|line| line.contains("the ledger has been read"));
        println!(
            "a host {way}: {read:?}, {:.1} s in all, {most} MiB at most, {} MiB in the end, {empty} MiB without; its \
             neighbour's slowest of {orders} orders: {slowest:?}",
            began.elapsed().as_secs_f64(),
            resident(&host),
        );
    }
    let info = mesh.js.get_stream("KV_probe").await.expect("it is there");
    println!("{} bytes of disk an entry", info.cached_info().state.bytes / ids);
    host.stop().await;
}
