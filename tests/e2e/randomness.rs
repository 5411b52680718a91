//! Random numbers: they cannot be predicted, no two attempts have the same, and those of a failed attempt can be drawn again.

use std::collections::BTreeSet;

use async_nats::jetstream::stream::RetentionPolicy;
use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, PATIENT};
use crate::support::modules;

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The numbers of both kinds in emitted events.
async fn drawn(mesh: &Mesh, count: usize) -> (Vec<String>, Vec<String>) {
    let events = mesh.wait_emitted(count).await;
    let of = |kind: &str| events.iter().map(|event| text(&event.json()[kind])).collect();
    (of("secure"), of("insecure"))
}

#[tokio::test]
async fn no_two_handlers_streams_hosts_and_incarnations_of_a_stream_draw_the_same_random_numbers() {
    let probe = modules::handler("probe");
    let config = Config::new()
        .handler("first", &probe, "bucket = \"first\"\npublish = [\"events.>\"]")
        .handler(
            "second",
            &probe,
            "bucket = \"second\"\npublish = [\"events.>\"]\ninstance = \"reused\"\nconcurrency = 1",
        )
        .handler(
            "other",
            &probe,
            "bucket = \"other\"\npublish = [\"events.>\"]\nstream = \"OTHER\"",
        )
        .table("[streams.OTHER]\nsubjects = [\"others.>\"]");
    let (mesh, host) = Mesh::start(config.clone()).await;
    let order = json!({ "op": "random", "subject": "events.random" });
    // The first two events of each stream: the same sequences.
    for _ in 0..2 {
        mesh.order(order.clone()).await;
        mesh.publish("others.probe", order.to_string()).await;
    }
    drawn(&mesh, 6).await;
    host.stop().await;
    // Another incarnation of a stream, and another process.
    mesh.js.delete_stream("ORDERS").await.expect("the stream is there");
    mesh.add_stream("ORDERS", &["orders.>"], RetentionPolicy::Limits).await;
    for handler in ["first", "second"] {
        mesh.jetmesh_ok(&["reset", handler, "--yes"]).await;
    }
    let _host = mesh.host(&[]).await;
    for _ in 0..2 {
        mesh.order(order.clone()).await;
    }
    let (secure, insecure) = drawn(&mesh, 10).await;
    for numbers in [secure, insecure] {
        let distinct: BTreeSet<&String> = numbers.iter().collect();
        assert_eq!(distinct.len(), 10, "{numbers:?}");
    }
}

#[tokio::test]
async fn each_attempt_and_each_replay_draws_anew_and_its_letter_has_its_seed() {
    let (mesh, host) = Mesh::start(Config::probe_with("max_attempts = 2")).await;
    // Both attempts draw; the second one dies.
    mesh.order(json!([
        { "op": "log", "level": "info", "message": "one" },
        { "op": "need", "key": "there" },
    ]))
    .await;
    mesh.order(json!({ "op": "draw" })).await;
    let letters = mesh.wait_letters(2).await;
    let history = |of: usize| -> Vec<Value> {
        let header = letters[of].header("Mesh-History").expect("a letter has a history");
        serde_json::from_str(header).expect("a history is JSON")
    };
    let drew = letters
        .iter()
        .position(|letter| letter.header("Mesh-Code") == Some("drew"));
    let drew = drew.expect("one of them drew");
    for attempt in history(1 - drew) {
        assert_eq!(attempt["seed"], Value::Null, "it asked for none");
    }
    let seed = text(&history(drew)[0]["seed"]);
    assert_eq!(seed.len(), 64, "{seed}");
    let first = letters[drew].header("Mesh-Error").expect("a text").to_owned();

    // A replay counts its attempts from 1 again, on the same process.
    let id = letters[drew].letter_id().to_owned();
    mesh.jetmesh(&["dlq", "replay", &id, "--yes"]).await;
    let replayed = crate::support::eventually("the replay in the letter", PATIENT, async || {
        let letters = mesh.letters().await;
        let letter = letters.iter().find(|letter| letter.letter_id() == id)?;
        let history: Vec<Value> = serde_json::from_str(letter.header("Mesh-History")?).ok()?;
        (history.len() == 2).then_some(history)
    })
    .await;
    assert_eq!(text(&replayed[0]["message"]), first);
    assert_ne!(
        text(&replayed[1]["message"]),
        first,
        "a replay draws what the letter told"
    );
    assert_ne!(replayed[1]["seed"], replayed[0]["seed"]);
    assert_eq!(replayed[1]["replay"], json!(true));
    drop(host);
}

#[tokio::test]
async fn a_rehearsal_draws_what_the_letters_last_attempt_has_drawn() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    mesh.order(json!({ "op": "draw" })).await;
    let letter = mesh.wait_letters(1).await.remove(0);
    host.stop().await;
    let drew = letter.header("Mesh-Error").expect("a letter has its error");
    // By another process, and each time.
    for _ in 0..2 {
        let (_, stdout, stderr) = mesh.jetmesh(&["dlq", "rehearse", letter.letter_id(), "--json"]).await;
        let told: Value = serde_json::from_str(stdout.lines().next().unwrap_or(&stderr)).expect("JSON");
        assert_eq!(told["error"].as_str(), Some(drew), "{told}");
    }
}
