//! An event that repeats another one, known by its id: decided without running, by an entry that names the first.

use std::time::Duration;

use crate::effects::Effects;
use crate::handler_task::delivery::Delivery;
use crate::handler_task::lane::Lane;
use crate::handler_task::settle::Settlement;
use crate::handler_task::{postpone, report, transaction};
use crate::identity;
use crate::identity::Mark;
use crate::ledger::Committed;
use crate::message::EventId;

/// The decided event that a delivery repeats.
pub fn of(lane: &Lane, delivery: &Delivery) -> Option<EventId> {
    // What is dead already is itself, whatever else bears its id.
    if delivery.death().is_some() {
        return None;
    }
    let message = &delivery.message;
    if let Mark::Copied(id) = identity::mark(&message.headers, &message.payload) {
        report::copied(lane, message, id);
    }
    let id = identity::of(
        &lane.plan,
        &message.subject,
        &message.headers,
        &message.payload,
        message.time_ms,
    )?;
    lane.bucket.as_ref()?.first_of(&lane.plan.name, &id, &message.event)
}

/// Decides it, and answers.
pub async fn answer(lane: &Lane, delivery: Delivery, first: EventId) {
    let Some(bucket) = &lane.bucket else { return };
    let module = lane.module.load().digest.clone();
    let mut tx = transaction::done(lane, &delivery, 0, &module, Effects::default());
    tx.repeats(&first);
    match bucket.commit(tx).await {
        Ok(Committed::Here { .. }) => {}
        Ok(Committed::Before(decided)) => report::before(lane, &delivery.message.event, decided),
        Err(fault) => {
            let why = format!("it repeats {first}, and that could not be noted down: {fault:?}");
            return postpone::put_off_for_now(lane, delivery, why, Duration::from_secs(1)).await;
        }
    }
    delivery.acker.settle(lane, &Settlement::Ack).await;
}
