//! One event, from its delivery to its answer: is it decided, which attempt is it, run it, decide, commit, settle.

use crate::handler_task::postpone::{put_off, put_off_for_now, unrecorded};
use crate::handler_task::replay::letter;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message as Wire, Subject};

use crate::attempts;
use crate::failpoint;
use crate::handler_task::dead_lettering::{self, Attempts, Dead};
use crate::handler_task::delivery::{Delivery, Ran};
use crate::handler_task::lane::{Counters, Lane, Link};
use crate::handler_task::settle::{Acker, OWN_TERM, Settlement};
use crate::handler_task::{duplicate, record, report, transaction};
use crate::identity;
use crate::ledger::core::transaction::{Transaction, moot};
use crate::ledger::{Committed, Fault};
use crate::message::{DeliveryInfo, Message, headers_of};
use crate::outcome::{Cause, Failure, Outcome, Verdict, circles, decide};
use crate::wasm::module::Run;

/// How often an event is run again at once when what it read has changed.
const RERUNS_MAX: u32 = 20;
/// After so many conflicts nobody else on this host joins while it runs.
const ALONE_AFTER: u32 = 3;

/// A delivery of the handler's own consumer.
pub async fn source(lane: &Arc<Lane>, link: Arc<Link>, wire: Wire, reply: Subject, info: DeliveryInfo) {
    let event = link.event(info.stream_sequence);
    let message = Message {
        event,
        subject: wire.subject.into_string(),
        headers: headers_of(wire.headers.as_ref()),
        payload: wire.payload,
        time_ms: info.time_ms,
    };
    let acker = Acker::of(reply, &link);
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

/// Handles an event. What is seldom needed is boxed: the future of the usual way stays small, and it is made for each
/// event.
///
/// # Cancel safety
/// Dropped half-way, the event is delivered again; what was committed stands.
pub async fn handle(lane: &Lane, delivery: Delivery) {
    failpoint::point("after-pull");
    let _lease = lane.hold(&delivery.acker.reply);
    let event = delivery.message.event.clone();
    // The same event is here already: its other delivery will be answered.
    let Some(_once) = lane.once(&event) else { return };
    let _taken_up = lane.hindered.taken_up(&event);
    let mut at_work = None;
    if !delivery.is_of_letter() {
        lane.saw(&event, delivery.message.time_ms);
    }
    if let Some(bucket) = &lane.bucket {
        let decided = bucket.decided(&lane.plan.name, &event);
        let death = delivery.death();
        if moot(decided, death).is_some() {
            report::repeated(lane, &event);
            delivery.acker.settle(lane, &Settlement::Ack).await;
            return;
        }
        // Below the floor the index remembers what becomes of a replay only while it is at work.
        if decided.is_none() || death.is_some() {
            at_work = Some(bucket.at_work(&lane.plan.name, &event));
        }
        if let Some(first) = duplicate::of(lane, &delivery) {
            return Box::pin(duplicate::answer(lane, delivery, first)).await;
        }
    }
    let permit = match lane.instances.try_acquire() {
        Ok(permit) if !lane.drain.has_begun() => Some(permit),
        _ => {
            tokio::select! {
                biased;
                () = lane.drain.begun() => None,
                permit = lane.instances.acquire() => permit.ok(),
            }
        }
    };
    let Some(permit) = permit else {
        delivery.acker.settle(lane, &Settlement::HandBack).await;
        return;
    };
    let record = if delivery.delivered <= 1 && delivery.replay.is_none() {
        None
    } else {
        match Box::pin(record::begin(lane, &delivery)).await {
            Ok(record) => record,
            Err(error) => return Box::pin(unrecorded(lane, delivery, error)).await,
        }
    };
    let of_letter = delivery.is_of_letter();
    let attempt = match &record {
        Some(held) => held.record.attempts,
        // A replay has attempts of its own, counted by its stream.
        None if of_letter => u32::try_from(delivery.delivered).unwrap_or(u32::MAX),
        None => 1,
    };
    if attempt > lane.plan.retry.max_attempts && !of_letter && !failpoint::off("host-verdict") {
        // The host ended during the last attempt, so nobody has said yet what came of it.
        return Box::pin(died_before(lane, delivery, record)).await;
    }
    let ran = attempt_once(lane, &delivery, record.as_ref(), attempt, permit).await;
    conclude(lane, delivery, record, attempt, ran).await;
    drop(at_work);
}

/// One attempt: run, and commit what it wants; again at once while what it read keeps changing.
async fn attempt_once(
    lane: &Lane,
    delivery: &Delivery,
    record: Option<&attempts::Held>,
    attempt: u32,
    permit: tokio::sync::SemaphorePermit<'_>,
) -> Ran {
    let message = &delivery.message;
    let module = lane.module.load_full();
    let digest = module.digest.clone();
    let mut permit = Some(permit);
    let mut reruns = 0;
    // Of its runs one counts at most, so they draw the same numbers.
    let mut seed = None;
    let mut alone = None;
    let mut doubted = false;
    loop {
        let session = lane.bucket.as_ref().map_or(0, |b| b.session_number());
        failpoint::point("before-run");
        let mut run = match circles(identity::hops(message)) {
            Some(outcome) => Run::without(outcome),
            None => {
                let (instance, timeout) = (lane.plan.instance, lane.plan.timeout);
                module.run(&lane.facts, message, attempt, instance, timeout, seed).await
            }
        };
        failpoint::point("after-run");
        Counters::add(
            &lane.counters.busy_ns,
            u64::try_from(run.took.as_nanos()).unwrap_or(u64::MAX),
        );
        // What waits for its commit holds no instance.
        permit.take();
        seed = run.seed;
        let ran = |outcome, verdict, committed| Ran {
            outcome,
            verdict,
            committed,
            lines: run.lines.clone(),
            took: run.took,
            digest: digest.clone(),
            seed,
        };
        let verdict = verdict(lane, &run.outcome, attempt);
        let failed = |outcome: &Outcome| {
            let ran = ran(outcome.clone(), verdict.clone(), None);
            dead_lettering::attempts(record, record::told(lane, attempt, &ran))
        };
        // Something else came of it than the run.
        let without = |outcome: Outcome| {
            let verdict = self::verdict(lane, &outcome, attempt);
            ran(outcome, verdict, None)
        };
        let Some(bucket) = &lane.bucket else {
            return ran(run.outcome, verdict, None);
        };
        let decides = delivery.decides(&verdict);
        let mut tx = match &verdict {
            Verdict::Done => transaction::done(lane, delivery, attempt, &digest, std::mem::take(&mut run.effects)),
            Verdict::Dead { cause, failure } if decides => {
                let mut tx = death(lane, message, *cause, failure, failed(&run.outcome));
                tx.reads.clone_from(&run.effects.reads);
                tx
            }
            Verdict::Dead { .. } | Verdict::Retry { .. } if run.effects.reads.is_empty() => {
                return ran(run.outcome, verdict, None);
            }
            // Its verdict may rest on what is not committed yet.
            Verdict::Dead { .. } | Verdict::Retry { .. } => transaction::waits(lane, message, &run.effects),
        };
        tx.session = session;
        if decides {
            failpoint::point("joined");
        }
        let fate = match alone.take() {
            None => bucket.commit(tx).await,
            Some(alone) => bucket.commit_alone(tx, alone).await,
        };
        if !decides && fate.is_ok() {
            bucket.doubt(run.effects.reads.keys());
            // A letter is replayed after its cause was mended, perhaps by hand and unknown to this host until now.
            let fails = matches!(verdict, Verdict::Dead { .. });
            if fails && !std::mem::replace(&mut doubted, true) {
                continue;
            }
            return ran(run.outcome, verdict, None);
        }
        let outcome = match fate {
            Ok(committed) => {
                if verdict != Verdict::Done {
                    failpoint::point("burial-decided");
                }
                return ran(run.outcome, verdict, Some(committed));
            }
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
            // At once, and with an instance beyond `concurrency`: whoever has one might wait for this one to be alone.
            if reruns >= ALONE_AFTER {
                alone = Some(bucket.alone().await);
            }
            continue;
        }
        if let Outcome::Reject { code, message: why } = &outcome
            && !delivery.is_of_letter()
        {
            // It can never be committed: its death can.
            let failure = Failure {
                code: code.clone(),
                message: why.clone(),
            };
            let tx = death(lane, message, Cause::Rejected, &failure, failed(&outcome));
            if let Ok(committed) = Box::pin(bucket.commit(tx)).await {
                let cause = Cause::Rejected;
                return ran(outcome, Verdict::Dead { cause, failure }, Some(committed));
            }
            return without(Outcome::HostFault { message: why.clone() });
        }
        return without(outcome);
    }
}

/// What follows from an outcome; asked once for each, as the delay of a retry has chance in it.
fn verdict(lane: &Lane, outcome: &Outcome, attempt: u32) -> Verdict {
    let policy = &lane.plan.retry;
    match decide(outcome, attempt, policy, rand::random()) {
        // Only a test asks for this, to see that the server's advisory alone is enough.
        Verdict::Dead {
            cause: Cause::Exhausted,
            ..
        } if failpoint::off("host-verdict") => Verdict::Retry { delay: policy.backoff },
        verdict => verdict,
    }
}

/// The transaction of an event that dies by this attempt.
fn death(lane: &Lane, message: &Message, cause: Cause, failure: &Failure, record: Attempts) -> Transaction {
    let dead = Dead {
        cause,
        failure: Cow::Borrowed(failure),
        record,
    };
    dead_lettering::transaction(lane, &message.event, &dead, Some(dead_lettering::body_of(message)))
}

/// Log, record and answer.
async fn conclude(lane: &Lane, delivery: Delivery, record: Option<attempts::Held>, attempt: u32, ran: Ran) {
    report::guest_lines(lane, &delivery.message.event, attempt, &ran.lines);
    let event = delivery.message.event.clone();
    let redelivered = delivery.delivered > 1 || (delivery.replay.is_some() && !delivery.is_of_letter());
    if let Some(Committed::Before(decided)) = ran.committed {
        report::before(lane, &event, decided);
        delivery.acker.settle(lane, &Settlement::Ack).await;
        return;
    }
    let verdict = ran.verdict.clone();
    let decides = delivery.decides(&verdict);
    if lane.bucket.is_some() && decides && ran.committed.is_none() {
        // Never answered without its entry.
        let why = "its decision was not committed".to_owned();
        return Box::pin(put_off_for_now(lane, delivery, why, Duration::from_secs(5))).await;
    }
    report::attempt(lane, &delivery, attempt, &ran);
    match verdict {
        Verdict::Done => {
            Counters::add(&lane.counters.done, 1);
            if lane.bucket.is_none() && delivery.is_of_letter() {
                Box::pin(letter::settle_directly(lane, &delivery)).await;
            }
            delivery.acker.settle(lane, &Settlement::Ack).await;
            if redelivered {
                Box::pin(record::forget(lane, &event)).await;
            }
        }
        Verdict::Dead { .. } if delivery.is_of_letter() => {
            // The letter stays; this replay of it is over.
            Box::pin(letter::failed_again(lane, &delivery, attempt, &ran)).await;
            delivery.acker.settle(lane, &Settlement::Ack).await;
        }
        Verdict::Dead { cause, failure } => {
            if lane.bucket.is_none() {
                let told = record::told(lane, attempt, &ran);
                let dead = Dead {
                    cause,
                    failure: Cow::Borrowed(&failure),
                    record: dead_lettering::attempts(record.as_ref(), told),
                };
                if let Err(error) = Box::pin(dead_lettering::directly(
                    lane,
                    &event,
                    &dead,
                    Some(dead_lettering::body_of(&delivery.message)),
                ))
                .await
                {
                    return Box::pin(put_off(lane, delivery, (&error).into(), Duration::from_secs(5))).await;
                }
                failpoint::point("letter-stored");
            }
            Counters::add(&lane.counters.dead, 1);
            let settlement = match cause {
                Cause::Rejected => Settlement::Term(format!("{OWN_TERM}rejected: {}", failure.code)),
                _ => Settlement::Ack,
            };
            let removes = delivery.acker.link.removes;
            if lane.bucket.is_none() && settlement == Settlement::Ack {
                // There is no ledger to answer a redelivery: the server must have taken it.
                if let Err(error) = Box::pin(delivery.acker.confirm(lane)).await {
                    tracing::debug!(handler = %lane.plan.name, %event, %error, removes, "an ack was not confirmed");
                }
            } else {
                delivery.acker.settle(lane, &settlement).await;
            }
            if redelivered {
                Box::pin(record::forget(lane, &event)).await;
            }
        }
        Verdict::Retry { delay } => {
            Counters::add(&lane.counters.retried, 1);
            if !delivery.is_of_letter() {
                Box::pin(record::failed(lane, &delivery, record, attempt, &ran, delay)).await;
            }
            delivery.acker.settle(lane, &Settlement::Nak(delay)).await;
        }
    }
}

/// The host ended during the last attempt: what it left behind is buried.
async fn died_before(lane: &Lane, delivery: Delivery, record: Option<attempts::Held>) {
    let record = record.unwrap_or_default();
    let event = delivery.message.event.clone();
    let dead = dead_lettering::left_behind(&record.record, lane.plan.retry.max_attempts);
    let attempt = dead.record.attempts;
    match dead_lettering::bury(lane, &event, &dead, Some(dead_lettering::body_of(&delivery.message))).await {
        Ok(dead_lettering::Buried::Now) => {
            tracing::warn!(handler = %lane.plan.name, %event, subject = delivery.message.subject, attempt,
                outcome = attempts::HOST_ENDED, cause = %dead.cause, code = dead.failure.code, error = dead.failure.message, "dead");
            Counters::add(&lane.counters.dead, 1);
        }
        Ok(dead_lettering::Buried::Before) => report::repeated(lane, &event),
        Err(error) => return put_off(lane, delivery, (&error).into(), Duration::from_secs(5)).await,
    }
    delivery.acker.settle(lane, &Settlement::Ack).await;
    record::forget(lane, &event).await;
}
