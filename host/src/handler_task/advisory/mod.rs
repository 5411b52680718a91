//! The server's advisories that it gave up on an event. They are lost and repeated under faults, and anybody may forge
//! one: so they are only a hint, which the consumer, the attempt record and the ledger confirm.

use self::message::{Advisory, Routed};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::attempts;
use crate::broker::Error;
use crate::broker::kv::kv_stream;
use crate::broker::provision::{ATTEMPTS, kept};
use crate::failpoint;
use crate::handler_task::dead_lettering::{self, Dead};
use crate::handler_task::hindered::{What, Why};
use crate::handler_task::lane::{Counters, Lane, Link};
use crate::handler_task::replay;
use crate::handler_task::settle::{Acker, OWN_TERM, Settlement, ack_by_sequence};
use crate::message::clock::now_ms;
use crate::message::{EventId, parse_rfc3339};
use crate::outcome::{Cause, Failure};
use crate::replay_queue;
use crate::trouble::Weight;

pub mod message;
pub mod route;

/// What an advisory comes to.
enum Answer {
    /// Dealt with, or not ours to deal with.
    Over,
    /// It may still turn out to be false: look again.
    Later(Duration),
}

/// Acts on one advisory.
pub async fn take(lane: &Arc<Lane>, link: Arc<Link>, (advisory, reply): Routed) {
    let acker = Acker::of(reply, &link);
    let event = link.event(advisory.stream_seq);
    let what = What::Event(event.clone());
    let settlement = match act(lane, &link, &advisory, &event).await {
        Ok(Answer::Over) => {
            lane.hindered.over(&what);
            Settlement::Ack
        }
        Ok(Answer::Later(delay)) => Settlement::Nak(delay),
        Err(error) => {
            let handler = &lane.plan.name;
            let again_in = match &error {
                Error::Unreadable { .. } => {
                    trouble!(Weight::Person, handler, error, { %handler, %event, %error },
                        "an event waits until this is corrected");
                    Duration::from_secs(30)
                }
                _ => {
                    trouble!(Weight::of(error.passes()), handler, error, { %handler, %event, %error },
                        "an advisory is put off");
                    Duration::from_secs(5)
                }
            };
            lane.hindered.met(what, Why::from(&error), again_in);
            Settlement::Nak(again_in)
        }
    };
    acker.settle(lane, &settlement).await;
    failpoint::point("advisory-acked");
}

async fn act(lane: &Lane, link: &Link, advisory: &Advisory, event: &EventId) -> Result<Answer, Error> {
    let plan = &lane.plan;
    let Some(at) = parse_rfc3339(&advisory.timestamp) else {
        let (handler, sequence, timestamp) = (&plan.name, advisory.stream_seq, &advisory.timestamp);
        trouble!(Weight::Aside, handler, "", { %handler, sequence, timestamp }, "an advisory without a time is left out");
        return Ok(Answer::Over);
    };
    if at < link.created_ms {
        // It speaks of an earlier making of the stream.
        return Ok(Answer::Over);
    }
    if let Some(bucket) = &lane.bucket {
        bucket.catch_up().await?;
        if bucket.decided(&plan.name, event).is_some() {
            // The server still holds it, and a work queue would be blocked for ever.
            ack_by_sequence(&link.connection, &plan.stream, &plan.consumer, event.sequence).await?;
            return Ok(Answer::Over);
        }
    }
    if lane.is_running(event) {
        return Ok(Answer::Later(Duration::from_secs(2)));
    }
    let load = attempts::load(&link.connection, &plan.name, event);
    let held = kept(&link.connection, &lane.whole, &kv_stream(ATTEMPTS), load).await?;
    let known = dead_lettering::of_record(&held.record);
    let Some(info) = link.connection.consumer(&plan.stream, &plan.consumer).await? else {
        return Ok(Answer::Over);
    };
    if event.sequence > info.delivered.stream_seq {
        return Ok(contradicts(lane, event));
    }
    // While the server waits for answers, this event might be among what it waits for: then its record changes.
    let patience = u64::try_from((plan.ack_wait + plan.timeout).as_millis()).unwrap_or(u64::MAX);
    let next = held.record.next.as_deref().and_then(parse_rfc3339);
    let due = next.unwrap_or(known.last_ms).max(at);
    let pending = info.num_ack_pending > 0 && event.sequence > info.ack_floor.stream_seq;
    if pending && now_ms() < due.saturating_add(patience) {
        return Ok(Answer::Later(Duration::from_secs(5).min(plan.ack_wait)));
    }
    let dead = if advisory.kind.ends_with(".terminated") {
        if lane.bucket.is_none() && advisory.reason.starts_with(OWN_TERM) {
            return Ok(Answer::Over);
        }
        let message = match advisory.reason.as_str() {
            "" => "a person or a program terminated it, without a reason".to_owned(),
            reason => format!("a person or a program terminated it: {reason}"),
        };
        let failure = Failure {
            code: "terminated".to_owned(),
            message,
        };
        Dead {
            cause: Cause::Terminated,
            failure: Cow::Owned(failure),
            record: known,
        }
    } else {
        let max = info.config["max_deliver"].as_u64().unwrap_or(u64::MAX);
        if advisory.deliveries < max.min(u64::try_from(plan.max_deliver()).unwrap_or(u64::MAX)) {
            return Ok(contradicts(lane, event));
        }
        if held.record.attempts == 0 {
            // It never reached the handler: each time it was lost with its neighbours, or handed back.
            tracing::info!(handler = %plan.name, %event, "given up by the server before it was tried: it is run now");
            replay_queue::ask(&link.connection, &plan.name, event).await?;
            return Ok(Answer::Over);
        }
        dead_lettering::left_behind(&held.record, plan.retry.max_attempts)
    };
    match dead_lettering::body_in_stream(lane, event).await? {
        None => replay::lost(lane, event, dead.record).await?,
        // It speaks of what the stream had in this place before it lost its end.
        Some(body) if body.time_ms > at => return Ok(Answer::Over),
        Some(body) => {
            if dead_lettering::bury(lane, event, &dead, Some(body)).await? == dead_lettering::Buried::Now {
                Counters::add(&lane.counters.dead, 1);
                tracing::warn!(handler = %plan.name, %event, attempt = dead.record.attempts, cause = %dead.cause,
                    code = dead.failure.code, error = dead.failure.message, module = dead.record.module, "dead");
            }
            ack_by_sequence(&link.connection, &plan.stream, &plan.consumer, event.sequence).await?;
        }
    }
    attempts::remove(&link.connection, &plan.name, event).await?;
    Ok(Answer::Over)
}

/// Forged, or of another time.
fn contradicts(lane: &Lane, event: &EventId) -> Answer {
    let handler = &lane.plan.name;
    trouble!(Weight::Aside, handler, "", { %handler, %event }, "an advisory contradicts its consumer and is left out");
    Answer::Over
}
