//! Delayed events: they come at their time, once, whichever hosts run meanwhile.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::mesh::{Config, Found, Mesh, PATIENT, says};
use crate::support::wait::SOON;
use crate::support::{Signal, cli, eventually};

/// Longer than any test.
pub const HOUR_MS: u64 = 3_600_000;

pub fn later(after_ms: u64) -> Value {
    json!({ "op": "emit_later", "subject": "events.later", "payload": "it is time", "after_ms": after_ms })
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970");
    u64::try_from(since.as_millis()).expect("for a long time")
}

/// The subjects of `MESH_DELAYED` with this first word: `delay`, `due` or `fired`.
pub async fn lie_there(mesh: &Mesh, word: &str) -> Vec<String> {
    let filter = json!({ "subjects_filter": format!("$MESH.{word}.>") });
    let info: Value = mesh
        .js
        .request("STREAM.INFO.MESH_DELAYED", &filter)
        .await
        .expect("JetStream answers");
    let subjects = info["state"]["subjects"].as_object();
    subjects
        .into_iter()
        .flatten()
        .map(|(subject, _)| subject.clone())
        .collect()
}

#[track_caller]
pub fn wait_there(mesh: &Mesh, word: &'static str, count: usize) -> impl Future<Output = Vec<String>> {
    eventually("delayed events to lie there", PATIENT, async move || {
        let subjects = lie_there(mesh, word).await;
        (subjects.len() == count).then_some(subjects)
    })
}

/// Waits until this number of delayed events are published and noted, and none is due.
pub async fn wait_fired(mesh: &Mesh, count: usize) {
    eventually("delayed events to be fired", PATIENT, async || {
        let settled = mesh.settled("MESH_DELAYED", "mesh-due").await.is_some();
        let fired = lie_there(mesh, "fired").await.len();
        (settled && fired == count && lie_there(mesh, "due").await.is_empty()).then_some(())
    })
    .await;
}

/// Waits until all consequences in the probe's ledger are published and confirmed.
pub async fn wait_carried_out(mesh: &Mesh) {
    eventually("the relay to have confirmed", PATIENT, async || {
        mesh.settled("KV_probe", "mesh-relay").await
    })
    .await;
}

fn times(events: &[Found], subject: &str) -> usize {
    events.iter().filter(|event| event.subject == subject).count()
}

