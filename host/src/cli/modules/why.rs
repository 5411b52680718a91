//! What the ledgers say of a rollout, counted again from their entries.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::name;
use super::rollout::percent;
use crate::broker::Connection;
use crate::broker::kv::kv_stream;
use crate::cli::table;
use crate::cli::text::json_page;
use crate::cli::{Error, OK};
use crate::config::format_duration;
use crate::event::rfc3339;
use crate::ledger::core::entry::{Entry, Subjects};
use crate::ledger::core::rollout::evidence::{against, failing_at_most};
use crate::ledger::core::rollout::{RolloutEnd, RolloutState, count};
use crate::ledger::store::read;
use crate::mesh_streams::modules::RolloutStep;
use crate::plan::{Handler, Plan};

/// Show how a rollout stands, counted again from the entries of the ledgers
#[derive(Debug, clap::Args)]
pub struct ModulesWhy {
    /// The name in the registry
    #[arg(value_parser = name)]
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The last rollout of each handler of a name.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "`jetmesh modules why --json`", description = "")]
pub struct ModulesWhyPage {
    pub name: String,
    pub handlers: Vec<HandlerRollout>,
}

/// A rollout as one handler's ledger counts it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct HandlerRollout {
    pub handler: String,
    pub ledger: String,
    /// Null: no first attempt was counted yet.
    pub rollout: Option<CountedRollout>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct CountedRollout {
    /// Of this rollout; later ones have larger numbers.
    pub number: u64,
    /// Digests.
    pub serving: String,
    pub canary: String,
    pub steps: Vec<CountedStep>,
    /// Against the canary; it goes back when this reaches `evidence_needed`.
    pub evidence: f64,
    pub evidence_needed: f64,
    /// `promoted` or `rolled-back`; null: it goes on.
    pub verdict: Option<&'static str>,
    /// Number of the entry with which the verdict was reached, and its time.
    pub verdict_entry: Option<u64>,
    #[schemars(extend("format" = "date-time"))]
    pub verdict_at: Option<String>,
    /// What the entries show is what the head of the ledger says; null: the first of them are collected.
    pub derived: Option<bool>,
    /// What the next step or the promotion waits for; null: nothing.
    pub waits_for: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct CountedStep {
    /// `shadow`, or the share such as `10%`.
    pub step: String,
    pub canary: u64,
    pub canary_failed: u64,
    pub serving: u64,
    pub serving_failed: u64,
    pub both_failed: u64,
    pub differ: u64,
    pub evidence: f64,
}

pub async fn why(connection: &Connection, plan: &Plan, asked: &ModulesWhy) -> Result<u8, Error> {
    let follows = |handler: &&Handler| handler.module.registered() == Some(asked.name.as_str());
    let mut handlers = Vec::new();
    for handler in plan.handlers.iter().filter(follows) {
        let Some(ledger) = &handler.ledger else { continue };
        let counted = counted(connection, &handler.name, ledger).await?;
        handlers.push(HandlerRollout {
            handler: handler.name.clone(),
            ledger: ledger.clone(),
            rollout: counted,
        });
    }
    if handlers.is_empty() {
        return Err(Error::Failed(format!(
            "no handler of this configuration has `module = \"registry:{}\"` and a ledger: give the configuration of the hosts",
            asked.name
        )));
    }
    match asked.json {
        true => {
            let name = asked.name.clone();
            println!("{}", json_page(&ModulesWhyPage { name, handlers }));
        }
        false => handlers.iter().for_each(print),
    }
    Ok(OK)
}

/// Counts the last rollout of a handler from the entries.
async fn counted(connection: &Connection, handler: &str, ledger: &str) -> Result<Option<CountedRollout>, Error> {
    let (stream, subjects) = (kv_stream(ledger), Subjects::new(ledger));
    let Some((head, _)) = read::head(connection, &stream, &subjects).await? else {
        return Ok(None);
    };
    let Some(said) = head.rollouts.get(handler) else {
        return Ok(None);
    };
    let mut derived = BTreeMap::new();
    let mut whole = false;
    let mut see = |entry: &Entry| {
        whole |= entry
            .rollouts
            .get(handler)
            .is_some_and(|spec| spec.number == said.spec.number);
        if whole && entry.n <= head.n {
            count(&mut derived, entry);
        }
    };
    read::stored(connection, &stream, &subjects, &mut see).await?;
    let derived = derived.remove(handler).filter(|_| whole);
    let same = derived.as_ref().map(|derived| derived == said);
    Ok(Some(told(derived.as_ref().unwrap_or(said), same)))
}

fn told(state: &RolloutState, derived: Option<bool>) -> CountedRollout {
    let spec = &state.spec;
    let steps = spec.steps.iter().zip(&state.counts).map(|(step, counts)| CountedStep {
        step: called(step),
        canary: counts.canary,
        canary_failed: counts.canary_failed,
        serving: counts.serving,
        serving_failed: counts.serving_failed,
        both_failed: counts.both_failed,
        differ: counts.differ,
        evidence: against(counts),
    });
    let verdict = state.verdict.as_ref();
    CountedRollout {
        number: spec.number,
        serving: spec.serving.clone(),
        canary: spec.canary.clone(),
        steps: steps.collect(),
        evidence: state.evidence(),
        evidence_needed: state.evidence_needed(),
        verdict: verdict.map(|verdict| match verdict.end {
            RolloutEnd::Promoted => "promoted",
            RolloutEnd::RolledBack => "rolled-back",
        }),
        verdict_entry: verdict.map(|verdict| verdict.entry),
        verdict_at: verdict.map(|verdict| rfc3339(verdict.at_ms)),
        derived,
        waits_for: waits_for(state),
    }
}

fn called(step: &RolloutStep) -> String {
    match step.shadow {
        true => "shadow".to_owned(),
        false => percent(step.share),
    }
}

/// What the present step still waits for.
fn waits_for(state: &RolloutState) -> Option<String> {
    let (step, counts) = state.spec.steps.get(state.step()).zip(state.counts.last())?;
    if state.verdict.is_some() {
        return None;
    }
    let mut waits = Vec::new();
    if counts.canary < step.events {
        waits.push(format!("{} more event(s) on the canary", step.events - counts.canary));
    }
    let until_ms = state.since_ms + step.seconds * 1000;
    if until_ms > crate::event::clock::now_ms() {
        let left = std::time::Duration::from_secs((until_ms - crate::event::clock::now_ms()).div_ceil(1000));
        waits.push(format_duration(left));
    }
    if waits.is_empty() {
        waits.push(format!(
            "more evidence: at most {:.2} % of its first attempts fail, as far as the events show",
            100.0 * failing_at_most(counts)
        ));
    }
    Some(waits.join(", "))
}

fn print(one: &HandlerRollout) {
    let Some(rollout) = &one.rollout else {
        println!("{}: no first attempt of a rollout was counted yet", one.handler);
        return;
    };
    println!(
        "{}: canary {}, serving {}, rollout {}, ledger {}",
        one.handler,
        &rollout.canary[..12],
        &rollout.serving[..12],
        rollout.number,
        one.ledger
    );
    let of = |failed: u64, all: u64| format!("{failed} of {all}");
    let rows: Vec<Vec<String>> = rollout
        .steps
        .iter()
        .map(|step| {
            vec![
                step.step.clone(),
                of(step.canary_failed, step.canary),
                of(step.serving_failed, step.serving),
                step.both_failed.to_string(),
                step.differ.to_string(),
                format!("{:.2}", step.evidence),
            ]
        })
        .collect();
    table::print(
        &["STEP", "CANARY FAILED", "SERVING FAILED", "BOTH", "DIFFER", "EVIDENCE"],
        &rows,
    );
    println!(
        "evidence against the canary: {:.2}; it goes back at {:.0}",
        rollout.evidence, rollout.evidence_needed
    );
    match (rollout.verdict, &rollout.waits_for) {
        (Some(verdict), _) => println!(
            "{verdict} with entry {} at {}",
            rollout.verdict_entry.unwrap_or_default(),
            rollout.verdict_at.as_deref().unwrap_or("?")
        ),
        (None, Some(waits)) => println!("it goes on, and waits for {waits}"),
        (None, None) => {}
    }
    match rollout.derived {
        Some(true) => println!("counted again from the entries of the ledger: the same"),
        Some(false) => println!("WARNING: the head of the ledger says something else than its entries show"),
        None => println!("the first entries of the rollout are collected: this is what the head of the ledger says"),
    }
}
