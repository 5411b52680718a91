//! The state of handlers: the keys of a bucket, and one with its value and how it came to be.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::query::Query;
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::broker::kv::{is_tombstone, key_subject, kv_stream};
use crate::broker::scan::{From, Scan};
use crate::broker::{By, Connection, Error};
use crate::dlq::condition::pattern;
use crate::dlq::payload::Payload;
use crate::event::{DeliveryInfo, rfc3339};
use crate::ledger::core::entry::{DecisionKind, Entry, Subjects};
use crate::ledger::store::read;
use crate::plan::Plan;

/// Keys in one answer.
const PAGE: usize = 200;
/// Sequences that are looked at for one page.
const LOOKED_AT_MAX: u64 = 500_000;
/// Bytes of a value that are told.
const VALUE_MAX: usize = 256 * 1024;
/// How far back the writes of a key are followed.
const HISTORY_MAX: usize = 20;
/// The largest batch of JetStream: an entry lies no further before what it wrote.
const BATCH_MAX: u64 = 1_000;

/// The buckets of the configuration.
pub fn buckets(plan: &Plan) -> BTreeSet<&str> {
    plan.handlers
        .iter()
        .filter_map(|handler| handler.bucket.as_deref())
        .collect()
}

fn bucket<'a>(session: &'a ViewerSession, query: &'a Query) -> Result<&'a str, ConsoleError> {
    let name = query.get("bucket").unwrap_or_default();
    match buckets(&session.plan).contains(name) {
        true => Ok(name),
        false => Err(ConsoleError::missing(format!(
            "no handler of the configuration has the bucket `{name}`"
        ))),
    }
}

/// A key, without its value.
#[derive(Debug, Serialize)]
struct KeyTold {
    key: String,
    revision: u64,
    written: String,
    deleted: bool,
}

/// The keys of a bucket that were written last.
pub async fn keys(session: &ViewerSession, query: &Query) -> Result<Value, ConsoleError> {
    let bucket = bucket(session, query)?;
    let wanted = query.get("keys").unwrap_or(">");
    let wanted = pattern(wanted).map_err(|why| ConsoleError::wrong(format!("keys: {why}")))?;
    let (connection, stream) = (session.connection().await?, kv_stream(bucket));
    let Some(info) = connection.stream(&stream).await? else {
        return Err(ConsoleError::missing(format!(
            "bucket {bucket} is not there: a host that starts makes it"
        )));
    };
    let before = query.number("before")?.unwrap_or(u64::MAX);
    let subjects = [key_subject(bucket, &wanted)];
    let (first, mut last) = (
        info.state.first_seq.max(1),
        info.state.last_seq.min(before.saturating_sub(1)),
    );
    let (mut told, mut width, mut looked): (Vec<KeyTold>, u64, u64) = (Vec::new(), 2_000, 0);
    while last >= first && told.len() < PAGE && looked < LOOKED_AT_MAX {
        let from = (last + 1).saturating_sub(width).max(first);
        let mut piece = piece(&connection, bucket, &subjects, (from, last)).await?;
        piece.reverse();
        told.append(&mut piece);
        looked += last + 1 - from;
        last = from - 1;
        width *= 4;
    }
    let more = told.len() > PAGE || last >= first;
    // Where nothing was found, the next page begins where this one has ended.
    told.truncate(PAGE);
    let next = told.last().map_or(last + 1, |key| key.revision);
    Ok(json!({ "keys": told, "before": more.then_some(next) }))
}

async fn piece(
    connection: &Connection,
    bucket: &str,
    subjects: &[String; 1],
    (from, last): (u64, u64),
) -> Result<Vec<KeyTold>, Error> {
    let prefix = key_subject(bucket, "");
    let mut told = Vec::new();
    let mut scan = Scan::start(
        connection,
        &kv_stream(bucket),
        subjects,
        From::Sequence(from),
        last,
        true,
    )
    .await?;
    while let Some(scanned) = scan.next().await? {
        if scanned.malformed.is_some() {
            continue;
        }
        let message = scanned.message;
        let headers = message.headers.as_ref();
        let marker = |name: &str| headers.is_some_and(|headers| headers.get(name).is_some());
        let time = message.reply.as_deref().and_then(DeliveryInfo::parse);
        told.push(KeyTold {
            key: message
                .subject
                .strip_prefix(prefix.as_str())
                .unwrap_or_default()
                .to_owned(),
            revision: scanned.sequence,
            written: rfc3339(time.map_or(0, |info| info.time_ms)),
            deleted: marker("KV-Operation") || marker("Nats-Marker-Reason"),
        });
    }
    scan.end().await?;
    Ok(told)
}

/// A value that a key had.
#[derive(Debug, Serialize)]
struct ValueTold {
    revision: u64,
    at: String,
    /// null: it was deleted, or the entry does not repeat it because it is large.
    value: Option<Payload>,
    /// null: it was deleted.
    bytes: Option<usize>,
    entry: u64,
    host: String,
    /// The events that wrote it in this entry: of several, the value is the last one's.
    events: Vec<WriterTold>,
}

