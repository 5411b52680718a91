//! Whether a plan fits what is in NATS: everything that would make a host refuse, or an event die, as far as it can be
//! seen without changing anything. What a host itself decides by is asked here in the same words.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::broker::bucket::check_ledger_bucket;
use crate::broker::consumer::{Owner, check_owner, work_queue};
use crate::broker::error::Code;
use crate::broker::kv::kv_stream;
use crate::broker::provision::{
    ADVISORIES, ATTEMPTS, AUDIT, DEAD, DELAYED, REPLAY, check_mesh_stream, transformed, wanted,
};
use crate::broker::{self, Connection, StreamInfo};
use crate::event::clock;
use crate::event::subject::overlap;
use crate::ledger::core::entry::Subjects;
use crate::ledger::store::known::{forgotten, lost};
use crate::ledger::store::read;
use crate::outbox::unfit;
use crate::plan::{Handler, Outbox, Plan};

mod rights;
mod targets;

pub use rights::{apart, may_publish};
pub use targets::room;

/// What was found.
#[derive(Debug, Default)]
pub struct Fit {
    /// A host would refuse it, or events would die or never come.
    pub problems: Vec<String>,
    /// It works, and may surprise.
    pub warnings: Vec<String>,
    /// Streams that are not there, and that a start makes.
    pub made: Vec<String>,
}

/// Looks at everything.
pub async fn look(connection: &Connection, plan: &Plan) -> Result<Fit, broker::Error> {
    let mut fit = Fit::default();
    fit.problems.extend(rights::denied(connection, plan).await?);
    fit.problems.extend(apart(connection, plan).await?);
    // No host makes these, and the handlers say why.
    let lost: Vec<String> = lost(connection, plan).await?.into_iter().map(kv_stream).collect();
    let mut missing = streams(connection, plan, &mut fit).await?;
    missing.retain(|(name, _)| !lost.contains(name));
    fit.made.retain(|name| !lost.contains(name));
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
        let who = format!("handler {}", handler.name);
        targets::look(connection, plan, (&who, &handler.publish), &mut fit).await?;
    }
    for schedule in plan.schedules.iter().flatten() {
        let (who, subject) = (format!("schedule {}", schedule.name), schedule.subject.clone());
        targets::look(connection, plan, (&who, &[subject]), &mut fit).await?;
    }
    for outbox in &plan.outboxes {
        self::outbox(connection, plan, outbox, &mut fit).await?;
    }
    // Handlers share streams and ledgers.
    let mut said = BTreeSet::new();
    fit.problems.retain(|problem| said.insert(problem.clone()));
    fit.warnings.retain(|warning| said.insert(warning.clone()));
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
    let (mut missing, mut begun) = (Vec::new(), false);
    for (name, config) in wanted(plan) {
        if let Some(found) = connection.stream(&name).await? {
            begun |= is_own(&name);
            if !plan.streams.iter().any(|s| s.name == name)
                && !plan.ledgers().iter().any(|ledger| kv_stream(ledger) == name)
                && let Err(error) = check_mesh_stream(plan, &name, &found)
            {
                fit.problems.push(error.to_string());
            }
            if is_own(&name) {
                fit.problems.extend(transformed(&name, &found));
            }
            continue;
        }
        for subject in texts(&config["subjects"]) {
            for other in connection.streams_of(&subject).await? {
                fit.problems.push(format!(
                    "stream {name} cannot be created: its subject `{subject}` overlaps with stream {other}, which exists; \
                     JetStream lets a subject be captured by one stream only"
                ));
            }
        }
        let replicas = config["num_replicas"].as_u64().unwrap_or(1);
        if replicas > 1 && connection.client.server_info().cluster.is_none() {
            fit.problems.push(format!(
                "stream {name} cannot be created with {replicas} replicas: the server is not in a cluster; set \
                 replicas = 1"
            ));
        }
        missing.push((name, config));
    }
    gone(plan, begun, &missing, fit);
    Ok(missing)
}

/// Whether it is one of the mesh's own streams, which each host makes, and makes again.
fn is_own(name: &str) -> bool {
    [ADVISORIES, DEAD, REPLAY, DELAYED, AUDIT].contains(&name) || name == kv_stream(ATTEMPTS)
}

