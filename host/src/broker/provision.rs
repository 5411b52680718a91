//! The streams that the mesh needs: made if they are not there, refused with the exact difference if they cannot serve.

use super::kv::{kv_stream, state_subjects};
use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Map, Value, json};

use super::bucket::check_ledger_bucket;
use super::connection::Connection;
use super::consumer::{META_MESH, nanos};
use super::error::{Code, Error, Remedy, remedy};
use super::stream::StreamInfo;
use crate::event::subject::subject_matches;
use crate::plan::{Plan, Stream};

/// Buckets that are looked at, or made, at a time.
const AT_ONCE: usize = 16;

/// What the mesh asks for where it makes the stream.
pub const PROVISIONED: u64 = 100_000;
/// Captured advisories of the server.
pub const ADVISORIES: &str = "MESH_ADVISORIES";
/// Dead letters.
pub const DEAD: &str = "MESH_DEAD";
/// Events that are to be run once more, each for one handler.
pub const REPLAY: &str = "MESH_REPLAY";
/// Events that are not due yet, and those that are and lie there until a host has published them.
pub const DELAYED: &str = "MESH_DELAYED";
/// What people have changed in the mesh, and why.
pub const AUDIT: &str = "MESH_AUDIT";
/// KV bucket of the attempt records.
pub const ATTEMPTS: &str = "mesh_attempts";
/// The mesh's own bucket: ledger of handlers that have none of their own, and what the mesh knows of source streams.
pub const MESH_BUCKET: &str = "mesh";

/// Creates everything that must exist before a handler starts, the capture of advisories first: an advisory that is sent before
/// its stream exists is lost. `lost`: ledgers that are not created, because their contents cannot be restored.
pub async fn provision(connection: &Connection, plan: &Plan, lost: &[&str]) -> Result<(), Error> {
    for (name, config) in mesh_streams(plan) {
        own(connection, plan, &name, config).await?;
    }
    let ledgers: Vec<&str> = ledgers(plan)
        .into_iter()
        .filter(|bucket| !lost.contains(bucket))
        .collect();
    let buckets = futures_util::stream::iter(&ledgers).map(|bucket| ledger_bucket(connection, plan, bucket));
    buckets.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    for stream in &plan.streams {
        source(connection, stream).await?;
    }
    Ok(())
}

/// Every stream that [`provision`] makes if it is not there, with its configuration.
pub fn wanted(plan: &Plan) -> Vec<(String, Value)> {
    let mut wanted: Vec<(String, Value)> = Vec::new();
    let mut own = |name: String, mut config: Value| {
        config["num_replicas"] = json!(plan.replicas);
        wanted.push((name, config));
    };
    for (name, config) in mesh_streams(plan) {
        own(name, config);
    }
    for bucket in ledgers(plan) {
        own(kv_stream(bucket), ledger_config(plan, bucket));
    }
    wanted.extend(
        plan.streams
            .iter()
            .map(|stream| (stream.name.clone(), source_config(stream))),
    );
    wanted
}

/// The ledgers of a plan, and the mesh's own.
fn ledgers(plan: &Plan) -> Vec<&str> {
    let mut ledgers = plan.ledgers();
    if !ledgers.contains(&MESH_BUCKET) {
        ledgers.push(MESH_BUCKET);
    }
    ledgers
}

/// Makes a stream that the configuration describes, if it is not there. `false`: it describes none of this name.
pub async fn again(connection: &Connection, plan: &Plan, name: &str) -> Result<bool, Error> {
    let Some(stream) = plan.streams.iter().find(|stream| stream.name == name) else {
        return Ok(false);
    };
    source(connection, stream).await?;
    Ok(true)
}

async fn source(connection: &Connection, stream: &Stream) -> Result<(), Error> {
    if connection.stream(&stream.name).await?.is_none() {
        create(connection, &stream.name, source_config(stream)).await?;
        tracing::info!(stream = %stream.name, subjects = ?stream.subjects, "stream made");
    }
    Ok(())
}

