//! An event whose turn is later, for a reason that is not its own.

use std::time::Duration;

use crate::broker::Error;
use crate::handler_task::delivery::Delivery;
use crate::handler_task::hindered::{Hindered, HinderedWork, Why};
use crate::handler_task::links::Links;
use crate::handler_task::settle::Settlement;
use crate::handler_task::settle::delays::{FOR_PERSON, SOON};
use crate::trouble::Weight;

/// Our fault, not the event's: later.
pub async fn put_off(links: &Links, hindered: &Hindered, delivery: Delivery, why: Why, delay: Duration) {
    let (handler, event, text) = (links.handler(), &delivery.message.event, &why.text);
    trouble!(Weight::of(why.passes), handler, text, {
        %handler, %event, outcome = "host-fault", error = text, next_in = ?delay
    }, "put off");
    later(links, hindered, delivery, why, delay).await;
}

/// The same of a fault that may pass.
pub async fn put_off_for_now(links: &Links, hindered: &Hindered, delivery: Delivery, text: String, delay: Duration) {
    put_off(links, hindered, delivery, Why { text, passes: true }, delay).await;
}

/// Its attempt could not be counted, so it is not begun.
pub async fn unrecorded(links: &Links, hindered: &Hindered, delivery: Delivery, error: Error) {
    let why = Why::from(&error);
    if error.passes() {
        return put_off(links, hindered, delivery, why, SOON).await;
    }
    let (handler, event) = (links.handler(), &delivery.message.event);
    trouble!(Weight::Person, handler, error, { %handler, %event, %error }, "an event waits until this is corrected");
    later(links, hindered, delivery, why, FOR_PERSON).await;
}

async fn later(links: &Links, hindered: &Hindered, delivery: Delivery, why: Why, delay: Duration) {
    let event = delivery.message.event.clone();
    hindered.met(HinderedWork::Event(event), why, delay);
    delivery.acker.settle(links, &Settlement::Nak(delay)).await;
}
