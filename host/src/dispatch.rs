//! One event, from its delivery to its answer: is it decided, which attempt is it, run it, decide, commit, settle.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message as Wire, Subject};

use crate::attempts::{self, LOG_TAIL};
use crate::burial::{self, Dead};
use crate::fault;
use crate::guest::Line;
use crate::handler::{ModuleDigest, Run};
use crate::lane::{Counters, Lane, Link};
use crate::ledger::append::{Planned, Transaction};
use crate::ledger::entry::{Decision, Verdict as Decided};
use crate::ledger::{Committed, Fault};
use crate::message::{DeliveryInfo, EventId, HOPS, Message, headers_of, now_ms};
use crate::outcome::{Cause, Failure, Outcome, Verdict, decide};
use crate::settle::{Acker, OWN_TERM, Settlement};

/// An event that passed through so many handlers of the mesh is going in circles.
const HOPS_MAX: u32 = 16;
/// How often an event is run again at once when what it read has changed.
const RERUNS_MAX: u32 = 20;

/// An event to be handled, from wherever it came.
pub struct Delivery {
    pub message: Message,
    pub acker: Acker,
    /// How often the server has delivered it, this time included.
    pub delivered: u64,
    /// Of a replay: the death that its `done` follows (entry and sequence of the record); a replay leaves attempts and
    /// letters alone when it fails.
    pub replay: Option<Replay>,
}

/// What makes a delivery a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// `None`: it was never dead; the server lost it, and it is run like a first delivery.
    pub death: Option<(u64, u64)>,
    /// A dead letter is to be settled when it is done.
    pub letter: bool,
}

/// What became of one attempt, for the log and the records.
struct Ran {
    outcome: Outcome,
    /// Set when it was `done` and committed, or found decided.
    committed: Option<Committed>,
    lines: Vec<Line>,
    took: Duration,
    digest: ModuleDigest,
}

/// A delivery of the handler's own consumer.
pub async fn source(lane: &Arc<Lane>, link: Arc<Link>, wire: Wire, reply: Subject, info: DeliveryInfo) {
    let event = EventId {
        incarnation: Arc::clone(&link.incarnation),
        sequence: info.stream_sequence,
    };
    let message = Message {
        event,
        subject: wire.subject.into_string(),
        headers: headers_of(wire.headers.as_ref()),
        payload: wire.payload,
        time_ms: info.time_ms,
    };
    let acker = Acker { reply, link };
    handle(
        lane,
        Delivery {
            message,
            acker,
            delivered: info.delivered,
            replay: None,
        },
    )
    .await;
}

/// Handles an event.
///
/// # Cancel safety
/// Dropped half-way, the event is delivered again; what was committed stands.
pub async fn handle(lane: &Lane, delivery: Delivery) {
    fault::point("after-pull");
    let _lease = lane.hold(&delivery.acker.reply);
    let event = delivery.message.event.clone();
    // The same event is here already: its other delivery will be answered.
    let Some(_once) = lane.once(&event) else { return };
    if let Some(bucket) = &lane.bucket {
        let death = delivery.replay.and_then(|r| r.death);
        if crate::ledger::append::moot(bucket.decided(&lane.plan.name, &event), death).is_some() {
            repeated(lane, &event);
            delivery.acker.settle(lane, &Settlement::Ack).await;
            return;
        }
    }
    let permit = tokio::select! {
        biased;
        () = lane.drain.begun() => None,
        permit = lane.instances.acquire() => permit.ok(),
    };
    let Some(permit) = permit else {
        delivery.acker.settle(lane, &Settlement::HandBack).await;
        return;
    };
    let record = match begin(lane, &delivery).await {
        Ok(record) => record,
        Err(fault) => return put_off(lane, delivery, fault, Duration::from_secs(1)).await,
    };
    let of_letter = delivery.replay.is_some_and(|r| r.letter);
    let attempt = match &record {
        Some(held) => held.record.attempts,
        // A replay has attempts of its own, counted by its stream.
        None if of_letter => u32::try_from(delivery.delivered).unwrap_or(u32::MAX),
        None => 1,
    };
    if attempt > lane.plan.retry.max_attempts && !of_letter && !fault::off("host-verdict") {
        // The host ended during the last attempt, so nobody has said yet what came of it.
        return died_before(lane, delivery, record).await;
    }
    let ran = attempt_once(lane, &delivery, attempt, permit).await;
    conclude(lane, delivery, record, attempt, ran).await;
}

