//! A rollout, as a host tells it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::handler_task::runner::Runner;
use crate::mesh_streams::modules::MILLION;

/// A version that takes over step by step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "rollout")]
pub struct RolloutJson {
    /// Later rollouts of a name have larger numbers.
    pub number: u64,
    /// Digest of the version that takes over.
    pub canary: String,
    /// `shadow`, or `canary`.
    pub stage: String,
    /// Part of the events that run on it, from 0 to 1.
    pub share: f64,
    /// First attempts of this step on the canary and on the serving version, and how many failed.
    pub on_canary: u64,
    pub canary_failed: u64,
    pub on_serving: u64,
    pub serving_failed: u64,
    /// Events that failed on both.
    pub both_failed: u64,
    /// Against the canary, over all steps. It goes back when this reaches `evidence_needed`.
    pub evidence: f64,
    pub evidence_needed: f64,
}

impl RolloutJson {
    /// What is under way for a handler, as this host has read its ledger. `None`: nothing.
    pub fn of(runner: &Runner) -> Option<RolloutJson> {
        let canary = runner.canary.load_full()?;
        let state = runner.rollout();
        let at = state.as_ref().map_or(0, |state| state.step());
        let step = canary.spec.steps.get(at)?;
        let counts = state.as_ref().and_then(|state| state.counts.last().copied());
        let counts = counts.unwrap_or_default();
        let needed = f64::from(MILLION) / f64::from(canary.spec.alpha.max(1));
        Some(RolloutJson {
            number: canary.spec.number,
            canary: canary.module.digest.to_string(),
            stage: if step.shadow { "shadow" } else { "canary" }.to_owned(),
            share: f64::from(step.share) / f64::from(MILLION),
            on_canary: counts.canary,
            canary_failed: counts.canary_failed,
            on_serving: counts.serving,
            serving_failed: counts.serving_failed,
            both_failed: counts.both_failed,
            evidence: state.as_ref().map_or(1.0, |state| state.evidence()),
            evidence_needed: needed,
        })
    }

    /// Of several hosts, what the one tells that has read most of the ledger.
    pub fn newest(told: impl Iterator<Item = RolloutJson>) -> Option<RolloutJson> {
        told.max_by_key(|one| (one.number, one.on_canary + one.on_serving + one.both_failed))
    }

    /// As a person reads it.
    pub fn told(&self, handler: &str) -> String {
        let stage = match self.stage.as_str() {
            "shadow" => "it runs in the shadow".to_owned(),
            _ => format!("it has {} % of the events", self.share * 100.0),
        };
        format!(
            "{handler}: version {} takes over step by step: {stage}; of first attempts, {} of {} failed on it, and {} of {} on the serving \
             version; evidence against it {:.1} of {:.0}",
            self.canary,
            self.canary_failed,
            self.on_canary,
            self.serving_failed,
            self.on_serving,
            self.evidence,
            self.evidence_needed
        )
    }
}