/// Creates one of the mesh's own streams again if it was removed, and logs what was lost with it. `true`: it was missing. A
/// ledger's bucket is none of these streams: without its ledger its handlers must not continue.
pub async fn restore(connection: &Connection, plan: &Plan, name: &str) -> Result<bool, Error> {
    if name == kv_stream(MESH_BUCKET) && !plan.ledgers().contains(&MESH_BUCKET) {
        // It is no ledger then, and the incarnations that it stores are in the consumers' metadata too.
        let gone = connection.stream(name).await?.is_none();
        if gone {
            ledger_bucket(connection, plan, MESH_BUCKET).await?;
        }
        return Ok(gone);
    }
    let Some((_, config)) = mesh_streams(plan).into_iter().find(|(own, _)| own == name) else {
        return Ok(false);
    };
    let gone = own(connection, plan, name, config).await?;
    if gone {
        let lost = match name {
            DEAD => "the dead letters in it",
            REPLAY => "replays that were requested and had not started",
            DELAYED => "delayed events that waited for their time",
            ADVISORIES => "the server's advisories about events that it gave up; the sweep finds these events",
            AUDIT => "the records of what people have changed",
            _ => "how often events that wait for a retry were tried",
        };
        tracing::warn!(
            stream = name,
            lost,
            "a stream of the mesh was removed and is created again"
        );
    }
    Ok(gone)
}

