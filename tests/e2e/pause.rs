//! A handler that a person has paused takes no events, on no host, until it is resumed.

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, says};
use crate::poisoned::{fix, poison};
use crate::schemas::assert_fits;
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{NatsServer, cli, eventually, modules};

const PAUSED: &str = "the handler is paused";
const RESUMED: &str = "the handler is resumed";

/// The probe, which needs a key, and a neighbour that needs nothing.
fn config() -> Config {
    let lines = "max_attempts = 50\nbackoff = \"100ms\"\nbackoff_max = \"100ms\"";
    Config::probe_with(lines).handler("neighbour", &modules::handler("probe"), "bucket = \"neighbour\"")
}

async fn status(mesh: &Mesh, handler: &str) -> Value {
    let text = mesh.jetmesh_ok(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&text).expect("JSON");
    assert_fits(mesh, "status", &status.to_string()).await;
    let mut handlers = status["handlers"].as_array().expect("handlers").iter();
    handlers
        .find(|one| one["handler"] == handler)
        .expect("it is there")
        .clone()
}

/// How many attempts at the only event with a record were begun.
async fn attempts(mesh: &Mesh) -> u64 {
    let records = mesh.attempts().await;
    assert_eq!(records.len(), 1, "{records:?}");
    records[0]["attempts"].as_u64().expect("a number")
}

#[tokio::test]
async fn a_paused_handler_takes_no_event_and_counts_no_attempt_over_restarts_until_it_is_resumed() {
    let (mut mesh, host) = Mesh::start(config()).await;
    mesh.order(poison(0)).await;
    eventually("a second attempt", SOON, async || {
        let records = mesh.attempts().await;
        (records.first()?["attempts"].as_u64() >= Some(2)).then_some(())
    })
    .await;
    let said = mesh
        .jetmesh_ok(&["pause", "probe", "--reason", "the stock is counted"])
        .await;
    assert!(
        said.starts_with("handler probe is paused until `jetmesh resume probe`"),
        "{said}"
    );
    // The command has waited until the host obeys.
    assert!(
        host.lines()
            .iter()
            .any(|line| says(&[PAUSED, "probe", "the stock is counted"])(line))
    );
    let begun = attempts(&mesh).await;
    mesh.order(poison(1)).await;
    mesh.wait_decisions("neighbour", 2).await;
    let info = mesh.consumer("ORDERS", "probe").await;
    assert_eq!(
        (&info["paused"], &info["num_pending"]),
        (&json!(true), &json!(1)),
        "{info}"
    );

    let told = status(&mesh, "probe").await;
    assert_eq!(
        (&told["state"], &told["retrying"]),
        (&json!("paused"), &json!(1)),
        "{told}"
    );
    let (by, reason) = (&told["paused"]["by"], &told["paused"]["reason"]);
    assert!(
        by.as_str().is_some_and(|by| by.contains('@')) && reason == "the stock is counted",
        "{told}"
    );
    assert_eq!(status(&mesh, "neighbour").await["state"], "serving");
    let text = mesh.jetmesh_ok(&["status"]).await;
    assert!(
        text.contains("probe is paused (for ") && text.contains("`jetmesh resume probe` resumes it"),
        "{text}"
    );
    let retrying = mesh.jetmesh_ok(&["retrying"]).await;
    assert!(
        retrying.contains("when resumed") && retrying.contains("probe is paused since "),
        "{retrying}"
    );
    let line = mesh.jetmesh_ok(&["retrying", "--json"]).await;
    assert_fits(&mesh, "retrying", &line).await;
    assert!(line.contains("\"paused\":true"), "{line}");
    for place in ["ORDERS:1", "ORDERS:2"] {
        let trace = mesh.jetmesh_ok(&["trace", place]).await;
        let told = trace.lines().filter(|line| line.contains("probe is paused since "));
        assert_eq!(
            (told.count(), trace.contains("its consumer")),
            (1, place == "ORDERS:2"),
            "{trace}"
        );
    }

    // The server and the host end.
    host.stop().await;
    mesh.server.restart().await;
    let host = mesh.host(&[]).await;
    mesh.order(poison(2)).await;
    mesh.wait_decisions("neighbour", 3).await;
    assert_eq!(status(&mesh, "probe").await["state"], "paused");
    assert_eq!((attempts(&mesh).await, mesh.decisions("probe").await.len()), (begun, 0));

    fix(&mesh).await;
    let said = mesh.jetmesh_ok(&["resume", "probe"]).await;
    assert!(
        said.starts_with("handler probe is resumed; it was paused since ") && said.contains("counted"),
        "{said}"
    );
    let done = mesh.wait_decisions("probe", 3).await;
    let attempts: Vec<u64> = done
        .iter()
        .map(|one| one["attempt"].as_u64().expect("a number"))
        .collect();
    assert!(done.iter().all(|one| one["verdict"] == "done"), "{done:?}");
    assert_eq!(
        attempts.iter().filter(|attempt| **attempt == 1).count(),
        2,
        "{attempts:?}"
    );
    assert!(attempts.contains(&(begun + 1)), "{begun} begun before: {attempts:?}");
    assert!(host.lines().iter().any(|line| says(&[RESUMED, "probe"])(line)));
    assert_eq!(status(&mesh, "probe").await["state"], "serving");
    assert_eq!(
        mesh.jetmesh_ok(&["resume", "probe"]).await,
        "handler probe is not paused\n"
    );
}

