//! How the streams and buckets are configured that the mesh makes.

use serde_json::{Value, json};

use super::{ADVISORIES, ATTEMPTS, AUDIT, DEAD, DELAYED, MODULES, REPLAY};
use crate::broker::consumer::{META_MESH, nanos};
use crate::broker::kv::{kv_stream, state_subjects};
use crate::broker::objects::object_stream;
use crate::event::subject::subject_matches;
use crate::plan::{Plan, Stream};

/// The streams that the mesh makes for itself, with their configurations.
pub fn mesh_streams(plan: &Plan) -> [(String, Value); 6] {
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

pub fn source_config(stream: &Stream) -> Value {
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

pub fn ledger_config(plan: &Plan, bucket: &str) -> Value {
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

/// Values of a key that the registry keeps: who promoted what, and when.
pub const MODULE_HISTORY: u64 = 64;

/// The registry of modules: what `nats kv add --history 64` and `nats object add` would make.
pub fn registry_streams() -> [(String, Value); 2] {
    let mut versions = kv_config(MODULES);
    versions["max_msgs_per_subject"] = json!(MODULE_HISTORY);
    let objects = json!({
        "subjects": [format!("$O.{MODULES}.C.>"), format!("$O.{MODULES}.M.>")],
        "discard": "new",
        "allow_rollup_hdrs": true,
        "allow_direct": true,
    });
    [(kv_stream(MODULES), versions), (object_stream(MODULES), objects)]
}
