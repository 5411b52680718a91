//! Malformed messages on the mesh's own subjects. Only the mesh has reason to publish there, and another client that does so
//! stops nothing.

use serde_json::{Value, json};

use crate::audit::{judge_with_letters, work};
use crate::mesh::{Config, Mesh, says};
use crate::poison::publish_raw;
use crate::support::wait::SOON;
use crate::support::{Host, eventually, modules};

const NO_COLON: &[u8] = b"NATS/1.0\r\nno colon here\r\n\r\n";

/// Two handlers, each with a ledger of its own.
fn two() -> Config {
    let lines = |bucket: &str, stream: &str| {
        format!("bucket = {bucket:?}\nstream = {stream:?}\nsubjects = [\"{bucket}.>\"]\npublish = [\"events.>\"]")
    };
    Config::probe()
        .handler("other", &modules::handler("probe"), &lines("other", "OTHER"))
        .table("[streams.OTHER]\nsubjects = [\"other.>\"]")
}

fn lost(host: &Host) -> Vec<String> {
    let lost = |line: &String| line.contains("connection lost") || line.contains("the relay cannot work");
    host.lines().into_iter().filter(lost).collect()
}

#[tokio::test]
async fn one_among_consequences_is_left_out_and_named_and_breaks_no_relay() {
    let (mesh, host) = Mesh::start(two()).await;
    let emit = json!({ "op": "emit", "subject": "events.x", "payload": 1 });
    mesh.order(emit.clone()).await;
    mesh.wait_emitted(1).await;
    let subject = b"$MESH.state.probe.out.900000.0";
    publish_raw(&mesh, subject, NO_COLON, b"");
    host.wait_for_line(says(&["cannot be parsed is left out", "KV_probe", "no colon"]), SOON)
        .await;
    mesh.order(emit.clone()).await;
    mesh.publish("other.a", emit.to_string()).await;
    mesh.wait_emitted(3).await;
    assert_eq!(lost(&host), Vec::<String>::new());
    let status = mesh.jetmesh_ok(&["status"]).await;
    assert!(status.contains("left out") && status.contains("KV_probe"), "{status}");
    // A relay that begins meets one first of all.
    drop(host);
    publish_raw(&mesh, b"$MESH.state.probe.out.900001.0", NO_COLON, b"");
    let _host = mesh.host(&[]).await;
    mesh.order(emit).await;
    mesh.wait_emitted(4).await;
}

#[tokio::test]
async fn one_among_entries_beyond_the_end_breaks_neither_whoever_opens_the_ledger_nor_whoever_follows_it() {
    let (mesh, one) = Mesh::start(Config::probe()).await;
    for number in 0..40 {
        mesh.order(work(number, 2)).await;
        mesh.wait_decisions("probe", number + 1).await;
    }
    publish_raw(&mesh, b"$MESH.state.probe.ledger.900000", NO_COLON, b"");
    let two = mesh.host(&[]).await;
    for number in 40..80 {
        mesh.order(work(number, 2)).await;
        if number % 10 == 0 {
            publish_raw(
                &mesh,
                format!("$MESH.state.probe.ledger.{}", 900_000 + number).as_bytes(),
                NO_COLON,
                b"",
            );
        }
    }
    mesh.wait_settled("ORDERS", "probe").await;
    // The test's own client could not read them either.
    let bucket = mesh.js.get_stream("KV_probe").await.expect("it is there");
    for number in [900_000, 900_040, 900_050, 900_060, 900_070] {
        let purged = bucket
            .purge()
            .filter(format!("$MESH.state.probe.ledger.{number}"))
            .await;
        assert_eq!(purged.expect("it can be removed").purged, 1, "{number}");
    }
    judge_with_letters(&mesh, 80, 2, 0).await;
    assert_eq!((lost(&one), lost(&two)), (vec![], vec![]));
}

