//! The record of an event that did not succeed at first: how often it was tried, with what result, and when it is tried
//! again. One KV key per event and handler in the bucket `mesh_attempts`; first deliveries write nothing.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::broker::kv::is_tombstone;
use crate::broker::kv::key_subject;
use crate::broker::kv::kv_stream;
use crate::broker::provision::ATTEMPTS;
use crate::broker::{By, Connection, Error};
use crate::event::clock::now_ms;
use crate::event::outcome::{Failure, Outcome};
use crate::event::{EventId, parse_rfc3339, rfc3339};
use crate::random::Seed;

pub mod history;

/// How many attempts are kept word for word.
const HISTORY: usize = 5;
/// How many of a failed attempt's last log lines are kept.
pub const LOG_TAIL: usize = 10;
/// The outcome of an attempt that has not ended, or whose host ended during it.
pub const RUNNING: &str = "running";
/// The code of an attempt whose host ended during it.
pub const HOST_ENDED: &str = "host-ended";

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    pub handler: String,
    /// `<incarnation>.<sequence>`.
    pub event: String,
    pub stream: String,
    pub subject: String,
    /// Attempts that were begun.
    pub attempts: u32,
    /// When the first of them began, RFC 3339.
    pub first: String,
    /// The last few, oldest first.
    pub history: Vec<Attempt>,
    /// When the next one is due; absent while one runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// No attempt follows: a person has given the event up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GivenUp>,
}

/// Who has given an event up, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "given-up", description = "Who has given an event up.")]
pub struct GivenUp {
    pub by: String,
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    pub reason: Option<String>,
}

/// An attempt, as it is stored, and as commands print it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "attempt", description = "An attempt.")]
pub struct Attempt {
    /// Which one it was; replays are counted for themselves.
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// When it began, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    pub host: String,
    /// Digest of the module.
    pub module: String,
    /// `running` until it ends; a host that dies leaves it so.
    #[schemars(extend("enum" = [&[RUNNING], &Outcome::NAMES[..]].concat()))]
    pub outcome: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The last lines that the handler wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// Of a trap: the functions that were running, innermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backtrace: Vec<String>,
    /// The seed of its guest's random numbers, if the guest asked for any. It is kept only of attempts that failed, when they
    /// have ended: nothing that is stored tells what a guest will draw, or what it drew for an event that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^[0-9a-f]{64}$"))]
    #[schemars(
        description = "What the handler's random numbers came from, if it asked for any. A rehearsal draws the same from it."
    )]
    pub seed: Option<Seed>,
    /// It was a replay of the dead letter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replay: bool,
    /// The run of `dlq replay` that asked for it, or of the mesh itself: then it begins with `redrive`. Absent in attempts that are no replays of such a run, and in those of earlier
    /// builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub asked_by: Option<String>,
}

/// A record and the revision that it has in the bucket; 0: it is not there yet.
#[derive(Debug, Clone, Default)]
pub struct Held {
    pub record: AttemptRecord,
    pub revision: u64,
}

impl AttemptRecord {
    /// Reads a record. `Err` says what is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<AttemptRecord, String> {
        let record: AttemptRecord = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let attempts = record.history.iter().map(|attempt| &attempt.at);
        let first = Some(&record.first).filter(|_| record.attempts > 0);
        let mut times = attempts.chain(first).chain(&record.next);
        match times.find(|time| parse_rfc3339(time).is_none()) {
            Some(time) => Err(format!("`{time}` is no time")),
            None => Ok(record),
        }
    }

    /// One more attempt begins.
    pub fn begin(&mut self, host: &str, module: &str) {
        self.attempts += 1;
        let at = rfc3339(now_ms());
        if self.first.is_empty() {
            self.first.clone_from(&at);
        }
        self.next = None;
        self.history.push(Attempt {
            attempt: self.attempts,
            at,
            host: host.to_owned(),
            module: module.to_owned(),
            outcome: RUNNING.to_owned(),
            code: String::new(),
            message: String::new(),
            log: Vec::new(),
            backtrace: Vec::new(),
            seed: None,
            replay: false,
            asked_by: None,
        });
        let over = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..over);
    }

    /// An attempt has ended: the one that was begun, or, if it was the event's first, one that was not recorded at its
    /// beginning.
    pub fn end(&mut self, ended: Attempt) {
        self.attempts = self.attempts.max(ended.attempt);
        if self.first.is_empty() {
            self.first.clone_from(&ended.at);
        }
        match self.history.last_mut() {
            Some(last) if last.outcome == RUNNING => {
                let at = std::mem::take(&mut last.at);
                *last = Attempt { at, ..ended };
            }
            _ => self.history.push(ended),
        }
        let over = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..over);
    }

    /// Why it failed last.
    pub fn last_failure(&self) -> Failure {
        match self.last() {
            Some(last) if last.outcome != RUNNING => Failure {
                code: last.code.clone(),
                message: last.message.clone(),
            },
            // Hosts are in quotation marks: deaths by two of them are one kind.
            Some(last) => Failure {
                code: HOST_ENDED.to_owned(),
                message: format!(
                    "host `{}` ended, or lost its connection, during attempt {}",
                    last.host, last.attempt
                ),
            },
            None => Failure {
                code: HOST_ENDED.to_owned(),
                message: "its host ended, or lost its connection, before an attempt was recorded".to_owned(),
            },
        }
    }

    /// The last attempt, if there was one.
    pub fn last(&self) -> Option<&Attempt> {
        self.history.last()
    }

    /// The last attempt that has ended.
    pub fn last_ended(&self) -> Option<&Attempt> {
        self.history.iter().rfind(|attempt| attempt.outcome != RUNNING)
    }

    /// The host whose attempt runs, or was never answered.
    pub fn running_on(&self) -> Option<&str> {
        let running = self.last().filter(|attempt| attempt.outcome == RUNNING);
        running.map(|attempt| attempt.host.as_str())
    }

    /// Takes back an attempt that was begun and does not run.
    pub fn not_begun(&mut self) {
        if self.running_on().is_some() {
            self.history.pop();
            self.attempts = self.attempts.saturating_sub(1);
        }
    }
}

