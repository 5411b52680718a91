//! What cannot be asked is told as unknown, with the reason, and not as zero.

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh};
use crate::support::NatsServer;
use crate::support::server::Options;

/// A server whose user `blind` may do all but ask for some figures, and whose user `deaf` may not ask the hosts.
async fn server() -> NatsServer {
    let asked = [
        "$SRV.STATS.>",
        "$JS.API.STREAM.INFO.MESH_DEAD",
        "$JS.API.STREAM.INFO.MESH_DELAYED",
        "$JS.API.CONSUMER.INFO.ORDERS.probe",
    ];
    let user = |name: &str, denied: &[&str]| {
        let rights = format!("publish: {{ allow: \">\", deny: {denied:?} }}, subscribe: \">\"");
        format!("{{ user: {name}, password: pw, permissions: {{ {rights} }} }}")
    };
    let (blind, deaf) = (user("blind", &asked), user("deaf", &asked[..1]));
    NatsServer::start_with(&Options {
        config: format!(
            "no_auth_user: test\nauthorization {{ users: [{{ user: test, password: pw }}, {blind}, {deaf}] }}"
        ),
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn figures_that_this_user_may_not_ask_for_are_unknown_and_not_zero() {
    let mut mesh = Mesh::over(server().await, Config::probe()).await;
    let host = mesh.host(&[]).await;
    mesh.order(json!({ "op": "reject", "code": "no", "message": "never" }))
        .await;
    mesh.wait_letters(1).await;
    mesh.config = Config::probe().nats("user = \"blind\"").nats("password = \"pw\"");
    let (code, text, stderr) = mesh.jetmesh(&["status", "--json"]).await;
    assert_eq!(code.code(), Some(6), "{stderr}");
    let status: Value = serde_json::from_str(&text).expect("JSON");
    let handler = &status["handlers"][0];
    for field in ["dead", "pending", "in_flight", "removed"] {
        assert_eq!(handler[field], Value::Null, "{field}: {status:#}");
    }
    assert_eq!(handler["state"], "unknown", "{status:#}");
    assert_eq!(handler["decided"], 1, "what may be asked is known: {status:#}");
    for field in ["hosts", "delayed", "orphans"] {
        assert_eq!(status[field], Value::Null, "{field}: {status:#}");
    }
    let why = |field: &str| {
        let mut all = status["unknown"].as_array().into_iter().flatten();
        let found = all.find(|one| one["field"] == field);
        found.map_or_else(|| panic!("{field}: {status:#}"), |one| one["why"].to_string())
    };
    assert!(why("hosts").contains("may not publish to $SRV.STATS.jetmesh"));
    assert!(why("handlers.dead").contains("STREAM.INFO.MESH_DEAD"));
    assert!(why("delayed").contains("STREAM.INFO.MESH_DELAYED"));
    assert_eq!(status["serves"], false);
    let (code, text, _) = mesh.jetmesh(&["status"]).await;
    assert_eq!(code.code(), Some(6));
    assert!(
        text.starts_with("mesh jetmesh: it is not known which hosts there are\n"),
        "{text}"
    );
    let row: Vec<&str> = text.lines().nth(2).expect("a row").split_whitespace().collect();
    assert_eq!(
        row,
        ["probe", "unknown", "-", "?", "?", "?", "?", "0", "1", "?"],
        "{text}"
    );
    assert!(
        text.contains("how many dead letters there are is not known: "),
        "{text}"
    );
    // A handler that hosts may serve is not reset.
    mesh.config = Config::probe().nats("user = \"deaf\"").nats("password = \"pw\"");
    let (code, _, stderr) = mesh.jetmesh(&["reset", "probe", "--yes"]).await;
    assert!(code.code() == Some(4) && stderr.contains("$SRV.STATS"), "{stderr}");
    host.stop().await;
}
