//! Durable pull consumers: made or adopted at start, owned by one handler of one mesh, never taken over.

use crate::event::subject::covers;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::connection::Connection;
use super::error::{Code, Error, Remedy, remedy};
use super::start::start;
use super::stream::StreamInfo;
use crate::event::rfc3339;
use crate::plan::{Handler, Plan, Start};

/// Metadata of everything that a mesh makes: its name.
pub const META_MESH: &str = "jetmesh.mesh";
/// Metadata of a consumer: the handler that it belongs to.
pub const META_HANDLER: &str = "jetmesh.handler";
/// Metadata of a consumer: the incarnation of its source stream.
pub const META_INCARNATION: &str = "jetmesh.incarnation";
/// Metadata of a consumer: the first stream sequence that was ever its.
pub const META_START: &str = "jetmesh.start";
/// Metadata of a consumer: [`Handler::digest`] of the host that has bound it last.
pub const META_CONFIG: &str = "jetmesh.config";
/// Metadata of a consumer: the incarnation of its ledger's bucket that contains this handler's decisions.
pub const META_LEDGER: &str = "jetmesh.ledger";

impl ConsumerInfo {
    /// The first stream sequence that was ever a consumer's, where it says so.
    pub fn start(&self) -> Result<Option<u64>, Error> {
        let said = self.metadata(META_START);
        let unreadable = |start: &str| Error::Unreadable {
            what: format!("{META_START} in the metadata of consumer {}", self.name),
            why: format!("`{start}` is no sequence"),
            remedy: "reset its handler with `jetmesh reset`, so that it begins again at its `start`".to_owned(),
        };
        said.map(|start| start.parse().map_err(|_| unreadable(start)))
            .transpose()
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct ConsumerInfo {
    pub name: String,
    /// RFC 3339.
    #[serde(default)]
    pub created: String,
    pub config: Value,
    pub delivered: Position,
    pub ack_floor: Position,
    pub num_pending: u64,
    pub num_ack_pending: u64,
    /// Pull requests that wait for messages: hosts that serve.
    #[serde(default)]
    pub num_waiting: u64,
    #[serde(default)]
    pub paused: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Position {
    /// How many deliveries there were, repeated ones as well.
    pub consumer_seq: u64,
    pub stream_seq: u64,
}

impl ConsumerInfo {
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.config["metadata"][key].as_str()
    }

    /// Before the first ack, the ack floor of a consumer lies just before its start: nats-server 2.15 says so. 2.12 says 0,
    /// wherever the consumer starts; the handler would then be given again what was acked before.
    fn with_floor(mut self) -> ConsumerInfo {
        if self.ack_floor.consumer_seq == 0 {
            let before_start = match self.delivered.consumer_seq {
                0 => self.delivered.stream_seq,
                _ => self.config["opt_start_seq"].as_u64().unwrap_or(0).saturating_sub(1),
            };
            self.ack_floor.stream_seq = self.ack_floor.stream_seq.max(before_start);
        }
        self
    }

    /// Up to here the server has nothing left to deliver or to wait for.
    pub fn settled_floor(&self) -> u64 {
        if self.num_ack_pending == 0 {
            self.delivered.stream_seq
        } else {
            self.ack_floor.stream_seq
        }
    }

    /// Why the server gives nothing more of `stream` to the handler for now, though hosts may ask for it. `None`: it does.
    pub fn held_up(&self, stream: &str) -> Option<String> {
        let most = self.config["max_ack_pending"].as_u64().unwrap_or(u64::MAX);
        if self.paused {
            let handler = self.metadata(META_HANDLER).unwrap_or("HANDLER");
            return Some(format!(
                "its consumer {} on stream {stream} is paused: `jetmesh resume {handler}` resumes it",
                self.name
            ));
        }
        (self.num_ack_pending >= most).then(|| {
            format!(
                "{most} deliveries are at work or wait for a retry, and more are not given before one of them ends \
                 (`ack_pending_max`); `jetmesh retrying` lists them"
            )
        })
    }
}

impl Connection {
    /// `None`: there is no such consumer.
    pub async fn consumer(&self, stream: &str, name: &str) -> Result<Option<ConsumerInfo>, Error> {
        let info = self.api(&format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await;
        match info.map(ConsumerInfo::with_floor) {
            Ok(info) => Ok(Some(info)),
            Err(Error::Api {
                code: Code::CONSUMER_NOT_FOUND,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All consumers of a stream, as the server tells of them: some hundred at a time.
    pub async fn consumers(&self, stream: &str) -> Result<Vec<Value>, Error> {
        let mut all = Vec::new();
        loop {
            let ask = json!({ "offset": all.len() });
            let mut page: Value = self.api(&format!("CONSUMER.LIST.{stream}"), &ask).await?;
            let more = page["consumers"].as_array_mut().map(std::mem::take).unwrap_or_default();
            let end = more.is_empty();
            all.extend(more);
            if end || all.len() as u64 >= page["total"].as_u64().unwrap_or(0) {
                return Ok(all);
            }
        }
    }

    /// Makes or changes a durable consumer.
    pub async fn put_consumer(&self, stream: &str, config: &Value, action: &str) -> Result<ConsumerInfo, Error> {
        let name = config["durable_name"]
            .as_str()
            .or(config["name"].as_str())
            .unwrap_or_default();
        let body = json!({ "stream_name": stream, "config": config, "action": action });
        let info = self.api(&format!("CONSUMER.CREATE.{stream}.{name}"), &body).await;
        info.map(ConsumerInfo::with_floor)
    }
}

impl Connection {
    /// Has the server deliver nothing to a consumer until a time, RFC 3339; `None`: deliver again.
    pub async fn pause_consumer(&self, stream: &str, name: &str, until: Option<&str>) -> Result<(), Error> {
        let body = until.map_or_else(|| json!({}), |until| json!({ "pause_until": until }));
        let subject = format!("CONSUMER.PAUSE.{stream}.{name}");
        self.api::<Value>(&subject, &body).await.map(drop)
    }

    /// Removes a consumer; one that is not there is no error.
    pub async fn remove_consumer(&self, stream: &str, name: &str) -> Result<(), Error> {
        match self
            .api::<Value>(&format!("CONSUMER.DELETE.{stream}.{name}"), &json!({}))
            .await
        {
            Ok(_)
            | Err(Error::Api {
                code: Code::CONSUMER_NOT_FOUND | Code::STREAM_NOT_FOUND,
                ..
            }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The answer that has the server deliver a message again after a delay (`ConsumerNakOptions` of nats-server: nanoseconds).
pub fn nak(after: Duration) -> String {
    format!("-NAK {{\"delay\":{}}}", nanos(after))
}

/// Durations on JetStream's API are nanoseconds.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What a handler's consumer carries of its owner.
#[derive(Debug, Clone)]
pub struct Owner<'a> {
    pub mesh: &'a str,
    pub incarnation: &'a str,
    pub ledger: Option<&'a str>,
}

/// The consumer of a handler: made if it is not there, brought up to date if it is ours, refused if it is not. `floor`: up to
/// here every event of the handler is decided; 0: none is, or that is not known. `paused`: until when the server is to deliver
/// nothing of one that is made.
pub async fn bind(
    connection: &Connection,
    handler: &Handler,
    stream: &StreamInfo,
    owner: &Owner<'_>,
    (floor, paused): (u64, Option<&str>),
) -> Result<ConsumerInfo, Error> {
    let found = connection.consumer(&handler.stream, &handler.consumer).await?;
    if let Some(found) = &found {
        check_owner(handler, found, owner)?;
    }
    let found = match found {
        Some(found) => found,
        None => {
            let start = start(handler, stream, floor)?;
            let mut wanted = config(handler, owner, Origin::New(start));
            if let Some(until) = paused {
                wanted["pause_until"] = json!(until);
            }
            match connection.put_consumer(&handler.stream, &wanted, "create").await {
                Ok(made) => made,
                // Another host was faster.
                Err(Error::Api {
                    code: Code::CONSUMER_ALREADY_EXISTS,
                    ..
                }) => {
                    let there = connection.consumer(&handler.stream, &handler.consumer).await?;
                    there.ok_or_else(|| Error::Gone {
                        what: format!("consumer {}", handler.consumer),
                    })?
                }
                Err(error) => return Err(refused(handler, error)),
            }
        }
    };
    let wanted = config(handler, owner, Origin::Found(&found));
    if !differs(&wanted, &found.config) {
        return Ok(found);
    }
    connection
        .put_consumer(&handler.stream, &wanted, "update")
        .await
        .map_err(|e| refused(handler, e))
}

/// Whether the consumer that was found is this handler's.
pub fn check_owner(handler: &Handler, found: &ConsumerInfo, owner: &Owner<'_>) -> Result<(), Error> {
    let (stream, name) = (&handler.stream, &handler.consumer);
    match (found.metadata(META_MESH), found.metadata(META_HANDLER)) {
        (Some(mesh), Some(whose)) if mesh == owner.mesh && whose == handler.name => Ok(()),
        (Some(mesh), whose) => Err(Error::Refused(format!(
            "consumer {name} on stream {stream} belongs to handler {} of mesh {mesh}, not to handler {} of mesh {}: \
             give this handler another `consumer`",
            whose.unwrap_or("?"),
            handler.name,
            owner.mesh
        ))),
        (None, _) => Err(Error::Refused(format!(
            "consumer {name} on stream {stream} was not made by jetmesh and is not taken over: give handler {} another \
             `consumer`, or remove it with `nats consumer rm {stream} {name}`",
            handler.name
        ))),
    }
}

/// From where the configuration of a consumer has its start.
enum Origin<'a> {
    New(Start),
    /// Where it starts cannot be changed afterwards: what is there stays.
    Found(&'a ConsumerInfo),
}

fn config(handler: &Handler, owner: &Owner<'_>, origin: Origin<'_>) -> Value {
    let found = match &origin {
        Origin::New(_) => None,
        Origin::Found(found) => Some(*found),
    };
    let mut config = json!({
        "durable_name": handler.consumer,
        "description": format!("jetmesh handler {}", handler.name),
        "ack_policy": "explicit",
        "ack_wait": nanos(handler.ack_wait),
        "max_deliver": handler.max_deliver(),
        "max_ack_pending": handler.ack_pending_max,
        "max_waiting": 512,
        "replay_policy": "instant",
        "metadata": metadata(handler, owner, found),
    });
    match handler.subjects.as_slice() {
        [] => {}
        [one] => config["filter_subject"] = json!(one),
        many => config["filter_subjects"] = json!(many),
    }
    let start = match origin {
        Origin::New(start) => start,
        Origin::Found(found) => {
            for key in ["deliver_policy", "opt_start_seq", "opt_start_time"] {
                if let Some(value) = found.config.get(key) {
                    config[key] = value.clone();
                }
            }
            return config;
        }
    };
    match start {
        Start::All => config["deliver_policy"] = json!("all"),
        Start::New => config["deliver_policy"] = json!("new"),
        Start::Sequence(sequence) => {
            config["deliver_policy"] = json!("by_start_sequence");
            config["opt_start_seq"] = json!(sequence);
        }
        Start::Time(time) => {
            let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            config["deliver_policy"] = json!("by_start_time");
            config["opt_start_time"] = json!(rfc3339(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)));
        }
    }
    config
}

/// What a consumer tells of itself.
fn metadata(handler: &Handler, owner: &Owner<'_>, found: Option<&ConsumerInfo>) -> BTreeMap<&'static str, String> {
    let mut metadata = BTreeMap::from([
        (META_MESH, owner.mesh.to_owned()),
        (META_HANDLER, handler.name.clone()),
        (META_INCARNATION, owner.incarnation.to_owned()),
        (META_CONFIG, handler.digest()),
    ]);
    if let Some(ledger) = owner.ledger {
        metadata.insert(META_LEDGER, ledger.to_owned());
    }
    if let Some(found) = found {
        // A fresh consumer's ack floor lies just before its start; later it moves on, and the start is remembered.
        let fresh = || (found.ack_floor.stream_seq + 1).to_string();
        // A ledger that begins now knows nothing of what was acked before it.
        let begins = owner.ledger.is_some() && found.metadata(META_LEDGER).is_none();
        let start = found.metadata(META_START).filter(|_| !begins);
        metadata.insert(META_START, start.map_or_else(fresh, str::to_owned));
    }
    metadata
}

/// Whether a wanted value is not the one that is there. The server adds metadata and defaults of its own.
pub fn differs(wanted: &Value, found: &Value) -> bool {
    let Some(fields) = wanted.as_object() else { return true };
    let other = fields.iter().any(|(key, value)| match (value, found.get(key)) {
        (Value::Object(inner), Some(there)) => inner.iter().any(|(k, v)| there.get(k) != Some(v)),
        (value, there) => there != Some(value),
    });
    let filters = ["filter_subject", "filter_subjects"];
    let filter = filters
        .iter()
        .any(|key| wanted.get(key).is_none() && found.get(key).is_some());
    let ledger = wanted["metadata"].get(META_LEDGER).is_none() && found["metadata"].get(META_LEDGER).is_some();
    other || filter || ledger
}

fn refused(handler: &Handler, error: Error) -> Error {
    match error {
        Error::Api {
            code: Code::MAXIMUM_CONSUMERS_LIMIT,
            ..
        } => Error::Refused(format!(
            "handler {}: stream {}, or the account, accepts no further consumer: `jetmesh check --connect` shows the \
             limits",
            handler.name, handler.stream
        )),
        Error::Api { code, text, .. } if remedy(code) == Remedy::Person => Error::Refused(format!(
            "consumer {} on stream {} for handler {}: JetStream refuses it: {text} ({})",
            handler.consumer, handler.stream, handler.name, code.0
        )),
        other => other,
    }
}

/// A work queue gives each message to one consumer.
pub fn work_queue(plan: &Plan, handler: &Handler, retention: &str) -> Option<String> {
    if retention != "workqueue" {
        return None;
    }
    let other = plan.handlers.iter().find(|other| {
        other.name < handler.name
            && other.stream == handler.stream
            && (other.subjects.is_empty()
                || handler.subjects.is_empty()
                || other
                    .subjects
                    .iter()
                    .any(|a| handler.subjects.iter().any(|b| covers(a, b) || covers(b, a))))
    })?;
    Some(format!(
        "handlers {} and {}: stream {} is a work queue, which gives each message to one consumer only; give them \
         different `subjects`, or use a stream with limits retention",
        other.name, handler.name, handler.stream
    ))
}