/// Does a step that needs one of the mesh's own streams. If the stream is missing, it is created again, and the caller tries
/// again as after any error that passes.
pub async fn kept<T>(
    connection: &Connection,
    plan: &Plan,
    name: &str,
    step: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let error = match step.await {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    let missing = matches!(error, Error::NoResponders { .. }) || error.code() == Some(Code::STREAM_NOT_FOUND);
    if missing && restore(connection, plan, name).await? {
        return Err(Error::Missing {
            what: format!("stream {name}"),
        });
    }
    Err(error)
}

fn mesh_streams(plan: &Plan) -> [(String, Value); 6] {
    let events = &plan.nats.js_event_prefix;
    let mut streams = [
        (
            ADVISORIES.to_owned(),
            json!({
                "subjects": [
                    format!("{events}.ADVISORY.CONSUMER.MAX_DELIVERIES.>"),
                    format!("{events}.ADVISORY.CONSUMER.MSG_TERMINATED.>"),
                ],
                // They are acted on within a minute; a week of them is for people.
                "max_age": nanos(std::time::Duration::from_secs(7 * 24 * 3600)),
            }),
        ),
        (
            DEAD.to_owned(),
            json!({ "subjects": ["$MESH.dead.>"], "max_msgs_per_subject": 1, "allow_msg_ttl": true, "allow_direct": true }),
        ),
        (
            REPLAY.to_owned(),
            json!({ "subjects": ["$MESH.replay.>"], "max_msgs_per_subject": 1, "retention": "workqueue" }),
        ),
        (
            DELAYED.to_owned(),
            // The server publishes what is due within the same stream, or nowhere.
            json!({
                "subjects": ["$MESH.delay.>", "$MESH.due.>", "$MESH.fired.>"],
                "max_msgs_per_subject": 1,
                "retention": "workqueue",
                "allow_msg_schedules": true,
                "allow_msg_ttl": true,
            }),
        ),
        (AUDIT.to_owned(), audit_config()),
        (kv_stream(ATTEMPTS), kv_config(ATTEMPTS)),
    ];
    for (name, config) in &mut streams {
        if let Some(bytes) = plan.mesh_bytes_max {
            config["max_bytes"] = json!(bytes);
            // A full stream refuses new messages, so that nothing that waits for a person is removed. Advisories may be
            // removed, because they are only hints, and old records of what people did make room for new ones. For schedules,
            // the relay checks that there is room.
            if ![ADVISORIES, AUDIT, DELAYED].contains(&name.as_str()) {
                config["discard"] = json!("new");
            }
        }
    }
    streams
}

/// A year, and 100,000 messages: an action has two. No message is removed or changed before that. No bytes are reserved for it, which
/// small accounts would not have.
fn audit_config() -> Value {
    json!({
        "subjects": ["$MESH.audit.>"],
        "max_age": nanos(std::time::Duration::from_secs(365 * 24 * 3600)),
        "max_msgs": 100_000,
        "max_msg_size": 64 * 1024,
        "deny_delete": true,
        "deny_purge": true,
    })
}

fn source_config(stream: &Stream) -> Value {
    let max_bytes = stream.max_bytes.and_then(|bytes| i64::try_from(bytes).ok());
    let own = |marker: &&String| !stream.subjects.iter().any(|subject| subject_matches(subject, marker));
    let subjects: Vec<&String> = stream
        .subjects
        .iter()
        .chain(stream.markers.iter().filter(own))
        .collect();
    let mut config = json!({
        "subjects": subjects,
        "max_bytes": max_bytes.unwrap_or(-1),
        // A full stream tells its publishers, instead of losing what was not delivered yet.
        "discard": if max_bytes.is_some() { "new" } else { "old" },
        "retention": stream.retention.word(),
        "num_replicas": stream.replicas,
        "max_age": stream.max_age.map_or(0, nanos),
        "duplicate_window": nanos(stream.duplicate_window),
        "allow_direct": true,
    });
    if !stream.markers.is_empty() {
        // What an outbox publishes is a batch.
        config["allow_atomic"] = json!(true);
    }
    config
}

/// What `nats kv add` would make.
fn kv_config(bucket: &str) -> Value {
    json!({
        "subjects": [format!("$KV.{bucket}.>")],
        "max_msgs_per_subject": 1,
        "discard": "new",
        "allow_rollup_hdrs": true,
        "deny_delete": true,
        "allow_direct": true,
    })
}

fn ledger_config(plan: &Plan, bucket: &str) -> Value {
    let mut config = kv_config(bucket);
    config["subjects"] = json!([format!("$KV.{bucket}.>"), state_subjects(bucket)]);
    config["allow_atomic"] = json!(true);
    config["allow_msg_ttl"] = json!(true);
    config["num_replicas"] = json!(plan.replicas);
    if let Some(bytes) = plan.ledger_bytes_max {
        config["max_bytes"] = json!(bytes);
    }
    config["metadata"] = json!({ META_MESH: plan.mesh });
    config
}

async fn create(connection: &Connection, name: &str, mut config: Value) -> Result<StreamInfo, Error> {
    config["name"] = json!(name);
    for (key, default) in [
        ("storage", json!("file")),
        ("num_replicas", json!(1)),
        ("max_bytes", json!(-1)),
        // Each handler has a consumer on its source, and the server's own limit is low.
        ("max_consumers", json!(PROVISIONED)),
    ] {
        if config.get(key).is_none() {
            config[key] = default;
        }
    }
    let subject = format!("STREAM.CREATE.{name}");
    let mut made = connection.api(&subject, &config).await;
    if matches!(&made, Err(error) if error.code() == Some(Code::MAXIMUM_CONSUMERS_LIMIT)) {
        // An account with a limit of its own takes no stream with a higher one.
        config["max_consumers"] = json!(-1);
        made = connection.api(&subject, &config).await;
    }
    made.map_err(|error| match error {
        // Of the account, or of the server: another stream or another limit is what helps.
        Error::Api { code, text, .. } if remedy(code) == Remedy::Person => Error::Refused(format!(
            "stream {name} cannot be created: {text} ({}); `jetmesh check --connect` shows which limits of the \
             account or which other streams prevent it",
            code.0
        )),
        other => other,
    })
}

/// A stream that carries the mesh's name; that of another mesh is refused. `true`: it was not there.
async fn own(connection: &Connection, plan: &Plan, name: &str, mut config: Value) -> Result<bool, Error> {
    config["num_replicas"] = json!(plan.replicas);
    config["metadata"] = json!({ META_MESH: plan.mesh });
    let Some(found) = connection.stream(name).await? else {
        return create(connection, name, config).await.map(|_| true);
    };
    check_mesh_stream(plan, name, &found)?;
    let missing = |key: &str| config.get(key).is_some_and(|v| found.config.get(key) != Some(v));
    let wanted = [
        "subjects",
        "max_msgs_per_subject",
        "allow_msg_ttl",
        "allow_msg_schedules",
    ];
    let transformed = transformed(name, &found);
    if transformed.is_some() || wanted.into_iter().any(missing) {
        let mut merged: Map<String, Value> = found.config.as_object().cloned().unwrap_or_default();
        merged.remove("subject_transform");
        for key in wanted {
            if let Some(value) = config.get(key) {
                merged.insert(key.to_owned(), value.clone());
            }
        }
        let _: StreamInfo = connection.api(&format!("STREAM.UPDATE.{name}"), &merged).await?;
        if transformed.is_some() {
            tracing::warn!(
                stream = name,
                "the subject transform of a stream of the mesh is removed: messages that it has changed are not found"
            );
        }
    }
    Ok(false)
}

/// Why what one of the mesh's own streams holds is not found there, and the command that mends it.
pub fn transformed(name: &str, found: &StreamInfo) -> Option<String> {
    found.transforms().then(|| {
        format!(
            "stream {name} has a subject transform: it stores messages under other subjects, where no host and no command \
             finds them; remove it with `nats stream edit {name} --no-transform`; a host that starts does the same"
        )
    })
}

/// Whether one of the mesh's own streams is this mesh's.
pub fn check_mesh_stream(plan: &Plan, name: &str, found: &StreamInfo) -> Result<(), Error> {
    match found.config["metadata"][META_MESH].as_str() {
        Some(mesh) if mesh == plan.mesh => Ok(()),
        whose => Err(Error::Refused(format!(
            "stream {name} {}: one account holds one mesh; run this one as mesh = \"{}\", or in another account",
            whose.map_or("was not made by jetmesh".to_owned(), |mesh| format!(
                "belongs to mesh {mesh}"
            )),
            whose.unwrap_or("…"),
        ))),
    }
}

/// A KV bucket that can hold a ledger: made, adopted and completed if its settings allow it, or refused.
async fn ledger_bucket(connection: &Connection, plan: &Plan, bucket: &str) -> Result<(), Error> {
    let name = kv_stream(bucket);
    let Some(found) = connection.stream(&name).await? else {
        create(connection, &name, ledger_config(plan, bucket)).await?;
        tracing::info!(bucket, "state bucket made");
        return Ok(());
    };
    check_ledger_bucket(bucket, &found)?;
    let subjects = found.subjects();
    let complete = subjects.contains(&state_subjects(bucket))
        && found.config["allow_atomic"] == json!(true)
        && found.config["allow_msg_ttl"] == json!(true);
    if complete {
        return Ok(());
    }
    let mut config = found.config.as_object().cloned().unwrap_or_default();
    let mut subjects = subjects;
    if !subjects.contains(&state_subjects(bucket)) {
        subjects.push(state_subjects(bucket));
    }
    config.insert("subjects".to_owned(), json!(subjects));
    config.insert("allow_atomic".to_owned(), json!(true));
    config.insert("allow_msg_ttl".to_owned(), json!(true));
    let _: StreamInfo = connection.api(&format!("STREAM.UPDATE.{name}"), &config).await?;
    tracing::info!(
        bucket,
        "state bucket completed: ledger subjects, atomic publish and message TTL"
    );
    Ok(())
}
