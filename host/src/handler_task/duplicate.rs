//! An event that repeats another one, known by its id: decided without running, by an entry that names the first.

use crate::event::EventId;
use crate::event::effects::Effects;
use crate::handler_task::counters::Counters;
use crate::handler_task::delivery::Delivery;
use crate::handler_task::lane::Lane;
use crate::handler_task::settle::Settlement;
use crate::handler_task::settle::delays::SOON;
use crate::handler_task::{postpone, report, transaction};
use crate::ledger::identity;
use crate::ledger::identity::Mark;
use crate::ledger::{Bucket, Committed};
use crate::plan::Handler;

/// The decided event that a delivery repeats.
pub fn of(plan: &Handler, bucket: &Bucket, counters: &Counters, delivery: &Delivery) -> Option<EventId> {
    // What is dead already is itself, whatever else bears its id.
    if delivery.death().is_some() {
        return None;
    }
    let message = &delivery.message;
    if let Mark::Copied(id) = identity::mark(&message.headers, &message.payload) {
        report::copied(&plan.name, counters, message, id);
    }
    let id = identity::of_message(plan, message)?;
    bucket.first_of(&plan.name, &id, &message.event)
}

/// Decides it, and answers.
pub async fn answer(lane: &Lane, bucket: &Bucket, delivery: Delivery, first: EventId) {
    let module = lane.runner.digest();
    let mut tx = transaction::done(&lane.plan, &delivery, (0, None), &module, Effects::default());
    tx.repeats(&first);
    match bucket.commit(tx).await {
        Ok(Committed::Here { .. }) => {}
        Ok(Committed::Before(decided)) => {
            report::before(&lane.plan.name, &lane.counters, &delivery.message.event, decided)
        }
        Err(fault) => {
            let why = format!("it repeats {first}, and that could not be noted down: {fault:?}");
            return postpone::put_off_for_now(&lane.links, &lane.hindered, delivery, why, SOON).await;
        }
    }
    delivery.acker.settle(&lane.links, &Settlement::Ack).await;
}
