//! The streams that the mesh needs: made if they are not there, refused with the exact difference if they cannot serve.

mod configs;

use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Map, Value, json};

use self::configs::{ledger_config, mesh_streams, registry_streams, source_config};
use super::bucket::check_ledger_bucket;
use super::connection::Connection;
use super::consumer::META_MESH;
use super::error::{Code, Error, Remedy, remedy};
use super::kv::{kv_stream, state_subjects};
use super::stream::StreamInfo;
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
/// The registry of modules: the KV bucket of their versions and of what is promoted, and the object store of their content.
pub const MODULES: &str = "mesh_modules";

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
    if !plan.registered().is_empty() {
        registry(connection, plan).await?;
    }
    Ok(())
}

/// Creates the registry of modules, if it is not there.
pub async fn registry(connection: &Connection, plan: &Plan) -> Result<(), Error> {
    for (name, config) in registry_streams() {
        own(connection, plan, &name, config).await?;
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
    if !plan.registered().is_empty() {
        registry_streams()
            .into_iter()
            .for_each(|(name, config)| own(name, config));
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
