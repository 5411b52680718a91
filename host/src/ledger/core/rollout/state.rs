//! How far a rollout is, and how it goes on.

use serde::{Deserialize, Serialize};

use super::counts::{StepCounts, Trial};
use super::evidence::{against, is_asked, is_no_worse};
use crate::mesh_streams::modules::{MILLION, RolloutSpec};

/// A rollout as the head of a ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutState {
    pub spec: RolloutSpec,
    /// By step, up to the present one.
    pub counts: Vec<StepCounts>,
    /// When the present step began, in milliseconds since the Unix epoch: the time of an entry.
    pub since_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<RolloutVerdict>,
}

/// How a rollout has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutVerdict {
    pub end: RolloutEnd,
    /// The entry with which it was reached, and the time of that.
    pub entry: u64,
    pub at_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutEnd {
    /// The canary serves all events.
    Promoted,
    /// The version that served before serves all events.
    RolledBack,
}

impl RolloutState {
    pub fn new(spec: RolloutSpec, at_ms: u64) -> RolloutState {
        RolloutState {
            spec,
            counts: vec![StepCounts::default()],
            since_ms: at_ms,
            verdict: None,
        }
    }

    /// The present step, from 0.
    pub fn step(&self) -> usize {
        self.counts.len().saturating_sub(1)
    }

    /// Of all steps: with each new share the evidence begins with that of the steps before.
    pub fn evidence(&self) -> f64 {
        self.counts.iter().map(against).product()
    }

    /// What the evidence must reach for a rollback.
    pub fn evidence_needed(&self) -> f64 {
        f64::from(MILLION) / f64::from(self.spec.alpha.max(1))
    }

    /// Counts a first attempt of an entry. What belongs to another rollout or step, or comes after the verdict, does not count.
    pub fn take(&mut self, trial: &Trial, (entry, at_ms): (u64, u64)) {
        let step = self.step();
        if self.verdict.is_some() || trial.rollout != self.spec.number || trial.step != step {
            return;
        }
        let Some((counts, spec)) = self.counts.last_mut().zip(self.spec.steps.get(step)) else {
            return;
        };
        counts.count(trial);
        let counts = *counts;
        let verdict = |end| Some(RolloutVerdict { end, entry, at_ms });
        if is_asked(&counts) && self.evidence() >= self.evidence_needed() {
            self.verdict = verdict(RolloutEnd::RolledBack);
            return;
        }
        let long = at_ms.saturating_sub(self.since_ms) >= spec.seconds.saturating_mul(1000);
        if !long || counts.canary < spec.events || !is_no_worse(&counts, self.spec.margin) {
            return;
        }
        if step + 1 == self.spec.steps.len() {
            self.verdict = verdict(RolloutEnd::Promoted);
        } else {
            self.counts.push(StepCounts::default());
            self.since_ms = at_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::counts::{TrialEnd, TrialSide};
    use super::*;
    use crate::mesh_streams::modules::{RolloutStep, spec};

    fn step(share: u32, events: u64, seconds: u64) -> RolloutStep {
        RolloutStep {
            shadow: false,
            share,
            events,
            seconds,
        }
    }

    fn trial(step: usize, on: TrialSide, failed: bool) -> Trial {
        let end = Some(if failed { TrialEnd::Failed } else { TrialEnd::Done });
        Trial {
            handler: "h".to_owned(),
            event: "k.1".to_owned(),
            rollout: 7,
            step,
            on,
            canary: end.filter(|_| on == TrialSide::Canary),
            serving: end.filter(|_| on == TrialSide::Serving),
            differs: false,
        }
    }

    /// Takes a tenth of `count` attempts on the canary.
    fn run(state: &mut RolloutState, step: usize, count: u64, (began, every_ms): (u64, u64)) {
        for n in 0..count {
            let on = if n % 10 == 0 {
                TrialSide::Canary
            } else {
                TrialSide::Serving
            };
            state.take(&trial(step, on, false), (n, began + n * every_ms));
        }
    }

    #[test]
    fn a_rollout_goes_on_when_enough_has_run_for_long_enough_and_not_for_want_of_data() {
        let mut state = RolloutState::new(spec(vec![step(100_000, 300, 60), step(500_000, 0, 0)]), 1_000);
        run(&mut state, 0, 2_990, (1_000, 1));
        assert_eq!(state.step(), 0, "not enough events, and not enough time");
        run(&mut state, 0, 10, (5_000, 1));
        assert_eq!(state.step(), 0, "enough events, and not enough time");
        state.take(&trial(0, TrialSide::Serving, false), (9, 61_000));
        assert_eq!((state.step(), state.since_ms), (1, 61_000));
        // An attempt of the step before comes late.
        state.take(&trial(0, TrialSide::Canary, true), (10, 61_001));
        assert_eq!(state.counts[1], StepCounts::default());
        // A step that asks for no number of events still waits until it shows something.
        run(&mut state, 1, 2_960, (61_000, 1));
        assert_eq!(state.verdict, None);
        run(&mut state, 1, 40, (70_000, 1));
        let verdict = state.verdict.clone().expect("it is over");
        assert_eq!(verdict.end, RolloutEnd::Promoted);
        // What comes after the verdict changes nothing.
        let before = state.clone();
        (0..50).for_each(|_| state.take(&trial(1, TrialSide::Canary, true), (99, 99_000)));
        assert_eq!(state, before);
    }

    #[test]
    fn a_rollout_goes_back_with_the_failure_that_is_enough() {
        let mut state = RolloutState::new(spec(vec![step(100_000, 300, 0)]), 0);
        run(&mut state, 0, 300, (0, 1));
        for (n, back) in [(1, false), (2, false), (3, true)] {
            state.take(&trial(0, TrialSide::Canary, true), (n, 400));
            assert_eq!(state.verdict.is_some(), back, "{n}: {}", state.evidence());
        }
        assert_eq!(
            state.verdict,
            Some(RolloutVerdict {
                end: RolloutEnd::RolledBack,
                entry: 3,
                at_ms: 400
            })
        );
        assert!(state.evidence() >= state.evidence_needed());
    }

    /// Any host may have read any part of the ledger when it stores what it knows.
    #[test]
    fn a_state_that_was_stored_half_way_comes_to_the_same_verdict() {
        let mut whole = RolloutState::new(spec(vec![step(100_000, 300, 0), step(500_000, 300, 0)]), 0);
        let mut stored = whole.clone();
        for n in 0..20_000u64 {
            let on = if n % 7 == 0 {
                TrialSide::Canary
            } else {
                TrialSide::Serving
            };
            let trial = trial(whole.step(), on, n % 97 == 0 && n > 9_000);
            whole.take(&trial, (n, n));
            stored.take(&trial, (n, n));
            if n % 61 == 0 {
                let text = serde_json::to_string(&stored).expect("it serialises");
                stored = serde_json::from_str(&text).expect("it is read again");
            }
        }
        assert_eq!(whole, stored);
        assert!(whole.step() == 1 || whole.verdict.is_some());
    }
}
