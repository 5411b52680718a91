//! An event whose turn is later, for a reason that is not its own.

use crate::trouble::Weight;
use std::time::Duration;

use crate::handler_task::delivery::Delivery;
use crate::handler_task::lane::Lane;
use crate::handler_task::settle::Settlement;

/// Our fault, not the event's: later.
pub async fn put_off(lane: &Lane, delivery: Delivery, why: String, delay: Duration) {
    let (handler, event) = (&lane.plan.name, &delivery.message.event);
    trouble!(Weight::Delay, handler, why, {
        %handler, %event, outcome = "host-fault", error = why, next_in = ?delay
    }, "put off");
    delivery.acker.settle(lane, &Settlement::Nak(delay)).await;
}
