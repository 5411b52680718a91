//! What a host refuses, or waits for, at its start; it never takes over what is not its own.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::RetentionPolicy;
use serde_json::json;

use crate::mesh::{Config, Mesh, says};
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer, modules};

/// Starts a host that does not come to serve.
fn start(mesh: &Mesh) -> Host {
    Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &[])
}

/// Makes `ORDERS` as a user would, before any host.
async fn orders(mesh: &Mesh, retention: RetentionPolicy) {
    mesh.add_stream("ORDERS", &["orders.>"], retention).await;
}

/// Asserts that `check --connect` refuses with this text.
async fn check_refuses(mesh: &Mesh, text: &str) {
    let (status, stdout, stderr) = mesh.jetmesh(&["check", "--connect"]).await;
    assert_eq!(status.code(), Some(4), "{stdout}{stderr}");
    assert!(stdout.contains(text), "{text:?} is not in\n{stdout}{stderr}");
}

#[tokio::test]
async fn a_host_waits_for_a_server_that_is_not_there_yet_and_says_so_once() {
    let mut mesh = Mesh::new(Config::probe()).await;
    mesh.server.stop().await;
    let host = start(&mesh);
    host.wait_for_line(says(&["waiting for nats", &mesh.server.url()]), SOON)
        .await;
    mesh.server.restart().await;
    host.wait_for_line(says(&["serving"]), SOON).await;
    let said = host
        .lines()
        .iter()
        .filter(|line| line.contains("waiting for nats"))
        .count();
    assert_eq!(said, 1);
}

#[tokio::test]
async fn a_host_waits_for_jetstream_that_has_no_leader_yet() {
    // One of three, the others being nowhere.
    let lonely = "server_name: one\ncluster { name: three, listen: \"127.0.0.1:-1\", \
                  routes: [\"nats://127.0.0.1:1\", \"nats://127.0.0.1:2\"] }";
    let options = Options {
        config: lonely.to_owned(),
        ..Options::default()
    };
    let config = Config::probe().nats("timeout = \"500ms\"");
    let mut mesh = Mesh::over(NatsServer::start_with(&options).await, config).await;
    let host = start(&mesh);
    host.wait_for_line(says(&["waiting for nats", "JetStream"]), SOON).await;
    mesh.server.restart_with(&Options::default()).await;
    host.wait_for_line(says(&["serving"]), SOON).await;
}

#[tokio::test]
async fn a_server_without_jetstream_is_refused_with_the_reason() {
    let options = Options {
        config: "jetstream: disabled".to_owned(),
        ..Options::default()
    };
    let mesh = Mesh::over(NatsServer::start_with(&options).await, Config::probe()).await;
    for args in [&["run"][..], &["check", "--connect"]] {
        let (status, stdout, stderr) = mesh.jetmesh(args).await;
        assert_eq!(status.code(), Some(4), "{stdout}{stderr}");
        assert!(stderr.contains("start nats-server with --jetstream"), "{stderr}");
    }
}

#[tokio::test]
async fn a_stream_with_messages_needs_to_be_told_where_to_start() {
    let mut mesh = Mesh::new(Config::probe()).await;
    orders(&mesh, RetentionPolicy::Limits).await;
    for _ in 0..3 {
        mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    }
    let text = "stream ORDERS already contains 3 messages; set where it starts: `start = \"all\"`";
    check_refuses(&mesh, text).await;
    let host = start(&mesh);
    host.wait_for_line(
        says(&["ERROR", "the handler is stopped until this is corrected", text]),
        SOON,
    )
    .await;
    assert!(mesh.consumer("ORDERS", "probe").await.is_null(), "nothing was made");
    drop(host);

    mesh.config = Config::probe_with("start = \"2\"");
    let _host = mesh.host(&[]).await;
    mesh.wait_settled("ORDERS", "probe").await;
    mesh.wait_value("probe", "n", "2").await;
}

