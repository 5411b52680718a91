//! An event that comes once more under another sequence is recognised as a duplicate: an emitted one always, a publisher's
//! where the configuration asks for it.

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, says};
use crate::support::wait::SOON;
use crate::support::{cli, eventually, modules};

/// A source stream that itself forgets message ids at once.
fn config(lines: &str) -> Config {
    let stream = "[streams.SOURCE]\nsubjects = [\"source.*\"]\nduplicate_window = \"100ms\"";
    let lines = format!("stream = \"SOURCE\"\nstart = \"all\"\nbucket = \"probe\"\npublish = [\"events.>\"]\n{lines}");
    Config::new()
        .table(stream)
        .handler("probe", &modules::handler("probe"), &lines)
}

const BY_ID: &str = "identity = \"message-id\"";

/// Publishes an order that adds one to `n` and emits, with a message id, and again until the stream takes it.
async fn add(mesh: &Mesh, subject: &str, id: &str) -> u64 {
    let steps = json!({ "do": [
        { "op": "add", "key": "n", "by": 1 },
        { "op": "emit", "subject": "events.added", "payload": id },
    ]});
    let before = mesh.messages_left("SOURCE").await;
    eventually("the stream to have forgotten the id", SOON, async || {
        let sequence = mesh
            .publish_with(subject, &[("Nats-Msg-Id", id)], steps.to_string())
            .await;
        (mesh.messages_left("SOURCE").await > before).then_some(sequence)
    })
    .await
}

/// How the events of the ledger stand, in the order of their decisions: which sequence, and which other it repeats.
async fn decided(mesh: &Mesh, count: usize) -> Vec<(u64, Option<u64>)> {
    let sequence = |event: &Value| event.as_str()?.rsplit('.').next()?.parse::<u64>().ok();
    let decisions = mesh.wait_decisions("probe", count).await;
    let pair = |d: &Value| (sequence(&d["event"]).expect("an event"), sequence(&d["same_as"]));
    decisions.iter().map(pair).collect()
}

async fn n(mesh: &Mesh) -> Option<String> {
    mesh.wait_settled("SOURCE", "probe").await;
    mesh.value("probe", "n").await
}

#[tokio::test]
async fn a_publisher_that_repeats_itself_after_the_streams_window_has_its_event_done_once() {
    let (mesh, host) = Mesh::start(config(BY_ID)).await;
    add(&mesh, "source.a", "o-1").await;
    mesh.wait_value("probe", "n", "1").await;
    add(&mesh, "source.a", "o-1").await;
    assert_eq!(decided(&mesh, 2).await, [(1, None), (2, Some(1))]);
    let line = host
        .wait_for_line(says(&["it repeats an event that is decided"]), SOON)
        .await;
    assert!(line.contains("entry=1") && line.contains("INFO"), "{line}");
    assert_eq!(n(&mesh).await.as_deref(), Some("1"));
    // Later ones are for those who look.
    add(&mesh, "source.a", "o-1").await;
    assert_eq!(decided(&mesh, 3).await[2], (3, Some(1)));
    add(&mesh, "source.a", "o-2").await;
    mesh.wait_value("probe", "n", "2").await;
    mesh.wait_emitted(2).await;
    host.stop().await;
}

#[tokio::test]
async fn the_same_message_id_on_another_subject_is_another_event() {
    let (mesh, host) = Mesh::start(config(BY_ID)).await;
    add(&mesh, "source.created", "o-1").await;
    add(&mesh, "source.paid", "o-1").await;
    mesh.wait_value("probe", "n", "2").await;
    assert_eq!(
        decided(&mesh, 2)
            .await
            .iter()
            .filter(|(_, same)| same.is_some())
            .count(),
        0
    );
    host.stop().await;
}

#[tokio::test]
async fn without_being_asked_a_message_id_says_nothing() {
    let (mesh, host) = Mesh::start(config("")).await;
    add(&mesh, "source.a", "o-1").await;
    add(&mesh, "source.a", "o-1").await;
    mesh.wait_value("probe", "n", "2").await;
    host.stop().await;
}