#[tokio::test]
async fn one_in_the_place_of_the_next_entry_is_named_with_the_command_that_removes_it() {
    let (mesh, _host) = Mesh::start(two()).await;
    mesh.order(work(0, 2)).await;
    mesh.wait_decisions("probe", 1).await;
    publish_raw(&mesh, b"$MESH.state.probe.ledger.2", NO_COLON, b"");
    mesh.order(work(1, 2)).await;
    mesh.publish("other.a", json!({ "op": "ok" }).to_string()).await;
    mesh.wait_decisions("other", 1).await;
    let why = eventually("the ledger's state", SOON, async || {
        let (_, stdout, _) = mesh.jetmesh(&["status", "--json"]).await;
        let status: Value = serde_json::from_str(&stdout).expect("JSON");
        let ledgers = status["ledgers"].as_array().expect("a list");
        let probe = ledgers.iter().find(|ledger| ledger["ledger"] == "probe");
        probe.expect("it is listed")["why"].as_str().map(str::to_owned)
    })
    .await;
    assert!(
        why.contains("nats stream purge KV_probe --subject '$MESH.state.probe.ledger.2'"),
        "{why}"
    );
    // What that command does once a person has said yes; it asks on a terminal only.
    let bucket = mesh.js.get_stream("KV_probe").await.expect("it is there");
    let purged = bucket.purge().filter("$MESH.state.probe.ledger.2").await;
    assert_eq!(purged.expect("it can be removed").purged, 1);
    judge_with_letters(&mesh, 2, 2, 0).await;
}

#[tokio::test]
async fn one_among_dead_letters_is_named_with_the_command_that_removes_it_and_hides_no_other() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    let letters = async |count| {
        for _ in 0..count {
            mesh.order(json!({ "op": "reject", "code": "a", "message": "never" }))
                .await;
        }
    };
    letters(1).await;
    mesh.wait_letters(1).await;
    publish_raw(&mesh, b"$MESH.dead.ORDERS.probe.k.900000", NO_COLON, b"payload");
    letters(1).await;
    eventually("the letters", SOON, async || {
        (mesh.messages_left("MESH_DEAD").await == 3).then_some(())
    })
    .await;
    let command = "nats stream rmm MESH_DEAD 2 --force";
    for arguments in [
        &["dlq", "ls"][..],
        &["dlq", "ls", "--json"],
        &["dlq", "ls", "--group"],
        &["dlq", "export", "--all"],
        &["dlq", "discard", "--code", "b", "--yes"],
    ] {
        let (status, stdout, stderr) = mesh.jetmesh(arguments).await;
        assert!(status.success(), "{arguments:?}: {stdout}{stderr}");
        assert!(stderr.contains(command), "{arguments:?}: {stdout}{stderr}");
        let all = stdout.matches("never").count() >= 1 || stdout.contains('2');
        assert!(all || arguments[1] == "discard", "{arguments:?}: {stdout}{stderr}");
    }
    let (_, stdout, stderr) = mesh.jetmesh(&["status"]).await;
    assert!(stdout.contains(command), "{stdout}{stderr}");
    // A task that waits for a replay's fate sees what else is written there.
    let replay = mesh.jetmesh(&["dlq", "replay", "--all", "--yes"]);
    let beside = async { publish_raw(&mesh, b"$MESH.dead.ORDERS.probe.k.900001", NO_COLON, b"") };
    let ((_, stdout, stderr), ()) = tokio::join!(replay, beside);
    assert!(
        stdout.contains("2 failed") || stderr.contains("2 failed"),
        "{stdout}{stderr}"
    );
}

#[tokio::test]
async fn one_among_attempt_records_breaks_no_look_at_them_and_one_among_keys_is_a_key() {
    let (mesh, _host) = Mesh::start(Config::probe_with("backoff = \"1h\"\nbackoff_max = \"1h\"")).await;
    mesh.order(json!({ "op": "retry", "code": "later", "message": "not yet" }))
        .await;
    eventually("an attempt record", SOON, async || {
        (!mesh.attempts().await.is_empty()).then_some(())
    })
    .await;
    publish_raw(&mesh, b"$KV.mesh_attempts.probe.k.900000", NO_COLON, b"");
    let (status, stdout, stderr) = mesh.jetmesh(&["retrying"]).await;
    assert!(status.success() && stdout.contains("later"), "{stdout}{stderr}");
    assert!(stderr.contains("mesh_attempts"), "{stderr}");
    publish_raw(&mesh, b"$KV.probe.rate", NO_COLON, b"7");
    mesh.order(json!({ "op": "tell", "key": "rate", "subject": "events.rate" }))
        .await;
    assert_eq!(mesh.wait_emitted(1).await[0].json(), json!("7"));
}

#[tokio::test]
async fn a_malformed_request_leaves_the_host_visible() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    for _ in 0..3 {
        publish_raw(&mesh, b"$SRV.STATS.jetmesh", NO_COLON, b"");
        let status = mesh.jetmesh_ok(&["status"]).await;
        assert!(status.contains("1 host(s)"), "{status}");
    }
    assert!(
        !host.lines().iter().any(|line| line.contains("not visible to")),
        "{:?}",
        host.lines()
    );
}
