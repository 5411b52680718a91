//! One attempt at an event: run the guest, judge what came of it, and commit what follows. It is run again at once while
//! what it has read keeps changing.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::SemaphorePermit;

use self::next::{Asks, Next, SoFar, asks, next, too_large};
use crate::broker::consumer::nanos;
use crate::event::effects::Effects;
use crate::event::outcome::{Cause, Failure, Outcome, Verdict, circles, decide};
use crate::failpoint;
use crate::failpoint::mistake::Mistake;
use crate::handler_task::attempt_span::AttemptSpan;
use crate::handler_task::counters::Counters;
use crate::handler_task::dead_lettering::{self, Dead};
use crate::handler_task::delivery::{Delivery, Ran};
use crate::handler_task::lane::Lane;
use crate::handler_task::rollout::{self, TriedEvent};
use crate::handler_task::transaction;
use crate::ledger::Bucket;
use crate::ledger::core::fate::CommitResult;
use crate::ledger::core::rollout::TrialSide;
use crate::ledger::core::transaction::Transaction;
use crate::ledger::identity;
use crate::ledger::store::bucket::Alone;
use crate::mesh_streams::attempts::Held;
use crate::plan::RetryPolicy;
use crate::random::Seed;
use crate::wasm::module::{Module, Run};

mod next;

/// After this number of conflicts no other event of this host joins while it runs.
const ALONE_AFTER: u32 = 3;

/// Runs the handler and commits what it wants. `instance`: the right to an instance, given back when the guest has ended.
pub async fn run(
    lane: &Lane,
    delivery: &Delivery,
    record: Option<&Held>,
    (number, span): (u32, Option<&AttemptSpan>),
    instance: SemaphorePermit<'_>,
) -> Ran {
    let (module, mut tried) = rollout::choose(lane, delivery);
    let mut attempt = ThisAttempt {
        lane,
        delivery,
        record,
        number,
        span,
        module,
    };
    let mut instance = Some(instance);
    // Of its runs one counts at most, so they draw the same numbers.
    let mut seed = None;
    let mut alone = None;
    let mut so_far = SoFar {
        of_letter: delivery.is_of_letter(),
        ..SoFar::default()
    };
    loop {
        let session = lane.bucket.as_ref().map_or(0, |b| b.session_number());
        let (mut ran, mut effects) = attempt.guest(seed, so_far).await;
        if let Some(tried) = &mut tried {
            Box::pin(attempt.tried(tried, (&mut ran, &mut effects), so_far)).await;
        }
        // What waits for its commit holds no instance.
        instance.take();
        seed = ran.seed;
        let Some(bucket) = &lane.bucket else { return ran };
        let Some(mut tx) = attempt.transaction(&ran, &mut effects, tried.as_ref()) else {
            return ran;
        };
        tx.session = session;
        let decides = tx.decision.is_some();
        if decides {
            failpoint::point("joined");
        }
        let result = attempt.commit(bucket, tx, alone.take(), &mut ran.ended).await;
        if !decides && result.is_ok() {
            bucket.doubt(effects.reads.keys());
        }
        so_far.drains = lane.drain.has_begun();
        match next(result, &ran.verdict, so_far) {
            Next::Stands(committed) => {
                if committed.is_some() && ran.verdict != Verdict::Done {
                    failpoint::point("death-decided");
                }
                ran.committed = committed;
                return ran;
            }
            Next::ReadAgain => so_far.has_read_again = true,
            Next::RunAgain => {
                Counters::add(&lane.counters.conflicts, 1);
                so_far.reruns += 1;
                // At once, and with an instance beyond `concurrency`: an event that holds an instance might itself wait for
                // this one to end.
                if so_far.reruns >= ALONE_AFTER {
                    alone = Some(bucket.alone().await);
                }
            }
            Next::DeadLetter(failure) => return Box::pin(attempt.too_large(bucket, ran, failure)).await,
            Next::Instead(outcome) => return attempt.instead(ran, outcome),
        }
    }
}

/// What an attempt is about.
struct ThisAttempt<'a> {
    lane: &'a Lane,
    delivery: &'a Delivery,
    record: Option<&'a Held>,
    number: u32,
    span: Option<&'a AttemptSpan>,
    /// The same for all of its runs, unless it has failed on a canary.
    module: Arc<Module>,
}