#[tokio::test]
async fn a_message_id_is_remembered_over_a_restart_and_by_another_host() {
    // Nothing is kept of the ledger but what must be.
    let (mesh, host) = Mesh::start(config(BY_ID).top("ledger_keep = \"0s\"")).await;
    add(&mesh, "source.a", "o-1").await;
    mesh.wait_value("probe", "n", "1").await;
    host.stop().await;
    // These starts raise the floor over it, say so, and collect.
    for number in 2..4 {
        let host = mesh.host(&[]).await;
        add(&mesh, "source.a", &format!("o-{number}")).await;
        mesh.wait_value("probe", "n", &number.to_string()).await;
        mesh.wait_settled("SOURCE", "probe").await;
        host.stop().await;
    }
    let one = mesh.host(&[]).await;
    let other = mesh.host(&[]).await;
    for _ in 0..4 {
        add(&mesh, "source.a", "o-1").await;
    }
    let decided = decided(&mesh, 7).await;
    assert!(decided[3..].iter().all(|(_, same)| *same == Some(1)), "{decided:?}");
    assert_eq!(n(&mesh).await.as_deref(), Some("3"));
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn two_hosts_that_have_a_repetition_each_do_it_once() {
    let (mesh, one) = Mesh::start(config(BY_ID)).await;
    let other = mesh.host(&[]).await;
    for number in 0..10 {
        let id = format!("o-{number}");
        add(&mesh, "source.a", &id).await;
        add(&mesh, "source.a", &id).await;
    }
    let decided = decided(&mesh, 20).await;
    assert_eq!(
        decided.iter().filter(|(_, same)| same.is_some()).count(),
        10,
        "{decided:?}"
    );
    assert_eq!(n(&mesh).await.as_deref(), Some("10"));
    mesh.wait_emitted(10).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_message_id_is_forgotten_after_its_window_by_the_streams_own_time() {
    let short = format!("{BY_ID}\nidentity_window = \"1s\"");
    let (mesh, host) = Mesh::start(config(&short)).await;
    add(&mesh, "source.a", "o-1").await;
    add(&mesh, "source.a", "o-1").await;
    assert_eq!(n(&mesh).await.as_deref(), Some("1"));
    host.stop().await;
    // They lie in the stream for as long as no host runs; what counts is when they were stored.
    let second = mesh.messages_left("SOURCE").await;
    assert_eq!(second, 2);
    eventually("the window to be over", SOON, async || {
        let sequence = add(&mesh, "source.a", "o-1").await;
        let age = time_of(&mesh, sequence).await - time_of(&mesh, 1).await;
        (age > 1.1).then_some(())
    })
    .await;
    let count = usize::try_from(mesh.messages_left("SOURCE").await).expect("few");
    let host = mesh.host(&[]).await;
    let decided = decided(&mesh, count).await;
    let mut expected = Vec::new();
    for sequence in 1..=count as u64 {
        let age = time_of(&mesh, sequence).await - time_of(&mesh, 1).await;
        expected.push((sequence, age > 0.0 && age <= 1.0));
    }
    let known: Vec<_> = {
        let mut known: Vec<_> = decided.iter().map(|(s, same)| (*s, *same == Some(1))).collect();
        known.sort_unstable();
        known
    };
    assert_eq!(known, expected);
    let done = decided.iter().filter(|(_, same)| same.is_none()).count();
    assert_eq!(n(&mesh).await, Some(done.to_string()));
    host.stop().await;
}

/// When the stream stored a message, in seconds.
async fn time_of(mesh: &Mesh, sequence: u64) -> f64 {
    let stream = mesh.js.get_stream("SOURCE").await.expect("it is there");
    let message = stream.get_raw_message(sequence).await.expect("it is there");
    // As the host has it, in milliseconds.
    (message.time.unix_timestamp_nanos() / 1_000_000) as f64 / 1000.0
}

#[tokio::test]
async fn an_emitted_event_that_comes_twice_is_done_once_by_the_handler_that_it_goes_to() {
    let lines = "stream = \"EVENTS\"\nsubjects = [\"events.added\"]\nstart = \"all\"\nbucket = \"counted\"";
    let (mesh, host) = Mesh::start(config("").handler("counter", &modules::handler("probe"), lines)).await;
    let counts = json!({ "op": "add", "key": "n", "by": 1 });
    let steps = json!({ "op": "emit", "subject": "events.added", "payload": counts });
    mesh.publish("source.a", steps.to_string()).await;
    mesh.wait_value("counted", "n", "1").await;
    // As a relay publishes it that does not know of the first time, to a stream that does not either.
    let event = mesh.wait_emitted(1).await.remove(0);
    let headers: Vec<(String, String)> = event
        .headers
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |v| (name.to_string(), v.to_string())))
        .filter(|(name, _)| name != "Nats-Msg-Id")
        .collect();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    mesh.publish_with("events.added", &headers, event.payload.clone()).await;
    mesh.wait_settled("EVENTS", "counter").await;
    let decisions = mesh.wait_decisions("counted", 2).await;
    assert_eq!(decisions[1]["same_as"], decisions[0]["event"], "{decisions:?}");
    assert_eq!(mesh.value("counted", "n").await.as_deref(), Some("1"));
    host.stop().await;
}

