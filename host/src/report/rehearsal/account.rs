//! What a rehearsal comes to: how many of each verdict, and the faults.

use std::collections::BTreeMap;

use super::{FaultJson, SummaryJson};
use crate::dlq::rehearse::stage::Came;
use crate::event::outcome::Outcome;
use crate::text::normalise::normalise;

/// Every verdict, the best first.
pub const VERDICTS: [&str; 6] = [
    "would succeed",
    "would be tried again",
    "would be rejected",
    "would trap",
    "would time out",
    "could not be run",
];

/// What would become of it, in words.
pub fn verdict(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "would succeed",
        Outcome::Retry { .. } => "would be tried again",
        Outcome::Reject { .. } => "would be rejected",
        Outcome::Trap { .. } => "would trap",
        Outcome::Timeout { .. } => "would time out",
        Outcome::Conflict | Outcome::HostFault { .. } => "could not be run",
    }
}

/// What is alike among those that would fail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RehearsedFault {
    handler: String,
    outcome: &'static str,
    code: String,
    /// Without names and numbers.
    message: String,
}

#[derive(Debug)]
struct Alike {
    count: u64,
    sample: String,
    error: String,
}

#[derive(Debug, Default)]
pub struct RehearsalAccount {
    /// By what would become of them, in words.
    verdicts: BTreeMap<&'static str, u64>,
    skipped: u64,
    /// Would fail with the error that their letters have.
    as_before: u64,
    /// Would succeed, but for what they emit.
    undelivered: u64,
    faults: BTreeMap<RehearsedFault, Alike>,
}

impl RehearsalAccount {
    pub fn add(&mut self, id: &str, came: &Came) {
        let Came::Ran(run) = came else {
            self.skipped += 1;
            return;
        };
        *self.verdicts.entry(verdict(&run.outcome)).or_default() += 1;
        self.as_before += u64::from(run.as_before);
        let undelivered = run.emits.iter().find_map(|held| held.problem.clone());
        self.undelivered += u64::from(undelivered.is_some());
        let (code, error) = match (run.outcome.failure(), undelivered) {
            (Some(failure), _) => (failure.code, failure.message),
            (None, Some(problem)) => ("undeliverable".to_owned(), problem),
            (None, None) => return,
        };
        let fault = RehearsedFault {
            handler: id.split('.').next().unwrap_or(id).to_owned(),
            outcome: run.outcome.name(),
            code,
            message: normalise(&error),
        };
        let new = || Alike {
            count: 0,
            sample: id.to_owned(),
            error,
        };
        self.faults.entry(fault).or_insert_with(new).count += 1;
    }

    fn ran(&self) -> u64 {
        self.verdicts.values().sum()
    }

    /// Nothing at all is no success if there was something to run.
    pub fn all_succeed(&self) -> bool {
        self.faults.is_empty() && (self.ran() > 0 || self.skipped == 0)
    }

    /// The largest first.
    fn sorted(&self) -> Vec<(&RehearsedFault, &Alike)> {
        let mut faults: Vec<_> = self.faults.iter().collect();
        faults.sort_by_key(|(_, alike)| std::cmp::Reverse(alike.count));
        faults
    }

    /// `modules`: by handler, the digest of the module that it was rehearsed on.
    pub fn summary(&self, modules: BTreeMap<String, String>) -> SummaryJson<'_> {
        let faults = self.sorted().into_iter().map(|(fault, alike)| FaultJson {
            handler: &fault.handler,
            outcome: fault.outcome,
            code: &fault.code,
            message: &fault.message,
            count: alike.count,
            sample: &alike.sample,
            error: &alike.error,
        });
        SummaryJson {
            rehearsed: self.ran(),
            skipped: self.skipped,
            as_before: self.as_before,
            undelivered: self.undelivered,
            all_succeed: self.all_succeed(),
            verdicts: &self.verdicts,
            faults: faults.collect(),
            modules,
        }
    }
}