#[derive(Debug, Serialize)]
struct WriterTold {
    handler: String,
    event: String,
    attempt: u32,
    module: String,
    verdict: DecisionKind,
}

/// The value of a key, and what its ledger knows of how it came to be.
pub async fn key(session: &ViewerSession, query: &Query) -> Result<Value, ConsoleError> {
    let bucket = bucket(session, query)?;
    let key = query.get("key").ok_or_else(|| ConsoleError::wrong("name a key"))?;
    let key = pattern(key).map_err(|why| ConsoleError::wrong(format!("key: {why}")))?;
    let connection = session.connection().await?;
    let stored = connection
        .stored(&kv_stream(bucket), By::Last(&key_subject(bucket, &key)))
        .await?;
    let Some(stored) = stored else {
        return Err(ConsoleError::missing(format!(
            "bucket {bucket} has no key {key}, and knows of none that was deleted"
        )));
    };
    let deleted = is_tombstone(&stored.raw_headers);
    let bytes = stored.payload.len();
    let end = match std::str::from_utf8(&stored.payload) {
        Ok(text) => text.floor_char_boundary(VALUE_MAX),
        Err(_) => bytes.min(VALUE_MAX),
    };
    let value = (!deleted).then(|| Payload::of(&stored.payload[..end]));
    let has_ledger = session.plan.ledgers().contains(&bucket);
    let (history, why) = match has_ledger {
        true => history(&connection, bucket, &key, stored.sequence).await?,
        false => (Vec::new(), "the bucket has no ledger".to_owned()),
    };
    Ok(json!({
        "key": key, "revision": stored.sequence, "written": rfc3339(stored.time_ms), "deleted": deleted,
        "value": value, "bytes": bytes, "cut": end < bytes, "history": history, "history_ends": why,
    }))
}

/// The writes of a key, the newest first, and why there are no older ones.
async fn history(
    connection: &Connection,
    bucket: &str,
    key: &str,
    mut revision: u64,
) -> Result<(Vec<ValueTold>, String), Error> {
    let mut told = Vec::new();
    while told.len() < HISTORY_MAX {
        if revision == 0 {
            return Ok((told, "before that the key was not there".to_owned()));
        }
        let Some((entry, place)) = written_by(connection, bucket, key, revision).await? else {
            let why = format!(
                "revision {revision} is not of the ledger: it was written by other means, or its entry was collected after `ledger_keep`"
            );
            return Ok((told, why));
        };
        let write = &entry.writes[place];
        let writers = entry.decisions.iter().filter(|one| one.writes.contains(&place));
        told.push(ValueTold {
            revision,
            at: entry.at.clone(),
            value: write
                .value
                .as_ref()
                .and_then(|value| Some(Payload::of(&value.bytes().ok()?))),
            bytes: write.bytes,
            entry: entry.n,
            host: entry.host.clone(),
            events: writers
                .map(|one| WriterTold {
                    handler: one.handler.clone(),
                    event: one.event.clone(),
                    attempt: one.attempt,
                    module: one.module.clone(),
                    verdict: one.verdict,
                })
                .collect(),
        });
        revision = write.base;
    }
    Ok((told, format!("the last {HISTORY_MAX} writes are shown")))
}

/// The entry of the batch that a revision belongs to, and the place of the key among its writes.
async fn written_by(
    connection: &Connection,
    bucket: &str,
    key: &str,
    revision: u64,
) -> Result<Option<(Entry, usize)>, Error> {
    // Most batches are small.
    for reach in [50, BATCH_MAX] {
        let from = revision.saturating_sub(reach).max(1);
        if let Some((entry, sequence)) = last_entry(connection, bucket, (from, revision.saturating_sub(1))).await? {
            let place = entry.writes.iter().position(|write| write.key == key);
            let is_it = |place: &usize| entry.first_revision(sequence) + *place as u64 == revision;
            return Ok(place.filter(is_it).map(|place| (entry.clone(), place)));
        }
    }
    Ok(None)
}

async fn last_entry(
    connection: &Connection,
    bucket: &str,
    (from, last): (u64, u64),
) -> Result<Option<(Entry, u64)>, Error> {
    if last < from {
        return Ok(None);
    }
    let subjects = [Subjects::new(bucket).entries()];
    let mut found = None;
    let mut scan = Scan::start(
        connection,
        &kv_stream(bucket),
        &subjects,
        From::Sequence(from),
        last,
        false,
    )
    .await?;
    while let Some(scanned) = scan.next().await? {
        if scanned.malformed.is_none() {
            found = Some((
                scanned.message.subject.to_string(),
                scanned.message.payload,
                scanned.sequence,
            ));
        }
    }
    scan.end().await?;
    let read = found.map(|(subject, payload, sequence)| Ok((read::entry(&subject, &payload)?, sequence)));
    read.transpose()
}
