//! What a person does with delayed events: they come now, or never.

use serde_json::{Value, json};

use crate::delayed::{HOUR_MS, later, lie_there, wait_carried_out, wait_fired, wait_there};
use crate::mesh::{Config, Mesh, PATIENT};
use std::os::unix::process::ExitStatusExt;

/// The ids of what waits, as `jetmesh delayed` lists it.
pub async fn listed(mesh: &Mesh) -> Vec<String> {
    let text = mesh.jetmesh_ok(&["delayed", "--json"]).await;
    let line = |line: &str| serde_json::from_str::<Value>(line).expect("each line is JSON");
    let id = |line: Value| line["id"].as_str().expect("an id").to_owned();
    text.lines().map(line).map(id).collect()
}

#[tokio::test]
async fn a_delayed_event_comes_now_or_never_if_a_person_says_so() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    let order = mesh
        .order(json!([later(HOUR_MS), later(2 * HOUR_MS), later(3 * HOUR_MS)]))
        .await;
    wait_there(&mesh, "delay", 3).await;
    let ids = listed(&mesh).await;
    assert!(
        ids.iter().enumerate().all(|(n, id)| id.ends_with(&format!(".1.{n}"))),
        "due next first: {ids:?}"
    );
    assert_eq!(mesh.jetmesh_ok(&["delayed", "now", &ids[0]]).await, "1 event due now\n");
    mesh.wait_emitted(1).await;
    assert_eq!(mesh.emitted().await[0].header("Mesh-Event-Id"), Some(&*ids[0]));
    wait_fired(&mesh, 1).await;

    let cancel = ["delayed", "cancel", &ids[1], "--reason", "sold out", "--yes"];
    assert_eq!(mesh.jetmesh_ok(&cancel).await, "cancelled 1 event\n");
    assert_eq!(listed(&mesh).await, [ids[2].clone()]);
    let traced = mesh.jetmesh_ok(&["trace", &format!("ORDERS:{order}")]).await;
    let cancelled = traced
        .lines()
        .find(|line| line.contains("and cancelled by "))
        .expect("the trace tells it");
    assert!(cancelled.ends_with(": sold out"), "{cancelled}");
    // One that came, one that never comes, and one that a host publishes at this moment.
    let at_work = format!("$MESH.fired.{}", ids[2]);
    mesh.publish(&at_work, "").await;
    for id in &ids {
        let (status, stdout, stderr) = mesh.jetmesh(&["delayed", "cancel", id, "--yes"]).await;
        assert_eq!((status.code(), &*stdout), (Some(1), "cancelled 0 events\n"));
        assert!(stderr.contains(&format!("{id} does not wait: it is due")), "{stderr}");
    }
    assert_eq!(listed(&mesh).await, [ids[2].clone()], "it is left to the host");
    let (status, _, stderr) = mesh.jetmesh(&["delayed", "now", "a.*.1.0"]).await;
    assert_eq!(status.code(), Some(2));
    assert!(stderr.contains("not HANDLER.INCARNATION.SEQUENCE.NUMBER"), "{stderr}");
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_cancelled_event_is_not_scheduled_again_by_a_relay_that_repeats_itself() {
    let mesh = Mesh::new(Config::probe()).await;
    let killed = mesh.host_with_fault("event-scheduled:kill").await;
    mesh.order(later(HOUR_MS)).await;
    assert_eq!(killed.wait_exit(PATIENT).await.signal(), Some(9));
    let [id] = &listed(&mesh).await[..] else {
        panic!("one waits")
    };
    mesh.jetmesh_ok(&["delayed", "cancel", id, "--yes"]).await;
    let _host = mesh.host(&[]).await;
    wait_carried_out(&mesh).await;
    assert_eq!(lie_there(&mesh, "delay").await, Vec::<String>::new());
}