#[tokio::test]
async fn check_says_what_a_window_costs() {
    let dir = tempfile::TempDir::new().expect("a temporary folder");
    let text = config(BY_ID).text("nats://127.0.0.1:1");
    std::fs::write(dir.path().join("jetmesh.toml"), text).expect("the test's folder is writable");
    let (status, stdout, stderr) = cli::jetmesh_in(dir.path(), &["check", "--rate", "10"]).await;
    assert!(status.success(), "{stderr}");
    let line = stdout.lines().last().unwrap_or_default();
    insta::assert_snapshot!(line, @"probe: identity window 1day: at 10 events/s about 864000 entries of its ledger, 70 MB of memory on each host and 605 MB of disk; a host that starts or connects again reads them");
}

#[tokio::test]
async fn headers_that_a_service_has_copied_from_an_emitted_event_make_none_of_its_own_a_repetition_or_a_circle() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    mesh.order(json!({ "op": "emit", "subject": "events.added", "payload": "heard" }))
        .await;
    let heard = mesh.wait_emitted(1).await.remove(0);
    let copied = heard
        .headers
        .iter()
        .filter(|(name, _)| name.to_string().starts_with("Mesh-"));
    let copied: Vec<(String, String)> = copied
        .flat_map(|(name, values)| values.iter().map(|value| (name.to_string(), value.to_string())))
        .collect();
    assert!(copied.iter().any(|(name, _)| name == "Mesh-Event-Id"), "{copied:?}");
    for by in 1..=3 {
        let mut headers: Vec<(&str, &str)> = copied.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        if by == 3 {
            // It has been to and fro for long.
            headers.retain(|(name, _)| *name != "Mesh-Hops");
            headers.push(("Mesh-Hops", "40"));
        }
        let order = json!({ "op": "add", "key": "n", "by": by }).to_string();
        mesh.publish_with("orders.probe", &headers, order).await;
    }
    mesh.wait_value("probe", "n", "6").await;
    mesh.wait_settled("ORDERS", "probe").await;
    assert_eq!(mesh.letters().await.len(), 0);
    let warned = |line: &&String| line.contains("its headers were copied from an emitted event");
    assert_eq!(host.lines().iter().filter(warned).count(), 1, "once");
    // What bears the seal of its own payload is the event itself, however it comes.
    let own: Vec<(&str, &str)> = copied.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    for _ in 0..2 {
        mesh.publish_with("orders.probe", &own, heard.payload.clone()).await;
    }
    let decisions = mesh.wait_decisions("probe", 6).await;
    assert_eq!(decisions[5]["same_as"], decisions[4]["event"], "{decisions:?}");
    host.stop().await;
}
