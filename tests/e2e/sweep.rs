//! The sweep finds events that neither the server nor a host remembers.

use std::os::unix::process::ExitStatusExt;

use async_nats::jetstream::consumer::PullConsumer;
use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::audit::{judge, publish_work, publish_work_from, work};
use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::eventually;

/// A host that has bound its consumer and has ended.
pub async fn bound_and_gone(mesh: &Mesh) {
    let host = mesh.host(&[]).await;
    host.stop().await;
}

pub async fn next_of(mesh: &Mesh) -> async_nats::jetstream::Message {
    let consumer: PullConsumer = mesh
        .js
        .get_consumer_from_stream("probe", "ORDERS")
        .await
        .expect("it is there");
    let mut batch = consumer.fetch().max_messages(1).messages().await.expect("it answers");
    batch.next().await.expect("a message").expect("a message")
}

/// Waits until the server gives up on the event: it does so when it is asked for messages.
pub async fn wait_given_up(mesh: &Mesh) {
    let consumer: PullConsumer = mesh
        .js
        .get_consumer_from_stream("probe", "ORDERS")
        .await
        .expect("it is there");
    eventually("the server to give up", PATIENT, async || {
        let batch = consumer.fetch().max_messages(1).messages().await.expect("it answers");
        assert_eq!(batch.count().await, 0, "the event has no delivery left");
        (mesh.messages_left("MESH_ADVISORIES").await > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_the_server_believes_settled_and_nobody_decided_is_found() {
    let mesh = Mesh::new(Config::probe()).await;
    bound_and_gone(&mesh).await;
    publish_work(&mesh, 3, 1).await;
    // Behind the mesh's back: acked, and nothing done.
    next_of(&mesh).await.ack().await.expect("acked");
    mesh.client.flush().await.expect("flushed");
    let host = mesh.host(&[]).await;
    judge(&mesh, 3, 1).await;
    assert!(
        host.lines().iter().any(|l| says(&["found undecided"])(l)),
        "the sweep has found it"
    );
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn an_exhausted_event_whose_advisory_was_lost_is_found() {
    // The host dies in the third delivery, which is the server's limit.
    let mesh = Mesh::new(Config::probe_with("max_attempts = 2\ndeliver_slack = 1")).await;
    let host = mesh.host_with_fault("host-verdict:off,before-run:kill:3").await;
    mesh.order(json!({ "op": "retry", "code": "later", "message": "not now" }))
        .await;
    assert_eq!(host.wait_exit(PATIENT).await.signal(), Some(9));
    // The server gives up when it is asked for messages, and reports this while no subscriber is there.
    wait_given_up(&mesh).await;
    let advisories = mesh.js.get_stream("MESH_ADVISORIES").await.expect("it is there");
    advisories.purge().await.expect("purged");
    assert!(mesh.letters().await.is_empty());
    let _host = mesh.host(&[]).await;
    let letters = mesh.wait_letters(1).await;
    assert_eq!(letters[0].header("Mesh-Cause"), Some("exhausted"));
    let decisions = mesh.decisions("probe").await;
    assert_eq!((decisions.len(), &decisions[0]["verdict"]), (1, &json!("dead")));
    assert_eq!(
        mesh.messages_left("MESH_ADVISORIES").await,
        0,
        "the sweep alone has found it"
    );
}

#[tokio::test]
async fn an_event_that_was_removed_before_it_was_decided_becomes_a_letter_without_a_body() {
    let mesh = Mesh::new(Config::probe_with("backoff = \"3s\"")).await;
    let host = mesh.host(&[]).await;
    let sequence = mesh
        .order(json!({ "op": "retry", "code": "later", "message": "not now" }))
        .await;
    host.wait_for_line(says(&["will be retried"]), PATIENT).await;
    let stream = mesh.js.get_stream("ORDERS").await.expect("it is there");
    stream.delete_message(sequence).await.expect("it goes");
    // The server says so by an advisory.
    let letters = mesh.wait_letters(1).await;
    assert_eq!(letters[0].header("Mesh-Cause"), Some("lost"));
    assert!(letters[0].payload.is_empty());
    let decisions = mesh.decisions("probe").await;
    assert_eq!((decisions.len(), &decisions[0]["verdict"]), (1, &json!("dead")));
}

#[tokio::test]
async fn the_floor_moves_and_a_host_that_starts_reads_the_ledger_only_from_there() {
    let mesh = Mesh::new(Config::probe()).await;
    let host = mesh.host(&[]).await;
    publish_work(&mesh, 5, 1).await;
    judge(&mesh, 5, 1).await;
    host.stop().await;
    // The sweep at its start raises the floor, and the next append says so.
    let _host = mesh.host(&[]).await;
    // A head that is overwritten while it is being read is not found.
    let head = async || -> Option<Value> {
        let found = mesh.messages("KV_probe", "$MESH.state.probe.head").await;
        Some(found.last()?.json())
    };
    let mut number = 5;
    eventually("the floor to be written", PATIENT, async || {
        mesh.order(work(number, 1)).await;
        number += 1;
        let head = head().await?;
        let floor = head["floors"]["probe"]["floor"].as_u64().expect("a floor");
        (floor >= 5 && head["index_from"].as_u64() > Some(1)).then_some(())
    })
    .await;
    // What the sweep has looked through the stream with lies there no more.
    let stream = mesh.js.get_stream("ORDERS").await.expect("it is there");
    let names: Vec<String> = stream.consumer_names().try_collect().await.expect("they are told");
    assert_eq!(names, ["probe"]);
    judge(&mesh, number, 1).await;
}

/// Before its first ack a consumer has no floor of its own, on some servers: the sweep must know its start nevertheless.
#[tokio::test]
async fn no_event_before_a_handlers_start_ever_runs() {
    for (start, expected) in [("\"new\"", 2), ("4", 4)] {
        let mesh = Mesh::new(Config::probe_with(&format!("start = {start}"))).await;
        let orders = async_nats::jetstream::stream::Config {
            name: "ORDERS".to_owned(),
            subjects: vec!["orders.>".to_owned()],
            ..Default::default()
        };
        mesh.js.create_stream(orders).await.expect("the stream can be made");
        publish_work(&mesh, 5, 1).await;
        bound_and_gone(&mesh).await;
        let host = mesh.host(&[]).await;
        publish_work_from(&mesh, 5, 7, 1).await;
        mesh.wait_decisions("probe", expected).await;
        mesh.wait_settled("ORDERS", "probe").await;
        host.stop().await;
        // This host sweeps as soon as it starts.
        let _again = mesh.host(&[]).await;
        mesh.order(work(7, 1)).await;
        mesh.wait_decisions("probe", expected + 1).await;
        mesh.wait_settled("ORDERS", "probe").await;
        let first = mesh.decisions("probe").await;
        let first = first
            .iter()
            .map(|d| d["event"].as_str().expect("an event").to_owned())
            .min();
        let first = first.expect("some are decided");
        let before = format!(".{}", 8 - expected);
        assert!(
            first.ends_with(&before),
            "start = {start}: the first event that ran is {first}"
        );
    }
}

#[tokio::test]
async fn what_a_streams_limits_remove_before_it_is_delivered_is_warned_of_and_counted() {
    let mesh = Mesh::new(Config::probe_with("start = \"all\"")).await;
    bound_and_gone(&mesh).await;
    publish_work(&mesh, 10, 1).await;
    let said = mesh.jetmesh_ok(&["check", "--connect"]).await;
    assert!(!said.contains("removes its oldest events"), "{said}");
    let mut stream = mesh.js.get_stream("ORDERS").await.expect("it is there");
    let mut config = stream.info().await.expect("it tells").config.clone();
    config.max_messages = 4;
    mesh.js.update_stream(config).await.expect("it takes a limit");
    let said = mesh.jetmesh_ok(&["check", "--connect"]).await;
    assert!(
        said.contains("warning: handler probe: stream ORDERS removes its oldest events by its limits (max_msgs 4)"),
        "{said}"
    );
    let host = mesh.host(&[]).await;
    let removed = [
        "WARN",
        "the stream has removed messages before they were delivered",
        "messages=6",
    ];
    host.wait_for_line(says(&removed), PATIENT).await;
    mesh.wait_settled("ORDERS", "probe").await;
    mesh.wait_decisions("probe", 4).await;
    let status = mesh.jetmesh_ok(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&status).expect("it is JSON");
    let endpoint = &status["hosts"][0]["endpoints"][0];
    assert_eq!(endpoint["data"]["removed"], 6, "{status:#}");
    assert_eq!(status["handlers"][0]["removed"], 6, "{status:#}");
    let text = mesh.jetmesh_ok(&["status"]).await;
    let told = "probe: stream ORDERS has removed 6 message(s) before they were delivered, by its limits or by a person";
    assert!(text.contains(told), "{text}");
    let warned = |line: &&String| says(&removed[..2])(line);
    assert_eq!(host.lines().iter().filter(warned).count(), 1, "once");
}

/// With `start = "new"`, and with none, although the stream holds messages.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_handler_whose_consumer_was_removed_while_no_host_ran_loses_none_of_the_events_that_came_meanwhile() {
    for start in ["start = \"new\"", ""] {
        let mesh = Mesh::new(Config::probe_with(start)).await;
        let host = mesh.host_with_fault("sweep-ms:200").await;
        // A floor is stored with the next entry.
        let mut count = 0;
        eventually("the floor to be stored", PATIENT, async || {
            publish_work_from(&mesh, count, count + 1, 2).await;
            count += 1;
            mesh.wait_decisions("probe", count).await;
            let head = mesh.messages("KV_probe", "$MESH.state.probe.head").await;
            let floor = head.first()?.json()["floors"]["probe"]["floor"].as_u64();
            floor.filter(|floor| *floor > 0)
        })
        .await;
        judge(&mesh, count, 2).await;
        host.stop().await;
        mesh.remove_consumer("ORDERS", "probe").await;
        publish_work_from(&mesh, count, count + 3, 2).await;
        let said = mesh.jetmesh_ok(&["check", "--connect"]).await;
        assert!(said.contains("everything fits"), "{said}");
        let _host = mesh.host(&[]).await;
        judge(&mesh, count + 3, 2).await;
    }
}
