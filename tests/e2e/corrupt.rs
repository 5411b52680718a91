//! What the mesh has stored and cannot read is named with its remedy, and never taken for "nothing there".

use serde_json::json;

use crate::mesh::{Config, Found, Mesh, PATIENT, says};
use crate::support::wait::SOON;
use crate::support::{Host, eventually};

const GARBAGE: &str = "{\"attempts\": 1, \"hist";

/// Starts a host that does not come to serve.
fn start(mesh: &Mesh) -> Host {
    Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &[])
}

async fn ends(host: Host) {
    host.stop().await;
}

async fn add_one(mesh: &Mesh) {
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
}

/// The only message of a subject.
async fn last(mesh: &Mesh, stream: &str, subject: &str) -> Found {
    eventually("a message", SOON, async || mesh.messages(stream, subject).await.pop()).await
}

#[tokio::test]
async fn an_unreadable_attempt_record_is_named_and_its_event_waits_instead_of_being_tried_for_ever() {
    let mesh = Mesh::new(Config::probe_with("max_attempts = 2\nbackoff = \"2s\"")).await;
    let host = mesh.host(&[]).await;
    mesh.order(json!({ "op": "retry", "code": "later", "message": "not now" }))
        .await;
    let record = last(&mesh, "KV_mesh_attempts", "$KV.mesh_attempts.>").await;
    mesh.publish(&record.subject, GARBAGE).await;
    let key = record.subject.strip_prefix("$KV.mesh_attempts.").expect("a key");
    let named = format!("the attempt record {key} in bucket mesh_attempts cannot be read: EOF");
    let remedy = format!("`nats kv purge mesh_attempts {key}`");
    host.wait_for_line(
        says(&["ERROR", "an event waits until this is corrected", &named, &remedy]),
        PATIENT,
    )
    .await;
    // It keeps nothing else.
    add_one(&mesh).await;
    mesh.wait_value("probe", "n", "1").await;
    let (_, _, stderr) = mesh.jetmesh(&["retrying"]).await;
    assert!(stderr.contains(&record.subject), "{stderr}");
    // A host that starts, with its sweep, thinks no other.
    ends(host).await;
    let host = mesh.host(&[]).await;
    host.wait_for_line(
        says(&["ERROR", "an event waits until this is corrected", &named]),
        PATIENT,
    )
    .await;
    assert_eq!(mesh.letters().await.len(), 0);
    let store = mesh.js.get_key_value("mesh_attempts").await.expect("it is there");
    store.purge(key).await.expect("purged");
    let letters = mesh.wait_letters(1).await;
    assert_eq!(letters[0].header("Mesh-Code"), Some("later"));
    mesh.wait_settled("ORDERS", "probe").await;
    assert_eq!(mesh.value("probe", "n").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn an_unreadable_incarnation_is_named_and_never_taken_for_a_new_stream() {
    let mesh = Mesh::new(Config::probe_with("start = \"all\"")).await;
    let host = mesh.host(&[]).await;
    add_one(&mesh).await;
    mesh.wait_value("probe", "n", "1").await;
    ends(host).await;
    mesh.put("mesh", "incarnation.ORDERS", GARBAGE).await;
    let host = start(&mesh);
    let named = "key incarnation.ORDERS of bucket mesh cannot be read: EOF";
    let remedy = "`nats kv purge mesh incarnation.ORDERS`";
    host.wait_for_line(
        says(&["ERROR", "the handler is stopped until this is corrected", named, remedy]),
        SOON,
    )
    .await;
    let store = mesh.js.get_key_value("mesh").await.expect("it is there");
    store.purge("incarnation.ORDERS").await.expect("purged");
    host.wait_for_line(says(&["serving"]), SOON).await;
    add_one(&mesh).await;
    mesh.wait_value("probe", "n", "2").await;
    mesh.wait_settled("ORDERS", "probe").await;
    assert_eq!(mesh.decisions("probe").await.len(), 2, "the first is not done again");
}

#[tokio::test]
async fn an_unreadable_head_or_entry_stops_its_ledger_and_is_named_until_it_is_restored() {
    let mesh = Mesh::new(Config::probe()).await;
    let host = mesh.host(&[]).await;
    for n in ["1", "2"] {
        add_one(&mesh).await;
        mesh.wait_value("probe", "n", n).await;
    }
    ends(host).await;
    let cases = [
        ("$MESH.state.probe.head", GARBAGE.to_owned(), "EOF"),
        ("$MESH.state.probe.ledger.2", GARBAGE.to_owned(), "EOF"),
        ("$MESH.state.probe.ledger.1", String::new(), "it has the number 2"),
    ];
    for (subject, garbage, why) in cases {
        let whole = last(&mesh, "KV_probe", subject).await.payload;
        let other = last(&mesh, "KV_probe", "$MESH.state.probe.ledger.2").await.payload;
        let bad = if garbage.is_empty() { other } else { garbage.into() };
        mesh.publish(subject, bad).await;
        let host = start(&mesh);
        let named = format!("{subject} in stream KV_probe cannot be read: {why}");
        host.wait_for_line(
            says(&[
                "ERROR",
                "the handler is stopped until this is corrected",
                &named,
                "`nats stream restore`",
            ]),
            SOON,
        )
        .await;
        mesh.publish(subject, whole).await;
        host.wait_for_line(says(&["serving"]), SOON).await;
        ends(host).await;
    }
    let _host = mesh.host(&[]).await;
    add_one(&mesh).await;
    mesh.wait_value("probe", "n", "3").await;
}
