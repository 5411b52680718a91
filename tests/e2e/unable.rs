//! What the mesh cannot store keeps events from going on: the status says so, of each of its streams and buckets.

use std::time::Duration;

use async_nats::jetstream::stream::{self, DiscardPolicy};
use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, PATIENT};
use crate::permissions::all_but;
use crate::schemas::{assert_fits, object};
use crate::support::wait::SOON;
use crate::support::{NatsServer, eventually, modules};
use crate::sweep::{bound_and_gone, next_of};

/// Longer than a target is tried that nothing waits for any more: ten seconds, and as long again.
const WELL_AFTER: Duration = Duration::from_secs(25);

/// Takes nothing from now on. Returns how it was.
async fn fill(mesh: &Mesh, name: &str) -> stream::Config {
    let stream = mesh.js.get_stream(name).await.expect("it is there");
    let was = stream.cached_info().config.clone();
    let full = stream::Config {
        max_bytes: 1,
        discard: DiscardPolicy::New,
        ..was.clone()
    };
    mesh.js.update_stream(full).await.expect("the limit is set");
    was
}

/// Waits until the one handler is degraded; returns its row.
async fn degraded(mesh: &Mesh) -> Value {
    eventually("the status to tell of it", PATIENT, async || {
        let (code, text, _) = mesh.jetmesh(&["status", "--json"]).await;
        let status: Value = serde_json::from_str(&text).ok()?;
        let row = &status["handlers"][0];
        (row["state"] == "degraded").then(|| {
            assert_eq!((code.code(), &status["serves"]), (Some(6), &json!(false)), "{status:#}");
            row.clone()
        })
    })
    .await
}

