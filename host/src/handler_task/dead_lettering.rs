//! How an event dies: through the ledger, where its death is an entry and the letter a consequence, or, for a handler
//! without a ledger, by storing the letter directly.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::broker::provision::{DEAD, kept};
use crate::broker::{By, Error};
use crate::event::outcome::{Cause, Failure};
use crate::event::{EventId, Message, parse_rfc3339};
use crate::failpoint;
use crate::handler_task::attempt_span;
use crate::handler_task::links::Links;
use crate::ledger::core::entry::{Decision, DecisionKind};
use crate::ledger::core::transaction::{Planned, Transaction};
use crate::ledger::identity;
use crate::ledger::{Bucket, CommitError, Committed};
use crate::mesh_streams::attempts::{Attempt, AttemptRecord, GivenUp, Held};
use crate::mesh_streams::dead_letter::{self, Body, DeadLetterFacts};
use crate::plan::{Handler, Plan};
use crate::spans;

/// The code of an event that a person has given up.
const GAVE_UP: &str = "gave-up";

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
pub enum DeadLettered {
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

/// The death of an event of which only the record is left. It is described in the same way in each case: a host gets the event
/// once more, the server sends an advisory, or the sweep finds it. A person may have given it up.
pub fn left_behind(record: &AttemptRecord, attempts_max: u32) -> Dead<'static> {
    let mut failure = record.last_failure();
    if let Some(GivenUp { by, reason, .. }) = &record.given_up {
        let reason = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        // The person is in quotation marks: what two of them give up is one kind.
        failure.message = format!(
            "`{by}` gave it up{reason}; it had failed with {}: {}",
            failure.code, failure.message
        );
        failure.code = GAVE_UP.to_owned();
        return Dead {
            cause: Cause::GaveUp,
            failure: Cow::Owned(failure),
            record: of_record(record),
        };
    }
    // The server counts deliveries, and not each of them becomes an attempt.
    let cause = match record.attempts >= attempts_max {
        true => Cause::Exhausted,
        false => Cause::MaxDeliver,
    };
    Dead {
        cause,
        failure: Cow::Owned(failure),
        record: of_record(record),
    }
}

