//! A target that does not take what is emitted to it harms only itself: the rest of its ledger goes on, and in the end there
//! is a letter.

use std::time::Duration;

use async_nats::jetstream::stream::{self, DiscardPolicy};
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};

use crate::mesh::{Config, Found, Mesh, PATIENT, says};
use crate::metrics;
use crate::support::server::{Options, round_trip};
use crate::support::wait::SOON;
use crate::support::{NatsServer, Signal, eventually, http, modules};

fn probe() -> Config {
    let lines = "bucket = \"probe\"\npublish = [\"events.>\", \"full.>\", \"nowhere.>\"]";
    Config::new().handler("probe", &modules::handler("probe"), lines)
}

fn emit(subject: &str, payload: impl Into<Value>) -> Value {
    json!({ "op": "emit", "subject": subject, "payload": payload.into() })
}

fn rejected() -> Value {
    json!({ "op": "reject", "code": "no", "message": "as ordered" })
}

/// A stream `FULL` on `full.>` that takes this number of messages and no more.
async fn full(mesh: &Mesh, max_messages: i64) -> stream::Config {
    let config = stream::Config {
        name: "FULL".to_owned(),
        subjects: vec!["full.>".to_owned()],
        max_messages,
        discard: DiscardPolicy::New,
        ..stream::Config::default()
    };
    mesh.js.create_stream(config.clone()).await.expect("the stream is made");
    config
}

/// The letters of events that their targets do not take.
async fn undeliverable(mesh: &Mesh) -> Vec<Found> {
    let mut letters = mesh.letters().await;
    letters.retain(|letter| letter.header("Mesh-Cause") == Some("undeliverable"));
    letters
}

#[track_caller]
fn wait_undeliverable(mesh: &Mesh, count: usize) -> impl Future<Output = Vec<Found>> {
    eventually("undeliverable letters", PATIENT, async move || {
        let letters = undeliverable(mesh).await;
        (letters.len() == count).then_some(letters)
    })
}

/// The state that the active relay of a ledger reports.
async fn relay(mesh: &Mesh, ledger: &str) -> Option<Value> {
    let answer = mesh.client.request("$SRV.STATS.jetmesh", "".into()).await.ok()?;
    let stats: Value = serde_json::from_slice(&answer.payload).expect("stats are JSON");
    let relays = stats["relays"].as_array()?;
    relays.iter().find(|relay| relay["ledger"] == ledger).cloned()
}

#[tokio::test]
async fn an_event_too_large_for_the_server_becomes_a_letter_and_everything_else_goes_on() {
    // It was decided while the server took larger messages.
    let mut mesh = Mesh::new(probe()).await;
    let without = mesh.config.clone().top("relay = false");
    let first = mesh.host_of(&without, &mesh.server.url(), &[]).await;
    mesh.order(json!({ "op": "emit_many", "subject": "events.big", "count": 1, "bytes": 70_000 }))
        .await;
    mesh.order(emit("events.ok", 1)).await;
    mesh.order(rejected()).await;
    mesh.wait_decisions("probe", 3).await;
    first.stop().await;
    mesh.server.stop().await;
    let small = Options {
        max_payload: Some(65_536),
        ..Options::default()
    };
    mesh.server.restart_with(&small).await;

    let second = mesh.host(&[]).await;
    let letters = mesh.wait_letters(2).await;
    let letter = undeliverable(&mesh).await.pop().expect("one of them is that event's");
    assert_eq!(letter.header("Mesh-Subject"), Some("events.big"));
    assert_eq!(letter.header("Mesh-Parts"), Some("3"), "{letters:?}");
    let parts = mesh.messages("MESH_DEAD", &format!("{}.part.>", letter.subject)).await;
    let bytes: usize = parts.iter().map(|part| part.payload.len()).sum();
    assert_eq!(bytes, 70_000, "it is whole");
    mesh.wait_emitted(1).await;
    second.signal(Signal::TERM);
    assert!(
        second.wait_exit(SOON).await.success(),
        "nothing is left to be carried out"
    );
}

#[tokio::test]
async fn a_letter_is_stored_however_many_header_bytes_its_event_brings_along() {
    let (mesh, _host) = Mesh::start(probe()).await;
    // As much as JetStream takes, so that with the letter's own it is too much.
    let large = "x".repeat(65_400);
    let order = rejected().to_string();
    mesh.publish_with("orders.probe", &[("Large", &large), ("Small", "y")], order)
        .await;
    let letters = mesh.wait_letters(1).await;
    let letter = &letters[0];
    assert_eq!((letter.header("Small"), letter.header("Large")), (Some("y"), None));
    let cut: usize = letter
        .header("Mesh-Original-Headers-Cut")
        .and_then(|bytes| bytes.parse().ok())
        .expect("it says how many bytes there were");
    assert!(cut > 65_400, "{cut}");
    mesh.order(emit("events.after", 1)).await;
    mesh.wait_emitted(1).await;
}