impl ThisAttempt<'_> {
    /// One run of the guest, and the verdict on it.
    async fn guest(&self, seed: Option<Seed>, so_far: SoFar) -> (Ran, Effects) {
        let message = &self.delivery.message;
        failpoint::point("before-run");
        let run = match circles(identity::hops(message)) {
            Some(outcome) => Run::without(outcome),
            None => self.lane.runner.run(&self.module, message, self.number, seed).await,
        };
        failpoint::point("after-run");
        Counters::add(&self.lane.counters.busy_ns, nanos(run.took));
        let waited = run
            .ended
            .saturating_duration_since(self.delivery.at)
            .saturating_sub(run.took);
        self.lane.metrics.ran(message, run.took, run.ended);
        if let Some(limit) = run.limit {
            self.lane.metrics.limited(limit);
        }
        if so_far.reruns == 0 && !so_far.has_read_again {
            self.lane.metrics.waited(message, waited, run.ended);
        }
        let ran = Ran {
            verdict: verdict(&self.lane.plan.retry, &run.outcome, self.number),
            outcome: run.outcome,
            committed: None,
            lines: run.lines,
            took: run.took,
            run_ended: run.ended,
            ended: run.ended,
            reruns: so_far.reruns,
            digest: self.module.digest.clone(),
            seed: run.seed,
        };
        (ran, run.effects)
    }

    /// Does what a rollout asks for after a run: what has failed on the canary runs on the serving version, and what has failed there
    /// is tried on the canary.
    async fn tried(&mut self, tried: &mut TriedEvent, (ran, effects): (&mut Ran, &mut Effects), so_far: SoFar) {
        if tried.ran(self.lane, self.delivery, &self.module, &ran.outcome) {
            failpoint::point("canary-failed");
            if !failpoint::planted().is(Mistake::CanaryAgain) {
                self.module = self.lane.runner.module.load_full();
            }
            (*ran, *effects) = self.guest(ran.seed, so_far).await;
            tried.ran(self.lane, self.delivery, &self.module, &ran.outcome);
        } else if tried.on == TrialSide::Canary {
            failpoint::point("canary-run");
        }
        let served = (&ran.outcome, &*effects);
        tried.compare(self.lane, &self.delivery.message, served, ran.seed).await;
    }

    /// What is to be committed after a run. `None`: nothing.
    fn transaction(&self, ran: &Ran, effects: &mut Effects, tried: Option<&TriedEvent>) -> Option<Transaction> {
        let trial = tried.and_then(|tried| tried.trial(&self.lane.plan.name, &self.delivery.message));
        let tx = self.decision(ran, effects);
        match trial {
            None => tx,
            Some(trial) => {
                let tx = tx.or_else(|| {
                    Some(transaction::waits(
                        &self.lane.plan.name,
                        &self.delivery.message,
                        effects,
                    ))
                });
                tx.map(|tx| Transaction {
                    trial: Some(trial),
                    ..tx
                })
            }
        }
    }

    fn decision(&self, ran: &Ran, effects: &mut Effects) -> Option<Transaction> {
        let (plan, message) = (&self.lane.plan, &self.delivery.message);
        let reads = !effects.reads.is_empty();
        match (asks(&ran.verdict, self.delivery.is_of_letter(), reads), &ran.verdict) {
            (Asks::Decision, Verdict::Dead { cause, failure }) => {
                let mut tx = self.death(*cause, failure, ran);
                tx.reads = std::mem::take(&mut effects.reads);
                Some(tx)
            }
            (Asks::Decision, Verdict::Done | Verdict::Retry { .. }) => {
                let effects = std::mem::take(effects);
                Some(transaction::done(
                    plan,
                    self.delivery,
                    (self.number, self.span),
                    &ran.digest,
                    effects,
                ))
            }
            (Asks::Wait, _) => Some(transaction::waits(&plan.name, message, effects)),
            (Asks::Nothing, _) => None,
        }
    }

    /// Commits a transaction, and counts how long a decision takes.
    /// `ended`: when the guest had, and then when it was committed.
    async fn commit(
        &self,
        bucket: &Bucket,
        tx: Transaction,
        alone: Option<Alone<'_>>,
        ended: &mut Instant,
    ) -> CommitResult {
        let decides = tx.decision.is_some();
        let result = match alone {
            None => bucket.commit(tx).await,
            Some(alone) => bucket.commit_alone(tx, alone).await,
        };
        if decides {
            let guest = std::mem::replace(ended, Instant::now());
            let metrics = &self.lane.metrics;
            metrics.committed(&self.delivery.message, *ended - guest, *ended);
        }
        result
    }

    /// The transaction of an event that dies by this attempt.
    fn death(&self, cause: Cause, failure: &Failure, ran: &Ran) -> Transaction {
        let message = &self.delivery.message;
        let dead = Dead {
            cause,
            failure: Cow::Borrowed(failure),
            record: dead_lettering::attempts(self.record, self.lane.records.told(self.number, ran)),
        };
        let body = dead_lettering::body_of(message);
        self.lane.dead_letters.transaction(&message.event, &dead, Some(body))
    }

    /// What it wants can never be committed: its death can.
    async fn too_large(&self, bucket: &Bucket, mut ran: Ran, failure: Failure) -> Ran {
        ran.outcome = too_large(failure.message.clone());
        let tx = self.death(Cause::Rejected, &failure, &ran);
        let Ok(committed) = bucket.commit(tx).await else {
            let message = failure.message;
            return self.instead(ran, Outcome::HostFault { message });
        };
        let cause = Cause::Rejected;
        Ran {
            verdict: Verdict::Dead { cause, failure },
            committed: Some(committed),
            ..ran
        }
    }

    /// Something else came of it than the run.
    fn instead(&self, ran: Ran, outcome: Outcome) -> Ran {
        Ran {
            verdict: verdict(&self.lane.plan.retry, &outcome, self.number),
            outcome,
            ..ran
        }
    }
}

/// What follows from an outcome; asked once for each, as the delay of a retry has chance in it.
fn verdict(policy: &RetryPolicy, outcome: &Outcome, attempt: u32) -> Verdict {
    match decide(outcome, attempt, policy, rand::random()) {
        // Only a test asks for this, to see that the server's advisory alone is enough.
        Verdict::Dead {
            cause: Cause::Exhausted,
            ..
        } if failpoint::off("host-verdict") => Verdict::Retry { delay: policy.backoff },
        verdict => verdict,
    }
}
