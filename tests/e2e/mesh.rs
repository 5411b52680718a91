//! A mesh of a test's own: its server, its configuration, what is published to it and what is found in it.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::{self, ErrorCode, stream};
use bytes::Bytes;
use futures_util::TryStreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;

pub use crate::config::Config;
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer, cli, eventually};

/// A server, a folder for hosts, and a client that looks on.
pub struct Mesh {
    pub server: NatsServer,
    pub dir: TempDir,
    pub client: async_nats::Client,
    pub js: jetstream::Context,
    pub config: Config,
}

impl Mesh {
    /// Starts a server. No host runs yet.
    pub async fn new(config: Config) -> Self {
        Self::over(NatsServer::start().await, config).await
    }

    /// The same over a server that runs, and that lets in clients without a user.
    pub async fn over(server: NatsServer, config: Config) -> Self {
        let client = server.client().await;
        Self::with_client(server, client, config)
    }

    pub fn with_client(server: NatsServer, client: async_nats::Client, config: Config) -> Self {
        let js = jetstream::new(client.clone());
        let dir = TempDir::with_prefix("jetmesh-test-").expect("a temporary folder");
        Self {
            server,
            dir,
            client,
            js,
            config,
        }
    }

    /// A server and one host that serves.
    pub async fn start(config: Config) -> (Self, Host) {
        let mesh = Self::new(config).await;
        let host = mesh.host(&[]).await;
        (mesh, host)
    }

    /// Starts a host and waits until each of its handlers serves.
    pub async fn host(&self, env: &[(&str, &str)]) -> Host {
        self.host_of(&self.config, &self.server.url(), env).await
    }

    /// The same with a fault point, `point:action[:nth]`.
    pub async fn host_with_fault(&self, fault: &str) -> Host {
        self.host(&[("MESH_FAULT", fault)]).await
    }

    /// The same with another configuration and another way to the server.
    pub async fn host_of(&self, config: &Config, url: &str, env: &[(&str, &str)]) -> Host {
        let host = Host::start(&config.text(url), self.dir.path(), env);
        for handler in config.handlers() {
            host.wait_for_line(says(&["serving", &format!("handler={handler} ")]), SOON)
                .await;
        }
        host
    }

    /// Publishes and returns the sequence in the stream that took it.
    pub async fn publish(&self, subject: &str, payload: impl Into<Bytes>) -> u64 {
        self.publish_with(subject, &[], payload).await
    }