#[tokio::test]
async fn a_full_target_stops_nothing_else_and_its_events_become_letters_once() {
    let mesh = Mesh::new(probe()).await;
    let config = full(&mesh, 1).await;
    let host = mesh.host(&[]).await;
    let mut heard = mesh.client.subscribe("$MESH.dead.>").await.expect("connected");
    round_trip(&mesh.client).await;
    mesh.order(json!([
        emit("full.a", 1),
        emit("full.b", 2),
        emit("full.c", 3),
        emit("events.x", 4),
        { "op": "emit_later", "subject": "events.later", "payload": 5, "after_ms": 100 },
    ]))
    .await;
    mesh.order(rejected()).await;
    mesh.order(emit("events.y", 6)).await;
    mesh.wait_emitted(3).await;
    mesh.wait_letters(1).await;
    assert_eq!(
        undeliverable(&mesh).await.len(),
        0,
        "all else was there before they are given up"
    );
    let relay = eventually("the relay to tell of it", SOON, async || {
        let relay = relay(&mesh, "probe").await?;
        (relay["blocked"][0]["waiting"] == 2).then_some(relay)
    })
    .await;
    assert_eq!(
        (&relay["active"], &relay["blocked"][0]["target"]),
        (&json!(true), &json!("FULL"))
    );
    assert!(!relay["oldest"].is_null(), "{relay}");

    let letters = wait_undeliverable(&mesh, 2).await;
    let why = letters[0].header("Mesh-Error").expect("a letter says why");
    assert_eq!(why, "maximum messages exceeded (10077)");
    mesh.order(emit("full.d", 7)).await;
    mesh.order(emit("events.z", 8)).await;
    mesh.wait_emitted(4).await;
    wait_undeliverable(&mesh, 3).await;

    let mut count = 0;
    while heard.next().now_or_never().flatten().is_some() {
        count += 1;
    }
    assert_eq!(count, 4, "no letter was published again in a next round");
    assert_eq!(mesh.emitted().await.len(), 4, "and no event");
    assert_eq!(mesh.messages("FULL", ">").await.len(), 1);

    let open = stream::Config {
        max_messages: -1,
        ..config
    };
    mesh.js.update_stream(open).await.expect("the stream takes more");
    mesh.jetmesh_ok(&["dlq", "replay", "--cause", "undeliverable", "--yes"])
        .await;
    eventually("the events to be there", SOON, async || {
        (mesh.messages("FULL", ">").await.len() == 4).then_some(())
    })
    .await;
    host.signal(Signal::TERM);
    assert!(
        host.wait_exit(SOON).await.success(),
        "nothing is left to be carried out"
    );
}

