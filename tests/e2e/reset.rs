//! `jetmesh reset`: a handler begins anew, and nothing of the time before is left to disturb it.

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, PATIENT};
use crate::support::{Host, Signal, eventually};

async fn stop(host: Host) {
    host.signal(Signal::TERM);
    assert_eq!(host.wait_exit(PATIENT).await.code(), Some(0), "a host ends well");
}

/// A mesh whose handler has done one order and died of another; no host runs.
async fn one_done_and_one_dead(config: Config) -> Mesh {
    let (mesh, host) = Mesh::start(config).await;
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    mesh.order(json!({ "op": "reject", "code": "no", "message": "not this one" }))
        .await;
    mesh.wait_letters(1).await;
    mesh.wait_settled("ORDERS", "probe").await;
    stop(host).await;
    mesh
}

#[tokio::test]
async fn a_handler_that_is_reset_begins_where_its_start_says() {
    let mesh = one_done_and_one_dead(Config::probe_with("start = \"all\"")).await;
    let before = mesh.letters().await[0].header("Mesh-Death").map(str::to_owned);

    // Nobody says yes.
    let (status, stdout, stderr) = mesh.jetmesh(&["reset", "probe"]).await;
    assert_eq!(
        (status.code(), stderr.as_str()),
        (Some(1), "error: nothing is removed\n")
    );
    insta::assert_snapshot!(stdout, @r"
    handler probe: this goes
      consumer probe on stream ORDERS (0 delivered and not answered, 0 to be delivered)
      in ledger probe, what it has decided: 1 done, 1 dead
      advisories in MESH_ADVISORIES: 1
      dead letters in MESH_DEAD: 1
      death records in KV_probe: 1
    its bucket keeps what it holds, 1 key(s): what is done again comes on top of that; --state removes them
    what lies behind its `start` is done again, whether it was done or dead
    Remove all of this? [y/N]
    ");
    assert_ne!(mesh.consumer("ORDERS", "probe").await, Value::Null);
    assert_eq!(mesh.letters().await.len(), 1);

    mesh.jetmesh_ok(&["reset", "probe", "--yes"]).await;
    assert_eq!(mesh.consumer("ORDERS", "probe").await, Value::Null);
    assert_eq!(mesh.letters().await.len(), 0);
    assert_eq!(mesh.messages("KV_probe", "$MESH.state.probe.dead.>").await.len(), 0);
    // Doing it again does no harm.
    mesh.jetmesh_ok(&["reset", "probe", "--yes"]).await;

    let host = mesh.host(&[]).await;
    mesh.wait_value("probe", "n", "2").await;
    let letters = mesh.wait_letters(1).await;
    assert_ne!(
        letters[0].header("Mesh-Death").map(str::to_owned),
        before,
        "its new death"
    );
    mesh.wait_settled("ORDERS", "probe").await;
    // The letter belongs to the death that is known now: a replay of it runs.
    let mark = host.lines().len();
    let (status, stdout, _) = mesh.jetmesh(&["dlq", "replay", letters[0].letter_id()]).await;
    assert_eq!(status.code(), Some(1));
    assert!(stdout.contains("1 failed again"), "{stdout}");
    host.wait_for_line_after(mark, |line| line.contains("not this one"), PATIENT)
        .await;
    stop(host).await;
}

#[tokio::test]
async fn a_reset_with_state_takes_the_keys_of_a_bucket_that_is_the_handlers_alone() {
    let mesh = one_done_and_one_dead(Config::probe_with("start = \"all\"")).await;
    mesh.jetmesh_ok(&["reset", "probe", "--state", "--yes"]).await;
    assert_eq!(mesh.value("probe", "n").await, None);
    let host = mesh.host(&[]).await;
    mesh.wait_value("probe", "n", "1").await;
    mesh.wait_letters(1).await;
    stop(host).await;
}

#[tokio::test]
async fn a_bucket_that_others_share_is_not_emptied() {
    let module = crate::support::modules::handler("probe");
    let config = Config::probe_with("start = \"all\"\nsubjects = [\"orders.probe\"]").handler(
        "other",
        &module,
        "bucket = \"probe\"\nsubjects = [\"orders.other\"]\nstart = \"all\"",
    );
    let mesh = one_done_and_one_dead(config).await;
    let (status, _, stderr) = mesh.jetmesh(&["reset", "probe", "--state", "--yes"]).await;
    assert_eq!(status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("other"), "{stderr}");
    assert_eq!(mesh.value("probe", "n").await.as_deref(), Some("1"));
    // Without it, only its own decisions go.
    let host = mesh.host(&[]).await;
    let add = json!({ "op": "add", "key": "o", "by": 1 });
    mesh.publish("orders.other", add.to_string()).await;
    mesh.wait_value("probe", "o", "1").await;
    mesh.wait_settled("ORDERS", "other").await;
    stop(host).await;
    mesh.jetmesh_ok(&["reset", "probe", "--yes"]).await;
    let host = mesh.host(&[]).await;
    mesh.wait_value("probe", "n", "2").await;
    mesh.wait_settled("ORDERS", "other").await;
    assert_eq!(mesh.value("probe", "o").await.as_deref(), Some("1"));
    stop(host).await;
}

#[tokio::test]
async fn a_handler_that_is_served_is_not_reset() {
    let (mesh, host) = Mesh::start(Config::probe_with("start = \"all\"")).await;
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    mesh.wait_value("probe", "n", "1").await;
    mesh.wait_settled("ORDERS", "probe").await;
    let refused = async || {
        let (status, _, stderr) = mesh.jetmesh(&["reset", "probe", "--yes"]).await;
        (status.code() == Some(4)).then_some(stderr)
    };
    let stderr = refused().await.expect("it is refused");
    assert!(stderr.contains("stop that first"), "{stderr}");
    assert_ne!(mesh.consumer("ORDERS", "probe").await, Value::Null);
    host.signal(Signal::KILL);
    host.wait_exit(PATIENT).await;
    // Until the server has noticed.
    eventually("a killed host to be forgotten", PATIENT, async || {
        let (status, _, _) = mesh.jetmesh(&["reset", "probe", "--yes"]).await;
        status.success().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reset_lets_a_handler_go_on_whose_bucket_was_made_anew() {
    let mesh = one_done_and_one_dead(Config::probe_with("start = \"all\"")).await;
    mesh.js.delete_stream("KV_probe").await.expect("it goes");
    mesh.jetmesh_ok(&["reset", "probe", "--yes"]).await;
    let host = mesh.host(&[]).await;
    mesh.wait_value("probe", "n", "1").await;
    mesh.wait_letters(1).await;
    stop(host).await;
}
