//! The order to replay dead letters of a handler, which its schedule gives. The server gives it to one host of those that serve
//! the handler, and to another one if that host ends. What is done about it is a floor above.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::handler_task::lane::Lane;
use crate::handler_task::replay::order::RedriveOrder;
use crate::handler_task::settle::delays::AFTER_FAULT;
use crate::handler_task::settle::{Acker, Settlement};

/// How often the order is taken up again as being worked on, however long a round lasts.
const RENEW: Duration = Duration::from_secs(30);

/// Handles the order.
pub(super) async fn take(lane: &Lane, acker: Acker) {
    let mut _lease = lane.in_flight.hold(&acker.reply);
    // It was delivered again while it is worked on here: that delivery is answered.
    let Ok(_round) = lane.lists.redrive.try_acquire() else {
        return;
    };
    let handler = &lane.plan.name;
    if lane.circuit.is_open() {
        tracing::info!(handler, "a round of redrive is left out: the circuit is open");
        return acker.settle(&lane.links, &Settlement::Ack).await;
    }
    let (done, mut told) = oneshot::channel();
    let order = RedriveOrder {
        handler: handler.clone(),
        done,
    };
    if lane.redrives.send(order).await.is_err() {
        return acker.settle(&lane.links, &Settlement::HandBack).await;
    }
    let settlement = loop {
        tokio::select! {
            biased;
            () = lane.drain.begun() => break Settlement::HandBack,
            told = &mut told => break match told {
                Ok(()) => Settlement::Ack,
                Err(_) => Settlement::Nak(AFTER_FAULT),
            },
            () = tokio::time::sleep(RENEW) => _lease = lane.in_flight.hold(&acker.reply),
        }
    };
    // Its round ends here, before another host begins one.
    drop(told);
    acker.settle(&lane.links, &settlement).await;
}
