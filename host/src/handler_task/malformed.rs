//! Messages that the client library cannot read. Over an unguarded connection the delivery of one breaks it. After a break the
//! next connection is guarded for a while (`broker/guard`): over it such a message arrives as raw bytes, and is dead-lettered.

use std::sync::Arc;

use async_nats::Subject;

use crate::broker::provision::REPLAY;
use crate::broker::{Error, Malformed, wire};
use crate::event::outcome::Cause;
use crate::event::{DeliveryInfo, EventId};
use crate::handler_task::counters::Counters;
use crate::handler_task::dead_lettering::{DeadLettered, DeadLetters};
use crate::handler_task::delivery::Inbound;
use crate::handler_task::hindered::{HinderedWork, Why};
use crate::handler_task::lane::Lane;
use crate::handler_task::links::Link;
use crate::handler_task::settle::delays::AFTER_FAULT;
use crate::handler_task::settle::{Acker, Settlement};
use crate::mesh_streams::dead_letter::Body;
use crate::trouble::Weight;

/// Takes one that was delivered. An event is dead-lettered. A replay only names an event and can be requested again, so it is
/// removed.
///
/// # Cancel safety
/// Dropped half-way, it is delivered again.
pub async fn take(
    lane: &Lane,
    link: &Arc<Link>,
    malformed: Malformed,
    reply: Subject,
    info: DeliveryInfo,
    inbound: Inbound,
) {
    lane.suspicion.met();
    let acker = Acker::of(reply, link);
    if matches!(inbound, Inbound::Source) {
        return event(lane, link, malformed, acker, info).await;
    }
    let (handler, why, sequence) = (&lane.plan.name, malformed.why(), info.stream_sequence);
    trouble!(Weight::Aside, handler, why, { %handler, stream = REPLAY, sequence, why },
        "a message that no client can read is taken away");
    acker.settle(&lane.links, &Settlement::Ack).await;
}

async fn event(lane: &Lane, link: &Link, malformed: Malformed, acker: Acker, info: DeliveryInfo) {
    let event = link.event(info.stream_sequence);
    let _lease = lane.in_flight.hold(&acker.reply);
    lane.source.saw(&event, info.time_ms);
    // It is here already: its other delivery will be answered.
    let Some(_once) = lane.in_flight.once(&event) else {
        return;
    };
    let why = malformed.why();
    let body = Body {
        subject: String::from_utf8_lossy(&malformed.subject).into_owned(),
        headers: Err(malformed.headers),
        payload: malformed.payload,
        time_ms: info.time_ms,
    };
    if let Err(error) = dead_letter(&lane.dead_letters, &lane.counters, &event, body, &why).await {
        let handler = &lane.plan.name;
        trouble!(Weight::of(error.passes()), handler, error, { %handler, %event, %error, next_in = ?AFTER_FAULT },
            "a malformed message cannot become a dead letter yet");
        lane.hindered
            .met(HinderedWork::Event(event.clone()), Why::from(&error), AFTER_FAULT);
        return acker.settle(&lane.links, &Settlement::Nak(AFTER_FAULT)).await;
    }
    lane.hindered.over(&HinderedWork::Event(event.clone()));
    if lane.bucket.is_some() {
        return acker.settle(&lane.links, &Settlement::Ack).await;
    }
    // There is no ledger to answer a redelivery: the server must have taken it.
    if let Err(error) = acker.confirm(&lane.links).await {
        tracing::debug!(handler = %lane.plan.name, %event, %error, "an ack was not confirmed");
    }
}

/// The same of one that was found in its stream.
pub async fn found(dead_letters: &DeadLetters, counters: &Counters, event: &EventId, body: Body) -> Result<(), Error> {
    let raw = body.headers.as_ref().err().cloned().unwrap_or_default();
    let why = wire::check(body.subject.as_bytes(), &raw).err();
    let why = why.unwrap_or_else(|| "its subject is not UTF-8".to_owned());
    dead_letter(dead_letters, counters, event, body, &why).await
}

async fn dead_letter(
    dead_letters: &DeadLetters,
    counters: &Counters,
    event: &EventId,
    body: Body,
    why: &str,
) -> Result<(), Error> {
    if dead_letters.dead_letter_malformed(event, body, why).await? == DeadLettered::Now {
        counters.died(Cause::Rejected);
    }
    Ok(())
}
