//! A relay that begins looks into the targets for what may have been published before it.

#[cfg(feature = "failpoints")]
use std::time::Duration;

#[cfg(feature = "failpoints")]
use async_nats::jetstream::stream::{self, SubjectTransform};
use serde_json::json;

#[cfg(feature = "failpoints")]
use crate::hosts::wait_forgotten;
use crate::mesh::{Config, Mesh, PATIENT};
use crate::support::wait::SOON;
use crate::support::{Host, Raw, eventually};

/// What others have published to the same subject meanwhile, each with an id as long as this.
const OTHERS: u64 = 30_000;
const ID: usize = 3_000;
/// Their ids together are 90 MB.
const LITTLE: u64 = 40 << 20;

/// The most memory that a host has had, in bytes.
fn peak(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .expect("a number");
    kib * 1024
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_relay_that_takes_over_finds_what_is_there_among_any_number_of_others_in_little_memory() {
    let mesh = Mesh::new(Config::probe()).await;
    let killed = mesh.host_with_fault("relay-published:kill:1").await;
    let emit = json!({ "op": "emit", "subject": "events.x", "payload": 1 });
    mesh.order(emit.clone()).await;
    killed.wait_exit(SOON).await;
    mesh.wait_emitted(1).await;
    // A server throws away what comes faster than a stream takes it.
    for from in (0..OTHERS).step_by(1_000) {
        let mut raw = Raw::default();
        for number in from..from + 1_000 {
            let headers = format!("NATS/1.0\r\nNats-Msg-Id: {number:0ID$}\r\n\r\n");
            raw.add(b"events.x", headers.as_bytes(), b"");
        }
        raw.publish(&mesh.server);
        eventually("what was published to be stored", SOON, async || {
            (mesh.messages_left("EVENTS").await == 1 + from + 1_000).then_some(())
        })
        .await;
    }
    let next = mesh.host(&[]).await;
    mesh.order(emit).await;
    eventually("the second event", PATIENT, async || {
        (mesh.messages_left("EVENTS").await >= OTHERS + 2).then_some(())
    })
    .await;
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    assert_eq!(mesh.messages_left("EVENTS").await, OTHERS + 2, "each is there once");
    let other = mesh.host(&[]).await;
    let (peak, usual) = (peak(&next), peak(&other));
    assert!(peak < usual + LITTLE, "{peak} bytes, usually {usual}");
}

#[cfg(feature = "failpoints")]
const WINDOW: Duration = Duration::from_secs(1);

/// A mesh whose target stores what it captures on `events.*` under other subjects, and soon forgets its ids.
#[cfg(feature = "failpoints")]
async fn transformed() -> Mesh {
    let mesh = Mesh::new(Config::probe()).await;
    let target = stream::Config {
        name: "EVENTS".to_owned(),
        subjects: vec!["events.>".to_owned()],
        duplicate_window: WINDOW,
        subject_transform: Some(SubjectTransform {
            source: "events.*".to_owned(),
            destination: "stored.{{wildcard(1)}}".to_owned(),
        }),
        ..stream::Config::default()
    };
    mesh.js.create_stream(target).await.expect("it can be made");
    mesh
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_relay_that_takes_over_repeats_nothing_in_a_target_that_stores_events_under_other_subjects() {
    let mesh = transformed().await;
    let killed = mesh.host_with_fault("relay-published:kill:4").await;
    let emit = |subject: &str| json!({ "op": "emit", "subject": subject, "payload": 1 });
    // Two on one subject, one on another, one that is stored as it is, and one that is not published before the kill.
    let subjects = ["events.a", "events.b", "events.c.d", "events.a", "events.e"];
    let all: Vec<_> = subjects.into_iter().map(emit).collect();
    mesh.order(json!(all)).await;
    killed.wait_exit(SOON).await;
    assert_eq!(mesh.emitted().await.len(), 4);
    wait_forgotten(&mesh).await;
    let _next = mesh.host(&[]).await;
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    let mut stored: Vec<String> = mesh.emitted().await.into_iter().map(|found| found.subject).collect();
    stored.sort_unstable();
    assert_eq!(stored, ["events.c.d", "stored.a", "stored.a", "stored.b", "stored.e"]);
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_due_event_is_published_once_in_a_target_that_stores_it_under_another_subject() {
    let mesh = transformed().await;
    let killed = mesh.host_with_fault("due-published:kill").await;
    mesh.order(json!({ "op": "emit_later", "subject": "events.a", "payload": 1, "after_ms": 100 }))
        .await;
    killed.wait_exit(PATIENT).await;
    assert_eq!(mesh.emitted().await.len(), 1);
    wait_forgotten(&mesh).await;
    let _next = mesh.host(&[]).await;
    mesh.wait_settled("MESH_DELAYED", "mesh-due").await;
    assert_eq!(mesh.emitted().await.len(), 1);
}