/// Counts a redelivery's attempt before it runs, so that an event which ends the host is counted too.
async fn begin(lane: &Lane, delivery: &Delivery) -> Result<Option<attempts::Held>, String> {
    let first = delivery.delivered <= 1 && delivery.replay.is_none();
    if first || delivery.replay.is_some_and(|r| r.letter) {
        return Ok(None);
    }
    let link = lane.link().ok_or("the connection is gone")?;
    let event = &delivery.message.event;
    let mut held = attempts::load(&link.connection, &lane.plan.name, event)
        .await
        .map_err(|e| e.to_string())?;
    describe(lane, &mut held, &delivery.message);
    if held.record.attempts >= lane.plan.retry.max_attempts && !fault::off("host-verdict") {
        held.record.attempts += 1;
        return Ok(Some(held));
    }
    held.record.begin(&lane.host, &lane.module.load().digest.to_string());
    attempts::save(&link.connection, event, &mut held)
        .await
        .map_err(|e| e.to_string())?;
    fault::point("attempt-written");
    Ok(Some(held))
}

fn describe(lane: &Lane, held: &mut attempts::Held, message: &Message) {
    held.record.handler.clone_from(&lane.plan.name);
    held.record.event = message.event.to_string();
    held.record.stream.clone_from(&lane.plan.stream);
    held.record.subject.clone_from(&message.subject);
}

/// One attempt: run, and commit what it wants; again at once while what it read keeps changing.
async fn attempt_once(lane: &Lane, delivery: &Delivery, attempt: u32, permit: tokio::sync::SemaphorePermit<'_>) -> Ran {
    let message = &delivery.message;
    let module = lane.module.load_full();
    let digest = module.digest.clone();
    let mut permit = Some(permit);
    let mut reruns = 0;
    loop {
        let began = lane.bucket.as_ref().map_or(0, |b| b.session_number());
        fault::point("before-run");
        let run = if message.hops() > HOPS_MAX {
            let text = format!("it came through more than {HOPS_MAX} handlers: they feed one another in a circle");
            Run::without(Outcome::Reject {
                code: "too-many-hops".to_owned(),
                message: text,
            })
        } else {
            module
                .run(&lane.facts, message, attempt, lane.plan.instance, lane.plan.timeout)
                .await
        };
        fault::point("after-run");
        Counters::add(
            &lane.counters.busy_ns,
            u64::try_from(run.took.as_nanos()).unwrap_or(u64::MAX),
        );
        // What waits for its commit holds no instance.
        permit.take();
        let ran = |outcome, committed| Ran {
            outcome,
            committed,
            lines: run.lines.clone(),
            took: run.took,
            digest: digest.clone(),
        };
        let Some(bucket) = &lane.bucket else {
            return ran(run.outcome, None);
        };
        let verdict = verdict(lane, &run.outcome, attempt);
        let tx = match &verdict {
            Verdict::Done => done_transaction(lane, delivery, attempt, &digest, &run.effects),
            // A replay that fails decides nothing: death and letter stand.
            Verdict::Dead { .. } if delivery.replay.is_some_and(|r| r.letter) => return ran(run.outcome, None),
            Verdict::Dead { cause, failure } => {
                let record = known_attempts(lane, message, attempt, &digest).await;
                let dead = Dead {
                    cause: *cause,
                    failure: Cow::Borrowed(failure),
                    record,
                };
                let mut tx = burial::transaction(lane, &message.event, &dead, Some(burial::body_of(message)));
                tx.reads.clone_from(&run.effects.reads);
                tx
            }
            Verdict::Retry { .. } => return ran(run.outcome, None),
        };
        fault::point("joined");
        let outcome = match bucket.commit(tx, began).await {
            Ok(committed) => return ran(run.outcome, Some(committed)),
            Err(Fault::Conflict) => Outcome::Conflict,
            Err(Fault::TooLarge(why)) => Outcome::Reject {
                code: "too-large".to_owned(),
                message: why,
            },
            Err(Fault::Host(why)) => Outcome::HostFault { message: why },
        };
        if outcome == Outcome::Conflict && reruns < RERUNS_MAX && !lane.drain.has_begun() {
            Counters::add(&lane.counters.conflicts, 1);
            reruns += 1;
            permit = lane.instances.acquire().await.ok();
            continue;
        }
        if let Outcome::Reject { code, message: why } = &outcome {
            // It can never be committed: its death can.
            let failure = Failure {
                code: code.clone(),
                message: why.clone(),
            };
            let record = known_attempts(lane, message, attempt, &digest).await;
            let dead = Dead {
                cause: Cause::Rejected,
                failure: Cow::Borrowed(&failure),
                record,
            };
            let tx = burial::transaction(lane, &message.event, &dead, Some(burial::body_of(message)));
            if let Ok(committed) = bucket.commit(tx, bucket.session_number()).await {
                return ran(outcome, Some(committed));
            }
            return ran(Outcome::HostFault { message: why.clone() }, None);
        }
        return ran(outcome, None);
    }
}

