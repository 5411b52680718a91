//! How an event dies: through the ledger, where its death is an entry and the letter a consequence, or, for a handler
//! without a ledger, by storing the letter directly.

use std::borrow::Cow;

use bytes::Bytes;

use crate::attempts::{Attempt, Held, Record};
use crate::broker::provision::{DEAD, kept};
use crate::broker::{By, Error};
use crate::dead_letter::{self, Body, Obituary};
use crate::failpoint;
use crate::handler_task::lane::Lane;
use crate::identity;
use crate::ledger::core::entry::{Decision, DecisionKind};
use crate::ledger::core::transaction::Planned;
use crate::ledger::core::transaction::Transaction;
use crate::ledger::{Committed, Fault};
use crate::message::{EventId, Message, parse_rfc3339};
use crate::outcome::{Cause, Failure};

/// What is known of an event's attempts.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    pub attempts: u32,
    pub first_ms: u64,
    pub last_ms: u64,
    pub module: String,
    /// The last few, oldest first.
    pub history: Vec<Attempt>,
}

/// Why and after what an event is dead.
#[derive(Debug, Clone)]
pub struct Dead<'a> {
    pub cause: Cause,
    pub failure: Cow<'a, Failure>,
    pub record: Attempts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buried {
    Now,
    /// It was decided before, done or dead.
    Before,
}

pub fn body_of(message: &Message) -> Body {
    Body {
        subject: message.subject.clone(),
        headers: Ok(message.headers.clone()),
        payload: message.payload.clone(),
        time_ms: message.time_ms,
    }
}

/// The death of an event of which nothing is left but its record. It is described in one way, whoever finds it: the host
/// that gets the event once more, the server by an advisory, or the sweep.
pub fn left_behind(record: &Record, attempts_max: u32) -> Dead<'static> {
    // The server counts deliveries, and not each of them becomes an attempt.
    let cause = match record.attempts >= attempts_max {
        true => Cause::Exhausted,
        false => Cause::MaxDeliver,
    };
    Dead {
        cause,
        failure: Cow::Owned(record.last_failure()),
        record: of_record(record),
    }
}

/// What a record says of an event's attempts.
pub fn of_record(record: &Record) -> Attempts {
    let last = record.last();
    Attempts {
        attempts: last.map_or(0, |l| l.attempt),
        first_ms: parse_rfc3339(&record.first).unwrap_or(0),
        last_ms: last.and_then(|l| parse_rfc3339(&l.at)).unwrap_or(0),
        module: last.map(|l| l.module.clone()).unwrap_or_default(),
        history: record.history.clone(),
    }
}

/// The attempts of an event that has just failed for good: those in its record, if it has one, and this one.
pub fn attempts(record: Option<&Held>, failed: Attempt) -> Attempts {
    let mut record = record.map(|held| held.record.clone()).unwrap_or_default();
    record.end(failed);
    of_record(&record)
}

/// The transaction of a death. The letter names the entry that will hold it, which only the append knows and puts in.
pub fn transaction(lane: &Lane, event: &EventId, dead: &Dead<'_>, body: Option<Body>) -> Transaction {
    let ledger = lane.bucket.as_ref().map_or("", |b| b.name.as_str());
    let headers = dead_letter::headers(&obituary(lane, event, dead, Some((ledger, 0))), body.as_ref());
    let read = body.as_ref().and_then(|b| Some((b, b.headers.as_ref().ok()?)));
    let id = read.and_then(|(b, headers)| identity::of(&lane.plan, &b.subject, headers, &b.payload, b.time_ms));
    let letter = Planned::Letter {
        subject: dead_letter::subject(&lane.plan.stream, &lane.plan.name, event),
        headers,
        payload: body.map(|b| b.payload).unwrap_or_default(),
    };
    Transaction {
        handler: lane.plan.name.clone(),
        event: event.clone(),
        decision: Some(Decision {
            handler: lane.plan.name.clone(),
            event: event.to_string(),
            verdict: DecisionKind::Dead,
            id,
            same_as: None,
            cause: Some(dead.cause),
            code: Some(dead.failure.code.clone()),
            message: Some(dead.failure.message.clone()),
            attempt: dead.record.attempts,
            module: dead.record.module.clone(),
            follows_death: None,
            writes: Vec::new(),
        }),
        session: 0,
        reads: std::collections::BTreeMap::new(),
        writes: std::collections::BTreeMap::new(),
        consequences: vec![letter],
        death: None,
    }
}

fn obituary<'a>(lane: &'a Lane, event: &'a EventId, dead: &'a Dead<'_>, death: Option<(&'a str, u64)>) -> Obituary<'a> {
    Obituary {
        stream: &lane.plan.stream,
        handler: &lane.plan.name,
        event,
        cause: dead.cause,
        failure: &dead.failure,
        attempts: dead.record.attempts,
        module: &dead.record.module,
        first_attempt_ms: dead.record.first_ms,
        last_attempt_ms: dead.record.last_ms,
        history: &dead.record.history,
        death,
    }
}

/// Buries an event, whichever way this handler's events are buried. `body` `None`: it is gone from its stream.
pub async fn bury(lane: &Lane, event: &EventId, dead: &Dead<'_>, body: Option<Body>) -> Result<Buried, Error> {
    let Some(bucket) = &lane.bucket else {
        return directly(lane, event, dead, body).await.map(|()| Buried::Now);
    };
    let tx = transaction(lane, event, dead, body);
    match bucket.commit(tx).await {
        Ok(Committed::Here { .. }) => {
            failpoint::point("burial-decided");
            Ok(Buried::Now)
        }
        Ok(Committed::Before(_)) => Ok(Buried::Before),
        Err(Fault::Conflict) => Err(Error::Timeout {
            what: "burying an event".to_owned(),
        }),
        Err(Fault::TooLarge(why) | Fault::Host(why)) => Err(Error::Refused(why)),
    }
}

/// Stores the letter without a ledger.
pub async fn directly(lane: &Lane, event: &EventId, dead: &Dead<'_>, body: Option<Body>) -> Result<(), Error> {
    let link = lane.linked().await.ok_or(Error::Gone {
        what: "burying an event".to_owned(),
    })?;
    let headers = dead_letter::headers(&obituary(lane, event, dead, None), body.as_ref());
    let subject = dead_letter::subject(&lane.plan.stream, &lane.plan.name, event);
    let payload = body.map_or_else(Bytes::new, |b| b.payload);
    let store = dead_letter::store(&link.connection, &subject, &headers, payload);
    kept(&link.connection, &lane.whole, DEAD, store).await.map(|_| ())
}

/// The event as its stream still holds it.
pub async fn body_in_stream(lane: &Lane, event: &EventId) -> Result<Option<Body>, Error> {
    let link = lane.linked().await.ok_or(Error::Gone {
        what: "reading an event".to_owned(),
    })?;
    let stored = link
        .connection
        .stored(&lane.plan.stream, By::Sequence(event.sequence))
        .await?;
    Ok(stored.map(Body::of))
}
