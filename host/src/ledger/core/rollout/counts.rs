//! What is counted of a rollout.

use serde::{Deserialize, Serialize};

/// One first attempt at an event during a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    pub handler: String,
    /// `<incarnation>.<sequence>`.
    pub event: String,
    /// The number of the rollout.
    pub rollout: u64,
    /// The step that the host knew of, from 0. Of another step it does not count.
    pub step: usize,
    /// Where it was run by the rollout's choice.
    pub on: TrialSide,
    /// How it ended there; an event that failed was run on the other version too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<TrialEnd>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<TrialEnd>,
    /// In a shadow: the two versions wanted something different.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub differs: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrialSide {
    Serving,
    Canary,
    /// On both, of which only the serving one counts for the event.
    Shadow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrialEnd {
    Done,
    Failed,
}

/// What was counted in one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCounts {
    /// First attempts on the canary that count, and how many of them failed.
    pub canary: u64,
    pub canary_failed: u64,
    pub serving: u64,
    pub serving_failed: u64,
    /// Events that failed on both versions: they count for neither.
    pub both_failed: u64,
    /// Events of a shadow for which the versions wanted something different.
    pub differ: u64,
}

impl StepCounts {
    pub fn count(&mut self, trial: &Trial) {
        let failed = |end: Option<TrialEnd>| end == Some(TrialEnd::Failed);
        let (canary, serving) = (failed(trial.canary), failed(trial.serving));
        self.differ += u64::from(trial.differs);
        if canary && serving {
            self.both_failed += 1;
            return;
        }
        if trial.on != TrialSide::Serving {
            self.canary += 1;
            self.canary_failed += u64::from(canary);
        }
        if trial.on != TrialSide::Canary {
            self.serving += 1;
            self.serving_failed += u64::from(serving);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_fails_on_both_versions_counts_for_neither() {
        use TrialEnd::{Done, Failed};
        use TrialSide::{Canary, Serving, Shadow};
        let rows = [
            // Where it ran, how it ended on the canary and on the serving version: what is counted of canary, serving and both.
            (Canary, Some(Done), None, (1, 0), (0, 0), 0),
            (Canary, Some(Failed), Some(Done), (1, 1), (0, 0), 0),
            (Canary, Some(Failed), Some(Failed), (0, 0), (0, 0), 1),
            (Serving, None, Some(Done), (0, 0), (1, 0), 0),
            (Serving, Some(Done), Some(Failed), (0, 0), (1, 1), 0),
            (Serving, Some(Failed), Some(Failed), (0, 0), (0, 0), 1),
            // The canary could not be run.
            (Serving, None, Some(Failed), (0, 0), (1, 1), 0),
            (Shadow, Some(Done), Some(Done), (1, 0), (1, 0), 0),
            (Shadow, Some(Failed), Some(Done), (1, 1), (1, 0), 0),
            (Shadow, Some(Done), Some(Failed), (1, 0), (1, 1), 0),
            (Shadow, Some(Failed), Some(Failed), (0, 0), (0, 0), 1),
        ];
        for (on, canary, serving, canary_counts, serving_counts, both) in rows {
            let mut counts = StepCounts::default();
            counts.count(&Trial {
                handler: "h".to_owned(),
                event: "k.1".to_owned(),
                rollout: 1,
                step: 0,
                on,
                canary,
                serving,
                differs: false,
            });
            let case = format!("{on:?} {canary:?} {serving:?}");
            assert_eq!((counts.canary, counts.canary_failed), canary_counts, "{case}");
            assert_eq!((counts.serving, counts.serving_failed), serving_counts, "{case}");
            assert_eq!(counts.both_failed, both, "{case}");
        }
    }
}
