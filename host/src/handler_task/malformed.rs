//! Messages that the client library cannot read. Over an unguarded connection the delivery of one breaks it; after a break a
//! lane's next connection is guarded for a while (`broker/guard`), and such a message comes as what it is, and is buried.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Subject;

use crate::broker::provision::REPLAY;
use crate::broker::{Error, Malformed, wire};
use crate::dead_letter::Body;
use crate::failpoint;
use crate::handler_task::dead_lettering::{self, Attempts, Buried, Dead};
use crate::handler_task::lane::{Counters, Lane, Link};
use crate::handler_task::serve::Inbound;
use crate::handler_task::settle::{Acker, Settlement};
use crate::message::{DeliveryInfo, EventId};
use crate::outcome::{Cause, Failure};
use crate::trouble::Weight;

/// How long a lane that has met such a message is guarded after the last one.
const SUSPECT: Duration = Duration::from_secs(600);
/// The least that it is guarded after a break whose reason is not known; what was on its way then comes again at once, or
/// after its ack wait.
const UNKNOWN_MIN: Duration = Duration::from_secs(30);
/// Until one that could not be buried is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Until when a lane has reason to believe that it will be given such messages.
#[derive(Default)]
pub struct Suspicion(Mutex<Option<Instant>>);

impl Suspicion {
    pub fn stands(&self) -> bool {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// A connection broke, and it may have been such a message.
    pub fn broken(&self, ack_wait: Duration) {
        self.raise((ack_wait.saturating_mul(2)).clamp(UNKNOWN_MIN, SUSPECT));
    }

    fn met(&self) {
        self.raise(SUSPECT);
    }

    fn raise(&self, time: Duration) {
        let time = failpoint::number("suspect-ms").map_or(time, Duration::from_millis);
        let until = Some(Instant::now() + time);
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = until.max(*now);
    }
}

/// Takes one that was delivered. An event is buried. A replay only names one and can be asked for again, so it is taken away.
///
/// # Cancel safety
/// Dropped half-way, it is delivered again.
pub async fn take(
    lane: &Lane,
    link: Arc<Link>,
    malformed: Malformed,
    reply: Subject,
    info: DeliveryInfo,
    inbound: Inbound,
) {
    lane.suspicion.met();
    let acker = Acker::of(reply, &link);
    if matches!(inbound, Inbound::Source) {
        return event(lane, &link, malformed, acker, info).await;
    }
    let (handler, why, sequence) = (&lane.plan.name, malformed.why(), info.stream_sequence);
    trouble!(Weight::Aside, handler, why, { %handler, stream = REPLAY, sequence, why },
        "a message that no client can read is taken away");
    acker.settle(lane, &Settlement::Ack).await;
}

async fn event(lane: &Lane, link: &Link, malformed: Malformed, acker: Acker, info: DeliveryInfo) {
    let event = EventId {
        incarnation: Arc::clone(&link.incarnation),
        sequence: info.stream_sequence,
    };
    let _lease = lane.hold(&acker.reply);
    // It is here already: its other delivery will be answered.
    let Some(_once) = lane.once(&event) else { return };
    let why = malformed.why();
    let body = Body {
        subject: String::from_utf8_lossy(&malformed.subject).into_owned(),
        headers: Err(malformed.headers),
        payload: malformed.payload,
        time_ms: info.time_ms,
    };
    if let Err(error) = bury(lane, &event, body, &why).await {
        let handler = &lane.plan.name;
        trouble!(Weight::of(error.passes()), handler, error, { %handler, %event, %error, next_in = ?AGAIN },
            "a message that no client can read cannot be buried");
        return acker.settle(lane, &Settlement::Nak(AGAIN)).await;
    }
    if lane.bucket.is_some() {
        return acker.settle(lane, &Settlement::Ack).await;
    }
    // There is no ledger to answer a redelivery: the server must have taken it.
    if let Err(error) = acker.confirm(lane).await {
        tracing::debug!(handler = %lane.plan.name, %event, %error, "an ack was not confirmed");
    }
}

/// The same of one that was found in its stream.
pub async fn found(lane: &Lane, event: &EventId, body: Body) -> Result<(), Error> {
    let raw = body.headers.as_ref().err().cloned().unwrap_or_default();
    let why = wire::check(body.subject.as_bytes(), &raw).err();
    let why = why.unwrap_or_else(|| "its subject is not UTF-8".to_owned());
    bury(lane, event, body, &why).await
}

async fn bury(lane: &Lane, event: &EventId, body: Body, why: &str) -> Result<(), Error> {
    let failure = Failure {
        code: "malformed-message".to_owned(),
        message: format!("no client can read this message: {why}"),
    };
    let dead = Dead {
        cause: Cause::Rejected,
        failure: Cow::Owned(failure),
        record: Attempts::default(),
    };
    if dead_lettering::bury(lane, event, &dead, Some(body)).await? == Buried::Now {
        Counters::add(&lane.counters.dead, 1);
        tracing::warn!(handler = %lane.plan.name, %event, cause = %dead.cause, code = dead.failure.code,
            error = dead.failure.message, "dead");
    }
    Ok(())
}
