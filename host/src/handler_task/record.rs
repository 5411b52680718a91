//! What an attempt leaves in the event's record (see `attempts`): its beginning, its failure, and in the end nothing.

use std::time::Duration;

use crate::attempts::{self, Attempt, LOG_TAIL};
use crate::broker::Error;
use crate::broker::kv::kv_stream;
use crate::broker::provision::{ATTEMPTS, kept};
use crate::failpoint;
use crate::handler_task::delivery::{Delivery, Ran};
use crate::handler_task::hindered::{What, Why};
use crate::handler_task::lane::Lane;
use crate::message::clock::now_ms;
use crate::message::{EventId, Message, rfc3339};
use crate::trouble::Weight;

/// Counts a redelivery's attempt before it runs, so that an event which ends the host is counted too.
pub async fn begin(lane: &Lane, delivery: &Delivery) -> Result<Option<attempts::Held>, Error> {
    let first = delivery.delivered <= 1 && delivery.replay.is_none();
    if first || delivery.is_of_letter() {
        return Ok(None);
    }
    let link = lane.linked().await.ok_or(Error::Gone {
        what: "recording an attempt".to_owned(),
    })?;
    let event = &delivery.message.event;
    let load = attempts::load(&link.connection, &lane.plan.name, event);
    let mut held = kept(&link.connection, &lane.whole, &kv_stream(ATTEMPTS), load).await?;
    describe(lane, &mut held, &delivery.message);
    if held.record.attempts >= lane.plan.retry.max_attempts && !failpoint::off("host-verdict") {
        held.record.attempts += 1;
        return Ok(Some(held));
    }
    held.record.begin(&lane.host, &lane.module.load().digest.to_string());
    attempts::save(&link.connection, event, &mut held).await?;
    failpoint::point("attempt-written");
    Ok(Some(held))
}

fn describe(lane: &Lane, held: &mut attempts::Held, message: &Message) {
    held.record.handler.clone_from(&lane.plan.name);
    held.record.event = message.event.to_string();
    held.record.stream.clone_from(&lane.plan.stream);
    held.record.subject.clone_from(&message.subject);
}

/// An attempt that has just failed, as records and letters tell it.
pub fn told(lane: &Lane, attempt: u32, ran: &Ran) -> Attempt {
    let failure = ran.outcome.failure();
    let (code, message) = failure.map_or_else(Default::default, |f| (f.code, f.message));
    let took = u64::try_from(ran.took.as_millis()).unwrap_or(u64::MAX);
    let last_lines = &ran.lines[ran.lines.len().saturating_sub(LOG_TAIL)..];
    Attempt {
        attempt,
        at: rfc3339(now_ms().saturating_sub(took)),
        host: lane.host.clone(),
        module: ran.digest.to_string(),
        outcome: ran.outcome.name().to_owned(),
        code,
        message,
        log: last_lines.iter().map(|l| format!("{} {}", l.level, l.text)).collect(),
        backtrace: ran.outcome.backtrace().to_vec(),
        seed: ran.seed,
        replay: false,
        asked_by: None,
    }
}

/// Writes down why an attempt failed and when the next is due.
pub async fn failed(
    lane: &Lane,
    delivery: &Delivery,
    record: Option<attempts::Held>,
    attempt: u32,
    ran: &Ran,
    delay: Duration,
) {
    let Some(link) = lane.linked().await else { return };
    let mut held = record.unwrap_or_default();
    describe(lane, &mut held, &delivery.message);
    held.record.end(told(lane, attempt, ran));
    if !ran.outcome.counts() {
        held.record.attempts = held.record.attempts.saturating_sub(1);
    }
    let due = now_ms() + u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    held.record.next = Some(rfc3339(due));
    let save = attempts::save(&link.connection, &delivery.message.event, &mut held);
    if let Err(error) = kept(&link.connection, &lane.whole, &kv_stream(ATTEMPTS), save).await {
        let (handler, event) = (&lane.plan.name, &delivery.message.event);
        // It is tried again all the same; what then cannot be recorded either, waits.
        lane.hindered.met(What::Event(event.clone()), Why::from(&error), delay);
        trouble!(Weight::Aside, handler, error, { %handler, %event, %error }, "an attempt could not be recorded");
    }
}

pub async fn forget(lane: &Lane, event: &EventId) {
    let Some(link) = lane.link() else { return };
    if let Err(error) = attempts::remove(&link.connection, &lane.plan.name, event).await {
        // The sweep takes it away later.
        tracing::debug!(handler = %lane.plan.name, %event, %error, "an attempt record stays behind");
    }
}
