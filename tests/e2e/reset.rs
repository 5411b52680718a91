//! `jetmesh reset`: a handler starts again, and nothing of the time before is left to disturb it.

use async_nats::jetstream::stream::RetentionPolicy;
use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::wait::SOON;
use crate::support::{Host, Signal, eventually, modules};

/// A mesh whose handler has done one order and died of another; no host runs.
async fn one_done_and_one_dead(config: Config) -> Mesh {
    let (mesh, host) = Mesh::start(config).await;
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    mesh.order(json!({ "op": "reject", "code": "no", "message": "not this one" }))
        .await;
    mesh.wait_letters(1).await;
    mesh.wait_settled("ORDERS", "probe").await;
    host.stop().await;
    mesh
}

#[tokio::test]
async fn a_handler_that_is_reset_begins_where_its_start_says() {
    let mesh = one_done_and_one_dead(Config::probe_with("start = \"all\"")).await;
    let before = mesh.letters().await[0].header("Mesh-Death").map(str::to_owned);

    // The question is not answered with yes.
    let (status, stdout, stderr) = mesh.jetmesh(&["reset", "probe"]).await;
    assert_eq!(
        (status.code(), stderr.as_str()),
        (
            Some(1),
            "error: nothing is deleted: the command asks for confirmation, and standard input is not a terminal; --yes does \
             not ask\n"
        )
    );
    insta::assert_snapshot!(stdout, @r"
    handler probe: this will be deleted
      consumer probe on stream ORDERS (0 delivered and not answered, 0 to be delivered)
      decisions in ledger probe: 1 done, 1 dead
      advisories in MESH_ADVISORIES: 1
      dead letters, resolved ones and versions of payloads included, in MESH_DEAD: 1
      death records in KV_probe: 1
    its bucket keeps its 1 key(s), and the effects are applied to them a second time; --state deletes the keys
    it processes all events from its `start` on again, those that were done and those that are dead
    ");
    assert_ne!(mesh.consumer("ORDERS", "probe").await, Value::Null);
    assert_eq!(mesh.letters().await.len(), 1);

    mesh.jetmesh_ok(&["reset", "probe", "--yes"]).await;
    assert_eq!(mesh.consumer("ORDERS", "probe").await, Value::Null);
    assert_eq!(mesh.letters().await.len(), 0);
    assert_eq!(mesh.messages("KV_probe", "$MESH.state.probe.dead.>").await.len(), 0);
    // Doing it again does no harm.
    assert_eq!(
        mesh.jetmesh_ok(&["reset", "probe", "--yes"]).await,
        "handler probe: nothing is known of it, so there is nothing to reset; it was reset before, or never ran\n"
    );

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
    host.stop().await;
}

#[tokio::test]
async fn letters_of_emitted_events_that_no_stream_took_go_as_well() {
    let config = Config::new().handler(
        "probe",
        &modules::handler("probe"),
        "bucket = \"probe\"\npublish = [\"nowhere.>\"]",
    );
    let (mesh, host) = Mesh::start(config).await;
    mesh.order(json!({ "op": "emit", "subject": "nowhere.1", "payload": 1 }))
        .await;
    let letter = mesh.wait_letters(1).await.remove(0);
    assert!(letter.subject.starts_with("$MESH.dead.KV_probe.probe."), "{letter:?}");
    host.stop().await;
    let said = mesh.jetmesh_ok(&["reset", "probe", "--yes"]).await;
    let line = "  dead letters of events that it emitted and no stream took in MESH_DEAD: 1\n";
    assert!(said.contains(line), "{said}");
    assert!(mesh.letters().await.is_empty());
}

#[tokio::test]
async fn a_handler_that_never_ran_and_a_stream_that_is_not_there_are_named() {
    let mesh = Mesh::new(Config::probe()).await;
    let refused = async |args: &[&str]| {
        let (status, stdout, stderr) = mesh.jetmesh(args).await;
        assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
        stderr
    };
    let stderr = refused(&["reset", "probe", "--yes"]).await;
    assert!(
        stderr.starts_with(
            "error: there is no stream ORDERS (JetStream CONSUMER.INFO.ORDERS.probe: stream not found, 10059)"
        ),
        "{stderr}"
    );
    assert!(stderr.contains("a host creates it when it starts"), "{stderr}");
    mesh.add_stream("ORDERS", &["orders.>"], RetentionPolicy::Limits).await;
    for args in [&["reset", "probe"][..], &["reset", "probe", "--yes"]] {
        let stderr = refused(args).await;
        assert!(
            stderr.starts_with("error: handler probe has never run here"),
            "{stderr}"
        );
    }
}

#[tokio::test]
async fn a_reset_with_state_takes_the_keys_of_a_bucket_that_is_the_handlers_alone() {
    let mesh = one_done_and_one_dead(Config::probe_with("start = \"all\"")).await;
    mesh.jetmesh_ok(&["reset", "probe", "--state", "--yes"]).await;
    assert_eq!(mesh.value("probe", "n").await, None);
    let host = mesh.host(&[]).await;
    mesh.wait_value("probe", "n", "1").await;
    mesh.wait_letters(1).await;
    host.stop().await;
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
    host.stop().await;
    mesh.jetmesh_ok(&["reset", "probe", "--yes"]).await;
    let host = mesh.host(&[]).await;
    mesh.wait_value("probe", "n", "2").await;
    mesh.wait_settled("ORDERS", "other").await;
    assert_eq!(mesh.value("probe", "o").await.as_deref(), Some("1"));
    host.stop().await;
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
    assert!(stderr.contains("stop these hosts first"), "{stderr}");
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
    host.stop().await;
}

/// The handler without a bucket: its ledger is the mesh's.
pub fn without_bucket(lines: &str) -> Config {
    let lines = format!("publish = [\"events.>\"]\nstart = \"all\"\n{lines}");
    Config::new().handler("probe", &modules::handler("probe"), &lines)
}

fn emits() -> Value {
    json!({ "op": "emit", "subject": "events.added", "payload": "one more" })
}

#[tokio::test]
async fn a_bucket_that_is_added_is_told_as_such_and_what_was_decided_before_can_be_kept() {
    let (mut mesh, host) = Mesh::start(without_bucket("")).await;
    mesh.order(emits()).await;
    mesh.order(json!({ "op": "reject", "code": "no", "message": "not this one" }))
        .await;
    mesh.wait_letters(1).await;
    mesh.wait_emitted(1).await;
    mesh.wait_settled("ORDERS", "probe").await;
    let former = mesh.config.clone();
    mesh.config = Config::probe_with("start = \"all\"");
    let keep = ["reset", "probe", "--keep-decided", "--yes"];
    let refused = async |mesh: &Mesh, text: &str| {
        let (status, stdout, stderr) = mesh.jetmesh(&keep).await;
        assert_eq!(status.code(), Some(4), "{stdout}{stderr}");
        assert!(stderr.contains(text), "{stderr}");
    };
    refused(&mesh, "stop these hosts first").await;
    // A host with the new configuration stands still, and says what it is about.
    let next = Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &[]);
    let line = next
        .wait_for_line(says(&["ERROR", "the handler is stopped until this is corrected"]), SOON)
        .await;
    for text in [
        "its decisions are in the ledger of bucket mesh, and its configuration here has bucket probe",
        "`jetmesh reset probe --keep-decided`",
        "`jetmesh dev --reset probe`",
    ] {
        assert!(line.contains(text), "{text:?} is not in {line}");
    }
    assert!(!line.contains("purged"), "{line}");
    host.stop().await;
    next.stop().await;
    refused(&mesh, "1 dead letter(s) belong to its old ledger").await;
    mesh.config = former;
    mesh.jetmesh_ok(&["dlq", "discard", "--all", "--yes"]).await;
    mesh.config = Config::probe_with("start = \"all\"");
    let said = mesh.jetmesh_ok(&keep).await;
    assert!(
        said.contains("its ledger moves from bucket mesh to bucket probe"),
        "{said}"
    );
    assert!(said.contains("up to ORDERS:2, stay decided"), "{said}");
    assert!(mesh.jetmesh_ok(&keep).await.contains("there is nothing to do"));

    let host = mesh.host(&[]).await;
    mesh.order(emits()).await;
    mesh.wait_emitted(2).await;
    mesh.wait_settled("ORDERS", "probe").await;
    let decisions = mesh.decisions("probe").await;
    assert_eq!(decisions.len(), 1, "only the third is new: {decisions:?}");
    assert!(mesh.letters().await.is_empty());
    host.stop().await;
}

#[tokio::test]
async fn what_is_in_flight_or_lost_is_not_taken_for_decided_when_a_ledger_moves() {
    let (mut mesh, host) = Mesh::start(without_bucket("backoff = \"1h\"\nbackoff_max = \"1h\"")).await;
    mesh.order(json!({ "op": "retry", "code": "later", "message": "not now" }))
        .await;
    host.wait_for_line(says(&["will be retried"]), SOON).await;
    host.stop().await;
    let keep = ["reset", "probe", "--keep-decided", "--yes"];
    mesh.config = Config::probe_with("start = \"all\"");
    let (_, _, stderr) = mesh.jetmesh(&keep).await;
    assert!(stderr.contains("1 event(s) are delivered and not decided"), "{stderr}");
    // It is acked by another client: the server has done with it, and no host has decided it.
    let reply = "$JS.ACK.ORDERS.probe.1.1.1.0.0";
    mesh.client.request(reply, "+ACK".into()).await.expect("it is acked");
    mesh.wait_settled("ORDERS", "probe").await;
    let (_, _, stderr) = mesh.jetmesh(&keep).await;
    assert!(
        stderr.contains("1 event(s) up to ORDERS:1 are not decided in its old ledger"),
        "{stderr}"
    );
}