/// An event's attempts by its record.
pub fn of_record(record: &AttemptRecord) -> Attempts {
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

/// How the events of one handler are dead-lettered.
pub struct DeadLetters {
    plan: Arc<Handler>,
    whole: Arc<Plan>,
    links: Arc<Links>,
    bucket: Option<Arc<Bucket>>,
}

impl DeadLetters {
    pub fn new(plan: Arc<Handler>, whole: Arc<Plan>, links: Arc<Links>, bucket: Option<Arc<Bucket>>) -> DeadLetters {
        DeadLetters {
            plan,
            whole,
            links,
            bucket,
        }
    }

    /// The transaction of a death. The letter names the entry that will hold it, which only the append knows and puts in.
    pub fn transaction(&self, event: &EventId, dead: &Dead<'_>, body: Option<Body>) -> Transaction {
        let ledger = self.bucket.as_ref().map_or("", |b| b.name.as_str());
        let headers = dead_letter::headers(&self.facts(event, dead, Some(ledger)), body.as_ref());
        let read = body.as_ref().and_then(|b| Some((b, b.headers.as_ref().ok()?)));
        let id = read.and_then(|(b, headers)| identity::of(&self.plan, &b.subject, headers, &b.payload, b.time_ms));
        let letter = Planned::Letter {
            subject: dead_letter::subject(&self.plan.stream, &self.plan.name, event),
            headers,
            payload: body.map(|b| b.payload).unwrap_or_default(),
        };
        Transaction {
            handler: self.plan.name.clone(),
            event: event.clone(),
            decision: Some(Decision {
                handler: self.plan.name.clone(),
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
            trial: None,
        }
    }

    fn facts<'a>(&'a self, event: &'a EventId, dead: &'a Dead<'_>, ledger: Option<&'a str>) -> DeadLetterFacts<'a> {
        DeadLetterFacts {
            stream: &self.plan.stream,
            handler: &self.plan.name,
            event,
            cause: dead.cause,
            failure: &dead.failure,
            attempts: dead.record.attempts,
            module: &dead.record.module,
            first_attempt_ms: dead.record.first_ms,
            last_attempt_ms: dead.record.last_ms,
            history: &dead.record.history,
            ledger,
        }
    }

    /// Dead-letters an event: through the ledger, if the handler has one. `body`: `None` if the event was removed from its
    /// stream.
    pub async fn dead_letter(
        &self,
        event: &EventId,
        dead: &Dead<'_>,
        body: Option<Body>,
    ) -> Result<DeadLettered, Error> {
        // Only a span needs it.
        let known = spans::recorder().and_then(|_| body.clone());
        let dead_lettered = self.decide(event, dead, body).await?;
        if dead_lettered == DeadLettered::Now {
            attempt_span::died(&self.plan, event, dead, known.as_ref());
        }
        Ok(dead_lettered)
    }

    async fn decide(&self, event: &EventId, dead: &Dead<'_>, body: Option<Body>) -> Result<DeadLettered, Error> {
        let Some(bucket) = &self.bucket else {
            return self.store(event, dead, body).await.map(|()| DeadLettered::Now);
        };
        let tx = self.transaction(event, dead, body);
        match bucket.commit(tx).await {
            Ok(Committed::Here { .. }) => {
                failpoint::point("death-decided");
                Ok(DeadLettered::Now)
            }
            Ok(Committed::Before(_)) => Ok(DeadLettered::Before),
            Err(CommitError::Conflict) => Err(Error::Timeout {
                what: "writing a dead letter".to_owned(),
            }),
            Err(CommitError::TooLarge(why) | CommitError::Host(why)) => Err(Error::Refused(why)),
        }
    }

    /// Stores the letter without a ledger.
    pub async fn store(&self, event: &EventId, dead: &Dead<'_>, body: Option<Body>) -> Result<(), Error> {
        let link = self.links.needed("writing a dead letter").await?;
        let headers = dead_letter::headers(&self.facts(event, dead, None), body.as_ref());
        let subject = dead_letter::subject(&self.plan.stream, &self.plan.name, event);
        let payload = body.map_or_else(Bytes::new, |b| b.payload);
        let store = dead_letter::store(&link.connection, &subject, &headers, payload);
        kept(&link.connection, &self.whole, DEAD, store).await.map(|_| ())
    }

    /// The event as its stream still holds it.
    pub async fn body_in_stream(&self, event: &EventId) -> Result<Option<Body>, Error> {
        let link = self.links.needed("reading an event").await?;
        let stored = link
            .connection
            .stored(&self.plan.stream, By::Sequence(event.sequence))
            .await?;
        Ok(stored.map(Body::of))
    }

    /// Dead-letters an undecided event that its stream has removed.
    pub async fn dead_letter_lost(&self, event: &EventId, record: Attempts) -> Result<(), Error> {
        let failure = Failure {
            code: "lost".to_owned(),
            message: format!("stream {} removed it before it was decided", self.plan.stream),
        };
        let dead = Dead {
            cause: Cause::Lost,
            failure: Cow::Owned(failure),
            record,
        };
        if self.dead_letter(event, &dead, None).await? == DeadLettered::Now {
            tracing::warn!(handler = %self.plan.name, %event, cause = %Cause::Lost, "dead");
        }
        Ok(())
    }

    /// Dead-letters an event whose message no client can read.
    pub async fn dead_letter_malformed(&self, event: &EventId, body: Body, why: &str) -> Result<DeadLettered, Error> {
        let failure = Failure {
            code: "malformed-message".to_owned(),
            message: format!("no client can read this message: {why}"),
        };
        let dead = Dead {
            cause: Cause::Rejected,
            failure: Cow::Owned(failure),
            record: Attempts::default(),
        };
        let dead_lettered = self.dead_letter(event, &dead, Some(body)).await?;
        if dead_lettered == DeadLettered::Now {
            tracing::warn!(handler = %self.plan.name, %event, cause = %dead.cause, code = dead.failure.code,
                error = dead.failure.message, "dead");
        }
        Ok(dead_lettered)
    }
}
