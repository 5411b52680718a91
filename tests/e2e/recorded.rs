//! What an earlier build has stored is read by this one. The streams in `tests/fixtures/store` were recorded by the build of
//! 2026-11-30; the formats have not changed since then without a way to read them.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, says};
use crate::support::wait::SOON;
use crate::support::{cli, eventually, modules};

/// Every stream of the recorded mesh.
const STREAMS: [&str; 10] = [
    "ORDERS",
    "PAYMENTS",
    "EVENTS",
    "KV_probe",
    "KV_paid",
    "KV_mesh",
    "KV_mesh_attempts",
    "MESH_DEAD",
    "MESH_DELAYED",
    "MESH_REPLAY",
];

/// Two source streams and two ledgers; a handler without a ledger, and one whose second attempt comes late.
fn config() -> Config {
    let probe = modules::handler("probe");
    let paid = "stream = \"PAYMENTS\"\nbucket = \"paid\"\nidentity = \"message-id\"";
    let late =
        "subjects = [\"orders.late\"]\nbucket = \"probe\"\nmax_attempts = 2\nbackoff = \"20s\"\nbackoff_max = \"20s\"";
    let once = "subjects = [\"orders.probe\"]\nbucket = \"probe\"\npublish = [\"events.>\"]\nmax_attempts = 1";
    Config::new()
        .table("[streams.PAYMENTS]\nsubjects = [\"payments.>\"]\nduplicate_window = \"100ms\"")
        .handler("probe", &probe, once)
        .handler("late", &probe, late)
        .handler("paid", &probe, paid)
        .handler("bare", &probe, "subjects = [\"orders.bare\"]\nmax_attempts = 1")
}

fn store(stream: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/store");
    let folder = folder.join(stream);
    folder.to_str().expect("it is text").to_owned()
}

/// The same payment as the one before, once the stream has forgotten its id.
async fn pay(mesh: &Mesh) {
    let order = json!({ "op": "add", "key": "paid", "by": 1 }).to_string();
    let before = mesh.messages_left("PAYMENTS").await;
    eventually("the stream to have forgotten the id", SOON, async || {
        mesh.publish_with("payments.in", &[("Nats-Msg-Id", "payment-1")], order.clone())
            .await;
        (mesh.messages_left("PAYMENTS").await > before).then_some(())
    })
    .await;
}

/// Records the fixture again: only where a build is to be recorded whose formats are older than those to come.
#[tokio::test]
#[ignore = "it replaces the fixture"]
async fn record() {
    let (mesh, host) = Mesh::start(config()).await;
    for number in 1..=3 {
        let event = json!({ "op": "emit", "subject": "events.counted", "payload": number });
        mesh.order(json!([{ "op": "add", "key": "n", "by": 1 }, event])).await;
    }
    // It dies of its only attempt. A replay succeeds as soon as the key has a value.
    mesh.order(json!([{ "op": "need", "key": "fixed" }, { "op": "add", "key": "mended", "by": 1 }]))
        .await;
    mesh.publish("orders.bare", json!({ "op": "trap" }).to_string()).await;
    mesh.order(json!({ "op": "emit_later", "subject": "events.later", "payload": "due", "after_ms": 20_000 }))
        .await;
    pay(&mesh).await;
    mesh.wait_value("paid", "paid", "1").await;
    mesh.wait_letters(2).await;
    mesh.wait_emitted(3).await;
    mesh.wait_settled("ORDERS", "bare").await;
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    let retry = json!({ "op": "retry", "code": "later", "message": "no stock" });
    mesh.publish("orders.late", retry.to_string()).await;
    eventually("an attempt record", SOON, async || {
        let records = mesh.attempts().await;
        records.iter().any(|r| r["next"].is_string()).then_some(())
    })
    .await;
    host.stop().await;
    pay(&mesh).await;
    for stream in STREAMS {
        let folder = store(stream);
        let _ = fs::remove_dir_all(&folder);
        let args = ["stream", "backup", stream, &folder, "--no-progress", "--consumers"];
        cli::nats(&mesh.server, &args).await.expect("there is a nats");
    }
}

#[tokio::test]
async fn what_an_earlier_build_has_stored_is_read_and_goes_on() {
    let mesh = Mesh::new(config()).await;
    for stream in STREAMS {
        let restored = cli::nats(&mesh.server, &["stream", "restore", &store(stream), "--no-progress"]).await;
        if restored.is_none() {
            return;
        }
    }

    // The commands read it before a host of this build has written anything.
    let retrying = mesh.jetmesh_ok(&["retrying", "--json"]).await;
    let retrying: Value = serde_json::from_str(&retrying).expect("one event is between its attempts");
    assert_eq!(
        (&retrying["handler"], &retrying["attempts"], &retrying["error"]),
        (&json!("late"), &json!(1), &json!("no stock")),
        "{retrying}"
    );
    let letters: Vec<Value> = (mesh.jetmesh_ok(&["dlq", "ls", "--json"]).await.lines())
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    let of = |handler: &str| {
        let letter = letters.iter().find(|letter| letter["handler"] == handler);
        letter.unwrap_or_else(|| panic!("a letter of {handler}: {letters:?}"))
    };
    assert_eq!(letters.len(), 2);
    of("bare");
    let id = of("probe")["id"].as_str().expect("a letter has an id");
    let traced = mesh.jetmesh_ok(&["trace", "ORDERS:1"]).await;
    assert!(traced.contains("done"), "{traced}");

    let host = mesh.host(&[]).await;
    // What was delayed is due by now, and comes once.
    let emitted = mesh.wait_emitted(4).await;
    assert_eq!(
        (emitted[3].subject.as_str(), &emitted[3].payload[..]),
        ("events.later", &b"\"due\""[..])
    );
    // The second payment repeats the first.
    let decisions = mesh.wait_decisions("paid", 2).await;
    assert_eq!(decisions[1]["same_as"], decisions[0]["event"]);
    assert_eq!(mesh.value("paid", "paid").await.as_deref(), Some("1"));
    // It had one attempt before, and now has had its last.
    let letters = mesh.wait_letters(3).await;
    let late = letters
        .iter()
        .find(|letter| letter.header("Mesh-Handler") == Some("late"));
    assert_eq!(late.expect("it is dead").header("Mesh-Attempts"), Some("2"));
    // A letter of before is replayed.
    mesh.order(json!({ "op": "set", "key": "fixed", "value": "yes" })).await;
    mesh.wait_value("probe", "fixed", "yes").await;
    mesh.jetmesh_ok(&["dlq", "replay", id, "--yes"]).await;
    mesh.wait_value("probe", "mended", "1").await;
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    // And nothing has happened a second time.
    assert_eq!(mesh.value("probe", "n").await.as_deref(), Some("3"));
    assert_eq!(mesh.emitted().await.len(), 4);
    assert!(
        !host.lines().iter().any(|line| says(&["ERROR"])(line)),
        "{:?}",
        host.lines()
    );
}
