//! A panic in the host ends one step, is told and counted, and nothing stands still.

use serde_json::{Value, json};

use crate::audit::{judge, publish_work};
use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::wait::SOON;
use crate::support::{Host, eventually};

/// What has panicked on the only host, by `status --json`.
async fn panicked(mesh: &Mesh) -> Vec<(String, u64)> {
    let (_, status, _) = mesh.jetmesh(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let told = status["hosts"][0]["data"]["panics"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let one = |told: &Value| Some((told["task"].as_str()?.to_owned(), told["count"].as_u64()?));
    told.iter().filter_map(one).collect()
}

/// The host says that the task has panicked, counts it, and ends well.
async fn told(mesh: &Mesh, host: &Host, task: &str) {
    eventually(format!("the panic of {task} to be counted"), SOON, async || {
        (panicked(mesh).await == [(task.to_owned(), 1)]).then_some(())
    })
    .await;
    let line = host
        .wait_for_line(says(&["ERROR", "panicked", "the fault"]), SOON)
        .await;
    assert!(!line.contains("RUST_BACKTRACE"), "{line}");
    host.stop().await;
}

/// Work of which some happens before the panic and some after: all of it happens, once.
#[cfg(feature = "failpoints")]
async fn goes_on(fault: &str, task: &str) {
    let mesh = Mesh::new(Config::probe()).await;
    let host = mesh.host_with_fault(fault).await;
    publish_work(&mesh, 20, 3).await;
    judge(&mesh, 20, 3).await;
    told(&mesh, &host, task).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_committer_that_panics_is_begun_again() {
    goes_on("committer:panic:2", "committer of probe").await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_committer_that_panics_after_its_commit_does_it_no_second_time() {
    goes_on("commit-confirmed:panic", "committer of probe").await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_step_of_the_ledger_that_panics_half_way_is_not_believed() {
    goes_on("book-held:panic", "committer of probe").await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_relay_that_panics_is_begun_again() {
    goes_on("relay-published:panic", "relay of probe").await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn an_event_that_panics_is_put_off_and_its_neighbours_go_on() {
    goes_on("before-run:panic:3", "event of probe").await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_lane_that_panics_is_begun_again() {
    let mesh = Mesh::new(Config::probe()).await;
    let config = mesh.config.text(&mesh.server.url());
    let host = Host::start(&config, mesh.dir.path(), &[("MESH_FAULT", "before-bind:panic")]);
    host.wait_for_line(says(&["serving", "handler=probe "]), PATIENT).await;
    publish_work(&mesh, 4, 2).await;
    judge(&mesh, 4, 2).await;
    told(&mesh, &host, "lane of probe").await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_sweep_that_panics_does_not_stop_its_lane() {
    goes_on("sweep:panic", "sweep of probe").await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn what_publishes_due_events_is_begun_again_when_it_panics() {
    let mesh = Mesh::new(Config::probe()).await;
    let host = mesh.host_with_fault("event-due:panic").await;
    mesh.order(json!({ "op": "emit_later", "subject": "events.later", "payload": 1, "after_ms": 100 }))
        .await;
    eventually("the event to come, once", PATIENT, async || {
        (mesh.messages("EVENTS", "events.later").await.len() == 1).then_some(())
    })
    .await;
    told(&mesh, &host, "due events").await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_that_panics_while_it_answers_status_answers_again() {
    let mesh = Mesh::new(Config::probe()).await;
    let host = mesh.host_with_fault("micro:panic").await;
    told(&mesh, &host, "micro service").await;
}
