//! One event, from its delivery to its answer. [`handle`] is the whole way, in order.

use std::sync::Arc;
use std::time::Instant;

use async_nats::{Message as Wire, Subject};
use tokio::sync::SemaphorePermit;

use crate::event::outcome::Cause;
use crate::event::{DeliveryInfo, EventId, Message, headers_of};
use crate::failpoint;
use crate::handler_task::attempt_span::AttemptSpan;
use crate::handler_task::circuit::Pass;
use crate::handler_task::counters::Counters;
use crate::handler_task::dead_lettering::{self, DeadLettered};
use crate::handler_task::delivery::Delivery;
use crate::handler_task::lane::Lane;
use crate::handler_task::links::Link;
use crate::handler_task::postpone::{put_off, unrecorded};
use crate::handler_task::settle::delays::AFTER_FAULT;
use crate::handler_task::settle::{Acker, Settlement};
use crate::handler_task::{attempt, conclude, duplicate, report};
use crate::ledger::Bucket;
use crate::ledger::core::transaction::already_decided;
use crate::ledger::store::at_work::AtWork;
use crate::mesh_streams::attempts;
use crate::plan::Handler;
use crate::process::logged_event::{self, LoggedAttempt};
use crate::spans::TRACEPARENT;
use crate::spans::context::SpanContext;

/// Takes a delivery of the handler's own consumer.
pub async fn source(lane: &Lane, link: &Arc<Link>, wire: Wire, reply: Subject, info: DeliveryInfo) {
    // Parse it: its incarnation and its sequence are its identity.
    let event = link.event(info.stream_sequence);
    let message = Message {
        event,
        subject: wire.subject.into_string(),
        headers: headers_of(wire.headers.as_ref()),
        payload: wire.payload,
        time_ms: info.time_ms,
    };
    let delivery = Delivery {
        message,
        acker: Acker::of(reply, link),
        delivered: info.delivered,
        replay: None,
        at: Instant::now(),
    };
    handle(lane, delivery).await;
}

/// Handles an event. What is seldom needed is boxed: the future of the usual way stays small, and it is made for each
/// event.
///
/// # Cancel safety
/// Dropped half-way, the event is delivered again; what was committed stands.
pub fn handle(lane: &Lane, delivery: Delivery) -> impl Future<Output = ()> {
    failpoint::point("after-pull");
    let event = delivery.message.event.clone();
    logged_event::about(&lane.plan, &event, handle_logged(lane, delivery))
}

async fn handle_logged(lane: &Lane, delivery: Delivery) {
    let event = delivery.message.event.clone();
    // The server is told that it is worked on, for as long as this takes.
    let _leased = lane.in_flight.hold(&delivery.acker.reply);
    // Is it here already? Its other delivery will be answered.
    let Some(_once) = lane.in_flight.once(&event) else {
        return;
    };
    // Had it to wait for something? It goes on, unless it meets that again.
    let _taken_up = lane.hindered.taken_up(&event);
    // The stream is recognised by the newest event that was delivered.
    if !delivery.is_of_letter() {
        lane.source.saw(&event, delivery.message.time_ms);
    }
    // Is it decided, or does it repeat an event that is? Then it is answered without running.
    let mut _at_work = None;
    if let Some(bucket) = &lane.bucket {
        let known = known(&lane.plan, bucket, &lane.counters, &delivery);
        match known {
            KnownEvent::Decided => {
                report::repeated(&lane.plan.name, &lane.counters, &event);
                let answer = delivery.when_decided();
                return delivery.acker.settle(&lane.links, &answer).await;
            }
            KnownEvent::Duplicate(first, _at_work) => {
                return Box::pin(duplicate::answer(lane, bucket, delivery, first)).await;
            }
            KnownEvent::Open(open) => _at_work = open,
        }
    }
    // It waits until the circuit lets it run, and for an instance.
    let Some((pass, instance)) = admitted(lane, delivery.is_of_letter()).await else {
        return delivery.acker.settle(&lane.links, &Settlement::HandBack).await;
    };
    // From the second delivery on, the attempt is recorded before it runs.
    let turn = delivery.turn();
    let record = match turn.is_recorded() {
        false => None,
        true => match Box::pin(lane.records.begin(&delivery, &lane.runner.digest())).await {
            Ok(record) => Some(record),
            Err(error) => return Box::pin(unrecorded(&lane.links, &lane.hindered, delivery, error)).await,
        },
    };
    // Were all of its attempts begun, and none was answered? Then a host ended during the last one. Or was it given up?
    let number = turn.attempt(record.as_ref().map(|held| held.record.attempts));
    let given_up = record.as_ref().is_some_and(|held| held.record.given_up.is_some());
    if given_up || (turn.is_beyond(number, lane.plan.retry.max_attempts) && !failpoint::off("host-verdict")) {
        return Box::pin(died_before(lane, delivery, record)).await;
    }
    // The guest runs, its outcome becomes a verdict, and the ledger commits what follows from it.
    let span = AttemptSpan::of(&lane.plan, (&delivery).into(), number);
    logged_event::attempt(logged(&delivery, number, span.as_deref()));
    let ran = attempt::run(lane, &delivery, record.as_ref(), (number, span.as_deref()), instance).await;
    match pass {
        Some(pass) => pass.ended(&ran.outcome, event.sequence),
        None => lane.circuit.replayed(&ran.outcome),
    }
    // The server is answered: ack, nak or term. Without a ledger, a dead letter is stored before.
    conclude::conclude(lane, delivery, record, (number, span), ran).await;
}