    pub async fn publish_with(&self, subject: &str, headers: &[(&str, &str)], payload: impl Into<Bytes>) -> u64 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, *value);
        }
        let ack = self
            .js
            .publish_with_headers(subject.to_owned(), map, payload.into())
            .await;
        ack.expect("the server takes it")
            .await
            .expect("a stream takes it")
            .sequence
    }

    /// Publishes orders for the probe on `orders.probe`: one step, or several.
    pub async fn order(&self, steps: Value) -> u64 {
        let orders = if steps.is_array() {
            json!({ "do": steps })
        } else {
            steps
        };
        self.publish("orders.probe", orders.to_string()).await
    }

    /// The value of a key, read as `nats kv get` reads it. `None`: it has none, or there is no bucket.
    pub async fn value(&self, bucket: &str, key: &str) -> Option<String> {
        let store = self.js.get_key_value(bucket).await.ok()?;
        let value = store.get(key).await.expect("a bucket is readable")?;
        Some(String::from_utf8(value.to_vec()).expect("the value is text"))
    }

    pub async fn put(&self, bucket: &str, key: &str, value: &str) {
        let store = self.js.get_key_value(bucket).await.expect("the bucket is there");
        store
            .put(key, value.to_owned().into())
            .await
            .expect("the value is taken");
    }

    /// All messages of a stream on subjects that match the filter, `>` for all. None if there is no such stream.
    pub async fn messages(&self, stream: &str, filter: &str) -> Vec<Found> {
        // In a cluster a server may go while it is read, or may not have everything yet: then all is read again.
        eventually("a stream to be read", SOON, async || {
            match self.js.get_stream(stream).await {
                Ok(stream) => read(&stream, filter).await.map_err(told).ok()?,
                Err(error) if is_missing(&error) => Some(Vec::new()),
                Err(error) => {
                    told(error);
                    None
                }
            }
        })
        .await
    }

    /// How many messages a stream holds.
    pub async fn messages_left(&self, stream: &str) -> u64 {
        self.js
            .get_stream(stream)
            .await
            .expect("the stream is there")
            .cached_info()
            .state
            .messages
    }

    /// What handlers have emitted.
    pub async fn emitted(&self) -> Vec<Found> {
        self.messages("EVENTS", ">").await
    }

    /// The dead letters that are not settled, without the parts of large ones.
    pub async fn letters(&self) -> Vec<Found> {
        let mut letters = self.messages("MESH_DEAD", "$MESH.dead.*.*.*.*").await;
        letters.retain(|letter| letter.header("Mesh-Settled").is_none());
        letters
    }

    /// Waits until there are this many dead letters.
    #[track_caller]
    pub fn wait_letters(&self, count: usize) -> impl Future<Output = Vec<Found>> {
        eventually("dead letters", SOON, async move || {
            let letters = self.letters().await;
            (letters.len() == count).then_some(letters)
        })
    }

    /// Waits until this many events are emitted.
    #[track_caller]
    pub fn wait_emitted(&self, count: usize) -> impl Future<Output = Vec<Found>> {
        eventually("emitted events", SOON, async move || {
            let events = self.emitted().await;
            (events.len() == count).then_some(events)
        })
    }

    /// Waits until a key has this value: in a cluster any server that has the bucket may answer.
    #[track_caller]
    pub fn wait_value(&self, bucket: &str, key: &str, value: &str) -> impl Future<Output = ()> {
        let what = format!("{key} of bucket {bucket} to be {value}");
        eventually(what, SOON, async move || {
            (self.value(bucket, key).await.as_deref() == Some(value)).then_some(())
        })
    }

    /// Every decision of a bucket's ledger, in order.
    pub async fn decisions(&self, bucket: &str) -> Vec<Value> {
        let entries = self
            .messages(&format!("KV_{bucket}"), &format!("$MESH.state.{bucket}.ledger.>"))
            .await;
        entries
            .iter()
            .flat_map(|entry| {
                entry.json()["decisions"]
                    .as_array()
                    .cloned()
                    .expect("an entry has decisions")
            })
            .collect()
    }

    /// Waits until the ledger has this many decisions.
    #[track_caller]
    pub fn wait_decisions(&self, bucket: &str, count: usize) -> impl Future<Output = Vec<Value>> {
        eventually("decisions in the ledger", SOON, async move || {
            let decisions = self.decisions(bucket).await;
            (decisions.len() >= count).then_some(decisions)
        })
    }

    /// All attempt records.
    pub async fn attempts(&self) -> Vec<Value> {
        let records = self.messages("KV_mesh_attempts", "$KV.mesh_attempts.>").await;
        records.iter().map(Found::json).collect()
    }

    /// The server's information about a consumer; `Null` if there is none.
    pub async fn consumer(&self, stream: &str, name: &str) -> Value {
        let subject = format!("CONSUMER.INFO.{stream}.{name}");
        // In a cluster there is no answer while there is no leader.
        let answer: Value = eventually("JetStream to answer", SOON, async || {
            self.js.request(subject.clone(), &json!({})).await.map_err(told).ok()
        })
        .await;
        if answer["error"].is_null() { answer } else { Value::Null }
    }

    /// Removes a consumer, as a person does.
    pub async fn remove_consumer(&self, stream: &str, name: &str) {
        let removed = self.js.delete_consumer_from_stream(name, stream).await;
        removed.expect("the consumer is there");
    }

    /// Waits until a consumer has nothing to deliver and nothing to wait for.
    #[track_caller]
    pub fn wait_settled(&self, stream: &str, name: &str) -> impl Future<Output = Value> {
        eventually("every event to be settled", SOON, async move || {
            self.settled(stream, name).await
        })
    }

    /// A consumer's information, if it has nothing to deliver and nothing to wait for.
    pub async fn settled(&self, stream: &str, name: &str) -> Option<Value> {
        let info = self.consumer(stream, name).await;
        if info["num_pending"] != 0 || info["num_ack_pending"] != 0 {
            return None;
        }
        // The server confirms a message some time before it counts it as pending (`sigq` in nats-server's `server/stream.go`).
        let (given, filter) = (&info["delivered"]["stream_seq"], &info["config"]["filter_subject"]);
        let body = json!({ "last_by_subj": filter.as_str().unwrap_or(">") });
        let subject = format!("STREAM.MSG.GET.{stream}");
        let last: Value = self.js.request(subject, &body).await.map_err(told).ok()?;
        (last["message"]["seq"].as_u64() <= given.as_u64()).then_some(info)
    }

    /// Waits until nothing is to be replayed any more.
    #[track_caller]
    pub fn wait_replayed(&self) -> impl Future<Output = ()> {
        eventually("the replays to be over", SOON, async move || {
            self.messages_left("MESH_REPLAY").await.eq(&0).then_some(())
        })
    }

    /// Makes a stream as a user would.
    pub async fn add_stream(&self, name: &str, subjects: &[&str], retention: stream::RetentionPolicy) {
        let config = stream::Config {
            name: name.to_owned(),
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            retention,
            ..stream::Config::default()
        };
        self.js.create_stream(config).await.expect("the stream can be made");
    }

    /// Runs `jetmesh` with this mesh's configuration to its end.
    pub async fn jetmesh(&self, args: &[&str]) -> (ExitStatus, String, String) {
        let file = self.write_config();
        let file = file.to_str().expect("a temporary folder's path is UTF-8");
        cli::jetmesh_in(self.dir.path(), &[args, &["--config", file]].concat()).await
    }

    /// Runs `jetmesh`, which must succeed, and returns its standard output.
    pub async fn jetmesh_ok(&self, args: &[&str]) -> String {
        let (status, stdout, stderr) = self.jetmesh(args).await;
        assert!(
            status.success(),
            "jetmesh {}: {status}\n{stdout}{stderr}",
            args.join(" ")
        );
        stdout
    }

    /// The configuration as a file, for commands.
    pub fn write_config(&self) -> PathBuf {
        let path = self.dir.path().join("commands.toml");
        std::fs::write(&path, self.config.text(&self.server.url())).expect("the test's folder is writable");
        path
    }
}