#[tokio::test]
async fn a_consumer_of_somebody_else_is_refused_and_left_as_it_is() {
    let mesh = Mesh::new(Config::probe()).await;
    orders(&mesh, RetentionPolicy::Limits).await;
    let stream = mesh.js.get_stream("ORDERS").await.expect("it is there");
    let config = |metadata| pull::Config {
        durable_name: Some("probe".to_owned()),
        metadata,
        ..pull::Config::default()
    };
    stream
        .create_consumer(config(HashMap::new()))
        .await
        .expect("a consumer can be made");
    let before = mesh.consumer("ORDERS", "probe").await["config"].clone();
    let text = "consumer probe on stream ORDERS was not made by jetmesh and is not taken over";
    check_refuses(&mesh, text).await;
    let host = start(&mesh);
    host.wait_for_line(says(&["the handler is stopped until this is corrected", text]), SOON)
        .await;
    assert_eq!(mesh.consumer("ORDERS", "probe").await["config"], before);

    // Another mesh's is no better.
    drop(host);
    stream.delete_consumer("probe").await.expect("it goes");
    let metadata = [("jetmesh.mesh", "other"), ("jetmesh.handler", "probe")];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    stream
        .create_consumer(config(HashMap::from(metadata)))
        .await
        .expect("a consumer can be made");
    let text = "belongs to handler probe of mesh other, not to handler probe of mesh jetmesh";
    check_refuses(&mesh, text).await;
    let host = start(&mesh);
    host.wait_for_line(says(&["the handler is stopped until this is corrected", text]), SOON)
        .await;

    // Mended, it goes on by itself.
    stream.delete_consumer("probe").await.expect("it goes");
    host.wait_for_line(says(&["serving", "handler=probe"]), SOON).await;
}

#[tokio::test]
async fn a_second_mesh_in_one_account_is_refused() {
    let (mut mesh, _host) = Mesh::start(Config::probe()).await;
    mesh.config = Config::probe().top("mesh = \"second\"");
    let (status, _, stderr) = mesh.jetmesh(&["run"]).await;
    assert_eq!(status.code(), Some(4), "{stderr}");
    assert!(
        stderr.contains("belongs to mesh jetmesh: one account holds one mesh"),
        "{stderr}"
    );
}

#[tokio::test]
async fn two_handlers_of_one_work_queue_are_refused() {
    let mut mesh = Mesh::new(Config::new()).await;
    orders(&mesh, RetentionPolicy::WorkQueue).await;
    let probe = modules::handler("probe");
    mesh.config = Config::new()
        .handler("one", &probe, "")
        .handler("two", &probe, "subjects = [\"orders.probe\"]");
    let text = "handlers one and two: stream ORDERS is a work queue, which gives each message to one consumer only";
    check_refuses(&mesh, text).await;
    let host = start(&mesh);
    host.wait_for_line(says(&["the handler is stopped until this is corrected", text]), SOON)
        .await;
    drop(host);

    // The same when the configuration makes it.
    let queue = "[streams.JOBS]\nsubjects = [\"jobs.>\"]\nretention = \"workqueue\"";
    let jobs = "stream = \"JOBS\"";
    mesh.config = Config::new()
        .table(queue)
        .handler("one", &probe, jobs)
        .handler("two", &probe, jobs);
    check_refuses(&mesh, &text.replace("ORDERS", "JOBS")).await;

    // Each with subjects of its own is fine.
    let of = |subject: &str| format!("bucket = \"probe\"\nsubjects = [\"orders.{subject}\"]");
    mesh.js.delete_stream("ORDERS").await.expect("it goes");
    orders(&mesh, RetentionPolicy::WorkQueue).await;
    mesh.config = Config::new()
        .handler("one", &probe, &of("a"))
        .handler("two", &probe, &of("b"));
    mesh.jetmesh_ok(&["check", "--connect"]).await;
    let _host = mesh.host(&[]).await;
    for subject in ["orders.a", "orders.b"] {
        mesh.publish(subject, json!({ "op": "add", "key": "n", "by": 1 }).to_string())
            .await;
    }
    mesh.wait_value("probe", "n", "2").await;
}

