//! Timers of handlers: each fires once, unless it is cancelled or set again before.

use serde_json::{Value, json};

use crate::delayed::lie_there;
use crate::mesh::{Config, Mesh, PATIENT};
use crate::support::wait::SOON;
use crate::support::{eventually, modules};

const HOUR_MS: u64 = 3_600_000;

fn set(name: &str, after_ms: u64, payload: &str) -> Value {
    json!({ "op": "timer_set", "name": name, "subject": "events.timer", "payload": payload, "after_ms": after_ms })
}

fn cancel(name: &str) -> Value {
    json!({ "op": "timer_cancel", "name": name })
}

/// The payloads of the events that timers have emitted.
async fn fired(mesh: &Mesh) -> Vec<String> {
    let events = mesh.messages("EVENTS", "events.timer").await;
    let mut fired: Vec<String> = events
        .iter()
        .map(|event| event.json().as_str().unwrap_or("?").to_owned())
        .collect();
    fired.sort();
    fired
}

#[track_caller]
fn wait_fired<'a>(mesh: &'a Mesh, wanted: &'a [&'a str]) -> impl Future<Output = ()> + 'a {
    eventually("timers to fire and nothing to be due", PATIENT, async move || {
        let settled = mesh.settled("MESH_DELAYED", "mesh-due").await.is_some();
        let fired = fired(mesh).await;
        assert!(fired.len() <= wanted.len(), "{fired:?}");
        (settled && fired == wanted && lie_there(mesh, "due").await.is_empty()).then_some(())
    })
}

#[tokio::test]
async fn a_timer_fires_once_also_if_no_host_was_up_at_its_time() {
    let probe = modules::handler("probe");
    let config = Config::new()
        .handler(
            "probe",
            &probe,
            "bucket = \"probe\"\nsubjects = [\"orders.probe\"]\npublish = [\"events.>\"]",
        )
        .handler(
            "plain",
            &probe,
            "subjects = [\"orders.plain\"]\npublish = [\"events.>\"]",
        );
    let (mesh, host) = Mesh::start(config).await;
    mesh.order(
        json!([set("a", 300, "one"), set("b", HOUR_MS, "never"), { "op": "reject", "code": "no", "message": "" }]),
    )
    .await;
    mesh.wait_letters(1).await;
    assert_eq!(
        mesh.value("probe", "mesh-timer.a").await,
        None,
        "what fails sets nothing"
    );
    mesh.order(json!([set("a", HOUR_MS, "never"), set("a", 300, "two")]))
        .await;
    wait_fired(&mesh, &["two"]).await;
    assert_eq!(mesh.value("probe", "mesh-timer.a").await, None, "it is no more");
    let event = mesh.messages("EVENTS", "events.timer").await.remove(0);
    assert_eq!(event.header("Mesh-Cause-Handler"), Some("probe"));
    assert_eq!(event.header("Nats-Msg-Id"), event.header("Mesh-Event-Id"));
    assert_eq!(event.header("Mesh-Delayed-Timer"), None);

    // One of a handler without a bucket is its own.
    mesh.order(set("a", 1500, "three")).await;
    mesh.publish("orders.plain", set("a", 1500, "four").to_string()).await;
    for (bucket, key) in [("probe", "mesh-timer.a"), ("mesh", "mesh-timer.plain.a")] {
        eventually("the timer's key", SOON, async || mesh.value(bucket, key).await).await;
    }
    host.stop().await;
    eventually("the timers to be due", SOON, async || {
        (lie_there(&mesh, "due").await.len() == 2).then_some(())
    })
    .await;
    let _host = mesh.host(&[]).await;
    wait_fired(&mesh, &["four", "three", "two"]).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_cancel_or_a_later_set_that_is_committed_before_a_firing_wins() {
    let mesh = Mesh::new(Config::probe()).await;
    // It has the firing of one in its hands, and stands still.
    let frozen = mesh.host_with_fault("timer-due:stop").await;
    let sequence = mesh
        .order(json!([
            set("cancelled", 300, "never"),
            set("again", HOUR_MS, "never"),
            set("kept", HOUR_MS, "never")
        ]))
        .await;
    crate::hosts::wait_frozen(&frozen).await;
    let trace = mesh.jetmesh_ok(&["trace", &format!("ORDERS:{sequence}")]).await;
    assert_eq!(
        trace.matches("emitted events.timer: delayed until").count(),
        2,
        "{trace}"
    );
    assert_eq!(trace.matches("emitted events.timer: due since").count(), 1, "{trace}");
    let _other = mesh.host(&[]).await;
    mesh.order(
        json!([cancel("cancelled"), cancel("none"), set("again", 100, "again"), { "op": "add", "key": "n", "by": 1 }]),
    )
    .await;
    mesh.wait_value("probe", "n", "1").await;
    frozen.signal(crate::support::Signal::CONT);
    wait_fired(&mesh, &["again"]).await;
    assert_eq!(mesh.value("probe", "mesh-timer.cancelled").await, None);
    assert!(mesh.value("probe", "mesh-timer.kept").await.is_some());
    let trace = mesh.jetmesh_ok(&["trace", &format!("ORDERS:{sequence}")]).await;
    assert_eq!(trace.matches("cancelled or set again").count(), 2, "{trace}");
    assert_eq!(trace.matches("delayed until").count(), 1, "{trace}");
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_that_is_killed_around_a_firing_fires_the_timer_once() {
    use std::os::unix::process::ExitStatusExt;

    let killed = async |fault: &str| {
        let mesh = Mesh::new(Config::probe()).await;
        let host = mesh.host_with_fault(fault).await;
        mesh.order(set("a", 100, "once")).await;
        assert_eq!(host.wait_exit(PATIENT).await.signal(), Some(9), "{fault}");
        let _host = mesh.host(&[]).await;
        wait_fired(&mesh, &["once"]).await;
        assert_eq!(mesh.value("probe", "mesh-timer.a").await, None);
    };
    // Each waits until the server delivers the timer again.
    tokio::join!(killed("timer-due:kill"), killed("timer-fired:kill"));
}
