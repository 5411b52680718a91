//! Retries: how often, when, and what ends them.

use async_nats::Subscriber;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::mesh::{Config, Found, Mesh, PATIENT, says};
use crate::support::eventually;
use crate::support::server::round_trip;
use crate::support::wait::SOON;

/// Milliseconds since the Unix epoch of an RFC 3339 time.
fn ms(time: &Value) -> i64 {
    let time = time.as_str().expect("a time is a text");
    time.parse::<jiff::Timestamp>().expect("a time").as_millisecond()
}

/// Every attempt record from now on, as it is written.
async fn records(mesh: &Mesh) -> Subscriber {
    let records = mesh.client.subscribe("$KV.mesh_attempts.>").await;
    round_trip(&mesh.client).await;
    records.expect("the connection is open")
}

/// The first record that `wanted` accepts.
async fn record(records: &mut Subscriber, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = async {
        loop {
            let message = records.next().await.expect("the connection stays open");
            let record = serde_json::from_slice(&message.payload).expect("a record is JSON");
            if wanted(&record) {
                return record;
            }
        }
    };
    timeout(SOON, found).await.expect("the record is written")
}

/// How long each failed attempt's event was told to wait, from the host's log, in milliseconds.
fn delays(lines: &[String]) -> Vec<f64> {
    let retried = lines.iter().filter(|line| line.contains("will be retried"));
    retried
        .map(|line| {
            let (_, rest) = line.split_once("next_in=").expect("the line tells the delay");
            let text: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            let number: f64 = text.parse().expect("a number");
            if rest[text.len()..].starts_with("ms") {
                number
            } else {
                number * 1000.0
            }
        })
        .collect()
}

#[tokio::test]
async fn a_failing_event_is_retried_with_growing_delays_and_then_dead_lettered_once() {
    let (mesh, host) = Mesh::start(Config::probe_with("max_attempts = 4")).await;
    let mut records = records(&mesh).await;
    mesh.order(json!({ "op": "retry", "code": "busy", "message": "come back later" }))
        .await;
    let seen = record(&mut records, |r| r["attempts"] == 3 && r["next"].is_string()).await;
    let letters = mesh.wait_letters(1).await;

    // 100, 200 and 400 ms, each with jitter down to its half.
    let delays = delays(&host.lines());
    let ranges = [50.0..=100.0, 100.0..=200.0, 200.0..=400.0];
    assert!(
        delays.len() == ranges.len() && ranges.iter().zip(&delays).all(|(range, delay)| range.contains(delay)),
        "{delays:?}"
    );
    let history = seen["history"].as_array().expect("a record has a history");
    let at: Vec<i64> = history.iter().map(|attempt| ms(&attempt["at"])).collect();
    // The server waits no less than it was told; a busy machine may make it more.
    assert!(
        at.windows(2)
            .zip(&delays)
            .all(|(pair, delay)| (pair[1] - pair[0]) as f64 >= delay - 2.0),
        "{at:?} {delays:?}"
    );
    for (attempt, number) in history.iter().zip(1..) {
        assert_eq!(
            (
                &attempt["attempt"],
                &attempt["outcome"],
                &attempt["code"],
                &attempt["message"]
            ),
            (
                &json!(number),
                &json!("retry"),
                &json!("busy"),
                &json!("come back later")
            )
        );
    }

    let header = |name| letters[0].header(name);
    assert_eq!(
        (header("Mesh-Attempts"), header("Mesh-Cause")),
        (Some("4"), Some("exhausted"))
    );
    assert_eq!(
        (header("Mesh-Code"), header("Mesh-Error")),
        (Some("busy"), Some("come back later"))
    );
    assert_eq!(header("Mesh-First-Attempt"), seen["first"].as_str());
    mesh.wait_settled("ORDERS", "probe").await;
    eventually("the record to go", SOON, async || {
        mesh.attempts().await.is_empty().then_some(())
    })
    .await;
    let decisions = mesh.decisions("probe").await;
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    assert_eq!(
        (&decisions[0]["verdict"], &decisions[0]["attempt"]),
        (&json!("dead"), &json!(4))
    );
    assert_eq!(mesh.messages("MESH_DEAD", ">").await.len(), 1);
}

#[tokio::test]
async fn an_event_that_succeeds_at_its_third_attempt_is_done_and_leaves_no_record() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    mesh.order(json!([{ "op": "add", "key": "n", "by": 1 }, { "op": "fail_until", "attempt": 3 }]))
        .await;
    host.wait_for_line(says(&["done", "attempt=3"]), SOON).await;
    mesh.wait_settled("ORDERS", "probe").await;
    assert_eq!(mesh.value("probe", "n").await.as_deref(), Some("1"));
    eventually("the record to go", SOON, async || {
        mesh.attempts().await.is_empty().then_some(())
    })
    .await;
    let decisions = mesh.decisions("probe").await;
    assert_eq!(
        (decisions.len(), &decisions[0]["verdict"], &decisions[0]["attempt"]),
        (1, &json!("done"), &json!(3))
    );
    assert_eq!(mesh.letters().await.len(), 0);
}

#[tokio::test]
async fn the_handlers_own_delay_is_honoured() {
    let (mesh, host) = Mesh::start(Config::probe_with("max_attempts = 2")).await;
    mesh.order(json!({ "op": "retry", "code": "busy", "message": "in 1.5 s", "delay_ms": 1500 }))
        .await;
    let letters = mesh.wait_letters(1).await;
    assert_eq!(delays(&host.lines()), [1500.0]);
    let time = |name| ms(&json!(letters[0].header(name)));
    let between = time("Mesh-Last-Attempt") - time("Mesh-First-Attempt");
    assert!(between >= 1500, "only {between} ms between its two attempts");
}