#[tokio::test]
async fn events_that_a_full_target_refused_are_counted_and_the_status_names_it_until_it_has_room() {
    let mesh = Mesh::new(probe()).await;
    let config = full(&mesh, 5).await;
    let host = mesh.host(&[("JETMESH_ADMIN__LISTEN", "127.0.0.1:0")]).await;
    let address = host.wait_for_line(says(&["the admin address answers"]), SOON).await;
    let address = http::address(&address);
    mesh.order(json!([
        emit("full.a", 1),
        emit("full.b", 2),
        emit("full.c", 3),
        emit("full.d", 4)
    ]))
    .await;
    let near = eventually("the status to warn", SOON, async || {
        let (status, text, _) = mesh.jetmesh(&["status"]).await;
        text.contains("may hold 5 messages and holds 4")
            .then_some((status, text))
    });
    let (status, text) = near.await;
    assert_eq!(status.code(), Some(0), "{text}");
    let later = json!({ "op": "emit_later", "subject": "full.later", "payload": 5, "after_ms": 100 });
    mesh.order(json!([emit("full.e", 5), emit("full.f", 6), emit("full.g", 7), later]))
        .await;
    wait_undeliverable(&mesh, 3).await;
    let text = metrics::plain(address).await;
    assert_eq!(
        metrics::value(&text, "jetmesh_undeliverable_total{ledger=\"probe\"}"),
        Some(3.0),
        "{text}"
    );
    assert_eq!(
        metrics::value(&text, "jetmesh_relay_blocked_targets{ledger=\"probe\"}"),
        Some(1.0)
    );
    // Nothing waits any more, and the next event would be refused all the same.
    let (status, text, _) = mesh.jetmesh(&["status"]).await;
    assert_eq!(status.code(), Some(6), "{text}");
    assert!(text.contains("may hold 5 messages and holds 5"), "{text}");
    let open = stream::Config {
        max_messages: -1,
        ..config
    };
    mesh.js.update_stream(open).await.expect("the stream takes more");
    eventually("the status to find room", SOON, async || {
        let (status, _, _) = mesh.jetmesh(&["status"]).await;
        (status.code() == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_a_full_target_is_published_when_it_takes_events_again() {
    let mesh = Mesh::new(probe()).await;
    let config = full(&mesh, 1).await;
    let host = mesh.host(&[]).await;
    mesh.order(json!([emit("full.a", 1), emit("full.b", 2), emit("full.c", 3)]))
        .await;
    host.wait_for_line(says(&["a target takes nothing", "FULL"]), SOON)
        .await;
    let open = stream::Config {
        max_messages: 10,
        ..config
    };
    mesh.js.update_stream(open).await.expect("the stream takes more");
    eventually("the events to be there", SOON, async || {
        (mesh.messages("FULL", ">").await.len() == 3).then_some(())
    })
    .await;
    host.wait_for_line(says(&["no longer blocked", "FULL"]), SOON).await;
    assert_eq!(undeliverable(&mesh).await.len(), 0);
}

#[tokio::test]
async fn events_on_many_subjects_of_a_missing_stream_keep_nothing_back() {
    let (mesh, _host) = Mesh::start(probe()).await;
    for number in 0..20 {
        mesh.order(json!([
            emit(&format!("nowhere.{number}"), number),
            emit("events.x", number),
        ]))
        .await;
    }
    mesh.wait_emitted(20).await;
    assert_eq!(undeliverable(&mesh).await.len(), 0, "none of them is given up yet");
    let letters = wait_undeliverable(&mesh, 20).await;
    let given_up: Vec<i128> = letters.iter().map(|letter| letter.time_ms).collect();
    let (first, last) = (given_up.iter().min(), given_up.iter().max());
    let within = last.zip(first).map(|(last, first)| last - first);
    assert!(within.is_some_and(|ms| ms < 8000), "they wait together: {within:?} ms");
}

#[tokio::test]
async fn an_event_on_a_denied_subject_becomes_a_letter_that_says_so() {
    let host = "{ user: host, password: pw, permissions: { publish: { deny: [\"events.denied\"] } } }";
    let options = Options {
        config: format!("no_auth_user: test\nauthorization {{ users: [{{ user: test, password: pw }}, {host}] }}"),
        ..Options::default()
    };
    let server = NatsServer::start_with(&options).await;
    let config = probe().nats("user = \"host\"").nats("password = \"pw\"");
    let mesh = Mesh::over(server, config).await;
    let _host = mesh.host(&[]).await;
    mesh.order(json!([emit("events.denied", 1), emit("events.ok", 2)]))
        .await;
    mesh.order(emit("events.ok", 3)).await;
    mesh.wait_emitted(2).await;
    let letters = wait_undeliverable(&mesh, 1).await;
    let why = letters[0].header("Mesh-Error").expect("a letter says why");
    assert!(why.contains("not allowed to publish to `events.denied`"), "{why}");
}

#[tokio::test]
async fn letters_wait_for_a_full_stream_of_dead_letters_and_events_do_not() {
    let (mesh, _host) = Mesh::start(probe()).await;
    mesh.order(rejected()).await;
    mesh.wait_letters(1).await;
    let mut stream = mesh.js.get_stream("MESH_DEAD").await.expect("it is there");
    let config = stream.info().await.expect("it tells").config.clone();
    let closed = stream::Config {
        max_messages: 1,
        discard: DiscardPolicy::New,
        ..config.clone()
    };
    mesh.js.update_stream(closed).await.expect("the limit is set");
    mesh.order(rejected()).await;
    mesh.order(json!([emit("events.a", 1), emit("nowhere.b", 2)])).await;
    mesh.order(emit("events.c", 3)).await;
    mesh.wait_emitted(2).await;
    eventually("the relay to tell of it", PATIENT, async || {
        let relay = relay(&mesh, "probe").await?;
        let dead = relay["blocked"]
            .as_array()?
            .iter()
            .find(|b| b["target"] == "MESH_DEAD")?;
        (dead["waiting"] == 2).then_some(())
    })
    .await;
    assert_eq!(mesh.letters().await.len(), 1);
    mesh.js.update_stream(config).await.expect("the limit is taken away");
    let letters = mesh.wait_letters(3).await;
    assert_eq!(undeliverable(&mesh).await.len(), 1, "{letters:?}");
}

#[tokio::test]
async fn a_missing_stream_of_dead_letters_is_made_again_while_the_relay_works() {
    let (mesh, _host) = Mesh::start(probe()).await;
    mesh.order(emit("events.a", 1)).await;
    mesh.wait_emitted(1).await;
    mesh.js.delete_stream("MESH_DEAD").await.expect("it is removed");
    mesh.order(rejected()).await;
    mesh.order(emit("events.b", 2)).await;
    mesh.wait_emitted(2).await;
    mesh.wait_letters(1).await;
}

#[tokio::test]
async fn a_delayed_event_for_a_full_target_becomes_a_letter_and_the_others_come_at_their_time() {
    let mesh = Mesh::new(probe()).await;
    full(&mesh, 1).await;
    let _host = mesh.host(&[]).await;
    mesh.publish("full.first", "it is full now").await;
    for number in 0..70 {
        mesh.order(json!([
            { "op": "emit_later", "subject": "full.later", "payload": number, "after_ms": 50 },
            { "op": "emit_later", "subject": "events.later", "payload": number, "after_ms": 50 },
        ]))
        .await;
    }
    mesh.wait_emitted(70).await;
    let letters = wait_undeliverable(&mesh, 70).await;
    let last_event = mesh.emitted().await.iter().map(|event| event.time_ms).max();
    let first_letter = letters.iter().map(|letter| letter.time_ms).min();
    assert!(last_event < first_letter, "none waited for those that are refused");
}

#[tokio::test]
async fn neighbours_of_a_full_target_are_as_fast_as_without_it() {
    let mesh = Mesh::new(probe()).await;
    full(&mesh, 1).await;
    let _host = mesh.host(&[]).await;
    // Orders at a steady pace; how long after each its event is there, by the server's clock.
    let took = async |blocked: bool| -> Vec<i128> {
        let before = mesh.emitted().await.len();
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        let mut sequences = Vec::new();
        for number in 0..300 {
            pace.tick().await;
            let other = if blocked { "full.a" } else { "events.other" };
            let mut steps = vec![emit("events.measured", number)];
            steps.push(emit(other, number));
            sequences.push(mesh.order(json!(steps)).await);
        }
        let count = before + if blocked { 300 } else { 600 };
        let emitted = mesh.wait_emitted(count).await;
        let orders = mesh.messages("ORDERS", ">").await;
        let ordered = |event: &Found| {
            let cause = event.header("Mesh-Cause-Event").and_then(|id| id.rsplit_once('.'));
            let sequence = cause.and_then(|(_, sequence)| sequence.parse().ok()).unwrap_or(0);
            orders
                .iter()
                .find(|order| order.sequence == sequence)
                .map(|order| order.time_ms)
        };
        let measured = emitted[before..]
            .iter()
            .filter(|event| event.subject == "events.measured");
        let mut took: Vec<i128> = measured
            .filter_map(|event| Some(event.time_ms - ordered(event)?))
            .collect();
        assert_eq!(took.len(), sequences.len());
        took.sort_unstable();
        took
    };
    let without = took(false).await;
    let with = took(true).await;
    let (p50, p99) = (took_at(&without, 50), took_at(&without, 99));
    let told = format!(
        "p50 {p50}, p99 {p99} ms without; {}, {} ms with",
        took_at(&with, 50),
        took_at(&with, 99)
    );
    // A relay that breaks off costs everything half a second at least, again and again. A busy machine costs a few of them that much.
    assert!(took_at(&with, 50) <= 2 * p50 + 100, "{told}");
    assert!(took_at(&with, 90) <= 2 * took_at(&without, 90) + 400, "{told}");
    eprintln!("{told}");
}

/// A percentile of sorted values.
fn took_at(sorted: &[i128], percent: usize) -> i128 {
    sorted[(sorted.len() - 1) * percent / 100]
}

#[tokio::test]
async fn what_was_confirmed_before_a_kill_is_not_published_again_though_a_target_was_full() {
    let mesh = Mesh::new(probe()).await;
    full(&mesh, 1).await;
    let first = mesh.host(&[]).await;
    mesh.order(json!([emit("full.a", 1), emit("full.b", 2), emit("events.x", 3)]))
        .await;
    mesh.order(emit("events.y", 4)).await;
    mesh.wait_emitted(2).await;
    first.signal(Signal::KILL);
    first.wait_exit(PATIENT).await;
    // Its ids are forgotten there, so that only a look keeps it from being published again.
    let mut stream = mesh.js.get_stream("EVENTS").await.expect("it is there");
    let config = stream.info().await.expect("it tells").config.clone();
    let short = stream::Config {
        duplicate_window: Duration::from_millis(100),
        ..config
    };
    mesh.js.update_stream(short).await.expect("the window is short");
    let _second = mesh.host(&[]).await;
    wait_undeliverable(&mesh, 1).await;
    assert_eq!(mesh.emitted().await.len(), 2);
    let streams = mesh.messages("FULL", ">").await;
    assert_eq!(streams.len(), 1);
}
