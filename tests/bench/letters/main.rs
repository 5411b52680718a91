//! Dead letters by the hundred thousand: how long it takes to group them, to export, discard and import them, and to put
//! them back. Orders that ask for what is not there die; then it is there, and all are replayed. What is there afterwards is
//! looked at.
//!
//! `cargo bench -p jetmesh --bench letters`. `BENCH_LETTERS`: how many; 100,000 unless said. The table goes to standard
//! output, progress to standard error.

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

use async_nats::jetstream::{self, Context};
use serde_json::Value;
use shared::{cpu, variable};
use support::wait::SOON;
use support::{Host, NatsServer, cli, eventually, modules};
use tempfile::TempDir;

/// How often they are grouped; the median counts.
const RUNS: usize = 3;
/// More than any machine needs for one step.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let count: u64 = variable("BENCH_LETTERS", 100_000);
    let server = NatsServer::start().await;
    let client = server.client().await;
    let js = jetstream::new(client.clone());
    let dir = TempDir::with_prefix("jetmesh-bench-").expect("a temporary folder");
    let host = Host::start(&config(&server.url()), dir.path(), &[]);
    host.wait_for_line(|line| line.contains("serving"), SOON).await;

    shared::publish(&client, &js, "orders.created", 0..count, order).await;
    let stored = left_in(&js, "MESH_DEAD", |letters| letters == count);
    eprintln!("{} letters", stored.await);
    at_rest(&js).await;
    let mut grouped = Vec::new();
    for _ in 0..RUNS {
        let (groups, took) = timed(jetmesh(&dir, &["dlq", "ls", "--group", "--json"])).await;
        grouped.push(took);
        assert_eq!(groups["count"], count, "one group has them all");
    }
    grouped.sort_unstable();
    eprintln!("grouped in {grouped:?}");

    let file = dir.path().join("letters.jsonl");
    let file = file.to_str().expect("a temporary folder's path is UTF-8");
    let exported = timed(run(&dir, &["dlq", "export", "--all", "--output", file])).await.1;
    let (account, discarded) = timed(jetmesh(&dir, &["dlq", "discard", "--all", "--yes", "--json"])).await;
    assert_eq!(account["discarded"], count, "{account}");
    // What is resolved is not imported: the letters come back after a disaster.
    let dead = js.get_stream("MESH_DEAD").await.expect("it is there");
    dead.purge().await.expect("the stream can be emptied");
    let (account, imported) = timed(jetmesh(&dir, &["dlq", "import", file, "--json"])).await;
    assert_eq!(account["put_back"], count, "{account}");
    eprintln!("exported in {exported:?}, discarded in {discarded:?}, imported in {imported:?}");

    let bucket = js.get_key_value("inventory").await.expect("the host has made it");
    let stock = (2 * count).to_string();
    bucket.put("stock.sku-1", stock.into()).await.expect("it is taken");
    let entries = entries_in(&js).await;
    let (host_before, server_before) = (cpu(host.pid()), cpu(server.pid()));
    let (account, took) = timed(jetmesh(&dir, &["dlq", "replay", "--all", "--yes", "--json"])).await;
    let used = (cpu(host.pid()) - host_before, cpu(server.pid()) - server_before);
    assert_eq!(account["succeeded"], count, "{account}");
    let entries = entries_in(&js).await - entries;
    audit(&js, count).await;

    let alone = Duration::from_millis(account["took_ms"].as_u64().expect("it tells how long it took"));
    let rate = |took: Duration| count as f64 / took.as_secs_f64();
    let each = |used: Duration| used.as_secs_f64() * 1e6 / count as f64;
    println!(
        "## Dead letters\n\n{}. The shipped inventory handler; {count} letters of one group.\n\n\
         | grouped in s | exported/s | discarded/s | imported/s | replayed/s | with the reading | per append | host µs CPU | server µs CPU |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|---:|\n\
         | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {} | {:.0} | {:.0} |",
        shared::machine(),
        grouped[RUNS / 2].as_secs_f64(),
        rate(exported),
        rate(discarded),
        rate(imported),
        rate(alone),
        rate(took),
        count / entries.max(1),
        each(used.0),
        each(used.1),
    );
}

fn config(url: &str) -> String {
    let module = modules::handler("inventory");
    format!(
        r#"
        [nats]
        url = "{url}"

        [log]
        filter = "error,jetmesh::handler_task::serve=info"

        [streams.ORDERS]
        subjects = ["orders.>"]

        [streams.RESERVED]
        subjects = ["inventory.>"]

        [handlers.inventory]
        module = {module:?}
        stream = "ORDERS"
        subjects = ["orders.created"]
        bucket = "inventory"
        publish = ["inventory.reserved"]
        in_flight = 512
        "#
    )
}

fn order(number: u64) -> Vec<u8> {
    let text = format!(r#"{{"order_id":"o-{number}","user_id":"u-7","lines":[{{"sku":"sku-1","qty":1}}]}}"#);
    text.into_bytes()
}

/// Runs the command to its end; its output is one JSON object.
async fn jetmesh(dir: &TempDir, args: &[&str]) -> Value {
    serde_json::from_str(&run(dir, args).await).expect("one JSON object")
}

/// Runs the command to its end, and returns its standard output.
async fn run(dir: &TempDir, args: &[&str]) -> String {
    let args = [args, &["--config", "jetmesh-0.toml"]].concat();
    let (status, stdout, stderr) = cli::jetmesh_in(dir.path(), &args).await;
    assert!(status.success(), "{status}\n{stdout}{stderr}");
    stdout
}

/// What came, and how long that took.
async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    (work.await, began.elapsed())
}

/// How many entries the handler's ledger has had.
async fn entries_in(js: &Context) -> u64 {
    let stream = js.get_stream("KV_inventory").await.expect("the host has made it");
    let head = stream.get_last_raw_message_by_subject("$MESH.state.inventory.head");
    let head: Value = serde_json::from_slice(&head.await.expect("it has a head").payload).expect("a head is JSON");
    head["n"].as_u64().expect("it has a number")
}

/// How many messages a stream holds, when they are as many as they are to be.
async fn left_in(js: &Context, stream: &str, enough: impl Fn(u64) -> bool) -> u64 {
    eventually("messages in a stream", PATIENCE, async || {
        let stream = js.get_stream(stream).await.ok()?;
        Some(stream.cached_info().state.messages).filter(|messages| enough(*messages))
    })
    .await
}

/// Waits until the host has handled the server's advisory of each death: until then it takes its share of the processor.
async fn at_rest(js: &Context) {
    eventually("the host to be at rest", PATIENCE, async || {
        let stream = js.get_stream("MESH_ADVISORIES").await.ok()?;
        let info = stream.consumer_info("mesh-advisories").await.ok()?;
        (info.num_pending == 0 && info.num_ack_pending == 0).then_some(())
    })
    .await;
}

/// Each order is done once: the stock is lower by their number, and as many events have followed.
async fn audit(js: &Context, count: u64) {
    let bucket = js.get_key_value("inventory").await.expect("it is there");
    let left = bucket.get("stock.sku-1").await.expect("it answers");
    assert_eq!(left.as_deref(), Some(count.to_string().as_bytes()), "what is left");
    let reserved = left_in(js, "RESERVED", |events| events >= count).await;
    assert_eq!(reserved, count, "an event for each order");
}