/// Reports which streams are missing. `begun`: other streams of the mesh are there, so these were removed.
fn gone(plan: &Plan, begun: bool, missing: &[(String, Value)], fit: &mut Fit) {
    for (name, _) in missing {
        fit.made.push(name.clone());
        let of_plan = plan.streams.iter().any(|stream| stream.name == *name);
        if begun && (of_plan || is_own(name)) {
            fit.warnings.push(format!(
                "stream {name} is not there, and others of this mesh are: if it was removed, what it held is lost; a host makes it \
                 again, empty"
            ));
        }
    }
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
            "the account may have {limit} streams (max_streams) and has {has}; {} will be created ({}): raise \
             max_streams to {wants}",
            missing.len(),
            names.join(", ")
        ));
    }
    if let Some(limit) = limit("max_ack_pending") {
        for handler in plan.handlers.iter().filter(|h| h.ack_pending_max as u64 > limit) {
            fit.problems.push(format!(
                "handler {}: ack_pending_max = {} is above the account's max_ack_pending, {limit}: set \
                 ack_pending_max = {limit} and an in_flight below it, or raise the account's limit",
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
            "the account has {limit} bytes of disk (max_file) and has set aside {has}; the streams that will be \
             created can take {wants} by their max_bytes: lower mesh_max_bytes, ledger_max_bytes or max_bytes, or \
             raise max_file to {}",
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
                "the account demands max_bytes of every stream (max_bytes_required), and these would be created \
                 without it: {}; set max_bytes under [streams.NAME] for yours, mesh_max_bytes for the mesh's own \
                 (MESH_..., KV_mesh_attempts), and ledger_max_bytes for the buckets of ledgers",
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
                "handler {}: there is no stream {}: create it with `nats stream add {}`, or describe it under \
                 [streams.{}]",
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
                "handler {name}: stream {stream} copies from other streams, and only their settings show whether \
                 messages come on `{filter}`"
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
        None if handler.start.is_none() && info.state.messages > 0 && !has_floor(connection, handler).await? => fit.problems.push(format!(
            "handler {}: stream {} already contains {} messages; set where it starts: `start = \"all\"`, `\"new\"`, \
             a sequence or a time",
            handler.name, handler.stream, info.state.messages
        )),
        None => {}
    }
    Ok(())
}

/// The stream of an outbox.
async fn outbox(connection: &Connection, plan: &Plan, outbox: &Outbox, fit: &mut Fit) -> Result<(), broker::Error> {
    let (name, stream) = (&outbox.name, &outbox.stream);
    match connection.stream(stream).await? {
        Some(info) => {
            let wrong = unfit(outbox, &info).into_iter();
            fit.problems.extend(wrong.map(|why| format!("outbox {name}: {why}")));
        }
        None if plan.streams.iter().any(|s| s.name == *stream) => {}
        None => fit.problems.push(format!(
            "outbox {name}: there is no stream {stream}: describe it under [streams.{stream}], and a host makes it with all that \
             the outbox needs"
        )),
    }
    Ok(())
}

/// Whether a ledger knows up to where a handler has come: its consumer was removed, and is created there again.
async fn has_floor(connection: &Connection, handler: &Handler) -> Result<bool, broker::Error> {
    let Some(ledger) = &handler.ledger else {
        return Ok(false);
    };
    let head = read::head(connection, &kv_stream(ledger), &Subjects::new(ledger)).await;
    match head {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => Ok(false),
        head => Ok(head?.is_some_and(|(head, _)| head.floors.get(&handler.name).is_some_and(|of| of.floor > 0))),
    }
}

/// The subjects that a stream's messages have: a transform changes what it captures.
fn stored_subjects(info: &StreamInfo) -> Vec<String> {
    let transform = &info.config["subject_transform"];
    let from = transform["src"].as_str().filter(|from| !from.is_empty()).unwrap_or(">");
    let Some(to) = transform["dest"].as_str().filter(|to| !to.is_empty()) else {
        return info.subjects();
    };
    let mut subjects = info.subjects();
    subjects.retain(|subject| !crate::event::subject::covers(from, subject));
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