/// Waits until everything serves.
async fn serves(mesh: &Mesh) {
    eventually("everything to serve", PATIENT, async || {
        let (code, _, _) = mesh.jetmesh(&["status"]).await;
        (code.code() == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn events_whose_attempts_cannot_be_recorded_are_told_of_and_go_on_when_there_is_room() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    let was = fill(&mesh, "KV_mesh_attempts").await;
    mesh.order(json!([{ "op": "fail_until", "attempt": 2 }, { "op": "add", "key": "n", "by": 1 }]))
        .await;
    let row = degraded(&mesh).await;
    let why = row["why"].as_str().expect("it says why");
    for wanted in [
        "1 event waits: stream KV_mesh_attempts takes nothing: maximum bytes exceeded (10077)",
        "nats stream edit KV_mesh_attempts --max-bytes=",
    ] {
        assert!(why.contains(wanted), "{why}");
    }
    assert!(row["since"].is_string() && row["retrying"] == 0, "{row:#}");
    // An event that succeeds at once needs no record.
    mesh.order(json!({ "op": "add", "key": "other", "by": 1 })).await;
    mesh.wait_value("probe", "other", "1").await;
    let (_, text, _) = mesh.jetmesh(&["status"]).await;
    assert!(text.contains("probe is degraded (for "), "{text}");
    let text = mesh.jetmesh_ok(&["retrying"]).await;
    assert!(
        text.starts_with("probe is degraded (for ") && text.contains("1 event waits: stream KV_mesh_attempts"),
        "{text}"
    );
    let text = mesh.jetmesh_ok(&["trace", "ORDERS:1"]).await;
    for wanted in [
        "probe: delivered to a host, which has not decided it yet",
        "probe is degraded (for ",
        "1 event waits: stream KV_mesh_attempts takes nothing: maximum bytes exceeded (10077)",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let text = object(&mesh, &["trace", "ORDERS:1", "--json"]).await;
    assert_fits(&mesh, "trace", &text).await;
    let traced: Value = serde_json::from_str(&text).expect("JSON");
    let part = &traced["events"][0]["handlers"][0];
    assert_eq!(part["hindered"], row["hindered"], "{part:#}");
    // An event that is decided waits for nothing.
    let text = mesh.jetmesh_ok(&["trace", "ORDERS:2"]).await;
    assert!(text.contains("done at ") && !text.contains("degraded"), "{text}");
    mesh.js.update_stream(was).await.expect("the limit is taken away");
    eventually("the event to be done", PATIENT, async || {
        (mesh.value("probe", "n").await.as_deref() == Some("1")).then_some(())
    })
    .await;
    serves(&mesh).await;
    assert_eq!(mesh.jetmesh_ok(&["retrying"]).await, "nothing is being retried\n");
}

#[tokio::test]
async fn dead_letters_of_a_handler_without_a_ledger_wait_for_a_full_stream_and_the_status_says_so() {
    let bare = Config::new().handler("bare", &modules::handler("probe"), "subjects = [\"orders.probe\"]");
    let (mesh, _host) = Mesh::start(bare).await;
    let was = fill(&mesh, "MESH_DEAD").await;
    mesh.order(json!({ "op": "reject", "code": "no", "message": "never" }))
        .await;
    let row = degraded(&mesh).await;
    let why = row["why"].as_str().expect("it says why");
    assert!(why.contains("stream MESH_DEAD takes nothing"), "{why}");
    mesh.js.update_stream(was).await.expect("the limit is taken away");
    eventually("the letter", PATIENT, async || {
        (mesh.letters().await.len() == 1).then_some(())
    })
    .await;
    serves(&mesh).await;
}

#[tokio::test]
async fn events_that_were_lost_and_cannot_be_asked_for_again_are_told_of() {
    let mesh = Mesh::new(Config::probe()).await;
    bound_and_gone(&mesh).await;
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    // Behind the mesh's back: acked, and nothing done.
    let message = next_of(&mesh).await;
    message.ack().await.expect("acked");
    mesh.client.flush().await.expect("flushed");
    fill(&mesh, "MESH_REPLAY").await;
    let _host = mesh.host(&[]).await;
    let row = degraded(&mesh).await;
    let why = row["why"].as_str().expect("it says why");
    assert!(
        why.contains("what was lost is not looked for: stream MESH_REPLAY takes nothing"),
        "{why}"
    );
}

#[tokio::test]
async fn a_replay_that_a_full_stream_does_not_take_is_not_sent_and_says_why() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    let count = 3;
    for _ in 0..count {
        mesh.order(json!({ "op": "reject", "code": "no", "message": "never" }))
            .await;
    }
    mesh.wait_letters(count).await;
    let was = fill(&mesh, "MESH_REPLAY").await;
    let (status, stdout, stderr) = mesh.jetmesh(&["dlq", "replay", "--all", "--yes"]).await;
    assert_eq!(status.code(), Some(4), "{stdout}{stderr}");
    assert!(stdout.contains("sent 0 of 3 dead letters"), "{stdout}{stderr}");
    assert!(stdout.contains("3 not sent"), "{stdout}{stderr}");
    assert!(stderr.contains("error: stream MESH_REPLAY takes nothing"), "{stderr}");
    assert!(!stderr.contains("continue without this command"), "{stderr}");
    let (status, stdout, _) = mesh.jetmesh(&["dlq", "replay", "--all", "--yes", "--json"]).await;
    let told: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(status.code(), Some(4), "{told}");
    let counts = (&told["end"], &told["sent"], &told["not_sent"], &told["undecided"]);
    assert_eq!(counts, (&json!("broken"), &json!(0), &json!(3), &json!(0)), "{told}");
    mesh.js.update_stream(was).await.expect("the limit is taken away");
    let (_, stdout, _) = mesh
        .jetmesh(&["dlq", "replay", "--all", "--yes", "--max-failures", "100"])
        .await;
    assert!(stdout.contains("sent 3 of 3 dead letters, decided 3"), "{stdout}");
}

#[tokio::test]
async fn what_a_full_or_sealed_stream_of_dead_letters_does_not_take_is_counted_as_not_done() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    for _ in 0..2 {
        mesh.order(json!({ "op": "reject", "code": "no", "message": "never" }))
            .await;
    }
    let letters = mesh.wait_letters(2).await;
    let exported = mesh.jetmesh_ok(&["dlq", "export", "--all"]).await;
    let stream = mesh.js.get_stream("MESH_DEAD").await.expect("it is there");
    let sealed = stream::Config {
        sealed: true,
        ..stream.cached_info().config.clone()
    };
    mesh.js.update_stream(sealed).await.expect("it is sealed");
    let (status, stdout, stderr) = mesh.jetmesh(&["dlq", "discard", "--all", "--yes", "--json"]).await;
    let told: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(
        (status.code(), &told["discarded"]),
        (Some(4), &json!(0)),
        "{told}{stderr}"
    );
    let not_done = told["failed"].as_u64().zip(told["left"].as_u64());
    assert_eq!(not_done.map(|(failed, left)| failed + left), Some(2), "{told}");
    assert!(stderr.contains("stream MESH_DEAD takes nothing"), "{stderr}");
    assert_eq!(mesh.letters().await.len(), letters.len());
    // Nor is a letter put back there, whose subject is free.
    let incarnation = letters[0]
        .letter_id()
        .split('.')
        .nth(1)
        .expect("an event's incarnation");
    let file = mesh.dir.path().join("letters.jsonl");
    std::fs::write(&file, exported.replace(incarnation, "another")).expect("the test's folder is writable");
    let file = file.to_str().expect("UTF-8");
    let (status, stdout, stderr) = mesh.jetmesh(&["dlq", "import", file]).await;
    assert_eq!(status.code(), Some(4), "{stdout}{stderr}");
    assert!(
        stdout.starts_with("0 restored") && stderr.contains("takes nothing"),
        "{stdout}{stderr}"
    );
}

#[tokio::test]
async fn a_target_that_is_missing_is_not_said_to_be_free_before_it_has_taken_something() {
    let lines = "bucket = \"probe\"\npublish = [\"nowhere.>\"]";
    let config = Config::new().handler("probe", &modules::handler("probe"), lines);
    let (mesh, host) = Mesh::start(config).await;
    let emit = |subject: &str| json!({ "op": "emit", "subject": subject, "payload": 1 });
    mesh.order(emit("nowhere.a")).await;
    mesh.wait_letters(1).await;
    // Nothing waits for it, and nothing was tried for longer than a blocked target is tried.
    let quiet = eventually("nothing to wait for it", PATIENT, async || {
        let (_, text, _) = mesh.jetmesh(&["status", "--json"]).await;
        let status: Value = serde_json::from_str(&text).ok()?;
        let relay = status["ledgers"][0]["relay"].clone();
        let since = relay["blocked"][0]["since"].as_str()?;
        let since = humantime::parse_rfc3339(since).ok()?;
        let waited = since.elapsed().ok()? > WELL_AFTER;
        (relay["blocked"][0]["waiting"] == 0 && waited).then_some(relay)
    })
    .await;
    assert_eq!(
        (&quiet["state"], &quiet["blocked"][0]["letters"]),
        (&json!("works"), &json!(1)),
        "{quiet:#}"
    );
    let free = |line: &String| line.contains("a target is no longer blocked");
    assert_eq!(host.lines().into_iter().find(free), None);
    let text = mesh.jetmesh_ok(&["status"]).await;
    assert!(
        text.contains("relay of probe: nowhere.> takes nothing (for ")
            && text.contains("1 event(s) became dead letters, and none waits now"),
        "{text}"
    );
    mesh.add_stream("NOWHERE", &["nowhere.>"], stream::RetentionPolicy::Limits)
        .await;
    mesh.order(emit("nowhere.b")).await;
    let line = host
        .wait_for_line(|line| line.contains("a target is no longer blocked"), SOON)
        .await;
    assert!(line.contains("letters=1"), "{line}");
    let blocked = line.split("blocked=").nth(1).unwrap_or_default();
    assert!(
        blocked.split('.').next().and_then(|s| s.parse::<u64>().ok()) >= Some(WELL_AFTER.as_secs()),
        "it says how long it took nothing: {line}"
    );
}

#[tokio::test]
async fn delayed_events_that_are_due_and_cannot_be_published_are_told_of_as_late() {
    let server = NatsServer::start_with(&all_but("$MESH.fired.>")).await;
    let config = Config::probe().nats("user = \"host\"").nats("password = \"pw\"");
    let mut mesh = Mesh::over(server, config).await;
    let _host = mesh.host(&[]).await;
    mesh.order(json!({ "op": "emit_later", "subject": "events.later", "payload": 1, "after_ms": 100 }))
        .await;
    let told = eventually("the status to tell of it", PATIENT, async || {
        let (code, text, _) = mesh.jetmesh(&["status"]).await;
        text.contains("delayed events and timers are late: one has been due since")
            .then_some((code.code(), text))
    })
    .await;
    assert_eq!(told.0, Some(6), "{}", told.1);
    mesh.server.restart_with(&all_but("nothing.>")).await;
    mesh.wait_emitted(1).await;
    serves(&mesh).await;
}