#[tokio::test]
async fn replays_wait_while_a_handler_is_paused_and_the_command_says_so_at_once() {
    let lines = "start = \"all\"\nmax_attempts = 1";
    let config = Config::probe_with(lines).handler("neighbour", &modules::handler("probe"), "bucket = \"neighbour\"");
    let (mesh, _host) = Mesh::start(config).await;
    mesh.order(poison(0)).await;
    let letter = mesh.wait_letters(1).await[0].letter_id().to_owned();
    fix(&mesh).await;
    let json = mesh.jetmesh_ok(&["pause", "probe", "neighbour", "--json"]).await;
    assert_fits(&mesh, "pause", &json).await;
    assert_eq!(
        json.lines().filter(|line| line.contains("\"hosts_behind\":[]")).count(),
        2,
        "{json}"
    );
    // A person removes the consumer: the one that a host creates again is paused.
    mesh.remove_consumer("ORDERS", "probe").await;
    eventually("the consumer to be created again", SOON, async || {
        (mesh.consumer("ORDERS", "probe").await["paused"] == true).then_some(())
    })
    .await;
    let (code, _, said) = mesh.jetmesh(&["dlq", "replay", &letter]).await;
    assert_eq!(code.code(), Some(6), "{said}");
    assert!(
        said.contains("handler probe is paused since ") && said.contains("`jetmesh resume probe`"),
        "{said}"
    );
    assert_eq!(mesh.messages_left("MESH_REPLAY").await, 0, "nothing is sent");
    let (code, stdout, said) = mesh.jetmesh(&["dlq", "replay", &letter, "--yes"]).await;
    assert_eq!(code.code(), Some(6), "{stdout}{said}");
    assert!(
        said.contains("handler probe is paused; the replays that were sent wait"),
        "{said}"
    );
    assert_eq!(
        (mesh.messages_left("MESH_REPLAY").await, mesh.letters().await.len()),
        (1, 1)
    );
    let json = mesh.jetmesh_ok(&["resume", "probe", "neighbour", "--json"]).await;
    assert_fits(&mesh, "resume", &json).await;
    mesh.wait_replayed().await;
    mesh.wait_letters(0).await;
    assert_eq!(mesh.wait_emitted(1).await.len(), 1);
}

