//! Targets behind a mapping of the account: what is published on one subject arrives under another.

#[cfg(feature = "failpoints")]
use std::time::Duration;

#[cfg(feature = "failpoints")]
use async_nats::jetstream::stream;
use serde_json::json;

#[cfg(feature = "failpoints")]
use crate::hosts::wait_forgotten;
use crate::mesh::{Config, Mesh};
use crate::support::server::Options;
#[cfg(feature = "failpoints")]
use crate::support::wait::SOON;
use crate::support::{NatsServer, modules};

/// The account maps what a handler emits on `out.…` to `events.…`, and what it emits on `events.old` to `events.new`.
async fn mapped() -> Mesh {
    let options = Options {
        config: r#"mappings { "out.*": "events.{{wildcard(1)}}", "events.old": "events.new" }"#.to_owned(),
        ..Options::default()
    };
    let lines = "bucket = \"probe\"\npublish = [\"events.>\", \"out.>\"]";
    let config = Config::new().handler("probe", &modules::handler("probe"), lines);
    Mesh::over(NatsServer::start_with(&options).await, config).await
}

fn emit(subject: &str) -> serde_json::Value {
    json!({ "op": "emit", "subject": subject, "payload": 1 })
}

#[tokio::test]
async fn events_on_a_subject_that_the_account_maps_arrive_once_and_are_found() {
    let mesh = mapped().await;
    let _host = mesh.host(&[]).await;
    let said = mesh.jetmesh_ok(&["check", "--connect"]).await;
    assert!(!said.contains("no stream captures"), "{said}");
    mesh.order(json!([emit("out.a"), emit("events.old")])).await;
    let events = mesh.wait_emitted(2).await;
    let subjects: Vec<&str> = events.iter().map(|event| event.subject.as_str()).collect();
    assert_eq!(subjects, ["events.a", "events.new"]);
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    let traced = mesh.jetmesh_ok(&["trace", "ORDERS:1"]).await;
    assert!(traced.contains("EVENTS:1") && traced.contains("EVENTS:2"), "{traced}");
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_relay_that_takes_over_repeats_nothing_behind_a_mapping_of_the_account() {
    let mesh = mapped().await;
    let target = stream::Config {
        name: "EVENTS".to_owned(),
        subjects: vec!["events.>".to_owned()],
        duplicate_window: Duration::from_secs(1),
        ..stream::Config::default()
    };
    mesh.js.create_stream(target).await.expect("it can be made");
    let killed = mesh.host_with_fault("relay-published:kill:3").await;
    let subjects = ["out.a", "events.old", "out.a", "out.b"];
    let all: Vec<_> = subjects.into_iter().map(emit).collect();
    mesh.order(json!(all)).await;
    killed.wait_exit(SOON).await;
    assert_eq!(mesh.emitted().await.len(), 3);
    wait_forgotten(&mesh).await;
    let _next = mesh.host(&[]).await;
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    let mut stored: Vec<String> = mesh.emitted().await.into_iter().map(|found| found.subject).collect();
    stored.sort_unstable();
    assert_eq!(stored, ["events.a", "events.a", "events.b", "events.new"]);
}
