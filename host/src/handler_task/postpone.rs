//! An event whose turn is later, for a reason that is not its own.

use std::time::Duration;

use crate::broker::Error;
use crate::handler_task::delivery::Delivery;
use crate::handler_task::hindered::{What, Why};
use crate::handler_task::lane::Lane;
use crate::handler_task::settle::Settlement;
use crate::trouble::Weight;

/// When an event is looked at again that waits for a person.
const UNMENDED: Duration = Duration::from_secs(10);

/// Our fault, not the event's: later.
pub async fn put_off(lane: &Lane, delivery: Delivery, why: Why, delay: Duration) {
    let (handler, event, text) = (&lane.plan.name, &delivery.message.event, &why.text);
    trouble!(Weight::of(why.passes), handler, text, {
        %handler, %event, outcome = "host-fault", error = text, next_in = ?delay
    }, "put off");
    later(lane, delivery, why, delay).await;
}

/// The same of a fault that may pass.
pub async fn put_off_for_now(lane: &Lane, delivery: Delivery, text: String, delay: Duration) {
    put_off(lane, delivery, Why { text, passes: true }, delay).await;
}

/// Its attempt could not be counted, so it is not begun.
pub async fn unrecorded(lane: &Lane, delivery: Delivery, error: Error) {
    let why = Why::from(&error);
    if error.passes() {
        return put_off(lane, delivery, why, Duration::from_secs(1)).await;
    }
    let (handler, event) = (&lane.plan.name, &delivery.message.event);
    trouble!(Weight::Person, handler, error, { %handler, %event, %error }, "an event waits until this is corrected");
    later(lane, delivery, why, UNMENDED).await;
}

async fn later(lane: &Lane, delivery: Delivery, why: Why, delay: Duration) {
    let event = delivery.message.event.clone();
    lane.hindered.met(What::Event(event), why, delay);
    delivery.acker.settle(lane, &Settlement::Nak(delay)).await;
}