fn verdict(lane: &Lane, outcome: &Outcome, attempt: u32) -> Verdict {
    let policy = &lane.plan.retry;
    match decide(outcome, attempt, policy, rand::random()) {
        // Only a test asks for this, to see that the server's advisory alone is enough.
        Verdict::Dead {
            cause: Cause::Exhausted,
            ..
        } if fault::off("host-verdict") => Verdict::Retry { delay: policy.backoff },
        verdict => verdict,
    }
}

async fn known_attempts(lane: &Lane, message: &Message, attempt: u32, digest: &ModuleDigest) -> burial::Attempts {
    burial::attempts(lane, &message.event, attempt, &digest.to_string()).await
}

fn done_transaction(
    lane: &Lane,
    delivery: &Delivery,
    attempt: u32,
    digest: &ModuleDigest,
    effects: &crate::effects::Effects,
) -> Transaction {
    let message = &delivery.message;
    let hops = message.hops() + 1;
    let mut consequences: Vec<Planned> = Vec::with_capacity(effects.emits.len() + 1);
    for (i, emit) in effects.emits.iter().enumerate() {
        let mut headers = emit.headers.clone();
        let id = format!("{}.{}.{i}", lane.plan.name, message.event);
        headers.push(("Mesh-Event-Id".to_owned(), id.clone()));
        headers.push(("Mesh-Cause-Event".to_owned(), message.event.to_string()));
        headers.push(("Mesh-Cause-Handler".to_owned(), lane.plan.name.clone()));
        headers.push((HOPS.to_owned(), hops.to_string()));
        if let (Some(trace), None) = (
            message.header("traceparent"),
            emit.headers.iter().find(|h| h.0 == "traceparent"),
        ) {
            headers.push(("traceparent".to_owned(), trace.to_owned()));
        }
        consequences.push(Planned::Event {
            id,
            subject: emit.subject.clone(),
            headers,
            payload: emit.payload.clone(),
        });
    }
    let death = delivery.replay.and_then(|r| r.death);
    if delivery.replay.is_some_and(|r| r.letter) {
        let subject = crate::dead_letter::subject(&lane.plan.stream, &lane.plan.name, &message.event);
        consequences.push(Planned::Settle {
            subject,
            reason: "replayed".to_owned(),
        });
    }
    Transaction {
        handler: lane.plan.name.clone(),
        event: message.event.clone(),
        decision: Decision {
            handler: lane.plan.name.clone(),
            event: message.event.to_string(),
            verdict: Decided::Done,
            cause: None,
            code: None,
            message: None,
            attempt,
            module: digest.to_string(),
            follows_death: death.map(|(entry, _)| entry),
        },
        reads: effects.reads.clone(),
        writes: effects.writes.clone(),
        consequences,
        death,
    }
}

