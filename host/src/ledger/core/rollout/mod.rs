//! A rollout of a module as the ledger of a handler counts it: which first attempts ran on which version, which of them failed, and
//! what follows. All of it is a function of the entries, so every host comes to the same verdict at the same entry, and a person can
//! derive it again. Pure.

use std::collections::BTreeMap;

use super::entry::Entry;
use crate::event::parse_rfc3339;

pub use self::counts::{StepCounts, Trial, TrialEnd, TrialSide};
pub use self::state::{RolloutEnd, RolloutState};

pub mod counts;
pub mod evidence;
mod simulation;
mod state;

/// Takes the rollouts and the first attempts of an entry in. `rollouts`: the last one of each handler.
pub fn count(rollouts: &mut BTreeMap<String, RolloutState>, entry: &Entry) {
    if entry.rollouts.is_empty() && entry.trials.is_empty() {
        return;
    }
    let at_ms = parse_rfc3339(&entry.at).unwrap_or_default();
    for (handler, spec) in &entry.rollouts {
        let known = rollouts.get(handler).map_or(0, |known| known.spec.number);
        if spec.number > known {
            rollouts.insert(handler.clone(), RolloutState::new(spec.clone(), at_ms));
        }
    }
    for trial in &entry.trials {
        if let Some(rollout) = rollouts.get_mut(&trial.handler) {
            rollout.take(trial, (entry.n, at_ms));
        }
    }
}
