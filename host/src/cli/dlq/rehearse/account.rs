//! What a rehearsal comes to: how many of each verdict, and the faults.

use std::collections::{BTreeMap, HashMap};

use super::Came;
use super::json::{FaultJson, SummaryJson};
use super::show::{VERDICTS, verdict};
use crate::cli::table;
use crate::dlq::rehearse::Rehearsal;
use crate::text::normalise::normalise;

/// What is alike among those that would fail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
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
pub struct Account {
    /// By what would become of them, in words.
    verdicts: BTreeMap<&'static str, u64>,
    skipped: u64,
    /// Would succeed, but for what they emit.
    undelivered: u64,
    faults: BTreeMap<Fault, Alike>,
}

impl Account {
    pub fn add(&mut self, id: &str, came: &Came) {
        let Came::Ran(run) = came else {
            self.skipped += 1;
            return;
        };
        *self.verdicts.entry(verdict(&run.outcome)).or_default() += 1;
        let undelivered = run.emits.iter().find_map(|held| held.problem.clone());
        self.undelivered += u64::from(undelivered.is_some());
        let (code, error) = match (run.outcome.failure(), undelivered) {
            (Some(failure), _) => (failure.code, failure.message),
            (None, Some(problem)) => ("undeliverable".to_owned(), problem),
            (None, None) => return,
        };
        let fault = Fault {
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
    fn sorted(&self) -> Vec<(&Fault, &Alike)> {
        let mut faults: Vec<_> = self.faults.iter().collect();
        faults.sort_by_key(|(_, alike)| std::cmp::Reverse(alike.count));
        faults
    }

    pub fn print(&self, stages: &HashMap<&str, Rehearsal<'_>>) {
        if self.ran() + self.skipped == 0 {
            return println!("no dead letters of this kind");
        }
        let faults = self.sorted();
        if !faults.is_empty() {
            let row = |(fault, alike): &(&Fault, &Alike)| {
                let count = alike.count.to_string();
                let outcome = fault.outcome.to_owned();
                vec![
                    count,
                    outcome,
                    fault.code.clone(),
                    alike.sample.clone(),
                    alike.error.clone(),
                ]
            };
            println!("\nwhat would go wrong:");
            let rows: Vec<Vec<String>> = faults.iter().map(row).collect();
            table::print(&["COUNT", "OUTCOME", "CODE", "SAMPLE", "ERROR"], &rows);
        }
        let counted = |verdict: &&str| Some(format!("{} {verdict}", self.verdicts.get(verdict)?));
        let mut parts: Vec<String> = VERDICTS.iter().filter_map(counted).collect();
        if self.undelivered > 0 {
            parts.push(format!(
                "{} of them would emit an event that no stream stores",
                self.undelivered
            ));
        }
        if self.skipped > 0 {
            parts.push(format!("{} skipped", self.skipped));
        }
        println!("\n{}; nothing has happened", parts.join(", "));
        for (handler, digest) in modules(stages) {
            println!("{handler}: rehearsed on module {digest}");
        }
    }

    pub fn json(&self, stages: &HashMap<&str, Rehearsal<'_>>) -> SummaryJson<'_> {
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
            undelivered: self.undelivered,
            all_succeed: self.all_succeed(),
            verdicts: &self.verdicts,
            faults: faults.collect(),
            modules: modules(stages),
        }
    }
}

/// By handler, the digest of the module that it was rehearsed on.
fn modules(stages: &HashMap<&str, Rehearsal<'_>>) -> BTreeMap<String, String> {
    let of = |(handler, stage): (&&str, &Rehearsal<'_>)| ((*handler).to_owned(), stage.module.digest.to_string());
    stages.iter().map(of).collect()
}
