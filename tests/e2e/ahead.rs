//! Streams that have lost their end, and consumers that are ahead of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::audit::{judge, publish_work, publish_work_from, work};
use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::server::Options;
use crate::support::{Host, NatsServer, eventually};

/// A mesh whose streams can lose their end: their files lie here.
pub struct Files {
    pub mesh: Mesh,
    store: TempDir,
}

impl Files {
    pub async fn new(config: Config) -> Files {
        let store = TempDir::with_prefix("jetmesh-store-").expect("a temporary folder");
        let options = Options {
            store: Some(store.path().to_owned()),
            ..Options::default()
        };
        let mesh = Mesh::over(NatsServer::start_with(&options).await, config).await;
        Files { mesh, store }
    }

    /// A mesh that has decided twenty orders, its host, and the messages that the stream had after ten of them.
    async fn with_twenty(stream: &str) -> (Files, Host, TempDir) {
        let mut files = Files::new(Config::probe()).await;
        let host = files.mesh.host(&[]).await;
        publish_work(&files.mesh, 10, 3).await;
        judge(&files.mesh, 10, 3).await;
        let kept = files.keep(stream).await;
        publish_work_from(&files.mesh, 10, 20, 3).await;
        judge(&files.mesh, 20, 3).await;
        (files, host, kept)
    }

    fn of(&self, stream: &str) -> PathBuf {
        self.store.path().join("jetstream/$G/streams").join(stream).join("msgs")
    }

    /// The messages of a stream as they are now.
    pub async fn keep(&mut self, stream: &str) -> TempDir {
        self.mesh.server.stop().await;
        let kept = TempDir::with_prefix("jetmesh-kept-").expect("a temporary folder");
        copy(&self.of(stream), kept.path());
        self.mesh.server.restart().await;
        kept
    }

    /// The stream has its messages of then; its consumers stay as they are. The server does not run.
    pub async fn lose_end(&self, stream: &str, kept: &TempDir) {
        self.mesh.server.stop().await;
        fs::remove_dir_all(self.of(stream)).expect("they are there");
        copy(&kept.path().join("msgs"), self.of(stream).parent().expect("a folder"));
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp runs").success());
}

/// Creates a consumer again, as if it had been given a thousand messages more than its stream has.
pub async fn put_ahead(mesh: &Mesh, stream: &str, name: &str) {
    let found = mesh.consumer(stream, name).await;
    let mut config = found["config"].clone();
    let start = found["delivered"]["stream_seq"].as_u64().expect("a sequence") + 1_000;
    config["deliver_policy"] = json!("by_start_sequence");
    config["opt_start_seq"] = json!(start);
    let create = format!("CONSUMER.CREATE.{stream}.{name}");
    let body = json!({ "stream_name": stream, "config": config });
    mesh.remove_consumer(stream, name).await;
    let made: Value = mesh.js.request(create, &body).await.expect("an answer");
    assert!(made["error"].is_null(), "{made}");
}

/// The ledger is as it was before, and the relay's consumer as it is now: what is decided again, and what is new, lies
/// where the consumer believes to have been.
#[tokio::test]
async fn a_relay_whose_consumer_is_ahead_of_its_stream_carries_everything_out_once() {
    let (mut files, _host, kept) = Files::with_twenty("KV_probe").await;
    files.lose_end("KV_probe", &kept).await;
    files.mesh.server.restart().await;
    publish_work_from(&files.mesh, 20, 23, 3).await;
    judge(&files.mesh, 23, 3).await;
}

#[tokio::test]
async fn a_relay_creates_its_consumer_again_when_it_is_ahead_and_says_so() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    publish_work(&mesh, 5, 3).await;
    judge(&mesh, 5, 3).await;
    put_ahead(&mesh, "KV_probe", "mesh-relay").await;
    host.wait_for_line(
        says(&["WARN", "the relay's consumer was ahead of it and is created again"]),
        PATIENT,
    )
    .await;
    publish_work_from(&mesh, 5, 10, 3).await;
    judge(&mesh, 10, 3).await;
}

/// A consumer that was deleted leaves no record of how far it had come.
#[tokio::test]
async fn a_relay_whose_consumer_is_removed_publishes_nothing_twice() {
    let window = async_nats::jetstream::stream::Config {
        name: "EVENTS".to_owned(),
        subjects: vec!["events.>".to_owned()],
        duplicate_window: std::time::Duration::from_millis(500),
        ..Default::default()
    };
    let mesh = Mesh::new(Config::probe()).await;
    mesh.js.create_stream(window).await.expect("it is made");
    let _host = mesh.host(&[]).await;
    // More messages than a relay fetches at a time: an entry for each.
    for number in 0..40 {
        mesh.order(work(number, 3)).await;
        mesh.wait_decisions("probe", number + 1).await;
    }
    judge(&mesh, 40, 3).await;
    crate::hosts::wait_forgotten(&mesh).await;
    mesh.remove_consumer("KV_probe", "mesh-relay").await;
    eventually("another one that has come to the end", PATIENT, async || {
        mesh.settled("KV_probe", "mesh-relay").await
    })
    .await;
    assert_eq!(mesh.emitted().await.len(), 40);
    publish_work_from(&mesh, 40, 43, 3).await;
    judge(&mesh, 43, 3).await;
}

