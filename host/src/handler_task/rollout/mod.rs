//! Which version a first attempt runs on while a rollout is under way, and what is counted of it.
//!
//! No event is worse off for a canary: what fails there runs on the serving version at once, within the same attempt, and only that
//! counts for the event. What fails on the serving version is tried on the canary, with its effects held back, so that an event which
//! fails on both counts for neither.

pub mod compare;
pub mod end;

use std::borrow::Cow;
use std::sync::Arc;

use crate::event::effects::Effects;
use crate::event::outcome::Outcome;
use crate::event::{EventId, Message};
use crate::failpoint;
use crate::failpoint::mistake::Mistake;
use crate::handler_task::delivery::Delivery;
use crate::handler_task::lane::Lane;
use crate::handler_task::runner::CanaryModule;
use crate::ledger::core::rollout::{RolloutEnd, Trial, TrialEnd, TrialSide};
use crate::ledger::core::transaction::PlannedTrial;
use crate::mesh_streams::modules::RolloutSpec;
use crate::random::Seed;
use crate::wasm::module::{Module, Run};

/// A first attempt that belongs to a rollout.
pub struct TriedEvent {
    pub canary: Arc<CanaryModule>,
    pub on: TrialSide,
    step: usize,
    on_canary: Option<TrialEnd>,
    on_serving: Option<TrialEnd>,
    differs: bool,
}

/// The module for an attempt, and how it is counted. `None`: it belongs to no rollout.
pub fn choose(lane: &Lane, delivery: &Delivery) -> (Arc<Module>, Option<TriedEvent>) {
    let serving = lane.runner.module.load_full();
    let canary = lane.runner.canary.load();
    let Some((canary, bucket)) = canary.as_ref().zip(lane.bucket.as_ref()) else {
        return (serving, None);
    };
    let Some((step, ended)) = bucket.rollout_step(&lane.plan.name, canary.spec.number) else {
        return (serving, None);
    };
    match ended {
        Some(RolloutEnd::Promoted) => return (Arc::clone(&canary.module), None),
        Some(RolloutEnd::RolledBack) => return (serving, None),
        None => {}
    }
    // Only first attempts are compared; another one goes to the serving version.
    let first = delivery.delivered == 1 && delivery.replay.is_none();
    if !first && failpoint::planted().is(Mistake::CanaryAgain) {
        return (Arc::clone(&canary.module), None);
    }
    if !first || serving.hash().hex() != canary.spec.serving {
        return (serving, None);
    }
    let Some(on) = side(&canary.spec, step, &delivery.message) else {
        return (serving, None);
    };
    let module = match on {
        TrialSide::Canary => Arc::clone(&canary.module),
        TrialSide::Serving | TrialSide::Shadow => serving,
    };
    let tried = TriedEvent {
        canary: Arc::clone(canary),
        on,
        step,
        on_canary: None,
        on_serving: None,
        differs: false,
    };
    (module, Some(tried))
}

/// Where an event runs in a step. `None`: it is not counted.
fn side(spec: &RolloutSpec, step: usize, message: &Message) -> Option<TrialSide> {
    let (at, step) = (step, spec.steps.get(step)?);
    let meant = |(name, value): &(String, String)| message.header(name) == Some(value);
    let chosen = spec.only.as_ref().is_none_or(meant) && spec.holds(&drawn(&message.event, at), step.share);
    match (step.shadow, chosen) {
        (true, true) => Some(TrialSide::Shadow),
        (true, false) => None,
        (false, true) => Some(TrialSide::Canary),
        (false, false) => Some(TrialSide::Serving),
    }
}

/// The event by which a step draws: the same in all steps.
fn drawn(event: &EventId, step: usize) -> Cow<'_, EventId> {
    match failpoint::planted().is(Mistake::SharesMoveBack) {
        true => Cow::Owned(EventId {
            sequence: event.sequence + 1000 * (step as u64 + 1),
            ..event.clone()
        }),
        false => Cow::Borrowed(event),
    }
}

/// What a run shows of a version. `None`: nothing, as the host could not do its part.
fn end_of(outcome: &Outcome) -> Option<TrialEnd> {
    match outcome {
        Outcome::Done => Some(TrialEnd::Done),
        Outcome::Retry { .. } | Outcome::Reject { .. } | Outcome::Trap { .. } | Outcome::Timeout { .. } => {
            Some(TrialEnd::Failed)
        }
        Outcome::Conflict | Outcome::HostFault { .. } => None,
    }
}

impl TriedEvent {
    /// Takes in a run that counts for the event. `true`: it has failed on the canary, and is run on the serving version now.
    pub fn ran(&mut self, lane: &Lane, delivery: &Delivery, module: &Module, outcome: &Outcome) -> bool {
        let end = end_of(outcome);
        if !Arc::as_ptr(&self.canary.module).eq(&std::ptr::from_ref(module)) {
            self.on_serving = end;
            return false;
        }
        self.on_canary = end;
        if end == Some(TrialEnd::Done) {
            return false;
        }
        let canary = &self.canary.module.digest;
        lane.metrics.attempt(canary, outcome);
        let failure = outcome.failure().unwrap_or_default();
        tracing::warn!(handler = %lane.plan.name, event = %delivery.message.event, %canary, outcome = outcome.name(),
            code = failure.code, error = failure.message, "failed on the canary; it runs on the serving version");
        true
    }

    /// Runs the event on the canary with its effects held back, where that is needed to count it.
    pub async fn compare(&mut self, lane: &Lane, message: &Message, served: (&Outcome, &Effects), seed: Option<Seed>) {
        let failed = self.on_serving == Some(TrialEnd::Failed);
        if self.on == TrialSide::Canary || (self.on == TrialSide::Serving && !failed) || self.on_serving.is_none() {
            return;
        }
        let Run { outcome, effects, .. } = lane.runner.run(&self.canary.module, message, 1, seed).await;
        self.on_canary = end_of(&outcome);
        lane.metrics.attempt(&self.canary.module.digest, &outcome);
        if self.on == TrialSide::Shadow {
            let difference = compare::difference(served, (&outcome, &effects));
            self.differs = difference.is_some();
            if let Some(difference) = difference {
                tracing::warn!(handler = %lane.plan.name, event = %message.event, canary = %self.canary.module.digest, difference,
                    "the canary would have done something different");
            }
        }
    }

    /// What is to be counted. `None`: nothing, as a version could not be run.
    pub fn trial(&self, handler: &str, message: &Message) -> Option<Box<PlannedTrial>> {
        let ran = match self.on {
            TrialSide::Serving => self.on_serving.is_some(),
            TrialSide::Canary => {
                self.on_canary == Some(TrialEnd::Done) || self.on_canary.and(self.on_serving).is_some()
            }
            TrialSide::Shadow => self.on_canary.and(self.on_serving).is_some(),
        };
        ran.then(|| {
            Box::new(PlannedTrial {
                trial: Trial {
                    handler: handler.to_owned(),
                    event: message.event.to_string(),
                    rollout: self.canary.spec.number,
                    step: self.step,
                    on: self.on,
                    canary: self.on_canary,
                    serving: self.on_serving,
                    differs: self.differs,
                },
                spec: Arc::clone(&self.canary.spec),
            })
        })
    }
}
