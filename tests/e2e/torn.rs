//! Batches of which the server has kept only some messages, as servers before 2.15 do on a full disk: what is large is missing,
//! and what is small and comes after it is there.

use async_nats::jetstream::context::Context;
use serde_json::{Value, json};

use crate::hosts::wait_at_work;
use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::proxy::{Direction, Proxy};
use crate::support::wait::SOON;
use crate::support::{Host, Signal, eventually};

async fn purge(js: &Context, subject: &str) {
    let body = json!({ "filter": subject });
    let answer: Value = js.request("STREAM.PURGE.KV_probe", &body).await.expect("an answer");
    assert_eq!(answer["purged"], 1, "{subject}: {answer}");
}

/// Has a host commit, which hears nothing of it; then only a part of it is there.
async fn commit_half(mesh: &Mesh, missing: &[&str]) -> (Host, Proxy) {
    let proxy = Proxy::start(mesh.server.addr());
    let host = mesh.host_of(&mesh.config, &proxy.url(), &[]).await;
    // Then it knows the key.
    mesh.order(json!({ "op": "set", "key": "k", "value": "u" })).await;
    mesh.wait_value("probe", "k", "u").await;
    mesh.order(json!([
        { "op": "sleep", "ms": 1000 },
        { "op": "set", "key": "k", "value": "v" },
        { "op": "emit", "subject": "events.worked", "payload": 1 },
    ]))
    .await;
    wait_at_work(mesh, 1).await;
    proxy.pause(Direction::FromServer);
    eventually("the commit to be stored", SOON, async || {
        (mesh.decisions("probe").await.len() == 2).then_some(())
    })
    .await;
    for subject in missing {
        purge(&mesh.js, &format!("$MESH.state.probe.{subject}")).await;
    }
    (host, proxy)
}

#[tokio::test]
async fn a_commit_of_which_the_server_has_kept_only_a_part_is_completed_by_the_host_that_sent_it() {
    for missing in [&["out.2", "ledger.2"][..], &["out.2"], &["ledger.2"]] {
        let mesh = Mesh::new(Config::probe()).await;
        let (host, proxy) = commit_half(&mesh, missing).await;
        proxy.cut();
        proxy.resume(Direction::FromServer);
        host.wait_for_line(says(&["WARN", "kept only a part is completed", "entry=2"]), PATIENT)
            .await;
        mesh.wait_settled("ORDERS", "probe").await;
        eventually("the event to be emitted", PATIENT, async || {
            (mesh.emitted().await.len() == 1).then_some(())
        })
        .await;
        mesh.order(json!({ "op": "append", "key": "k", "text": "w" })).await;
        eventually("the next commit", PATIENT, async || {
            (mesh.decisions("probe").await.len() == 3).then_some(())
        })
        .await;
        assert_eq!(
            mesh.value("probe", "k").await.as_deref(),
            Some("v probe:w"),
            "{missing:?}"
        );
        assert_eq!(mesh.emitted().await.len(), 1, "{missing:?}");
    }
}

#[tokio::test]
async fn a_commit_that_nobody_can_complete_stops_its_ledger_and_is_named() {
    let mesh = Mesh::new(Config::probe()).await;
    let (host, _proxy) = commit_half(&mesh, &["ledger.2"]).await;
    host.signal(Signal::KILL);
    host.wait_exit(PATIENT).await;
    let host = Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &[]);
    let named = "the server has kept only a part of entry 2";
    host.wait_for_line(says(&["ERROR", named, "nats stream restore"]), PATIENT)
        .await;
    let (code, text, _) = mesh.jetmesh(&["status", "--json"]).await;
    assert_eq!(code.code(), Some(6));
    assert!(text.contains(named), "{text}");
}
