//! What the settings of a bucket must be, so that the server neither drops nor refuses parts of its ledger.

use serde_json::json;

use super::error::Error;
use super::stream::StreamInfo;
use crate::broker::kv::{kv_stream, state_subjects};

/// What a bucket that is at work has lost of its settings, and the command that mends it. Clients that do not know of a
/// setting drop it when they edit.
pub fn lost_settings(bucket: &str, info: &StreamInfo) -> Option<String> {
    let (name, ledger) = (kv_stream(bucket), state_subjects(bucket));
    if let Err(refused) = check_ledger_bucket(bucket, info) {
        return Some(refused.to_string());
    }
    let lacks_subject = !info.subjects().contains(&ledger);
    let lacks_batches = info.config["allow_atomic"] != json!(true);
    let what: Vec<&str> = [(lacks_subject, ledger.as_str()), (lacks_batches, "atomic publish")]
        .into_iter()
        .filter_map(|(lacks, what)| lacks.then_some(what))
        .collect();
    let mend = format!("nats stream edit {name} --subjects '$KV.{bucket}.>,{ledger}' --allow-batch");
    (!what.is_empty()).then(|| {
        format!(
            "bucket {bucket} was changed while hosts use it, and lacks {}: correct it with `{mend}`, or restart a \
             host",
            what.join(" and ")
        )
    })
}

/// Whether a bucket's settings would let the server drop or refuse parts of a ledger. Says the exact difference and the
/// command that mends it.
pub fn check_ledger_bucket(bucket: &str, info: &StreamInfo) -> Result<(), Error> {
    let config = &info.config;
    let number = |key: &str| config[key].as_i64().unwrap_or(0);
    let is = |key: &str| config[key].as_bool().unwrap_or(false);
    let name = kv_stream(bucket);
    let edit = |flags: &str| format!("correct it with `nats stream edit {name} {flags}`");
    let mut wrong: Vec<String> = Vec::new();
    if number("max_age") != 0 {
        wrong.push(format!(
            "max_age is {} ns, not 0: its ledger would expire; {}",
            number("max_age"),
            edit("--max-age=0")
        ));
    }
    if number("max_bytes") > 0 && config["discard"].as_str() != Some("new") {
        wrong.push(format!(
            "max_bytes is {} and discard is not new: a full bucket would drop its oldest messages; {}",
            number("max_bytes"),
            edit("--discard=new")
        ));
    }
    if number("max_msgs") > 0 {
        wrong.push(format!(
            "max_msgs is {}, not unlimited; {}",
            number("max_msgs"),
            edit("--max-msgs=-1")
        ));
    }
    if number("max_msgs_per_subject") != 1 {
        let found = number("max_msgs_per_subject");
        wrong.push(format!(
            "history is {found}, not 1; {}",
            edit("--max-msgs-per-subject=1")
        ));
    }
    if is("discard_new_per_subject") {
        wrong.push(format!(
            "discard_new_per_subject is on; {}",
            edit("--no-discard-per-subject")
        ));
    }
    if number("subject_delete_marker_ttl") != 0 {
        wrong.push(format!(
            "it has a delete marker TTL; {}",
            edit("--subject-del-markers-ttl=0")
        ));
    }
    if is("deny_purge") {
        wrong.push("deny_purge is on and cannot be switched off: delete the bucket and create it again".to_owned());
    }
    if config["storage"].as_str() != Some("file") {
        wrong
            .push("its storage is not file, which cannot be changed: delete the bucket and create it again".to_owned());
    }
    if config.get("mirror").is_some_and(|v| !v.is_null()) {
        wrong.push("it has a mirror: delete the bucket and create it again without this".to_owned());
    }
    if config.get("subject_transform").is_some_and(|v| !v.is_null()) {
        wrong.push(format!("it has a subject transform; {}", edit("--no-transform")));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "bucket {bucket} cannot hold a ledger: {}",
        wrong.join("; ")
    )))
}