#[tokio::test]
async fn a_delayed_event_comes_at_its_time_as_if_it_had_not_been_delayed() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let asked = now_ms();
    let orders = json!({ "do": [
        { "op": "emit", "subject": "events.now", "payload": { "n": 1 }, "headers": {} },
        later(2000),
        { "op": "emit_later", "subject": "events.then", "payload": { "n": 3 }, "at_ms": asked + 2500 },
    ] });
    mesh.publish_with("orders.probe", &[("traceparent", trace)], orders.to_string())
        .await;
    wait_there(&mesh, "delay", 2).await;
    let events = mesh.wait_emitted(1).await;
    assert_eq!(events[0].subject, "events.now", "it does not wait for the others");
    mesh.wait_settled("ORDERS", "probe").await;

    let events = mesh.wait_emitted(3).await;
    assert!(now_ms() >= asked + 2500, "not before their time");
    let names = |event: &Found| -> Vec<(String, String)> {
        let all = event.headers.iter();
        let flat = all.flat_map(|(name, values)| values.iter().map(move |v| (name.to_string(), v.to_string())));
        let mut list: Vec<_> = flat
            .filter(|(name, _)| !name.ends_with("-Id") && name != "Mesh-Event-Seal")
            .collect();
        list.sort();
        list
    };
    for (number, event) in events.iter().enumerate() {
        assert_eq!(names(event), names(&events[0]), "{}", event.subject);
        let id = event.header("Mesh-Event-Id").expect("an event has an id");
        assert!(
            id.starts_with("probe.") && id.ends_with(&format!(".1.{number}")),
            "{id}"
        );
        assert_eq!(event.header("Nats-Msg-Id"), Some(id));
        assert_eq!(event.header("traceparent"), Some(trace));
    }
    assert_eq!(events[1].json(), "it is time");
    wait_fired(&mesh, 2).await;
    assert_eq!(lie_there(&mesh, "delay").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_delayed_event_that_is_due_with_no_host_up_is_published_by_the_next_host() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    mesh.order(json!([{ "op": "add", "key": "n", "by": 1 }, later(1500)]))
        .await;
    mesh.wait_settled("ORDERS", "probe").await;
    host.stop().await;
    // The server fires it although no host is there to take it.
    wait_there(&mesh, "due", 1).await;
    assert!(mesh.emitted().await.is_empty());

    // One whose handler cannot even have asked for it.
    let other = Config::new().handler(
        "other",
        &crate::support::modules::handler("probe"),
        "start = \"new\"\nledger = true",
    );
    let _other = mesh.host_of(&other, &mesh.server.url(), &[]).await;
    mesh.wait_emitted(1).await;
    wait_fired(&mesh, 1).await;
    assert_eq!(mesh.emitted().await.len(), 1);
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_killed_before_it_publishes_what_is_due_leaves_it_to_another() {
    let mesh = Mesh::new(Config::probe()).await;
    let killed = mesh.host_with_fault("event-due:kill").await;
    mesh.order(later(100)).await;
    assert_eq!(killed.wait_exit(PATIENT).await.signal(), Some(9));
    assert!(mesh.emitted().await.is_empty());
    let _host = mesh.host(&[]).await;
    wait_fired(&mesh, 1).await;
    assert_eq!(mesh.emitted().await.len(), 1);
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_that_freezes_over_what_is_due_finds_it_published_when_it_wakes() {
    let mesh = Mesh::new(Config::probe()).await;
    let frozen = mesh.host_with_fault("event-due:stop").await;
    mesh.order(later(100)).await;
    crate::hosts::wait_frozen(&frozen).await;
    let _other = mesh.host(&[]).await;
    wait_fired(&mesh, 1).await;
    let mark = frozen.lines().len();
    frozen.signal(Signal::CONT);
    // Its connections may be closed: then it starts again.
    mesh.order(json!({ "op": "emit", "subject": "events.now", "payload": 1 }))
        .await;
    frozen
        .wait_for_line_after(mark, says(&["what is due is published already"]), PATIENT)
        .await;
    mesh.wait_emitted(2).await;
    wait_fired(&mesh, 1).await;
    assert_eq!(times(&mesh.emitted().await, "events.later"), 1);
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_killed_after_it_published_what_was_due_has_published_it_once() {
    // When the event is delivered again, its target no longer knows its id.
    let window = "[streams.FORGETFUL]\nsubjects = [\"events2.>\"]\nduplicate_window = \"1s\"";
    let probe = crate::support::modules::handler("probe");
    let config = Config::new()
        .handler("probe", &probe, "bucket = \"probe\"\npublish = [\"events2.>\"]")
        .table(window);
    let mesh = Mesh::new(config).await;
    let killed = mesh.host_with_fault("due-published:kill").await;
    mesh.order(json!({ "op": "emit_later", "subject": "events2.later", "payload": 1, "after_ms": 100 }))
        .await;
    assert_eq!(killed.wait_exit(PATIENT).await.signal(), Some(9));
    let there = async || mesh.messages("FORGETFUL", ">").await.len();
    assert_eq!(there().await, 1);
    let _host = mesh.host(&[]).await;
    wait_fired(&mesh, 1).await;
    assert_eq!(there().await, 1);
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_relay_that_repeats_itself_schedules_nothing_twice() {
    let mesh = Mesh::new(Config::probe()).await;
    // It ends when all three are scheduled and nothing of that is recorded.
    let killed = mesh.host_with_fault("event-scheduled:kill:3").await;
    let other =
        |subject: &str, ms: u64| json!({ "op": "emit_later", "subject": subject, "payload": 1, "after_ms": ms });
    // When its publication is repeated, one has fired, one is fired about then, and one waits.
    mesh.order(json!([
        other("events.a", 100),
        other("events.b", 8000),
        other("events.c", HOUR_MS)
    ]))
    .await;
    assert_eq!(killed.wait_exit(PATIENT).await.signal(), Some(9));
    let mesh_of_one = mesh.host(&[]).await;
    wait_carried_out(&mesh).await;
    wait_fired(&mesh, 2).await;
    assert_eq!(lie_there(&mesh, "delay").await.len(), 1);
    let events = mesh.emitted().await;
    assert_eq!(
        (times(&events, "events.a"), times(&events, "events.b"), events.len()),
        (1, 1, 2)
    );
    drop(mesh_of_one);
}

#[tokio::test]
async fn a_server_killed_while_events_wait_still_fires_each_once() {
    let mut mesh = Mesh::new(Config::probe()).await;
    let _host = mesh.host(&[]).await;
    mesh.order(json!([later(1000), later(HOUR_MS)])).await;
    wait_carried_out(&mesh).await;
    mesh.server.kill9();
    mesh.server.restart().await;
    mesh.wait_emitted(1).await;
    wait_fired(&mesh, 1).await;
    assert_eq!(
        (mesh.emitted().await.len(), lie_there(&mesh, "delay").await.len()),
        (1, 1)
    );
}

#[tokio::test]
async fn what_fails_schedules_nothing_and_what_succeeds_writes_and_schedules_together() {
    let (mesh, _host) = Mesh::start(Config::probe_with("max_attempts = 2")).await;
    let work = json!([{ "op": "add", "key": "n", "by": 1 }, later(HOUR_MS)]);
    for failure in [
        json!({ "op": "reject", "code": "no", "message": "not this one" }),
        json!({ "op": "retry", "code": "later", "message": "never" }),
        json!({ "op": "trap" }),
        // Not granted, and then too far away: nothing of the call happens.
        json!({ "op": "emit_later", "subject": "inventory.reserved", "payload": 1, "after_ms": 1 }),
        json!({ "op": "emit_later", "subject": "events.x", "payload": 1, "after_ms": 367 * 24 * HOUR_MS }),
    ] {
        let mut steps = work.clone();
        steps.as_array_mut().expect("steps").push(failure);
        mesh.order(steps).await;
    }
    let letters = mesh.wait_letters(5).await;
    let errors: Vec<&str> = letters
        .iter()
        .filter_map(|letter| letter.header("Mesh-Error"))
        .collect();
    for part in [
        "may not publish on `inventory.reserved`",
        "can be delayed by at most 366 days, until ",
    ] {
        assert!(
            errors.iter().any(|error| error.contains(part)),
            "{errors:?} has no {part:?}"
        );
    }
    assert_eq!(lie_there(&mesh, "delay").await, Vec::<String>::new());
    mesh.order(work).await;
    wait_there(&mesh, "delay", 1).await;
    mesh.wait_settled("ORDERS", "probe").await;
    wait_carried_out(&mesh).await;
    assert_eq!(mesh.value("probe", "n").await.as_deref(), Some("1"));
    assert_eq!(lie_there(&mesh, "delay").await.len(), 1);
}

#[tokio::test]
async fn a_time_that_is_past_is_now() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    let at = |ms: u64| json!({ "op": "emit_later", "subject": "events.past", "payload": 1, "at_ms": ms });
    mesh.order(json!([at(0), at(now_ms() - 1000), later(0)])).await;
    mesh.wait_emitted(3).await;
    wait_carried_out(&mesh).await;
    assert_eq!(mesh.messages_left("MESH_DELAYED").await, 0);
}

/// What came to `nowhere.x`, which no stream takes, is a dead letter, and is replayed when a stream takes it. `ledger`: the stream of
/// the ledger that it follows from. Returns what has arrived.
pub async fn replayed_from_nowhere(mesh: &Mesh, ledger: &str) -> Vec<Found> {
    let letters = mesh.wait_letters(1).await;
    let header = |name| letters[0].header(name);
    assert_eq!(
        (header("Mesh-Cause"), header("Mesh-Subject"), header("Mesh-Stream")),
        (Some("undeliverable"), Some("nowhere.x"), Some(ledger))
    );
    mesh.add_stream(
        "NOWHERE",
        &["nowhere.>"],
        async_nats::jetstream::stream::RetentionPolicy::Limits,
    )
    .await;
    let (_, id) = letters[0]
        .subject
        .split_once(&format!("{ledger}."))
        .expect("it lies under its ledger");
    mesh.jetmesh_ok(&["dlq", "replay", id]).await;
    mesh.messages("NOWHERE", ">").await
}

#[tokio::test]
async fn a_delayed_event_that_no_stream_takes_becomes_a_dead_letter_that_can_be_replayed() {
    let probe = crate::support::modules::handler("probe");
    let config = Config::new().handler("probe", &probe, "bucket = \"probe\"\npublish = [\"nowhere.>\"]");
    let (mesh, _host) = Mesh::start(config).await;
    mesh.order(json!({ "op": "emit_later", "subject": "nowhere.x", "payload": "p", "after_ms": 100 }))
        .await;
    mesh.wait_letters(1).await;
    wait_fired(&mesh, 1).await;
    let found = replayed_from_nowhere(&mesh, "KV_probe").await;
    assert_eq!((found.len(), found[0].json()), (1, json!("p")));
}

#[tokio::test]
async fn garbage_among_what_is_due_stops_nobody() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    mesh.publish("$MESH.due.nobody.k.1.0", "no event of the mesh").await;
    host.wait_for_line(says(&["is due and no event of the mesh"]), SOON)
        .await;
    crate::poison::publish_raw(
        &mesh,
        b"$MESH.due.nobody.k.2.0",
        b"NATS/1.0\r\nno colon here\r\n\r\n",
        b"",
    );
    host.wait_for_line(says(&["can read is taken away", "MESH_DELAYED"]), PATIENT)
        .await;
    mesh.order(later(100)).await;
    mesh.wait_emitted(1).await;
    wait_fired(&mesh, 1).await;
}

#[tokio::test]
async fn the_nats_command_line_and_the_status_show_what_waits() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    mesh.order(json!([later(HOUR_MS), later(2 * HOUR_MS)])).await;
    let subjects = wait_there(&mesh, "delay", 2).await;
    assert!(
        mesh.jetmesh_ok(&["status"])
            .await
            .contains("delayed events and timers: 2 wait for their time")
    );
    let status: Value = serde_json::from_str(&mesh.jetmesh_ok(&["status", "--json"]).await).expect("JSON");
    assert_eq!(status["delayed"], json!({ "waiting": 2, "due": 0, "late_since": null }));

    let Some(listed) = cli::nats(&mesh.server, &["stream", "subjects", "MESH_DELAYED", "$MESH.delay.>"]).await else {
        return;
    };
    assert!(subjects.iter().all(|subject| listed.contains(subject)), "{listed}");
    let shown = cli::nats(
        &mesh.server,
        &["stream", "get", "MESH_DELAYED", "--last-for", &subjects[0]],
    )
    .await;
    let shown = shown.expect("it is there");
    for part in ["Mesh-Delayed-To: events.later", "Nats-Schedule: @at 20", "it is time"] {
        assert!(shown.contains(part), "{shown}");
    }
    // Removing it cancels it.
    let purge = ["stream", "purge", "MESH_DELAYED", "--force", "--subject", &subjects[0]];
    cli::nats(&mesh.server, &purge).await;
    eventually("one to be called off", Duration::from_secs(5), async || {
        (lie_there(&mesh, "delay").await.len() == 1).then_some(())
    })
    .await;
}
