//! How a delivery ends: log the attempt, keep its record, and answer the server.

use std::borrow::Cow;
use std::time::Duration;

use crate::event::outcome::{Cause, Failure, Verdict};
use crate::failpoint;
use crate::handler_task::attempt_span::AttemptSpan;
use crate::handler_task::counters::Counters;
use crate::handler_task::dead_lettering::{self, Dead};
use crate::handler_task::delivery::{Delivery, Ran};
use crate::handler_task::hindered::{HinderedWork, Why};
use crate::handler_task::lane::Lane;
use crate::handler_task::postpone::{put_off, put_off_for_now};
use crate::handler_task::replay::letter;
use crate::handler_task::report;
use crate::handler_task::settle::delays::AFTER_FAULT;
use crate::handler_task::settle::{OWN_TERM, Settlement};
use crate::ledger::{Committed, Decided};
use crate::mesh_streams::attempts::Held;
use crate::trouble::Weight;

/// Ends a delivery by what came of its attempt.
pub async fn conclude(
    lane: &Lane,
    delivery: Delivery,
    record: Option<Held>,
    (attempt, span): (u32, Option<Box<AttemptSpan>>),
    ran: Ran,
) {
    let (handler, event) = (lane.plan.name.as_str(), delivery.message.event.clone());
    report::guest_lines(handler, &event, attempt, &ran.lines);
    let ending = ending(
        &ran.verdict,
        ran.committed,
        lane.bucket.is_some(),
        delivery.is_of_letter(),
    );
    if ending.is_of_this_attempt() {
        report::attempt(handler, &delivery, attempt, &ran);
        lane.metrics.attempt(&ran.digest, &ran.outcome);
    }
    let spans = span.and_then(|span| match ending {
        Ending::DecidedBefore(_) => None,
        _ => span.ended(
            &lane.plan,
            (&delivery).into(),
            attempt,
            &ran,
            ending.is_of_this_attempt(),
        ),
    });
    end(lane, delivery, (record, attempt), &ran, ending).await;
    if let Some(spans) = spans {
        spans.record();
    }
}

/// Does what an ending asks for.
async fn end(lane: &Lane, delivery: Delivery, (record, attempt): (Option<Held>, u32), ran: &Ran, ending: Ending<'_>) {
    let (handler, event) = (lane.plan.name.as_str(), delivery.message.event.clone());
    let may_have_record = delivery.turn().may_have_record();
    match ending {
        Ending::DecidedBefore(decided) => {
            report::before(handler, &lane.counters, &event, decided);
            delivery.acker.settle(&lane.links, &Settlement::Ack).await;
        }
        Ending::Uncommitted => {
            let why = "its decision was not committed".to_owned();
            Box::pin(put_off_for_now(&lane.links, &lane.hindered, delivery, why, AFTER_FAULT)).await;
        }
        Ending::Done { resolve } => {
            Counters::add(&lane.counters.done, 1);
            lane.metrics.decided(&delivery.message, ran.ended);
            if resolve {
                Box::pin(letter::settle_directly(&lane.links, &delivery)).await;
            }
            delivery.acker.settle(&lane.links, &Settlement::Ack).await;
            if may_have_record {
                Box::pin(lane.records.forget(&event)).await;
            }
        }
        Ending::LetterStays => {
            Box::pin(letter::failed_again(
                &lane.links,
                &lane.records,
                &delivery,
                attempt,
                ran,
            ))
            .await;
            delivery.acker.settle(&lane.links, &Settlement::Ack).await;
        }
        Ending::Dead(death) => {
            if Box::pin(dead(lane, delivery, record, attempt, ran, death)).await && may_have_record {
                Box::pin(lane.records.forget(&event)).await;
            }
        }
        Ending::Retry { delay, record: kept } => {
            Counters::add(&lane.counters.retried, 1);
            if kept {
                let noted = Box::pin(lane.records.failed(&delivery, record, attempt, ran, delay)).await;
                if let Err(error) = noted {
                    // It is tried again all the same; what then cannot be recorded either, waits.
                    lane.hindered
                        .met(HinderedWork::Event(event.clone()), Why::from(&error), delay);
                    trouble!(Weight::Aside, handler, error, { %handler, %event, %error }, "an attempt could not be recorded");
                }
            }
            delivery.acker.settle(&lane.links, &Settlement::Nak(delay)).await;
        }
    }
}

/// Ends the delivery of an event that is dead. `false`: its letter could not be stored, and it comes again.
async fn dead(
    lane: &Lane,
    delivery: Delivery,
    record: Option<Held>,
    attempt: u32,
    ran: &Ran,
    death: DeadEnding<'_>,
) -> bool {
    let event = &delivery.message.event;
    if death.store {
        let dead = Dead {
            cause: death.cause,
            failure: Cow::Borrowed(death.failure),
            record: dead_lettering::attempts(record.as_ref(), lane.records.told(attempt, ran)),
        };
        let body = dead_lettering::body_of(&delivery.message);
        if let Err(error) = lane.dead_letters.store(event, &dead, Some(body)).await {
            put_off(&lane.links, &lane.hindered, delivery, (&error).into(), AFTER_FAULT).await;
            return false;
        }
        failpoint::point("letter-stored");
    }
    lane.counters.died(death.cause);
    lane.metrics.decided(&delivery.message, ran.ended);
    let (settlement, confirmed) = death.answer();
    if !confirmed {
        delivery.acker.settle(&lane.links, &settlement).await;
        return true;
    }
    let removes = delivery.acker.link.removes;
    if let Err(error) = delivery.acker.confirm(&lane.links).await {
        let event = &delivery.message.event;
        tracing::debug!(handler = %lane.plan.name, %event, %error, removes, "an ack was not confirmed");
    }
    true
}

