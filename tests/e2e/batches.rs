//! What is emitted leaves in batches that the target confirms once, where the target takes them.

use async_nats::Subscriber;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::mesh::{Config, Found, Mesh, says};
use crate::support::modules;
use crate::support::wait::SOON;

fn emits(subject: &str, bytes: &[usize]) -> Value {
    let emit = |bytes: &usize| json!({ "op": "emit", "subject": subject, "payload": "x".repeat(*bytes) });
    bytes.iter().map(emit).collect()
}

/// What the server says to whoever publishes into a stream, from now on.
async fn answers(mesh: &Mesh) -> Subscriber {
    let answers = mesh.client.subscribe("_INBOX.>").await.expect("connected");
    mesh.client.flush().await.expect("connected");
    answers
}

/// How many messages each confirmation of a stream is for, until there is one for so many messages in all.
async fn confirmed(answers: &mut Subscriber, stream: &str, messages: u64) -> Vec<u64> {
    let mut counts: Vec<u64> = Vec::new();
    while counts.iter().sum::<u64>() < messages {
        let answer = timeout(SOON, answers.next())
            .await
            .expect("it is confirmed")
            .expect("connected");
        let Ok(answer) = serde_json::from_slice::<Value>(&answer.payload) else {
            continue;
        };
        if answer["stream"] == stream && answer["error"].is_null() {
            counts.push(answer["count"].as_u64().unwrap_or(1));
        }
    }
    counts
}

/// Which events of their transaction they are.
fn places(found: &[Found]) -> Vec<&str> {
    let place = |found| Found::header(found, "Mesh-Event-Id").and_then(|id| id.rsplit('.').next());
    found
        .iter()
        .map(|found| place(found).expect("each has an id"))
        .collect()
}

#[tokio::test]
async fn events_of_one_entry_for_one_stream_are_confirmed_together() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    let mut answers = answers(&mesh).await;
    mesh.order(emits("events.a", &[10, 10, 10])).await;
    assert_eq!(confirmed(&mut answers, "EVENTS", 3).await, [3]);
    assert_eq!(places(&mesh.wait_emitted(3).await), ["0", "1", "2"]);
    // One alone is no batch.
    mesh.order(emits("events.a", &[10])).await;
    assert_eq!(confirmed(&mut answers, "EVENTS", 1).await, [1]);
}

#[tokio::test]
async fn a_stream_that_takes_no_batches_gets_event_by_event() {
    let mesh = Mesh::new(Config::probe()).await;
    let settings = json!({ "name": "EVENTS", "subjects": ["events.>"] });
    let made: Value = mesh
        .js
        .request("STREAM.CREATE.EVENTS", &settings)
        .await
        .expect("JetStream answers");
    assert!(made["error"].is_null(), "{made}");
    let _host = mesh.host(&[]).await;
    let mut answers = answers(&mesh).await;
    mesh.order(emits("events.a", &[10, 10, 10])).await;
    assert_eq!(confirmed(&mut answers, "EVENTS", 3).await, [1, 1, 1]);
    assert_eq!(places(&mesh.wait_emitted(3).await), ["0", "1", "2"]);
}

#[tokio::test]
async fn an_event_that_its_stream_refuses_takes_none_of_its_batch_along() {
    let publish = "bucket = \"probe\"\npublish = [\"small.>\"]";
    let mesh = Mesh::new(Config::new().handler("probe", &modules::handler("probe"), publish)).await;
    let settings = json!({ "name": "SMALL", "subjects": ["small.>"], "max_msg_size": 1000, "allow_batched": true });
    let made: Value = mesh
        .js
        .request("STREAM.CREATE.SMALL", &settings)
        .await
        .expect("JetStream answers");
    assert!(made["error"].is_null(), "{made}");
    let host = mesh.host(&[]).await;
    mesh.order(emits("small.a", &[10, 10, 2000, 10])).await;
    let letters = mesh.wait_letters(1).await;
    host.wait_for_line(says(&["a batch of events is published one by one"]), SOON)
        .await;
    let header = |name| letters[0].header(name);
    assert_eq!(header("Mesh-Cause"), Some("undeliverable"));
    assert!(
        header("Mesh-Error").is_some_and(|why| why.contains("size exceeds")),
        "{:?}",
        header("Mesh-Error")
    );
    assert_eq!(header("Mesh-Event").and_then(|id| id.rsplit('.').next()), Some("2"));
    let mut found = mesh.messages("SMALL", ">").await;
    found.sort_by_key(|found| found.header("Mesh-Event-Id").map(str::to_owned));
    assert_eq!(places(&found), ["0", "1", "3"]);
}

#[tokio::test]
async fn a_host_that_ends_within_a_batch_repeats_none_of_it() {
    let mesh = Mesh::new(Config::probe()).await;
    let host = mesh.host_with_fault("relay-published:kill:2").await;
    mesh.order(emits("events.a", &[10, 10, 10])).await;
    host.wait_exit(SOON).await;
    assert_eq!(
        places(&mesh.emitted().await),
        ["0", "1"],
        "a batch is stored as it comes"
    );
    let _host = mesh.host(&[]).await;
    assert_eq!(places(&mesh.wait_emitted(3).await), ["0", "1", "2"]);
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    assert_eq!(places(&mesh.emitted().await), ["0", "1", "2"]);
}
