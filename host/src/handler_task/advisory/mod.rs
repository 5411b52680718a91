//! The server's advisories that it gave up on an event. Under faults they are lost and repeated, and any client may forge one:
//! so they are only a hint, which the consumer, the attempt record and the ledger confirm.

use std::sync::Arc;
use std::time::Duration;

use self::judge::{Evidence, Finding, judge};
use self::message::{Advisory, Routed};

use crate::broker::Error;
use crate::event::clock::now_ms;
use crate::event::{EventId, parse_rfc3339};
use crate::failpoint;
use crate::handler_task::dead_lettering::{Dead, DeadLettered};
use crate::handler_task::hindered::{HinderedWork, Why};
use crate::handler_task::lane::Lane;
use crate::handler_task::links::Link;
use crate::handler_task::settle::delays::{ADVISORY_AT_WORK, ADVISORY_FOR_PERSON, AFTER_FAULT};
use crate::handler_task::settle::{Acker, Settlement, ack_by_sequence};
use crate::mesh_streams::attempts;
use crate::mesh_streams::replay_queue;
use crate::trouble::Weight;

mod judge;
pub mod message;
pub mod route;

/// What follows for the advisory.
enum AdvisoryAnswer {
    /// Dealt with, or not ours to deal with.
    Over,
    /// It may still turn out to be false: look again.
    Later(Duration),
}

/// Acts on one advisory.
pub async fn take(lane: &Arc<Lane>, link: Arc<Link>, (advisory, reply): Routed) {
    let acker = Acker::of(reply, &link);
    let event = link.event(advisory.stream_seq);
    let what = HinderedWork::Event(event.clone());
    let settlement = match act(lane, &link, &advisory, &event).await {
        Ok(AdvisoryAnswer::Over) => {
            lane.hindered.over(&what);
            Settlement::Ack
        }
        Ok(AdvisoryAnswer::Later(delay)) => Settlement::Nak(delay),
        Err(error) => {
            let handler = &lane.plan.name;
            let again_in = match &error {
                Error::Unreadable { .. } => {
                    trouble!(Weight::Person, handler, error, { %handler, %event, %error },
                        "an event waits until this is corrected");
                    ADVISORY_FOR_PERSON
                }
                _ => {
                    trouble!(Weight::of(error.passes()), handler, error, { %handler, %event, %error },
                        "an advisory is put off");
                    AFTER_FAULT
                }
            };
            lane.hindered.met(what, Why::from(&error), again_in);
            Settlement::Nak(again_in)
        }
    };
    acker.settle(&lane.links, &settlement).await;
    failpoint::point("advisory-acked");
}

async fn act(lane: &Lane, link: &Link, advisory: &Advisory, event: &EventId) -> Result<AdvisoryAnswer, Error> {
    let plan = &*lane.plan;
    let Some(at_ms) = parse_rfc3339(&advisory.timestamp) else {
        let (handler, sequence, timestamp) = (&plan.name, advisory.stream_seq, &advisory.timestamp);
        trouble!(Weight::Aside, handler, "", { %handler, sequence, timestamp }, "an advisory without a time is left out");
        return Ok(AdvisoryAnswer::Over);
    };
    if at_ms < link.created_ms {
        // It speaks of an earlier incarnation of the stream.
        return Ok(AdvisoryAnswer::Over);
    }
    if let Some(bucket) = &lane.bucket {
        bucket.catch_up().await?;
        if bucket.decided(&plan.name, event).is_some() {
            // The server still holds it, and a work queue would be blocked for ever.
            ack_by_sequence(&link.connection, &plan.stream, &plan.consumer, event.sequence).await?;
            return Ok(AdvisoryAnswer::Over);
        }
    }
    if lane.in_flight.contains(event) {
        return Ok(AdvisoryAnswer::Later(ADVISORY_AT_WORK));
    }
    let held = lane.records.load(link, event).await?;
    let Some(consumer) = link.connection.consumer(&plan.stream, &plan.consumer).await? else {
        return Ok(AdvisoryAnswer::Over);
    };
    let finding = judge(&Evidence {
        plan,
        advisory,
        at_ms,
        now_ms: now_ms(),
        consumer: &consumer,
        record: &held.record,
    });
    match finding {
        Finding::NotOurs => Ok(AdvisoryAnswer::Over),
        Finding::Contradicted => {
            let handler = &plan.name;
            trouble!(Weight::Aside, handler, "", { %handler, %event }, "an advisory contradicts its consumer and is left out");
            Ok(AdvisoryAnswer::Over)
        }
        Finding::Later(delay) => Ok(AdvisoryAnswer::Later(delay)),
        Finding::NeverTried => {
            tracing::info!(handler = %plan.name, %event, "given up by the server before it was tried: it is run now");
            replay_queue::ask(&link.connection, &plan.name, event).await?;
            Ok(AdvisoryAnswer::Over)
        }
        Finding::Dead(dead) => {
            dead_letter(lane, link, event, dead, at_ms).await?;
            Ok(AdvisoryAnswer::Over)
        }
    }
}

/// Dead-letters an event that the server gave up on at `at_ms`.
async fn dead_letter(lane: &Lane, link: &Link, event: &EventId, dead: Dead<'_>, at_ms: u64) -> Result<(), Error> {
    let (plan, dead_letters) = (&lane.plan, &lane.dead_letters);
    match dead_letters.body_in_stream(event).await? {
        None => dead_letters.dead_letter_lost(event, dead.record).await?,
        // It speaks of what the stream had in this place before it lost its end.
        Some(body) if body.time_ms > at_ms => return Ok(()),
        Some(body) => {
            if dead_letters.dead_letter(event, &dead, Some(body)).await? == DeadLettered::Now {
                lane.counters.died(dead.cause);
                tracing::warn!(handler = %plan.name, %event, attempt = dead.record.attempts, cause = %dead.cause,
                    code = dead.failure.code, error = dead.failure.message, module = dead.record.module, "dead");
            }
            ack_by_sequence(&link.connection, &plan.stream, &plan.consumer, event.sequence).await?;
        }
    }
    attempts::remove(&link.connection, &plan.name, event).await
}
