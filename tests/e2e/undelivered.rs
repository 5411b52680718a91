//! Stored messages that the server does not deliver: each test has only one place that looks for them.

use serde_json::{Value, json};

use crate::ahead::put_ahead;
#[cfg(feature = "failpoints")]
use crate::audit::{judge, publish_work, publish_work_from};
use crate::mesh::{Config, Mesh, PATIENT, says};

fn emit() -> Value {
    json!({ "op": "emit", "subject": "events.x", "payload": 1 })
}

/// The server delivers nothing more to the relay of `probe`, and believes to have delivered everything.
async fn leave_lying(mesh: &Mesh) {
    let mut config = mesh.consumer("KV_probe", "mesh-relay").await["config"].clone();
    config["filter_subject"] = json!("$MESH.state.probe.nothing");
    let body = json!({ "stream_name": "KV_probe", "config": config, "action": "update" });
    let create = "CONSUMER.CREATE.KV_probe.mesh-relay";
    let changed: Value = mesh.js.request(create, &body).await.expect("an answer");
    assert!(changed["error"].is_null(), "{changed}");
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn an_idle_relay_finds_what_the_server_does_not_deliver_and_carries_it_out_once() {
    let mesh = Mesh::new(Config::probe()).await;
    let host = mesh.host_with_fault("relay-look-ms:500").await;
    publish_work(&mesh, 3, 3).await;
    judge(&mesh, 3, 3).await;
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    leave_lying(&mesh).await;
    publish_work_from(&mesh, 3, 6, 3).await;
    host.wait_for_line(says(&["WARN", "the server does not deliver consequences"]), PATIENT)
        .await;
    judge(&mesh, 6, 3).await;
    assert_eq!(mesh.emitted().await.len(), 6);
}

#[tokio::test]
async fn consequences_that_the_server_does_not_deliver_are_told_of_by_the_status() {
    let (mut mesh, host) = Mesh::start(Config::probe()).await;
    mesh.order(emit()).await;
    mesh.wait_emitted(1).await;
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    host.stop().await;
    leave_lying(&mesh).await;
    mesh.config = Config::probe().top("relay = false");
    let _host = mesh.host(&[]).await;
    mesh.order(emit()).await;
    mesh.wait_decisions("probe", 2).await;
    let status: Value = serde_json::from_str(&mesh.jetmesh(&["status", "--json"]).await.1).expect("JSON");
    let relay = &status["ledgers"][0]["relay"];
    assert_eq!(relay["state"], "late", "{status:#}");
    let last = mesh.messages("KV_probe", "$MESH.state.probe.out.>").await;
    let last = last.last().expect("what is to be emitted").sequence;
    let told = format!(
        "the server does not deliver message {last} of stream KV_probe and later ones: a host creates the consumer \
         mesh-relay again within two minutes"
    );
    assert_eq!(relay["why"], told, "{status:#}");
    let (_, text, _) = mesh.jetmesh(&["status"]).await;
    assert!(text.contains(&told), "{text}");
}

#[tokio::test]
async fn a_consumer_that_is_ahead_of_its_stream_is_told_of_by_the_status() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    mesh.order(emit()).await;
    mesh.wait_settled("ORDERS", "probe").await;
    host.stop().await;
    put_ahead(&mesh, "ORDERS", "probe").await;
    let status: Value = serde_json::from_str(&mesh.jetmesh(&["status", "--json"]).await.1).expect("JSON");
    let handler = &status["handlers"][0];
    let told = [&handler["why"], &handler["note"]].map(|text| text.as_str().unwrap_or_default().to_owned());
    let wanted = "stream ORDERS has lost its last messages: consumer probe is ahead of it, and receives nothing until a host \
                  creates it again, at its next start or sweep";
    assert!(told.iter().any(|text| text == wanted), "{status:#}");
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_sweep_creates_a_handlers_consumer_again_that_is_ahead_of_its_stream() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    publish_work(&mesh, 3, 3).await;
    judge(&mesh, 3, 3).await;
    host.stop().await;
    put_ahead(&mesh, "ORDERS", "probe").await;
    let host = mesh.host_with_fault("look-at-bind:off").await;
    let told = ["WARN", "the handler's consumer was ahead of it and is created again"];
    host.wait_for_line(says(&told), PATIENT).await;
    publish_work_from(&mesh, 3, 6, 3).await;
    judge(&mesh, 6, 3).await;
}

/// The server has something to deliver, and does not say so: as long as the first event is at work, it delivers no second one.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_sweep_finds_an_event_that_the_server_does_not_deliver_and_has_it_delivered_once() {
    let mesh = Mesh::new(Config::probe_with(
        "concurrency = 1\nin_flight = 1\nack_pending_max = 1",
    ))
    .await;
    let host = mesh.host_with_fault("sweep-ms:200,pending-told:off").await;
    let add = |key: &str| json!({ "op": "add", "key": key, "by": 1 });
    mesh.order(json!([{ "op": "sleep", "ms": 4000 }, add("first")])).await;
    let second = mesh.order(add("second")).await;
    let sequence = format!("sequence={second}");
    let told = ["WARN", "the server does not deliver an event", &sequence];
    host.wait_for_line(says(&told), PATIENT).await;
    mesh.wait_decisions("probe", 2).await;
    mesh.wait_settled("ORDERS", "probe").await;
    mesh.wait_value("probe", "first", "1").await;
    mesh.wait_value("probe", "second", "1").await;
    assert_eq!(mesh.decisions("probe").await.len(), 2);
}

/// It does not show that the consumer is ahead, and yet no event that comes counts as decided.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn no_floor_passes_the_end_of_a_stream_whose_consumer_is_ahead_of_it() {
    let (mesh, host) = Mesh::start(Config::probe_with("start = \"all\"")).await;
    publish_work(&mesh, 3, 3).await;
    judge(&mesh, 3, 3).await;
    host.stop().await;
    put_ahead(&mesh, "ORDERS", "probe").await;
    let host = mesh
        .host_with_fault("look-at-bind:off,look-at-sweep:off,floors-raised:stop")
        .await;
    // It has moved the floors.
    crate::hosts::wait_frozen(&host).await;
    host.signal(crate::support::Signal::CONT);
    let mark = host.lines().len();
    mesh.remove_consumer("ORDERS", "probe").await;
    host.wait_for_line_after(mark, says(&["serving", "handler=probe "]), PATIENT)
        .await;
    publish_work_from(&mesh, 3, 6, 3).await;
    judge(&mesh, 6, 3).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn advisories_come_when_their_consumer_was_ahead_of_their_stream() {
    let (mesh, host) = Mesh::start(Config::probe_with("max_attempts = 2\ndeliver_slack = 1")).await;
    host.stop().await;
    put_ahead(&mesh, "MESH_ADVISORIES", "mesh-advisories").await;
    // Only the server gives up, and the sweep at the start has nothing to find yet.
    let host = mesh.host_with_fault("host-verdict:off").await;
    let told = [
        "WARN",
        "its consumer was ahead of it and is created again",
        "mesh-advisories",
    ];
    host.wait_for_line(says(&told), PATIENT).await;
    mesh.order(json!({ "op": "retry", "code": "later", "message": "not now" }))
        .await;
    mesh.wait_letters(1).await;
    mesh.wait_settled("MESH_ADVISORIES", "mesh-advisories").await;
}
