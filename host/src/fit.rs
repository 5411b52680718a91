//! Whether a plan fits what is in NATS: everything that would make a host refuse, or an event die, as far as it can be
//! seen without changing anything. What a host itself decides by is asked here in the same words.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::broker::bucket::check_ledger_bucket;
use crate::broker::consumer::{Owner, check_owner, work_queue};
use crate::broker::kv::{kv_stream, state_subjects};
use crate::broker::provision::{ATTEMPTS, MESH_BUCKET, REPLAY, check_mesh_stream, wanted};
use crate::broker::{self, Connection, Error, StreamInfo};
use crate::ledger::store::known::forgotten;
use crate::message::clock;
use crate::message::header_map;
use crate::message::subject::overlap;
use crate::plan::{Handler, Plan};

/// What was found.
#[derive(Debug, Default)]
pub struct Fit {
    /// A host would refuse it, or events would die or never come.
    pub problems: Vec<String>,
    /// It works, and may surprise.
    pub warnings: Vec<String>,
}

/// Looks at everything.
pub async fn look(connection: &Connection, plan: &Plan) -> Result<Fit, broker::Error> {
    let mut fit = Fit::default();
    fit.problems.extend(denied(connection, plan).await);
    fit.problems.extend(apart(connection, plan).await?);
    let missing = streams(connection, plan, &mut fit).await?;
    account(connection, plan, &missing, &mut fit).await;
    for bucket in plan.ledgers() {
        if let Some(info) = connection.stream(&kv_stream(bucket)).await?
            && let Err(error) = check_ledger_bucket(bucket, &info)
        {
            fit.problems.push(error.to_string());
        }
    }
    for handler in &plan.handlers {
        source(connection, plan, handler, &mut fit).await?;
        targets(connection, plan, handler, &mut fit).await?;
    }
    // Handlers share streams and ledgers.
    let mut said = BTreeSet::new();
    fit.problems.retain(|problem| said.insert(problem.clone()));
    if let Some(apart) = clock::difference(clock::ahead_ms()) {
        fit.warnings.push(format!(
            "the clock of this machine is {apart} that of the NATS server: a host goes by the server's, and its log by this one; \
             set it right, for instance with NTP"
        ));
    }
    Ok(fit)
}

/// The mesh's own streams, and those that are to be made. Returns the ones that are missing.
async fn streams(connection: &Connection, plan: &Plan, fit: &mut Fit) -> Result<Vec<(String, Value)>, broker::Error> {
    let mut missing = Vec::new();
    for (name, config) in wanted(plan) {
        if let Some(found) = connection.stream(&name).await? {
            if !plan.streams.iter().any(|s| s.name == name)
                && !plan.ledgers().iter().any(|ledger| kv_stream(ledger) == name)
                && let Err(error) = check_mesh_stream(plan, &name, &found)
            {
                fit.problems.push(error.to_string());
            }
            continue;
        }
        for subject in texts(&config["subjects"]) {
            for other in connection.streams_of(&subject).await? {
                fit.problems.push(format!(
                    "stream {name} cannot be made: its subject `{subject}` overlaps with stream {other}, which is there; \
                     JetStream lets a subject be captured by one stream only"
                ));
            }
        }
        let replicas = config["num_replicas"].as_u64().unwrap_or(1);
        if replicas > 1 && connection.client.server_info().cluster.is_none() {
            fit.problems.push(format!(
                "stream {name} cannot be made with {replicas} replicas: the server is in no cluster; say replicas = 1"
            ));
        }
        missing.push((name, config));
    }
    Ok(missing)
}