fn subject(handler: &str, event: &EventId) -> String {
    key_subject(ATTEMPTS, &format!("{handler}.{event}"))
}

/// The record of an event; an empty one if there is none.
pub async fn load(connection: &Connection, handler: &str, event: &EventId) -> Result<Held, Error> {
    let stored = connection
        .stored(&kv_stream(ATTEMPTS), By::Last(&subject(handler, event)))
        .await?;
    let Some(stored) = stored else {
        return Ok(Held::default());
    };
    let record = match is_tombstone(&stored.raw_headers) {
        true => AttemptRecord::default(),
        false => AttemptRecord::read(&stored.payload).map_err(|why| unreadable(handler, event, why))?,
    };
    Ok(Held {
        record,
        revision: stored.sequence,
    })
}

fn unreadable(handler: &str, event: &EventId, why: String) -> Error {
    Error::Unreadable {
        what: format!("the attempt record {handler}.{event} in bucket {ATTEMPTS}"),
        why,
        remedy: format!(
            "remove it with `nats kv purge {ATTEMPTS} {handler}.{event}`: then its attempts are counted from the first \
             again, and until then it is not run"
        ),
    }
}

/// Writes a record upon the revision that was read. If it was written meanwhile, the higher count stays, and that the event was
/// given up.
pub async fn save(connection: &Connection, event: &EventId, held: &mut Held) -> Result<(), Error> {
    let subject = subject(&held.record.handler, event);
    for _ in 0..5 {
        let body = serde_json::to_vec(&held.record).expect("a record serialises");
        match connection
            .publish_upon(&subject, held.revision, HeaderMap::new(), body.into())
            .await
            .map_err(|error| error.in_stream(&kv_stream(ATTEMPTS)))?
        {
            Some(ack) => {
                held.revision = ack.seq;
                return Ok(());
            }
            None => {
                let there = load(connection, &held.record.handler, event).await?;
                held.revision = there.revision;
                held.record.attempts = held.record.attempts.max(there.record.attempts);
                held.record.given_up = held.record.given_up.take().or(there.record.given_up);
            }
        }
    }
    Err(Error::Timeout {
        what: format!("writing {subject}"),
    })
}

/// Notes that a person gives an event up. `false`: there is no record, as it is decided or was never tried. An event that was given
/// up before stays so, by the person who did it first.
pub async fn give_up(
    connection: &Connection,
    handler: &str,
    event: &EventId,
    given_up: &GivenUp,
) -> Result<bool, Error> {
    let subject = subject(handler, event);
    for _ in 0..5 {
        let mut held = load(connection, handler, event).await?;
        if held.record.attempts == 0 {
            return Ok(false);
        }
        if held.record.given_up.is_some() {
            return Ok(true);
        }
        held.record.given_up = Some(given_up.clone());
        let body = serde_json::to_vec(&held.record).expect("a record serialises");
        let written = connection.publish_upon(&subject, held.revision, HeaderMap::new(), body.into());
        let written = written.await.map_err(|error| error.in_stream(&kv_stream(ATTEMPTS)))?;
        if written.is_some() {
            return Ok(true);
        }
    }
    Err(Error::Timeout {
        what: format!("writing {subject}"),
    })
}

/// The event is decided: its record goes.
pub async fn remove(connection: &Connection, handler: &str, event: &EventId) -> Result<(), Error> {
    // A purge leaves nothing behind, not even a tombstone.
    let body = serde_json::json!({ "filter": subject(handler, event) });
    let purge = format!("STREAM.PURGE.{}", kv_stream(ATTEMPTS));
    connection.api::<serde_json::Value>(&purge, &body).await.map(|_| ())
}

/// The events of which there are records, by handler.
pub async fn by_handler(connection: &Connection) -> Result<BTreeMap<String, Vec<EventId>>, Error> {
    let all = key_subject(ATTEMPTS, "");
    let mut events: BTreeMap<String, Vec<EventId>> = BTreeMap::new();
    for subject in connection.subjects(&kv_stream(ATTEMPTS), &format!("{all}>")).await? {
        let named = subject.strip_prefix(&all).and_then(|key| key.split_once('.'));
        if let Some((handler, event)) = named.and_then(|(handler, id)| Some((handler, EventId::parse(id)?))) {
            events.entry(handler.to_owned()).or_default().push(event);
        }
    }
    Ok(events)
}

/// The events of which a handler has records.
pub async fn events(connection: &Connection, handler: &str) -> Result<Vec<EventId>, Error> {
    let all = key_subject(ATTEMPTS, &format!("{handler}."));
    let subjects = connection.subjects(&kv_stream(ATTEMPTS), &format!("{all}>")).await?;
    let event = |subject: &String| EventId::parse(subject.strip_prefix(&all)?);
    Ok(subjects.iter().filter_map(event).collect())
}
