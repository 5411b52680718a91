//! Many handlers on one host: what they share.

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream;
use serde_json::json;

use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer, eventually, modules};

const HANDLERS: usize = 24;

/// Handlers with a bucket and without one, in turn.
fn many(count: usize) -> Config {
    let probe = modules::handler("probe");
    (0..count).fold(Config::new(), |config, number| {
        let lines = match number % 2 {
            0 => format!("subjects = [\"orders.n{number}\"]\nbucket = \"b{number}\""),
            _ => format!("subjects = [\"orders.n{number}\"]"),
        };
        config.handler(&format!("h{number}"), &probe, &lines)
    })
}

/// The sockets that a host has open.
fn sockets(host: &Host) -> usize {
    let folder = std::fs::read_dir(format!("/proc/{}/fd", host.pid())).expect("the host runs");
    let links = folder.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .count()
}

async fn consumers(mesh: &Mesh, stream: &str) -> usize {
    let stream = mesh.js.get_stream(stream).await.expect("the stream is there");
    stream.cached_info().state.consumer_count
}

#[tokio::test]
async fn handlers_share_connections_and_have_a_consumer_for_replays_only_while_some_wait() {
    let mesh = Mesh::new(many(HANDLERS)).await;
    let host = mesh.host(&[]).await;
    // Two for each thread, and one for what relays publish. What relays fetch, the micro service, due events and advisories
    // come through a guard each, which has sockets of its own; so have signals.
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    eventually("the consumer of advisories", SOON, async || {
        (consumers(&mesh, "MESH_ADVISORIES").await == 1).then_some(())
    })
    .await;
    eventually("few connections", SOON, async || {
        (sockets(&host) <= 4 * threads + 20).then_some(())
    })
    .await;
    assert_eq!(consumers(&mesh, "MESH_REPLAY").await, 0);
    assert_eq!(consumers(&mesh, "ORDERS").await, HANDLERS);

    for number in [0, 1] {
        let order = json!({ "op": "reject", "code": "no", "message": "not now" });
        mesh.publish(&format!("orders.n{number}"), order.to_string()).await;
    }
    mesh.wait_letters(2).await;
    // It fails again, and the letters stay; what counts is that each handler has heard of its own.
    let (_, account, _) = mesh.jetmesh(&["dlq", "replay", "--all", "--yes"]).await;
    assert!(account.contains("2 failed again"), "{account}");
    mesh.wait_replayed().await;
    assert_eq!(consumers(&mesh, "MESH_REPLAY").await, 2);
}

#[tokio::test]
async fn a_stream_that_takes_few_consumers_is_warned_of_and_one_too_many_is_told_as_such() {
    let mesh = Mesh::new(many(3)).await;
    let few = stream::Config {
        name: "ORDERS".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        max_consumers: 1,
        ..stream::Config::default()
    };
    mesh.js.create_stream(few).await.expect("the stream can be made");
    let (_, stdout, stderr) = mesh.jetmesh(&["check", "--connect"]).await;
    let text = "stream ORDERS allows 1 consumers and needs 3";
    assert!(stdout.contains(text), "{stdout}{stderr}");
    let host = Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &[]);
    host.wait_for_line(
        says(&["stopped until this is corrected", "accepts no further consumer"]),
        PATIENT,
    )
    .await;
    host.wait_for_line(says(&["serving", "stream=ORDERS"]), PATIENT).await;
}

#[tokio::test]
async fn streams_that_the_mesh_makes_take_more_consumers_than_the_server_does_by_itself() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    for name in ["ORDERS", "MESH_REPLAY", "KV_probe"] {
        let stream = mesh.js.get_stream(name).await.expect("the stream is there");
        assert_eq!(stream.cached_info().config.max_consumers, 100_000, "{name}");
    }
}

/// A server with one account, which has these JetStream limits.
async fn with_limits(jetstream: &str, config: Config) -> Mesh {
    let user = "users: [{ user: a, password: a }]";
    let options = Options {
        config: format!("accounts {{ A {{ jetstream: {{ {jetstream} }}, {user} }} }}\nno_auth_user: a"),
        ..Options::default()
    };
    Mesh::over(NatsServer::start_with(&options).await, config).await
}

#[tokio::test]
async fn limits_of_the_account_that_are_nearly_used_up_are_warned_of_before_the_start_and_after() {
    // Ten streams are made.
    let mesh = with_limits("max_streams: 12, max_consumers: 3", many(3)).await;
    let streams = "the account may have 12 streams and needs 11: raise max_streams";
    let consumers = "stream ORDERS allows 3 consumers and needs 3";
    let (_, said, stderr) = mesh.jetmesh(&["check", "--connect"]).await;
    assert!(said.contains(&format!("warning: {streams}")), "{said}{stderr}");
    let _host = mesh.host(&[]).await;
    let (_, said, stderr) = mesh.jetmesh(&["status"]).await;
    for warning in [streams, consumers] {
        assert!(said.contains(&format!("warning: {warning}")), "{said}{stderr}");
    }
    let mesh = with_limits("max_streams: 100, max_file: 100M", many(3)).await;
    let reserved = stream::Config {
        name: "OTHER".to_owned(),
        max_bytes: 90_000_000,
        ..stream::Config::default()
    };
    mesh.js.create_stream(reserved).await.expect("the stream can be made");
    let _host = mesh.host(&[]).await;
    let (_, said, stderr) = mesh.jetmesh(&["status"]).await;
    let bytes = "warning: the account may have 100000000 bytes in files and needs 90000000: raise max_file";
    assert!(said.contains(bytes), "{said}{stderr}");
    assert!(!said.contains("max_streams"), "{said}");
}

#[tokio::test]
async fn a_host_whose_answer_does_not_fit_one_message_is_seen_by_status() {
    let options = Options {
        max_payload: Some(8192),
        ..Options::default()
    };
    let mesh = Mesh::over(NatsServer::start_with(&options).await, many(HANDLERS)).await;
    let _host = mesh.host(&[]).await;
    let serves = async || {
        let (status, said, _) = mesh.jetmesh(&["status", "--json"]).await;
        let told: serde_json::Value = serde_json::from_str(&said).ok()?;
        (status.success() && told["hosts"].as_array()?.len() == 1).then_some(told)
    };
    let told = eventually("status to see all of them", PATIENT, serves).await;
    assert_eq!(told["hosts"][0]["endpoints"].as_array().map(Vec::len), Some(HANDLERS));
}

#[tokio::test]
async fn consumers_beyond_the_first_page_that_the_server_tells_are_seen() {
    let (mesh, _host) = Mesh::start(many(1)).await;
    // More than it tells at a time, by name behind the one that is configured.
    const ORPHANS: usize = 300;
    let source = mesh.js.get_stream("ORDERS").await.expect("the host has made it");
    let orphan = |number: usize| pull::Config {
        durable_name: Some(format!("x{number}")),
        metadata: [("jetmesh.mesh", "jetmesh"), ("jetmesh.handler", "former")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..pull::Config::default()
    };
    for number in 0..ORPHANS {
        source.create_consumer(orphan(number)).await.expect("it can be made");
    }
    let said = mesh.jetmesh_ok(&["status"]).await;
    assert_eq!(said.matches("orphan: consumer x").count(), ORPHANS);
}