/// Log, record and answer.
async fn conclude(lane: &Lane, delivery: Delivery, record: Option<attempts::Held>, attempt: u32, ran: Ran) {
    guest_lines(lane, &delivery.message.event, attempt, &ran.lines);
    let event = delivery.message.event.clone();
    let redelivered = delivery.delivered > 1;
    if let Some(Committed::Before(_)) = ran.committed {
        repeated(lane, &event);
        delivery.acker.settle(lane, &Settlement::Ack).await;
        return;
    }
    let verdict = verdict(lane, &ran.outcome, attempt);
    let of_letter = delivery.replay.is_some_and(|r| r.letter);
    let decides = matches!(verdict, Verdict::Done) || (matches!(verdict, Verdict::Dead { .. }) && !of_letter);
    if lane.bucket.is_some() && decides && ran.committed.is_none() {
        // Never answered without its entry.
        return put_off(
            lane,
            delivery,
            "its decision was not committed".to_owned(),
            Duration::from_secs(5),
        )
        .await;
    }
    report(lane, &delivery, attempt, &ran, &verdict);
    match verdict {
        Verdict::Done => {
            Counters::add(&lane.counters.done, 1);
            if lane.bucket.is_none() && delivery.replay.is_some_and(|r| r.letter) {
                burial::settle_directly(lane, &event).await;
            }
            delivery.acker.settle(lane, &Settlement::Ack).await;
            if redelivered {
                forget(lane, &event).await;
            }
        }
        Verdict::Dead { .. } if delivery.replay.is_some_and(|r| r.letter) => {
            // The letter is where it was; this try of it is over.
            delivery.acker.settle(lane, &Settlement::Ack).await;
        }
        Verdict::Dead { cause, failure } => {
            if lane.bucket.is_none() {
                let attempts = burial::attempts(lane, &event, attempt, &ran.digest.to_string()).await;
                let dead = Dead {
                    cause,
                    failure: Cow::Borrowed(&failure),
                    record: attempts,
                };
                if let Err(error) =
                    burial::directly(lane, &event, &dead, Some(burial::body_of(&delivery.message))).await
                {
                    return put_off(lane, delivery, error.to_string(), Duration::from_secs(5)).await;
                }
                fault::point("letter-stored");
            }
            Counters::add(&lane.counters.dead, 1);
            let settlement = match cause {
                Cause::Rejected => Settlement::Term(format!("{OWN_TERM}rejected: {}", failure.code)),
                _ => Settlement::Ack,
            };
            let removes = delivery.acker.link.removes;
            if lane.bucket.is_none() && settlement == Settlement::Ack {
                // There is no ledger to answer a redelivery: the server must have taken it.
                if let Err(error) = delivery.acker.confirm(lane).await {
                    tracing::debug!(handler = %lane.plan.name, %event, %error, removes, "an ack was not confirmed");
                }
            } else {
                delivery.acker.settle(lane, &settlement).await;
            }
            if redelivered {
                forget(lane, &event).await;
            }
        }
        Verdict::Retry { delay } => {
            Counters::add(&lane.counters.retried, 1);
            if !delivery.replay.is_some_and(|r| r.letter) {
                record_failure(lane, &delivery, record, attempt, &ran, delay).await;
            }
            delivery.acker.settle(lane, &Settlement::Nak(delay)).await;
        }
    }
}

/// One line for each attempt.
fn report(lane: &Lane, delivery: &Delivery, attempt: u32, ran: &Ran, verdict: &Verdict) {
    let (handler, event, subject) = (&lane.plan.name, &delivery.message.event, &delivery.message.subject);
    let (outcome, took, module) = (ran.outcome.name(), ran.took, &ran.digest);
    let failure = ran.outcome.failure().unwrap_or_else(|| Failure {
        code: String::new(),
        message: String::new(),
    });
    match verdict {
        Verdict::Done => {
            tracing::debug!(%handler, %event, subject, attempt, outcome, ?took, %module, "done");
        }
        Verdict::Retry { delay } => tracing::info!(%handler, %event, subject, attempt, outcome, ?took, %module,
            code = failure.code, error = failure.message, next_in = ?delay, "will be retried"),
        Verdict::Dead { cause, .. } => tracing::warn!(%handler, %event, subject, attempt, outcome, ?took, %module,
            %cause, code = failure.code, error = failure.message, "dead"),
    }
}

fn guest_lines(lane: &Lane, event: &EventId, attempt: u32, lines: &[Line]) {
    let handler = &lane.plan.name;
    for Line { level, text } in lines {
        match *level {
            tracing::Level::ERROR => tracing::error!(target: "guest", %handler, %event, attempt, "{text}"),
            tracing::Level::WARN => tracing::warn!(target: "guest", %handler, %event, attempt, "{text}"),
            tracing::Level::INFO => tracing::info!(target: "guest", %handler, %event, attempt, "{text}"),
            tracing::Level::DEBUG => tracing::debug!(target: "guest", %handler, %event, attempt, "{text}"),
            tracing::Level::TRACE => tracing::trace!(target: "guest", %handler, %event, attempt, "{text}"),
        }
    }
}

