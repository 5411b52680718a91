//! The stream of an outbox: whether it can hold what the outbox publishes, and the newest marker in it.

use std::time::Duration;

use serde_json::{Value, json};

use super::error::Error;
use super::marker::Marker;
use super::row::StreamLimits;
use crate::broker::error::Code;
use crate::broker::{self, By, Connection, StreamInfo};
use crate::event::subject::subject_matches;
use crate::plan::Outbox;

/// The stream as it was when a relay began.
#[derive(Debug, Clone)]
pub struct OutboxStream {
    pub limits: StreamLimits,
    /// When it was created, as it tells.
    pub created: String,
    /// A marker that is older than this is written again, so that the stream does not remove it.
    pub renew: Option<Duration>,
}

/// The newest marker, and where it lies.
#[derive(Debug, Clone)]
pub struct Marked {
    pub marker: Marker,
    pub sequence: u64,
    pub time_ms: u64,
}

/// What keeps a stream from serving an outbox, each with the command that mends it.
pub fn unfit(outbox: &Outbox, info: &StreamInfo) -> Vec<String> {
    let (stream, marker) = (&outbox.stream, outbox.marker());
    let has = |key: &str| info.config.get(key).is_some_and(|value| !value.is_null());
    let mut wrong = Vec::new();
    let subjects = info.subjects();
    let mut flags = Vec::new();
    let mut lacks = Vec::new();
    if !subjects.iter().any(|pattern| subject_matches(pattern, &marker)) {
        lacks.push(format!("does not capture `{marker}`"));
        flags.push(format!("--subjects '{},{marker}'", subjects.join(",")));
    }
    if info.config["allow_atomic"] != json!(true) {
        lacks.push("does not allow atomic batches".to_owned());
        flags.push("--allow-batch".to_owned());
    }
    if !lacks.is_empty() {
        let edit = format!("nats stream edit {stream} {}", flags.join(" "));
        wrong.push(format!(
            "stream {stream} {}: correct it with `{edit}`",
            lacks.join(" and ")
        ));
    }
    if info.retention() == "interest" {
        wrong.push(format!(
            "stream {stream} has the retention interest, and would remove `{marker}` at once: publish into a stream with the \
             retention limits"
        ));
    }
    if info.transforms() || has("mirror") {
        wrong.push(format!(
            "stream {stream} has a subject transform or is a mirror: publish into another one"
        ));
    }
    if info.config["sealed"] == json!(true) {
        wrong.push(format!("stream {stream} is sealed and takes nothing: create it again"));
    }
    if info.config["discard_new_per_subject"] == json!(true) {
        let edit = format!("nats stream edit {stream} --no-discard-per-subject");
        wrong.push(format!(
            "stream {stream} would refuse a second `{marker}`: correct it with `{edit}`"
        ));
    }
    wrong
}

/// Looks at the stream.
pub async fn target(connection: &Connection, outbox: &Outbox) -> Result<OutboxStream, Error> {
    let Some(info) = connection.stream(&outbox.stream).await? else {
        let stream = &outbox.stream;
        return Err(Error::Person(format!(
            "there is no stream {stream}: describe it under `[streams.{stream}]` of the configuration, and start a host again"
        )));
    };
    let wrong = unfit(outbox, &info);
    if !wrong.is_empty() {
        return Err(Error::Person(wrong.join("; ")));
    }
    let limit = |key: &str| info.config[key].as_u64().filter(|limit| *limit > 0);
    let of_stream = limit("max_msg_size").and_then(|bytes| usize::try_from(bytes).ok());
    let of_server = connection.client.max_payload();
    Ok(OutboxStream {
        limits: StreamLimits {
            stream: outbox.stream.clone(),
            subjects: info.subjects(),
            message_bytes_max: of_stream.map_or(of_server, |bytes| bytes.min(of_server)),
        },
        renew: limit("max_age").map(|ns| Duration::from_nanos(ns) / 4),
        created: info.created,
    })
}

/// The newest marker. `None`: there is none.
pub async fn newest(connection: &Connection, outbox: &Outbox) -> Result<Option<Marked>, Error> {
    let subject = outbox.marker();
    let stored = connection.stored(&outbox.stream, By::Last(&subject)).await?;
    let Some(stored) = stored else { return Ok(None) };
    let (stream, sequence) = (&outbox.stream, stored.sequence);
    let marker = Marker::parse(&stored.payload).map_err(|why| broker::Error::Unreadable {
        what: format!("message {sequence} of stream {stream}, the marker of outbox {}", outbox.name),
        why,
        remedy: format!(
            "find out who has published on `{subject}`, and remove that message with `nats stream rmm {stream} {sequence}`: \
             then the marker before it counts"
        ),
    })?;
    Ok(Some(Marked {
        marker,
        sequence,
        time_ms: stored.time_ms,
    }))
}

/// Removes the markers before the newest one, which nothing reads.
pub async fn sweep(connection: &Connection, outbox: &Outbox) -> Result<(), Error> {
    let body = json!({ "filter": outbox.marker(), "keep": 1 });
    let _: Value = connection
        .api(&format!("STREAM.PURGE.{}", outbox.stream), &body)
        .await?;
    Ok(())
}

/// Why a batch is not stored.
#[derive(Debug)]
pub enum BatchRefusal {
    /// The marker that it follows is not the newest.
    Fenced,
    /// One of its events can never be stored.
    Event(String),
    /// One of its events is in the stream.
    Known,
    /// Nothing of the outbox can be stored for now, or it is not known what became of it.
    Broken(Error),
}

/// What an answer to a batch means.
pub fn refusal(outbox: &Outbox, error: broker::Error) -> BatchRefusal {
    let marker = outbox.marker();
    match &error {
        broker::Error::Denied { subject, .. } if *subject != marker => BatchRefusal::Event(error.to_string()),
        broker::Error::Api { code, text, .. } => match *code {
            Code::STREAM_WRONG_LAST_SEQUENCE | Code::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => BatchRefusal::Fenced,
            Code::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE => BatchRefusal::Known,
            Code::STREAM_MESSAGE_EXCEEDS_MAXIMUM | Code::STREAM_HEADER_EXCEEDS_MAXIMUM => {
                BatchRefusal::Event(format!("{text} ({})", code.0))
            }
            Code::STREAM_STORE_FAILED if text.contains("per subject") => {
                BatchRefusal::Event(format!("{text} ({})", code.0))
            }
            Code::ATOMIC_PUBLISH_DISABLED => {
                let stream = &outbox.stream;
                BatchRefusal::Broken(Error::Person(format!(
                    "stream {stream} does not allow atomic batches: correct it with `nats stream edit {stream} --allow-batch`"
                )))
            }
            _ => BatchRefusal::Broken(error.in_stream(&outbox.stream).into()),
        },
        _ => BatchRefusal::Broken(error.into()),
    }
}
