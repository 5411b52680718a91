//! What becomes of a ledger as it is stored: its beginning goes, and what is torn is completed.

use serde_json::{Value, json};

use crate::audit::{judge, publish_work, work};
use crate::mesh::{Config, Found, Mesh, PATIENT};
use crate::support::eventually;

/// The newest message on a subject of the probe's bucket.
async fn last(mesh: &Mesh, subject: &str) -> Option<Found> {
    mesh.messages("KV_probe", subject).await.pop()
}

async fn head(mesh: &Mesh) -> Value {
    last(mesh, "$MESH.state.probe.head").await.expect("a head").json()
}

#[tokio::test]
async fn the_beginning_of_a_ledger_goes_when_nobody_needs_it() {
    let mesh = Mesh::new(Config::probe().top("ledger_keep = \"0s\"")).await;
    let host = mesh.host(&[]).await;
    publish_work(&mesh, 8, 2).await;
    judge(&mesh, 8, 2).await;
    host.stop().await;
    // The sweep of this start raises the floor; the next append says from where on a ledger is to be read.
    let host = mesh.host(&[]).await;
    let mut count = 8;
    eventually("the floor to be written", PATIENT, async || {
        mesh.order(work(count, 2)).await;
        count += 1;
        mesh.wait_settled("ORDERS", "probe").await;
        (head(&mesh).await["index_from"].as_u64() > Some(1)).then_some(())
    })
    .await;
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    host.stop().await;
    let decided = mesh.decisions("probe").await.len();
    assert!(decided >= count, "nothing goes before it may: {decided} of {count}");
    // The sweep of this one takes the beginning away.
    let host = mesh.host(&[]).await;
    eventually("the beginning to go", PATIENT, async || {
        (mesh.decisions("probe").await.len() < decided).then_some(())
    })
    .await;
    let from = head(&mesh).await["index_from"].as_u64().expect("a number");
    let entries = mesh.messages("KV_probe", "$MESH.state.probe.ledger.>").await;
    assert!(
        entries.iter().all(|entry| entry.json()["n"].as_u64() >= Some(from)),
        "entries below {from} are gone, and only they"
    );
    // What was removed is not forgotten: an event of it that is asked for again is answered from the floor.
    host.stop().await;
    let host = mesh.host(&[]).await;
    mesh.order(work(count, 2)).await;
    mesh.wait_settled("ORDERS", "probe").await;
    for number in 0..=count {
        let own = mesh.value("probe", &format!("own.{number}")).await;
        assert_eq!(own.as_deref(), Some("1"), "the write of event {number}");
    }
    mesh.wait_emitted(count + 1).await;
    host.stop().await;
}

/// A mesh without a host, whose ledger has one entry, with an order that no host has seen; and what the next append would
/// have been: it does the order, sets `n` from 1 to 2 and emits.
async fn torn(mesh: &Mesh) -> (Value, Value) {
    let host = mesh.host(&[]).await;
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    mesh.wait_value("probe", "n", "1").await;
    mesh.wait_settled("ORDERS", "probe").await;
    host.stop().await;
    let before = head(mesh).await;
    let decision = mesh.decisions("probe").await.pop().expect("one decision");
    let sequence = mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    let incarnation = decision["event"]
        .as_str()
        .and_then(|e| e.split('.').next())
        .expect("an event");
    let event = format!("{incarnation}.{sequence}");
    let base = last(mesh, "$KV.probe.n").await.expect("a value").sequence;
    let n = before["n"].as_u64().expect("a number") + 1;
    let entry = json!({
        "n": n, "append": "torn", "host": "gone", "at": "2026-01-01T00:00:00.000Z", "min_reader": 1,
        "decisions": [{ "handler": "probe", "event": event, "verdict": "done", "attempt": 1, "module": "m" }],
        "writes": [{ "key": "n", "base": base, "value": { "text": "2" }, "bytes": 1 }],
    });
    let emit = json!({ "event": {
        "id": format!("probe.{event}.0"), "subject": "events.worked", "headers": [["Mesh-Cause-Event", event]],
        "body": { "here": { "text": "2" } },
    }});
    let out = json!({ "n": n, "append": "torn", "consequences": [emit] });
    mesh.publish(&format!("$MESH.state.probe.out.{n}"), out.to_string())
        .await;
    mesh.publish(&format!("$MESH.state.probe.ledger.{n}"), entry.to_string())
        .await;
    let mut after = before.clone();
    after["n"] = json!(n);
    (before, after)
}

/// What must be true once a host has found the torn batch.
async fn whole(mesh: &Mesh, value: &str) {
    let host = mesh.host(&[]).await;
    mesh.wait_settled("ORDERS", "probe").await;
    let emitted = mesh.wait_emitted(1).await;
    assert_eq!(&emitted[0].payload[..], b"2");
    assert_eq!(mesh.value("probe", "n").await.as_deref(), Some(value));
    assert_eq!(
        mesh.decisions("probe").await.len(),
        2,
        "the order is not done once more"
    );
    // And it goes on.
    mesh.order(json!({ "op": "add", "key": "other", "by": 1 })).await;
    mesh.wait_value("probe", "other", "1").await;
    assert_eq!(head(mesh).await["n"], 3);
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    assert_eq!(mesh.emitted().await.len(), 1, "what it emitted is emitted once");
    host.stop().await;
}

#[tokio::test]
async fn a_batch_of_which_the_server_kept_no_head_is_completed() {
    let mesh = Mesh::new(Config::probe()).await;
    torn(&mesh).await;
    whole(&mesh, "2").await;
}

#[tokio::test]
async fn a_batch_of_which_the_server_kept_no_value_is_completed() {
    let mesh = Mesh::new(Config::probe()).await;
    let (_, after) = torn(&mesh).await;
    mesh.publish("$MESH.state.probe.head", after.to_string()).await;
    whole(&mesh, "2").await;
}

#[tokio::test]
async fn what_a_person_wrote_after_a_torn_batch_stands() {
    let mesh = Mesh::new(Config::probe()).await;
    torn(&mesh).await;
    mesh.put("probe", "n", "50").await;
    whole(&mesh, "50").await;
}

#[tokio::test]
async fn consequences_of_which_the_server_kept_no_entry_are_never_carried_out() {
    let mesh = Mesh::new(Config::probe()).await;
    let host = mesh.host(&[]).await;
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    mesh.wait_value("probe", "n", "1").await;
    host.stop().await;
    let n = head(&mesh).await["n"].as_u64().expect("a number") + 1;
    let emit = json!({ "event": {
        "id": "probe.never.0", "subject": "events.worked", "headers": [], "body": { "here": { "text": "never" } },
    }});
    let out = json!({ "n": n, "append": "torn", "consequences": [emit] });
    mesh.publish(&format!("$MESH.state.probe.out.{n}"), out.to_string())
        .await;
    mesh.publish(&format!("$MESH.state.probe.out.{n}.1"), out.to_string())
        .await;
    let host = mesh.host(&[]).await;
    // Another append becomes that entry, with one message of consequences.
    mesh.order(json!({ "op": "emit", "subject": "events.worked", "payload": 1 }))
        .await;
    let emitted = mesh.wait_emitted(1).await;
    assert_ne!(&emitted[0].payload[..], b"never");
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    assert_eq!(mesh.emitted().await.len(), 1);
    host.stop().await;
}