/// How a delivery ends.
#[derive(Debug, PartialEq)]
enum Ending<'a> {
    /// By another delivery of the event, or of one that it repeats: it is acked.
    DecidedBefore(Decided),
    /// Its decision is not in the ledger, so it is not answered with one: it is put off.
    Uncommitted,
    /// It is acked. `resolve`: it was a letter's replay without a ledger, and its letter is resolved here.
    Done {
        resolve: bool,
    },
    /// The replay of a letter has failed: the letter stays, and the replay is over.
    LetterStays,
    Dead(DeadEnding<'a>),
    /// It comes again. `record`: this is noted in its attempt record.
    Retry {
        delay: Duration,
        record: bool,
    },
}

/// The end of an event that is dead.
#[derive(Debug, PartialEq)]
struct DeadEnding<'a> {
    cause: Cause,
    failure: &'a Failure,
    /// There is no ledger, so its letter is stored here.
    store: bool,
}

fn ending(verdict: &Verdict, committed: Option<Committed>, ledger: bool, of_letter: bool) -> Ending<'_> {
    if let Some(Committed::Before(decided)) = committed {
        return Ending::DecidedBefore(decided);
    }
    if ledger && verdict.decides(of_letter) && committed.is_none() {
        return Ending::Uncommitted;
    }
    match verdict {
        Verdict::Done => Ending::Done {
            resolve: of_letter && !ledger,
        },
        Verdict::Dead { .. } if of_letter => Ending::LetterStays,
        Verdict::Dead { cause, failure } => Ending::Dead(DeadEnding {
            cause: *cause,
            failure,
            store: !ledger,
        }),
        Verdict::Retry { delay } => Ending::Retry {
            delay: *delay,
            record: !of_letter,
        },
    }
}

impl Ending<'_> {
    fn is_of_this_attempt(&self) -> bool {
        !matches!(self, Ending::DecidedBefore(_) | Ending::Uncommitted)
    }
}

impl DeadEnding<'_> {
    /// What the server is told, and whether it must confirm that. Without a ledger nothing else answers a redelivery.
    fn answer(&self) -> (Settlement, bool) {
        match self.cause {
            Cause::Rejected => {
                let reason = format!("{OWN_TERM}rejected: {}", self.failure.code);
                (Settlement::Term(reason), false)
            }
            Cause::Exhausted
            | Cause::MaxDeliver
            | Cause::Terminated
            | Cause::Lost
            | Cause::Undeliverable
            | Cause::GaveUp => (Settlement::Ack, self.store),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<Committed> = Some(Committed::Here { entry: 4 });
    const DECIDED: Decided = Decided::Dead { entry: 2 };
    const BEFORE: Option<Committed> = Some(Committed::Before(DECIDED));
    const DELAY: Duration = Duration::from_secs(3);

    #[test]
    fn how_a_delivery_ends() {
        let failure = Failure {
            code: "c".to_owned(),
            message: "m".to_owned(),
        };
        let cause = Cause::Exhausted;
        let dead = Verdict::Dead {
            cause,
            failure: failure.clone(),
        };
        let (done, retry) = (Verdict::Done, Verdict::Retry { delay: DELAY });
        let is_dead = |store| {
            Ending::Dead(DeadEnding {
                cause,
                failure: &failure,
                store,
            })
        };
        let is_done = |resolve| Ending::Done { resolve };
        let is_retried = |record| Ending::Retry { delay: DELAY, record };
        let rows = [
            // Verdict, what its commit has said, with a ledger, of a letter's replay: how it ends.
            (&done, HERE, true, false, is_done(false)),
            (&done, HERE, true, true, is_done(false)),
            (&done, None, false, false, is_done(false)),
            // Without a ledger nothing but this resolves the letter.
            (&done, None, false, true, is_done(true)),
            // With a ledger nothing is answered without its entry.
            (&done, None, true, false, Ending::Uncommitted),
            (&done, None, true, true, Ending::Uncommitted),
            (&dead, None, true, false, Ending::Uncommitted),
            (&dead, HERE, true, false, is_dead(false)),
            (&dead, None, false, false, is_dead(true)),
            (&dead, None, true, true, Ending::LetterStays),
            (&dead, None, false, true, Ending::LetterStays),
            // A retry is no decision.
            (&retry, None, true, false, is_retried(true)),
            (&retry, None, false, false, is_retried(true)),
            (&retry, None, true, true, is_retried(false)),
            // Whatever has been decided before is what counts.
            (&done, BEFORE, true, false, Ending::DecidedBefore(DECIDED)),
            (&dead, BEFORE, true, false, Ending::DecidedBefore(DECIDED)),
        ];
        for (verdict, committed, ledger, of_letter, expected) in rows {
            let case = format!("{verdict:?}, {committed:?}, ledger {ledger}, letter {of_letter}");
            assert_eq!(ending(verdict, committed, ledger, of_letter), expected, "{case}");
        }
    }

    #[test]
    fn a_rejected_event_is_terminated_and_a_dead_one_without_a_ledger_is_acked_with_confirmation() {
        let failure = Failure {
            code: "out-of-stock".to_owned(),
            message: "m".to_owned(),
        };
        let answer = |cause, store| {
            let failure = &failure;
            DeadEnding { cause, failure, store }.answer()
        };
        let term = || Settlement::Term("jetmesh: rejected: out-of-stock".to_owned());
        for store in [false, true] {
            assert_eq!(answer(Cause::Rejected, store), (term(), false));
            assert_eq!(answer(Cause::Exhausted, store), (Settlement::Ack, store));
        }
    }
}
