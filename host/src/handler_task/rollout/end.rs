//! What a rollout has come to is written into the registry, by whichever host sees it first: the ledgers have decided.

use std::sync::Arc;

use crate::broker::{Connection, Error};
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::failpoint;
use crate::handler_task::runner::Runner;
use crate::ledger::core::rollout::{RolloutEnd, RolloutState, StepCounts};
use crate::mesh_streams::modules::{self, ModuleAct, PromotedRecord, RolloutSpec};

/// Who the history says has ended a rollout.
const BY: &str = "jetmesh";

/// How the rollout of a name has ended, and why. `None`: it goes on.
///
/// One handler that goes back is enough for a rollback; for a promotion, all that keep a ledger must have come to it.
pub fn ended(runners: &[Arc<Runner>]) -> Option<(RolloutEnd, String)> {
    let states: Vec<(&str, Option<RolloutState>)> = runners
        .iter()
        .filter(|runner| runner.ledger.is_some() && runner.canary.load().is_some())
        .map(|runner| (runner.handler.as_str(), runner.rollout()))
        .collect();
    let end = |state: &RolloutState| state.verdict.as_ref().map(|verdict| verdict.end);
    let of = |wanted| {
        let found = states
            .iter()
            .filter_map(|(handler, state)| Some((*handler, state.as_ref()?)));
        found
            .filter(move |(_, state)| end(state) == Some(wanted))
            .collect::<Vec<_>>()
    };
    let back = of(RolloutEnd::RolledBack);
    if let Some((handler, state)) = back.first() {
        return Some((RolloutEnd::RolledBack, why(handler, state)));
    }
    let promoted = of(RolloutEnd::Promoted);
    let all = !states.is_empty() && promoted.len() == states.len();
    all.then(|| {
        let why: Vec<String> = promoted.iter().map(|(handler, state)| why(handler, state)).collect();
        (RolloutEnd::Promoted, why.join("; "))
    })
}

/// Why a rollout has ended as it has, for a person.
fn why(handler: &str, state: &RolloutState) -> String {
    let sum = |of: fn(&StepCounts) -> u64| state.counts.iter().map(of).sum::<u64>();
    let entry = state.verdict.as_ref().map_or(0, |verdict| verdict.entry);
    format!(
        "{handler}: of first attempts, {} of {} failed on the canary {}, and {} of {} on the serving version; evidence {:.1} of {:.0} \
         (entry {entry} of its ledger)",
        sum(|counts| counts.canary_failed),
        sum(|counts| counts.canary),
        &state.spec.canary[..12],
        sum(|counts| counts.serving_failed),
        sum(|counts| counts.serving),
        state.evidence(),
        state.evidence_needed(),
    )
}

/// Writes the end of a rollout into the registry, unless another host or a person was faster.
pub async fn write(connection: &Connection, spec: &RolloutSpec, (end, why): (RolloutEnd, String)) -> Result<(), Error> {
    failpoint::point("rollout-end");
    let (now, revision) = modules::promoted(connection, &spec.name).await?;
    let same = |now: &PromotedRecord| now.rollout.as_ref().is_some_and(|known| known.number == spec.number);
    let Some(now) = now.filter(same) else {
        return Ok(());
    };
    let (digest, act) = match end {
        RolloutEnd::Promoted => (spec.canary.clone(), ModuleAct::Promoted),
        RolloutEnd::RolledBack => (now.digest.clone(), ModuleAct::CanaryFailed),
    };
    let record = PromotedRecord {
        digest,
        act,
        by: BY.to_owned(),
        at: rfc3339(now_ms()),
        note: Some(why.clone()),
        hold: now.hold.clone(),
        rollout: None,
    };
    if modules::serve(connection, &spec.name, revision, &record)
        .await?
        .is_some()
    {
        match end {
            RolloutEnd::Promoted => tracing::info!(name = spec.name, why, "the canary is promoted"),
            RolloutEnd::RolledBack => tracing::error!(name = spec.name, why, "the canary is rolled back"),
        }
    }
    Ok(())
}
