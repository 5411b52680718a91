//! What a host logs about its events: one line for each attempt, and the lines of the guest.

use std::time::Duration;

use crate::event::outcome::{Failure, Verdict};
use crate::event::{EventId, Message};
use crate::handler_task::counters::Counters;
use crate::handler_task::delivery::{Delivery, Ran};
use crate::ledger::Decided;
use crate::wasm::guest::Line;

/// One line for each attempt.
pub fn attempt(handler: &str, delivery: &Delivery, attempt: u32, ran: &Ran) {
    let (event, subject) = (&delivery.message.event, &delivery.message.subject);
    // Nanoseconds would only lengthen the line.
    let took = Duration::from_micros(u64::try_from(ran.took.as_micros()).unwrap_or(u64::MAX));
    let (outcome, module) = (ran.outcome.name(), &ran.digest);
    let failure = ran.outcome.failure().unwrap_or_else(|| Failure {
        code: String::new(),
        message: String::new(),
    });
    match &ran.verdict {
        Verdict::Done => {
            tracing::debug!(%handler, %event, subject, attempt, ?took, %module, "done");
        }
        Verdict::Retry { delay } => tracing::info!(%handler, %event, subject, attempt, outcome, ?took, %module,
            code = failure.code, error = failure.message, next_in = ?delay, "will be retried"),
        Verdict::Dead { cause, .. } => tracing::warn!(%handler, %event, subject, attempt, outcome, ?took, %module,
            %cause, code = failure.code, error = failure.message, "dead"),
    }
}

pub fn guest_lines(handler: &str, event: &EventId, attempt: u32, lines: &[Line]) {
    for Line { level, text, .. } in lines {
        match *level {
            tracing::Level::ERROR => tracing::error!(target: "guest", %handler, %event, attempt, "{text}"),
            tracing::Level::WARN => tracing::warn!(target: "guest", %handler, %event, attempt, "{text}"),
            tracing::Level::INFO => tracing::info!(target: "guest", %handler, %event, attempt, "{text}"),
            tracing::Level::DEBUG => tracing::debug!(target: "guest", %handler, %event, attempt, "{text}"),
            tracing::Level::TRACE => tracing::trace!(target: "guest", %handler, %event, attempt, "{text}"),
        }
    }
}

pub fn repeated(handler: &str, counters: &Counters, event: &EventId) {
    Counters::add(&counters.repeated, 1);
    tracing::debug!(handler, %event, "already decided, acked without running");
}

/// An event from outside bears the headers of one that the mesh has emitted.
pub fn copied(handler: &str, counters: &Counters, message: &Message, id: &str) {
    // A service that copies headers does so often: only the first time is logged.
    if Counters::is_first(&counters.copied) {
        tracing::warn!(handler, event = %message.event, subject = message.subject, id,
            "its headers were copied from an emitted event and are not counted: do not copy Mesh-… and Nats-… headers");
    }
}

/// A transaction came too late: its event is decided.
pub fn before(handler: &str, counters: &Counters, event: &EventId, decided: Decided) {
    let Decided::Same { entry } = decided else {
        return repeated(handler, counters, event);
    };
    Counters::add(&counters.repeated, 1);
    // A publisher that repeats itself does so often: only the first time is logged.
    if Counters::is_first(&counters.known_by_id) {
        tracing::info!(%handler, %event, entry, "it repeats an event that is decided, acked without effects");
    } else {
        tracing::debug!(%handler, %event, entry, "it repeats an event that is decided, acked without effects");
    }
}
