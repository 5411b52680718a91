//! What a handler sees of the world, and what it cannot reach or harm.

use std::time::Duration;

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, says};
use crate::support::modules;
use crate::support::wait::SOON;

#[tokio::test]
async fn a_handler_has_no_files_no_network_and_no_environment() {
    let (mesh, _host) = Mesh::start(Config::probe_with("max_attempts = 1")).await;
    let address = mesh.server.addr().to_string();
    for order in [
        json!({ "op": "fs", "path": "/etc/passwd" }),
        json!({ "op": "fs", "path": "jetmesh-0.toml" }),
        json!({ "op": "net", "address": address }),
        json!({ "op": "env" }),
    ] {
        mesh.order(order).await;
    }
    let letters = mesh.wait_letters(4).await;
    let mut found: Vec<(u64, &str, &str)> = letters
        .iter()
        .map(|letter| {
            let header = |name| letter.header(name).expect("a letter has it");
            (
                header("Mesh-Sequence").parse().expect("a number"),
                header("Mesh-Code"),
                header("Mesh-Error"),
            )
        })
        .collect();
    found.sort_unstable();
    let codes: Vec<&str> = found.iter().map(|(_, code, _)| *code).collect();
    assert_eq!(codes, ["fs-denied", "fs-denied", "net-denied", "env"], "{found:?}");
    assert_eq!(found[3].2, "", "the handler sees variables of the environment");
}

#[tokio::test]
async fn a_handler_sees_its_context_and_its_own_settings() {
    let settings = "[handlers.probe.settings]\ngreeting = \"good day\"";
    let (mesh, host) = Mesh::start(Config::probe_with(&format!("max_attempts = 3\n{settings}"))).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let orders =
        json!({ "do": [{ "op": "context", "subject": "events.context" }, { "op": "fail_until", "attempt": 2 }] });
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    mesh.publish_with("orders.probe", &[("traceparent", &parent)], orders.to_string())
        .await;
    let events = mesh.wait_emitted(1).await;
    let decision = mesh.decisions("probe").await.remove(0);
    let event = decision["event"].as_str().expect("a decision names its event");
    let expected = json!({
        "handler_name": "probe",
        "attempt": 2,
        "max_attempts": 3,
        "idempotency_key": format!("probe.{event}"),
        "trace_id": trace,
        "greeting": "good day",
    });
    assert_eq!(events[0].json(), expected);
    assert_eq!(
        events[0].header("traceparent"),
        Some(parent.as_str()),
        "an emitted event goes on in the same trace"
    );
    host.wait_for_line(says(&["done", "attempt=2"]), SOON).await;

    mesh.order(json!({ "op": "context", "subject": "events.context" }))
        .await;
    let second = mesh.wait_emitted(2).await[1].json();
    assert_eq!((&second["attempt"], &second["trace_id"]), (&json!(1), &Value::Null));
    assert_ne!(second["idempotency_key"], expected["idempotency_key"]);
}

#[tokio::test]
async fn what_a_handler_logs_and_prints_is_in_the_hosts_log_with_its_event() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    mesh.order(json!([
        { "op": "log", "level": "error", "message": "an error\u{1b}[31m" },
        { "op": "log", "level": "debug", "message": "a detail" },
        { "op": "stdout", "message": "a print" },
        { "op": "stderr", "message": "a complaint" },
    ]))
    .await;
    host.wait_for_line(says(&["done"]), SOON).await;
    let decision = mesh.wait_decisions("probe", 1).await.remove(0);
    let event = format!(
        "event={}",
        decision["event"].as_str().expect("a decision names its event")
    );
    for (level, text) in [
        ("ERROR", "an error [31m"),
        ("DEBUG", "a detail"),
        ("WARN", "a print"),
        ("WARN", "a complaint"),
    ] {
        let lines = host.lines();
        let line = lines
            .iter()
            .find(|line| line.contains(text))
            .unwrap_or_else(|| panic!("no line has {text:?}"));
        for part in [level, "handler=probe", "attempt=1", &event] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    // One attempt writes no more than 64 KiB, and what is left out is counted.
    let text = "y".repeat(1000);
    mesh.order(json!({ "op": "log", "level": "info", "message": text, "times": 100 }))
        .await;
    host.wait_for_line(says(&["35 lines over the limit of 65536 bytes were dropped"]), SOON)
        .await;
    assert_eq!(host.lines().iter().filter(|line| line.contains(&text)).count(), 65);
}