/// What the account allows.
async fn account(connection: &Connection, plan: &Plan, missing: &[(String, Value)], fit: &mut Fit) {
    let info: Value = match connection.api("INFO", &json!({})).await {
        Ok(info) => info,
        Err(error) => {
            let what = format!("the account's limits are not known: {error}");
            return fit.warnings.push(what);
        }
    };
    let limit = |name: &str| info["limits"][name].as_u64().filter(|limit| *limit > 0);
    let has = info["streams"].as_u64().unwrap_or(0);
    let wants = has + missing.len() as u64;
    if let Some(limit) = limit("max_streams").filter(|limit| wants > *limit) {
        let names: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
        fit.problems.push(format!(
            "the account may have {limit} streams (max_streams) and has {has}; {} are to be made ({}): raise max_streams \
             to {wants}",
            missing.len(),
            names.join(", ")
        ));
    }
    if let Some(limit) = limit("max_ack_pending") {
        for handler in plan.handlers.iter().filter(|h| h.ack_pending_max as u64 > limit) {
            fit.problems.push(format!(
                "handler {}: ack_pending_max = {} is above the account's max_ack_pending, {limit}: say ack_pending_max = \
                 {limit} and an in_flight below it, or raise the account's limit",
                handler.name, handler.ack_pending_max
            ));
        }
    }
    // The server sets aside what a stream may come to hold.
    let sets_aside = |(_, config): &(String, Value)| {
        let bytes = config["max_bytes"].as_u64().filter(|bytes| *bytes > 0)?;
        Some(bytes * config["num_replicas"].as_u64().unwrap_or(1))
    };
    let wants: u64 = missing.iter().filter_map(sets_aside).sum();
    let has = info["reserved_storage"].as_u64().unwrap_or(0);
    if let Some(limit) = limit("max_storage").filter(|limit| wants > 0 && has + wants > *limit) {
        fit.problems.push(format!(
            "the account has {limit} bytes of disk (max_file) and has set aside {has}; the streams that are to be made may hold \
             {wants} by their max_bytes: lower mesh_max_bytes, ledger_max_bytes or max_bytes, or raise max_file to {}",
            has + wants
        ));
    }
    if info["limits"]["max_bytes_required"] == json!(true) {
        let without = missing
            .iter()
            .filter(|(_, config)| config["max_bytes"].as_i64().unwrap_or(-1) < 0);
        let names: Vec<&str> = without.map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            fit.problems.push(format!(
                "the account demands max_bytes of every stream (max_bytes_required), and these are to be made without: \
                 {}; say max_bytes under [streams.NAME] for yours, mesh_max_bytes for the mesh's own (MESH_..., \
                 KV_mesh_attempts), and ledger_max_bytes for the buckets of ledgers",
                names.join(", ")
            ));
        }
    }
}

/// A handler's stream and its consumer there.
async fn source(connection: &Connection, plan: &Plan, handler: &Handler, fit: &mut Fit) -> Result<(), broker::Error> {
    let to_be_made = plan.streams.iter().find(|s| s.name == handler.stream);
    let info = match (connection.stream(&handler.stream).await?, to_be_made) {
        (Some(info), _) => info,
        (None, Some(stream)) => {
            fit.problems.extend(work_queue(plan, handler, stream.retention.word()));
            return Ok(());
        }
        (None, None) => {
            fit.problems.push(format!(
                "handler {}: there is no stream {}: make it with `nats stream add {}`, or say it under [streams.{}]",
                handler.name, handler.stream, handler.stream, handler.stream
            ));
            return Ok(());
        }
    };
    let held = stored_subjects(&info);
    for filter in &handler.subjects {
        if held.iter().any(|subject| overlap(subject, filter)) {
            continue;
        }
        let (name, stream) = (&handler.name, &handler.stream);
        match copies(&info) {
            true => fit.warnings.push(format!(
                "handler {name}: stream {stream} copies from other streams, and only they tell whether anything comes on \
                 `{filter}`"
            )),
            false => fit.problems.push(format!(
                "handler {name}: stream {stream} does not capture `{filter}`; it captures {}",
                held.join(", ")
            )),
        }
    }
    let limits = info.removes_by();
    if !limits.is_empty() {
        fit.warnings.push(format!(
            "handler {}: stream {} removes its oldest events by its limits ({}), also those that the handler has not been given \
             yet: they are gone without a dead letter; with `discard: new` a full stream refuses new ones instead",
            handler.name,
            handler.stream,
            limits.join(", ")
        ));
    }
    fit.problems.extend(work_queue(plan, handler, info.retention()));
    let owner = Owner {
        mesh: &plan.mesh,
        incarnation: "",
        ledger: None,
    };
    match connection.consumer(&handler.stream, &handler.consumer).await? {
        Some(found) => {
            fit.problems
                .extend(check_owner(handler, &found, &owner).err().map(|e| e.to_string()));
            fit.problems.extend(forgotten(connection, handler, &found).await?);
        }
        None if handler.start.is_none() && info.state.messages > 0 => fit.problems.push(format!(
            "handler {}: stream {} already holds {} messages; say where it starts: `start = \"all\"`, `\"new\"`, a \
             sequence or a time",
            handler.name, handler.stream, info.state.messages
        )),
        None => {}
    }
    Ok(())
}

/// Whether what a handler may publish goes anywhere.
async fn targets(connection: &Connection, plan: &Plan, handler: &Handler, fit: &mut Fit) -> Result<(), broker::Error> {
    for subject in &handler.publish {
        let made = || {
            plan.streams
                .iter()
                .flat_map(|s| &s.subjects)
                .any(|s| overlap(s, subject))
        };
        if !made() && connection.streams_of(subject).await?.is_empty() {
            fit.problems.push(format!(
                "handler {}: no stream captures `{subject}`, which it may publish: such an event would become a dead \
                 letter, cause undeliverable; say a stream for it under [streams.NAME], or make one with `nats stream \
                 add NAME --subjects '{subject}' --defaults`",
                handler.name
            ));
        }
    }
    Ok(())
}

