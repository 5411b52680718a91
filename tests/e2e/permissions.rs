//! The permissions that `docs/nats.md` lists for a host are enough, and a host says which one is missing.

use futures_util::{FutureExt, StreamExt};
use serde_json::json;

use crate::effects::shop;
use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::server::{Options, round_trip};
use crate::support::wait::SOON;
use crate::support::{NatsServer, Signal};

/// The block under the page's heading.
pub fn listed() -> &'static str {
    let page = include_str!("../../docs/nats.md");
    let (_, rest) = page
        .split_once("## Permissions of a host's NATS user")
        .expect("the page has that heading");
    rest.split("```")
        .nth(1)
        .expect("a block follows")
        .trim_start_matches("text")
}

#[tokio::test]
async fn the_permissions_that_the_docs_list_are_enough() {
    let host = format!("{{ user: host, password: pw, permissions: {{ {} }} }}", listed());
    let options = Options {
        // The client without a user is the test itself.
        config: format!("no_auth_user: test\nauthorization {{ users: [{{ user: test, password: pw }}, {host}] }}"),
        ..Options::default()
    };
    let server = NatsServer::start_with(&options).await;
    let config = shop().nats("user = \"host\"").nats("password = \"pw\"");
    let mesh = Mesh::over(server, config).await;
    let first = mesh.host(&[]).await;
    mesh.put("inventory", "stock.sku-1", "10").await;
    let order = |id: &str, qty: i64| {
        let lines = json!([{ "sku": "sku-1", "qty": qty }]);
        json!({ "order_id": id, "user_id": "u-7", "lines": lines, "total_cents": 100 }).to_string()
    };
    mesh.publish("orders.created", order("o-1", 2)).await;
    mesh.wait_emitted(3).await;
    for number in 2..6 {
        mesh.publish("orders.created", order(&format!("o-{number}"), 99)).await;
    }
    let letters = mesh.wait_letters(4).await;
    mesh.wait_emitted(11).await;
    // Killed, so that the next one looks for what this one may have left.
    first.signal(Signal::KILL);
    first.wait_exit(PATIENT).await;
    let second = mesh.host(&[]).await;
    mesh.put("inventory", "stock.sku-1", "1000").await;
    let event = letters[0].header("Mesh-Event").expect("a letter names its event");
    mesh.jetmesh_ok(&["dlq", "replay", &format!("inventory.{event}")]).await;
    mesh.wait_letters(3).await;
    // One, and then the rest by the list.
    let subscribed = mesh.client.subscribe("$MESH.replay.inventory.list.*").await;
    let mut lists = subscribed.expect("connected");
    round_trip(&mesh.client).await;
    mesh.jetmesh_ok(&["dlq", "replay", "--all", "--yes"]).await;
    assert!(lists.next().now_or_never().is_some(), "there was a list");
    mesh.wait_letters(0).await;
    mesh.wait_emitted(15).await;
    second.stop().await;
    for line in first.lines().into_iter().chain(second.lines()) {
        assert!(!line.to_lowercase().contains("permissions violation"), "{line}");
    }
}

/// A user that may do all but publish on one subject, and the test itself, which may do everything.
pub fn all_but(denied: &str) -> Options {
    let host = format!(
        "{{ user: host, password: pw, permissions: {{ publish: {{ allow: \">\", deny: {denied:?} }}, subscribe: \">\" }} }}"
    );
    Options {
        config: format!("no_auth_user: test\nauthorization {{ users: [{{ user: test, password: pw }}, {host}] }}"),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_missing_grant_on_a_key_is_told_as_denied_at_once_and_mended_by_the_grant() {
    let server = NatsServer::start_with(&all_but("$KV.probe.>")).await;
    let config = Config::probe().nats("user = \"host\"").nats("password = \"pw\"");
    let mut mesh = Mesh::over(server, config).await;
    let host = mesh.host(&[]).await;
    mesh.order(json!([
        { "op": "add", "key": "n", "by": 1 },
        { "op": "emit", "subject": "events.added", "payload": "one more" },
    ]))
    .await;
    let denied = "this user is not allowed to publish to `$KV.probe.n`";
    // Sooner than a time limit of five seconds could have told.
    let short = std::time::Duration::from_secs(4);
    host.wait_for_line(says(&["ERROR", "the ledger is stopped", denied]), short)
        .await;
    host.wait_for_line(says(&["outcome=\"host-fault\"", denied]), SOON)
        .await;
    let conflict = |line: &String| line.contains("kept changing");
    assert!(!host.lines().iter().any(conflict), "nothing has changed");
    mesh.server.restart_with(&all_but("nothing.>")).await;
    mesh.wait_value("probe", "n", "1").await;
    mesh.wait_emitted(1).await;
    mesh.wait_settled("ORDERS", "probe").await;
    assert_eq!(mesh.letters().await.len(), 0);
}