fn is_missing(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Shown when a test has waited in vain.
fn told(error: impl Display) {
    eprintln!("looked in vain: {error}");
}

/// Everything in a stream that matches. `None`: the server that was read has less than the leader.
async fn read(stream: &stream::Stream, filter: &str) -> Result<Option<Vec<Found>>, async_nats::Error> {
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        filter_subject: filter.to_owned(),
        ..pull::Config::default()
    };
    let held: Vec<(String, usize)> = stream.info_with_subjects(filter).await?.try_collect().await?;
    let held: usize = held.iter().map(|(_, count)| count).sum();
    let consumer = stream.create_consumer(config).await?;
    let count = usize::try_from(consumer.cached_info().num_pending).expect("few");
    let mut found = Vec::with_capacity(count);
    while found.len() < count {
        // Messages may be removed meanwhile: then fewer come, and the fetch ends.
        let batch = consumer.fetch().max_messages(count - found.len()).messages().await?;
        let batch: Vec<jetstream::Message> = batch.try_collect().await?;
        if batch.is_empty() {
            break;
        }
        found.extend(batch.iter().map(Found::of));
    }
    stream.delete_consumer(&consumer.cached_info().name).await?;
    Ok((found.len() >= held).then_some(found))
}

/// A message in a stream.
#[derive(Debug, Clone)]
pub struct Found {
    pub subject: String,
    /// In its stream.
    pub sequence: u64,
    /// When it was stored, in milliseconds since the Unix epoch.
    pub time_ms: i128,
    pub headers: HeaderMap,
    pub payload: Bytes,
}

impl Found {
    /// As a consumer delivers it.
    pub fn of(message: &jetstream::Message) -> Self {
        let info = message.info().expect("a consumer's message tells its place");
        Self {
            subject: message.subject.to_string(),
            sequence: info.stream_sequence,
            time_ms: info.published.unix_timestamp_nanos() / 1_000_000,
            headers: message.headers.clone().unwrap_or_default(),
            payload: message.payload.clone(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.as_str())
    }

    /// What `jetmesh dlq ls` calls it, if it is a dead letter.
    ///
    /// # Panics
    /// When it is none.
    pub fn letter_id(&self) -> &str {
        let id = self.subject.splitn(4, '.').last();
        id.expect("a letter's subject has an id")
    }

    /// # Panics
    /// When the payload is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).expect("the payload is JSON")
    }
}

/// Whether a line of a host's log has all of these texts.
pub fn says<'a>(texts: &'a [&'a str]) -> impl Fn(&str) -> bool + 'a {
    move |line| texts.iter().all(|text| line.contains(text))
}

/// Long enough for what takes several ack waits on a busy machine.
pub const PATIENT: Duration = Duration::from_secs(90);