/// What the lines of the log say of an attempt.
fn logged(delivery: &Delivery, number: u32, span: Option<&AttemptSpan>) -> LoggedAttempt {
    let producer = || delivery.message.header(TRACEPARENT).and_then(SpanContext::parse);
    let trace = match span {
        Some(span) => Some(span.context.trace),
        None if logged_event::says_traces() => producer().map(|producer| producer.trace),
        None => None,
    };
    LoggedAttempt {
        number,
        trace,
        span: span.map(|span| span.context.span),
    }
}

/// The right of an event to run, and an instance for it. No open circuit keeps a letter back that is replayed: that was asked for.
/// A pause does.
/// `None`: the event is to be given back.
async fn admitted(lane: &Lane, of_letter: bool) -> Option<(Option<Pass<'_>>, SemaphorePermit<'_>)> {
    loop {
        let pass = match of_letter {
            true => {
                lane.circuit.resumed(&lane.drain).await?;
                None
            }
            false => Some(lane.circuit.pass(&lane.drain).await?),
        };
        let instance = lane.runner.instance(&lane.drain).await?;
        if pass.as_ref().map_or(!lane.circuit.is_paused(), Pass::stands) {
            return Some((pass, instance));
        }
    }
}

/// How the log calls the end of an event that did not die by an attempt.
fn died_of(record: &attempts::AttemptRecord) -> &'static str {
    match record.given_up {
        Some(_) => Cause::GaveUp.name(),
        None => attempts::HOST_ENDED,
    }
}

/// What the ledger knows of an event that has come.
enum KnownEvent<'a> {
    /// Nothing, or only the death that its replay follows.
    Open(Option<AtWork<'a>>),
    /// It is decided.
    Decided,
    /// It repeats this decided event.
    Duplicate(EventId, Option<AtWork<'a>>),
}

fn known<'a>(plan: &'a Handler, bucket: &'a Bucket, counters: &Counters, delivery: &Delivery) -> KnownEvent<'a> {
    let event = &delivery.message.event;
    let (decided, death) = (bucket.decided(&plan.name, event), delivery.death());
    if already_decided(decided, death).is_some() {
        return KnownEvent::Decided;
    }
    // Below the floor the index remembers what becomes of a replay only while it is at work.
    let at_work = (decided.is_none() || death.is_some()).then(|| bucket.at_work(&plan.name, event));
    match duplicate::of(plan, bucket, counters, delivery) {
        Some(first) => KnownEvent::Duplicate(first, at_work),
        None => KnownEvent::Open(at_work),
    }
}

/// The host ended during the last attempt, so its result was never recorded, or a person has given the event up: it is
/// dead-lettered.
async fn died_before(lane: &Lane, delivery: Delivery, record: Option<attempts::Held>) {
    let record = record.unwrap_or_default();
    let event = delivery.message.event.clone();
    let dead = dead_lettering::left_behind(&record.record, lane.plan.retry.max_attempts);
    let body = dead_lettering::body_of(&delivery.message);
    match lane.dead_letters.dead_letter(&event, &dead, Some(body)).await {
        Ok(DeadLettered::Now) => {
            let attempt = dead.record.attempts;
            tracing::warn!(handler = %lane.plan.name, %event, subject = delivery.message.subject, attempt,
                outcome = died_of(&record.record), cause = %dead.cause, code = dead.failure.code, error = dead.failure.message, "dead");
            lane.counters.died(dead.cause);
            lane.metrics.decided(&delivery.message, Instant::now());
        }
        Ok(DeadLettered::Before) => report::repeated(&lane.plan.name, &lane.counters, &event),
        Err(error) => return put_off(&lane.links, &lane.hindered, delivery, (&error).into(), AFTER_FAULT).await,
    }
    delivery.acker.settle(&lane.links, &Settlement::Ack).await;
    lane.records.forget(&event).await;
}