fn repeated(lane: &Lane, event: &EventId) {
    Counters::add(&lane.counters.repeated, 1);
    tracing::debug!(handler = %lane.plan.name, %event, "already decided, acked without running");
}

/// Writes down why an attempt failed and when the next is due.
async fn record_failure(
    lane: &Lane,
    delivery: &Delivery,
    record: Option<attempts::Held>,
    attempt: u32,
    ran: &Ran,
    delay: Duration,
) {
    let Some(link) = lane.link() else { return };
    let mut held = record.unwrap_or_default();
    describe(lane, &mut held, &delivery.message);
    if held.record.attempts == 0 {
        held.record.begin(&lane.host, &ran.digest.to_string());
        held.record.attempts = attempt;
    }
    if !ran.outcome.counts() {
        held.record.attempts = held.record.attempts.saturating_sub(1);
    }
    if let (Some(last), Some(failure)) = (held.record.history.last_mut(), ran.outcome.failure()) {
        ran.outcome.name().clone_into(&mut last.outcome);
        last.code = failure.code;
        last.message = failure.message;
        let skip = ran.lines.len().saturating_sub(LOG_TAIL);
        last.log = ran.lines[skip..]
            .iter()
            .map(|l| format!("{} {}", l.level, l.text))
            .collect();
    }
    let due = now_ms() + u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    held.record.next = Some(crate::message::rfc3339(due));
    if let Err(error) = attempts::save(&link.connection, &delivery.message.event, &mut held).await {
        tracing::warn!(handler = %lane.plan.name, event = %delivery.message.event, %error,
            "an attempt could not be recorded");
    }
}

async fn forget(lane: &Lane, event: &EventId) {
    let Some(link) = lane.link() else { return };
    if let Err(error) = attempts::remove(&link.connection, &lane.plan.name, event).await {
        // The sweep takes it away later.
        tracing::debug!(handler = %lane.plan.name, %event, %error, "an attempt record stays behind");
    }
}

/// The host ended during the last attempt: what it left behind is buried.
async fn died_before(lane: &Lane, delivery: Delivery, record: Option<attempts::Held>) {
    let record = record.unwrap_or_default();
    let last = record.record.last().cloned();
    let failure = match &last {
        Some(last) if last.outcome != "running" => Failure {
            code: last.code.clone(),
            message: last.message.clone(),
        },
        Some(last) => Failure {
            code: "host-ended".to_owned(),
            message: format!(
                "host {} ended, or lost its connection, during attempt {}",
                last.host, last.attempt
            ),
        },
        None => Failure {
            code: "host-ended".to_owned(),
            message: "the host ended during the attempt".to_owned(),
        },
    };
    let event = delivery.message.event.clone();
    let attempts = burial::of_record(&record.record);
    let attempt = attempts.attempts;
    let dead = Dead {
        cause: Cause::Exhausted,
        failure: Cow::Owned(failure),
        record: attempts,
    };
    match burial::bury(lane, &event, &dead, Some(burial::body_of(&delivery.message))).await {
        Ok(burial::Buried::Now) => {
            tracing::warn!(handler = %lane.plan.name, %event, subject = delivery.message.subject, attempt,
                outcome = "host-ended", cause = %dead.cause, code = dead.failure.code, error = dead.failure.message, "dead");
            Counters::add(&lane.counters.dead, 1);
        }
        Ok(burial::Buried::Before) => repeated(lane, &event),
        Err(error) => return put_off(lane, delivery, error.to_string(), Duration::from_secs(5)).await,
    }
    delivery.acker.settle(lane, &Settlement::Ack).await;
    forget(lane, &event).await;
}

/// Our fault, not the event's: later.
async fn put_off(lane: &Lane, delivery: Delivery, why: String, delay: Duration) {
    tracing::info!(handler = %lane.plan.name, event = %delivery.message.event, outcome = "host-fault", error = why,
        next_in = ?delay, "put off");
    delivery.acker.settle(lane, &Settlement::Nak(delay)).await;
}