#[tokio::test]
async fn check_warns_of_a_target_that_forgets_message_ids_too_soon() {
    let mut mesh = Mesh::new(Config::probe()).await;
    let text = "warning: handler probe publishes into stream EVENTS, which recognises duplicates for 30s only";
    let stdout = mesh.jetmesh_ok(&["check", "--connect"]).await;
    assert!(!stdout.contains("warning"), "{stdout}");
    let config = async_nats::jetstream::stream::Config {
        name: "EVENTS".to_owned(),
        subjects: vec!["events.>".to_owned()],
        duplicate_window: Duration::from_secs(30),
        ..Default::default()
    };
    mesh.js.create_stream(config).await.expect("the stream can be made");
    let stdout = mesh.jetmesh_ok(&["check", "--connect"]).await;
    assert!(stdout.contains(text) && stdout.contains("everything fits"), "{stdout}");
    // The same where the configuration makes it.
    mesh.js.delete_stream("EVENTS").await.expect("it goes");
    let short = "[streams.SHORT]\nsubjects = [\"short.*\"]\nduplicate_window = \"30s\"";
    mesh.config = Config::new()
        .table(short)
        .handler("probe", &modules::handler("probe"), "publish = [\"short.>\"]");
    let stdout = mesh.jetmesh_ok(&["check", "--connect"]).await;
    assert!(stdout.contains(&text.replace("EVENTS", "SHORT")), "{stdout}");
}

#[tokio::test]
async fn check_finds_a_stream_that_is_not_there_or_captures_something_else() {
    let mut mesh = Mesh::new(Config::new()).await;
    let probe = modules::handler("probe");
    mesh.add_stream("OTHER", &["other.>"], RetentionPolicy::Limits).await;
    mesh.config = Config::new().handler("one", &probe, "stream = \"ABSENT\"").handler(
        "two",
        &probe,
        "stream = \"OTHER\"\nsubjects = [\"orders.created\"]",
    );
    check_refuses(
        &mesh,
        "handler one: there is no stream ABSENT: create it with `nats stream add ABSENT`",
    )
    .await;
    check_refuses(
        &mesh,
        "handler two: stream OTHER does not capture `orders.created`; it captures other.>",
    )
    .await;
}

#[tokio::test]
async fn a_bucket_that_could_lose_parts_of_a_ledger_is_refused_with_what_mends_it() {
    let mesh = Mesh::new(Config::probe()).await;
    let bucket = async_nats::jetstream::kv::Config {
        bucket: "probe".to_owned(),
        history: 5,
        max_age: std::time::Duration::from_secs(60),
        ..Default::default()
    };
    mesh.js.create_key_value(bucket).await.expect("a bucket can be made");
    let text = "bucket probe cannot hold a ledger: max_age is 60000000000 ns, not 0";
    check_refuses(&mesh, text).await;
    let (status, _, stderr) = mesh.jetmesh(&["run"]).await;
    assert_eq!(status.code(), Some(4), "{stderr}");
    for text in [text, "`nats stream edit KV_probe --max-age=0`", "history is 5, not 1"] {
        assert!(stderr.contains(text), "{text:?} is not in\n{stderr}");
    }
}

#[tokio::test]
async fn a_bucket_that_a_person_made_is_completed_and_keeps_its_values() {
    let mesh = Mesh::new(Config::probe()).await;
    let bucket = async_nats::jetstream::kv::Config {
        bucket: "probe".to_owned(),
        ..Default::default()
    };
    mesh.js.create_key_value(bucket).await.expect("a bucket can be made");
    mesh.put("probe", "n", "41").await;
    let _host = mesh.host(&[]).await;
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    mesh.wait_value("probe", "n", "42").await;
}