/// The subjects that a stream's messages have: a transform changes what it captures.
fn stored_subjects(info: &StreamInfo) -> Vec<String> {
    let transform = &info.config["subject_transform"];
    let from = transform["src"].as_str().filter(|from| !from.is_empty()).unwrap_or(">");
    let Some(to) = transform["dest"].as_str().filter(|to| !to.is_empty()) else {
        return info.subjects();
    };
    let mut subjects = info.subjects();
    subjects.retain(|subject| !crate::message::subject::covers(from, subject));
    subjects.push(pattern(to));
    subjects
}

/// A transform's destination as a pattern.
fn pattern(to: &str) -> String {
    let part = |token: &str| match token.starts_with("{{") || token.starts_with('$') {
        // Those of one token; one that splits makes several.
        true if token.to_ascii_lowercase().contains("split") => ">".to_owned(),
        true => "*".to_owned(),
        false => token.to_owned(),
    };
    let mut parts = Vec::new();
    for token in to.split('.') {
        parts.push(part(token));
        if parts.last().is_some_and(|last| last == ">") {
            break;
        }
    }
    parts.join(".")
}

/// Whether a stream takes messages from others, whose subjects it does not tell.
fn copies(info: &StreamInfo) -> bool {
    let has = |key: &str| info.config.get(key).is_some_and(|value| !value.is_null());
    has("mirror") || has("sources")
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Whether what is published reaches the mesh's streams, where JetStream is in another domain or account. `None`: it does,
/// or they are to be made.
pub async fn apart(connection: &Connection, plan: &Plan) -> Result<Option<String>, broker::Error> {
    if !connection.is_elsewhere() {
        return Ok(None);
    }
    let mut ledgers = plan.ledgers();
    ledgers.push(MESH_BUCKET);
    let mut lost = Vec::new();
    for bucket in ledgers {
        if connection.stream(&kv_stream(bucket)).await?.is_none() {
            continue;
        }
        for subject in [
            format!("$KV.{bucket}.check"),
            state_subjects(bucket).replace('>', "check"),
        ] {
            if let Err(Error::NoResponders { .. } | Error::Denied { .. } | Error::Timeout { .. }) =
                tried(connection, &subject).await
            {
                lost.push(subject.replace("check", ">"));
            }
        }
    }
    Ok((!lost.is_empty()).then(|| {
        format!(
            "the streams behind {} are there, but what is published on {} does not reach them from here: import these \
             subjects, and $MESH.>, $JS.ACK.> and those of your streams, under their own names; or connect to a server \
             of that domain or account",
            connection.api_prefix(),
            lost.join(", ")
        )
    }))
}

/// A stream that is nowhere: what expects it is refused, once it has come as far as a stream.
const NOWHERE: &str = "jetmesh-check";

/// Publishes what is refused wherever it comes: it expects that stream, and is no JSON for a call of the API.
async fn tried(connection: &Connection, subject: &str) -> Result<(), Error> {
    let expects = header_map(&vec![("Nats-Expected-Stream".to_owned(), NOWHERE.to_owned())]);
    connection.request(subject, expects.ok(), "{".into()).await.map(|_| ())
}

/// What the user may not publish, tried with requests that the server refuses for another reason: nothing is changed.
async fn denied(connection: &Connection, plan: &Plan) -> Vec<String> {
    // Not those that people listen to: they would hear it.
    let mut subjects = vec![
        "$MESH.replay.check".to_owned(),
        "$MESH.delay.check".to_owned(),
        "$MESH.due.check".to_owned(),
        format!("$KV.{ATTEMPTS}.check"),
        "$KV.mesh.check".to_owned(),
    ];
    for bucket in plan.ledgers() {
        subjects.push(format!("$KV.{bucket}.check"));
        subjects.push(state_subjects(bucket).replace('>', "check"));
    }
    let prefix = connection.api_prefix();
    let handler = plan.handlers.first();
    let consumer = handler.map_or_else(|| format!("{REPLAY}.check"), |h| format!("{}.{}", h.stream, h.consumer));
    for call in ["STREAM.MSG.GET", "STREAM.PURGE"] {
        subjects.push(format!("{prefix}.{call}.{REPLAY}"));
    }
    for call in ["CONSUMER.CREATE", "CONSUMER.DELETE"] {
        subjects.push(format!("{prefix}.{call}.{consumer}"));
    }
    subjects.sort();
    subjects.dedup();
    let tries = futures_util::future::join_all(subjects.iter().map(|subject| tried(connection, subject))).await;
    let failed = subjects
        .iter()
        .zip(tries)
        .filter(|(_, tried)| matches!(tried, Err(Error::Denied { .. } | Error::Timeout { .. })));
    let denied: Vec<&str> = failed.map(|(subject, _)| subject.as_str()).collect();
    if denied.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "this user may not publish on {}: docs/nats.md lists the permissions that a host needs",
        denied.join(", ")
    )]
}