#[tokio::test]
async fn a_pause_with_an_end_ends_by_itself_and_without_a_host() {
    let (mesh, host) = Mesh::start(config()).await;
    fix(&mesh).await;
    host.stop().await;
    let said = mesh.jetmesh_ok(&["pause", "probe", "--for", "1h"]).await;
    assert!(said.contains("(in 1h)") || said.contains("(in 59m "), "{said}");
    let said = mesh
        .jetmesh_ok(&["pause", "probe", "--for", "3s", "--reason", "a moment"])
        .await;
    assert!(said.contains("was paused before, and is paused until "), "{said}");
    let said = mesh.jetmesh_ok(&["pause", "probe"]).await;
    assert!(
        said.contains("is paused already, since ") && said.contains("a moment"),
        "{said}"
    );
    let host = mesh.host(&[]).await;
    mesh.order(poison(0)).await;
    mesh.wait_decisions("probe", 1).await;
    host.wait_for_line(says(&[RESUMED, "probe"]), SOON).await;
    let info = mesh.consumer("ORDERS", "probe").await;
    assert_ne!(info["paused"], true, "{info}");
    assert_eq!(status(&mesh, "probe").await["paused"], Value::Null);
    // What was paused by other means is resumed as well.
    let until = json!({ "pause_until": "2999-01-01T00:00:00Z" });
    let paused: Value = mesh
        .js
        .request("CONSUMER.PAUSE.ORDERS.probe", &until)
        .await
        .expect("JSON");
    assert_eq!(paused["paused"], true, "{paused}");
    let text = mesh.jetmesh_ok(&["status"]).await;
    assert!(
        text.contains("its consumer probe on stream ORDERS is paused: `jetmesh resume probe`"),
        "{text}"
    );
    let said = mesh.jetmesh_ok(&["resume", "probe"]).await;
    assert_eq!(
        said,
        "handler probe is resumed: its consumer was paused at the server\n"
    );
    assert_ne!(mesh.consumer("ORDERS", "probe").await["paused"], true);
}

#[tokio::test]
async fn what_cannot_be_paused_is_said_with_what_to_do() {
    let options = Options {
        config: "no_auth_user: test\nauthorization { users: [{ user: test, password: pw }, \
            { user: ops, password: pw, permissions: { publish: { deny: \"$JS.API.CONSUMER.PAUSE.>\" } } }, \
            { user: guest, password: pw, permissions: { publish: { deny: \"$KV.mesh.>\" } } }] }"
            .to_owned(),
        ..Options::default()
    };
    let mesh = Mesh::over(NatsServer::start_with(&options).await, config()).await;
    let (code, _, said) = mesh.jetmesh(&["pause", "probe"]).await;
    assert_eq!(code.code(), Some(1), "{said}");
    assert!(
        said.contains("there is no bucket mesh") && said.contains("no host"),
        "{said}"
    );
    let _host = mesh.host(&[]).await;
    let (code, _, said) = mesh.jetmesh(&["pause", "prob"]).await;
    assert_eq!(code.code(), Some(2), "{said}");
    assert!(
        said.contains("there is no handler prob: the configuration has neighbour, probe"),
        "{said}"
    );
    let (code, _, said) = mesh.jetmesh(&["pause", "probe", "--for", "1M"]).await;
    assert_eq!(code.code(), Some(2), "{said}");
    assert!(said.contains("\"30d\" are thirty days"), "{said}");

    let (code, _, said) = mesh
        .jetmesh(&["pause", "probe", "--user", "guest", "--password", "pw"])
        .await;
    assert_eq!(code.code(), Some(4), "{said}");
    assert!(said.contains("not allowed to publish to `$KV.mesh.paused`"), "{said}");
    let ops = ["--user", "ops", "--password", "pw"];
    let (code, stdout, said) = mesh.jetmesh(&[&["pause", "probe"][..], &ops].concat()).await;
    assert_eq!(code.code(), Some(0), "{stdout}{said}");
    assert!(
        said.contains("the hosts obey the pause of probe, and the server does not hold its consumer"),
        "{said}"
    );
    let told = status(&mesh, "probe").await;
    assert!(
        told["paused"]["by"].as_str().is_some_and(|by| by.starts_with("ops (")),
        "{told}"
    );
    mesh.order(poison(0)).await;
    mesh.wait_decisions("neighbour", 1).await;
    // A request that was open when the pause began may have brought it to the host: it waits there.
    let info = mesh.consumer("ORDERS", "probe").await;
    let waits = info["num_pending"].as_u64().expect("a number") + info["num_ack_pending"].as_u64().expect("a number");
    assert_eq!(
        (mesh.attempts().await.len(), mesh.decisions("probe").await.len(), waits),
        (0, 0, 1)
    );
    mesh.jetmesh_ok(&["resume", "probe"]).await;
    eventually("an attempt", SOON, async || mesh.attempts().await.first().map(|_| ())).await;
    if let Some(info) = cli::nats(&mesh.server, &["kv", "get", "mesh", "paused", "--raw"]).await {
        assert_eq!(info.trim(), r#"{"format":1,"handlers":{}}"#);
    }
}