#[tokio::test]
async fn a_call_sees_its_own_writes_and_a_deleted_key_is_gone() {
    let (mesh, host) = Mesh::start(Config::probe_with("in_flight = 1\nconcurrency = 1")).await;
    mesh.order(json!({ "op": "set", "key": "n", "value": "7" })).await;
    mesh.wait_value("probe", "n", "7").await;
    mesh.order(json!([{ "op": "get", "key": "n" }, { "op": "delete", "key": "n" }]))
        .await;
    mesh.wait_decisions("probe", 2).await;
    assert_eq!(mesh.value("probe", "n").await, None);
    mesh.order(json!([
        { "op": "add", "key": "n", "by": 1 },
        { "op": "add", "key": "n", "by": 1 },
        { "op": "set", "key": "m", "value": "1" },
        { "op": "delete", "key": "m" },
        { "op": "add", "key": "m", "by": 5 },
    ]))
    .await;
    mesh.wait_value("probe", "n", "2").await;
    assert_eq!(mesh.value("probe", "m").await.as_deref(), Some("5"));
    assert!(!host.lines().iter().any(|line| line.contains("will be retried")));
}

#[tokio::test]
async fn a_handler_without_a_bucket_is_told_so() {
    let config = Config::new().handler("probe", &modules::handler("probe"), "max_attempts = 1");
    let (mesh, _host) = Mesh::start(config).await;
    mesh.order(json!({ "op": "get", "key": "n" })).await;
    let letters = mesh.wait_letters(1).await;
    let error = letters[0].header("Mesh-Error").expect("a letter has an error");
    assert!(error.contains("bucket"), "{error}");
}

#[tokio::test]
async fn the_clock_is_the_hosts() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    let before = jiff::Timestamp::now().as_millisecond();
    mesh.order(json!({ "op": "random", "subject": "events.random" })).await;
    let events = mesh.wait_emitted(1).await;
    let after = jiff::Timestamp::now().as_millisecond();
    let time = events[0].json()["time_ms"].as_i64().expect("a time");
    assert!(
        (before..=after).contains(&time),
        "{time} is not within {before}..={after}"
    );
}

#[tokio::test]
async fn a_handler_that_computes_for_long_holds_nobody_up() {
    let probe = modules::handler("probe");
    let lines = |name: &str| format!("bucket = \"probe\"\nsubjects = [\"orders.{name}\"]");
    // All on one thread.
    let config = Config::new()
        .top("threads = 1")
        .handler("slow", &probe, &lines("slow"))
        .handler("quick", &probe, &lines("quick"));
    let (mesh, host) = Mesh::start(config).await;
    mesh.publish("orders.slow", json!({ "op": "burn", "ms": 4000 }).to_string())
        .await;
    // It runs: nothing is left to deliver.
    crate::support::eventually("the slow one to run", SOON, async || {
        (mesh.consumer("ORDERS", "slow").await["num_ack_pending"] == 1).then_some(())
    })
    .await;
    for _ in 0..3 {
        mesh.publish("orders.quick", json!({ "op": "add", "key": "n", "by": 1 }).to_string())
            .await;
    }
    mesh.wait_value("probe", "n", "3").await;
    assert!(
        !host.lines().iter().any(|line| says(&["done", "handler=slow"])(line)),
        "the slow one is done already"
    );
    let line = host
        .wait_for_line(says(&["done", "handler=slow"]), Duration::from_secs(20))
        .await;
    assert!(line.contains("attempt=1"), "{line}");
    // Its lease was renewed meanwhile: four times the ack wait.
    assert_eq!(
        mesh.wait_settled("ORDERS", "slow").await["delivered"]["consumer_seq"],
        1
    );
}