#[tokio::test]
async fn a_delay_is_never_longer_than_backoff_max() {
    let (mesh, host) = Mesh::start(Config::probe_with("max_attempts = 2\nbackoff_max = \"150ms\"")).await;
    mesh.order(json!({ "op": "retry", "code": "busy", "message": "in an hour", "delay_ms": 3_600_000 }))
        .await;
    mesh.wait_letters(1).await;
    assert_eq!(delays(&host.lines()), [150.0]);
}

/// Publishes an event that harms its instance, and neighbours before and after it; the neighbours are done, and the
/// harmful one is tried twice and ends as a dead letter with this code.
async fn harmful(limits: &str, step: Value, code: &str) -> Found {
    let (mesh, host) = Mesh::start(Config::probe_with(&format!("max_attempts = 2\n{limits}"))).await;
    let add = json!({ "op": "add", "key": "n", "by": 1 });
    mesh.order(add.clone()).await;
    mesh.order(json!([add.clone(), step])).await;
    mesh.order(add.clone()).await;
    // Before the harmful one is dead.
    mesh.wait_value("probe", "n", "2").await;
    let letters = eventually("the dead letter", PATIENT, async || {
        let letters = mesh.letters().await;
        (!letters.is_empty()).then_some(letters)
    })
    .await;
    mesh.order(add).await;
    mesh.wait_value("probe", "n", "3").await;
    mesh.wait_settled("ORDERS", "probe").await;
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    let header = |name| letter.header(name);
    assert_eq!(
        (header("Mesh-Cause"), header("Mesh-Code")),
        (Some("exhausted"), Some(code))
    );
    assert_eq!(header("Mesh-Attempts"), Some("2"));
    let retried = host
        .lines()
        .iter()
        .filter(|line| line.contains("will be retried"))
        .count();
    assert_eq!(retried, 1, "two attempts have one retry between them");
    letter.clone()
}

#[tokio::test]
async fn a_trap_is_retried_and_harms_no_neighbour() {
    harmful("", json!({ "op": "trap" }), "trap").await;
}

#[tokio::test]
async fn a_panic_is_retried_and_its_text_is_kept() {
    let (mesh, _host) = Mesh::start(Config::probe_with("max_attempts = 2")).await;
    let mut records = records(&mesh).await;
    mesh.order(json!({ "op": "panic", "message": "the sky falls" })).await;
    let seen = record(&mut records, |record| record["history"][0]["outcome"] == "trap").await;
    assert!(
        seen["history"][0]["log"].to_string().contains("the sky falls"),
        "{seen}"
    );
    let letters = mesh.wait_letters(1).await;
    assert_eq!(letters[0].header("Mesh-Code"), Some("trap"));
}

#[tokio::test]
async fn a_handler_that_never_ends_is_stopped_and_harms_no_neighbour() {
    let letter = harmful("timeout = \"300ms\"", json!({ "op": "spin" }), "timeout").await;
    assert_eq!(letter.header("Mesh-Error"), Some("still running after 300ms"));
}

#[tokio::test]
async fn a_handler_that_takes_too_much_memory_is_stopped_and_harms_no_neighbour() {
    harmful("memory_max = \"16MiB\"", json!({ "op": "grow", "mib": 32 }), "trap").await;
}

#[tokio::test]
async fn a_handler_within_its_memory_is_let_be() {
    let (mesh, host) = Mesh::start(Config::probe_with("memory_max = \"64MiB\"")).await;
    mesh.order(json!({ "op": "grow", "mib": 32 })).await;
    host.wait_for_line(says(&["done", "attempt=1"]), SOON).await;
}

#[tokio::test]
async fn a_stack_overflow_is_retried_and_harms_no_neighbour() {
    harmful("", json!({ "op": "recurse" }), "trap").await;
}

#[tokio::test]
async fn the_ack_wait_is_prolonged_while_a_handler_runs() {
    let (mesh, host) = Mesh::start(Config::probe_with("timeout = \"10s\"")).await;
    // Three times the ack wait.
    mesh.order(json!([{ "op": "sleep", "ms": 3000 }, { "op": "add", "key": "n", "by": 1 }]))
        .await;
    host.wait_for_line(says(&["done", "attempt=1"]), SOON).await;
    let info = mesh.wait_settled("ORDERS", "probe").await;
    assert_eq!(info["num_redelivered"], 0);
    assert_eq!(info["delivered"]["consumer_seq"], 1, "it was delivered once");
    assert_eq!(mesh.value("probe", "n").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn an_event_that_is_not_yet_due_lets_the_others_go_first() {
    let (mesh, _host) = Mesh::start(Config::probe_with("concurrency = 1\nmax_attempts = 2")).await;
    mesh.order(json!({ "op": "retry", "code": "busy", "message": "later", "delay_ms": 10_000 }))
        .await;
    for _ in 0..3 {
        mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    }
    mesh.wait_value("probe", "n", "3").await;
    assert_eq!(mesh.letters().await.len(), 0, "the failing one waits for its time");
    let record = eventually("its record", SOON, async || mesh.attempts().await.pop()).await;
    assert_eq!(record["attempts"], 1);
    let left = ms(&record["next"]) - jiff::Timestamp::now().as_millisecond();
    assert!((1..=10_000).contains(&left), "{left}");
}