/// The source uses the sequences of what it has lost again: what comes there is new, whatever is decided under them.
#[tokio::test]
async fn a_source_that_has_lost_its_end_has_new_events_there_and_none_is_lost() {
    let (mut files, host, kept) = Files::with_twenty("ORDERS").await;
    files.lose_end("ORDERS", &kept).await;
    files.mesh.server.restart().await;
    publish_work_from(&files.mesh, 20, 23, 3).await;
    judge(&files.mesh, 23, 3).await;
    host.wait_for_line(
        says(&["WARN", "the source stream has lost its last messages", "end=10"]),
        PATIENT,
    )
    .await;
}

/// The same when publishers were faster than any host: the stream is longer again than it was.
#[tokio::test]
async fn a_source_that_has_grown_again_before_a_host_comes_loses_none_of_its_events() {
    let (mut files, host, kept) = Files::with_twenty("ORDERS").await;
    host.stop().await;
    files.lose_end("ORDERS", &kept).await;
    files.mesh.server.restart().await;
    publish_work_from(&files.mesh, 20, 35, 3).await;
    let host = files.mesh.host(&[]).await;
    judge(&files.mesh, 35, 3).await;
    // The next start finds it as it is.
    host.stop().await;
    let _host = files.mesh.host(&[]).await;
    publish_work_from(&files.mesh, 35, 37, 3).await;
    judge(&files.mesh, 37, 3).await;
}

#[tokio::test]
async fn a_handler_whose_consumer_is_ahead_of_its_stream_gets_every_event() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    publish_work(&mesh, 5, 3).await;
    judge(&mesh, 5, 3).await;
    put_ahead(&mesh, "ORDERS", "probe").await;
    host.wait_for_line(
        says(&["WARN", "the handler's consumer was ahead of it and is created again"]),
        PATIENT,
    )
    .await;
    publish_work_from(&mesh, 5, 10, 3).await;
    judge(&mesh, 10, 3).await;
}

#[tokio::test]
async fn delayed_events_come_when_their_stream_has_lost_its_end() {
    let mut files = Files::new(Config::probe()).await;
    let _host = files.mesh.host(&[]).await;
    let kept = files.keep("MESH_DELAYED").await;
    let later = json!({ "op": "emit_later", "subject": "events.worked", "payload": 1, "after_ms": 100 });
    for number in 1..=4 {
        if number == 4 {
            files.lose_end("MESH_DELAYED", &kept).await;
            files.mesh.server.restart().await;
        }
        files.mesh.order(later.clone()).await;
        eventually("the event to come", PATIENT, async || {
            (files.mesh.emitted().await.len() == number).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_ledger_moves_also_when_its_source_has_lost_its_last_messages_and_nothing_new_has_come() {
    let mut files = Files::new(crate::reset::without_bucket("")).await;
    let host = files.mesh.host(&[]).await;
    let emit = json!({ "op": "emit", "subject": "events.x", "payload": 1 });
    for number in 1..=6 {
        files.mesh.order(emit.clone()).await;
        files.mesh.wait_emitted(number).await;
    }
    files.mesh.wait_settled("ORDERS", "probe").await;
    let kept = files.keep("ORDERS").await;
    for number in 7..=9 {
        files.mesh.order(emit.clone()).await;
        files.mesh.wait_emitted(number).await;
    }
    files.mesh.wait_settled("ORDERS", "probe").await;
    files.lose_end("ORDERS", &kept).await;
    let mark = host.lines().len();
    files.mesh.server.restart().await;
    host.wait_for_line_after(mark, says(&["serving", "handler=probe "]), PATIENT)
        .await;
    host.stop().await;
    files.mesh.config = Config::probe_with("start = \"all\"");
    let said = files
        .mesh
        .jetmesh_ok(&["reset", "probe", "--keep-decided", "--yes"])
        .await;
    assert!(said.contains("up to ORDERS:6, stay decided"), "{said}");
    let _host = files.mesh.host(&[]).await;
    files.mesh.order(emit).await;
    files.mesh.wait_decisions("probe", 1).await;
    files.mesh.wait_settled("ORDERS", "probe").await;
    files.mesh.wait_settled("KV_probe", "mesh-relay").await;
    assert_eq!(files.mesh.emitted().await.len(), 10, "none runs again");
    assert_eq!(files.mesh.decisions("probe").await.len(), 1);
}
