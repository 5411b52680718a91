//! One death is described in one way, whichever way it was found.

use std::os::unix::process::ExitStatusExt;

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, PATIENT};
use crate::support::Host;
use crate::sweep::wait_given_up;

/// An event that fails in both of its attempts, and as often as it is tried.
async fn fails(mesh: &Mesh) {
    mesh.order(json!({ "op": "retry", "code": "later", "message": "not now" }))
        .await;
}

async fn ends(mesh: &Mesh, host: Host, letters: usize) {
    mesh.wait_letters(letters).await;
    host.stop().await;
}

/// The host dies there, and the server gives up on the event while no host runs.
#[cfg(feature = "failpoints")]
async fn given_up(mesh: &Mesh, fault: &str) {
    let host = mesh.host_with_fault(&format!("host-verdict:off,{fault}")).await;
    fails(mesh).await;
    assert_eq!(host.wait_exit(PATIENT).await.signal(), Some(9));
    wait_given_up(mesh).await;
}

/// Then only the sweep finds it.
async fn without_advisories(mesh: &Mesh) {
    let advisories = mesh.js.get_stream("MESH_ADVISORIES").await.expect("it is there");
    advisories.purge().await.expect("purged");
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn the_same_death_is_in_one_group_by_the_hosts_verdict_an_advisory_or_the_sweep() {
    let mesh = Mesh::new(Config::probe_with("max_attempts = 2\ndeliver_slack = 1")).await;
    // Its own failure: told by the host that runs the last attempt, by the server, and found by the sweep.
    let host = mesh.host(&[]).await;
    fails(&mesh).await;
    ends(&mesh, host, 1).await;
    let host = mesh.host_with_fault("host-verdict:off").await;
    fails(&mesh).await;
    ends(&mesh, host, 2).await;
    given_up(&mesh, "before-ack:kill:3").await;
    without_advisories(&mesh).await;
    ends(&mesh, mesh.host(&[]).await, 3).await;
    // Its host's: the same three ways.
    let host = mesh.host_with_fault("before-run:kill:2").await;
    fails(&mesh).await;
    assert_eq!(host.wait_exit(PATIENT).await.signal(), Some(9));
    ends(&mesh, mesh.host(&[]).await, 4).await;
    given_up(&mesh, "before-run:kill:3").await;
    ends(&mesh, mesh.host(&[]).await, 5).await;
    without_advisories(&mesh).await;
    given_up(&mesh, "before-run:kill:3").await;
    without_advisories(&mesh).await;
    ends(&mesh, mesh.host(&[]).await, 6).await;

    let groups = mesh.jetmesh_ok(&["dlq", "ls", "--group", "--json"]).await;
    let groups: Vec<Value> = groups
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    let of = |group: &Value| [group["code"].clone(), group["cause"].clone(), group["count"].clone()];
    let mut found: Vec<_> = groups.iter().map(of).collect();
    found.sort_by_key(|group| group[0].to_string());
    let wanted = ["host-ended", "later"].map(|code| [json!(code), json!("exhausted"), json!(3)]);
    assert_eq!(found, wanted, "{groups:?}");
}
