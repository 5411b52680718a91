//! How the redrive of a handler stands.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::broker::Connection;
use crate::config::format_duration;
use crate::event::rfc3339;
use crate::mesh_streams::dead_letter::Letter;
use crate::plan::{Handler, Plan, Redrive};
use crate::redrive::rule::{RedriveTally, of_letter};
use crate::schedule::state::ScheduleState;
use crate::schedule::store;

/// The redrive of a handler. `redrive status` and `status` print it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "The redrive of a handler")]
pub struct RedriveJson {
    pub handler: String,
    pub state: RedriveStanding,
    /// Why it is not simply armed.
    pub why: Option<String>,
    /// How often dead letters are looked for.
    pub every: String,
    /// When they are looked for next.
    #[schemars(extend("format" = "date-time"))]
    pub next: Option<String>,
    /// When they were looked for last.
    #[schemars(extend("format" = "date-time"))]
    pub last: Option<String>,
    /// Dead letters that are replayed in the next round; null, as the next three: the dead letters could not be counted.
    pub due: Option<u64>,
    /// Dead letters that are replayed later.
    pub waiting: Option<u64>,
    /// Dead letters that were replayed `max_times` times and are left to a person.
    pub left: Option<u64>,
    /// Dead letters whose cause or code is not named.
    pub other: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RedriveStanding {
    /// It waits for its next round.
    Armed,
    /// A round is due, and has not begun for a minute.
    Late,
    Paused,
    /// The configuration of the host that started last does not have it.
    Disarmed,
    /// No host has armed it.
    Unarmed,
}

/// Later than this, something keeps a round from beginning.
const LATE_MS: u64 = 60_000;

impl RedriveStanding {
    pub fn word(self) -> &'static str {
        match self {
            RedriveStanding::Armed => "armed",
            RedriveStanding::Late => "late",
            RedriveStanding::Paused => "paused",
            RedriveStanding::Disarmed => "disarmed",
            RedriveStanding::Unarmed => "unarmed",
        }
    }
}

/// The redrives of the configuration. `tallies`: of the dead letters, by handler; `None`: not known.
pub async fn all(
    connection: &Connection,
    plan: &Plan,
    tallies: Option<&BTreeMap<String, RedriveTally>>,
    now: u64,
) -> Result<Vec<RedriveJson>, store::Error> {
    let mut all = Vec::new();
    for handler in &plan.handlers {
        let Some(redrive) = &handler.redrive else { continue };
        let state = store::fetch(connection, &handler.redrive_name()).await?;
        let tally = tallies.map(|tallies| tallies.get(&handler.name).copied().unwrap_or_default());
        all.push(one((handler, redrive), state.as_ref(), tally, now));
    }
    Ok(all)
}

/// Counts a dead letter by how it stands with the redrive of its handler.
pub fn add(tallies: &mut BTreeMap<String, RedriveTally>, plan: &Plan, letter: &Letter, now: u64) {
    if let Some((handler, turn)) = of_letter(plan, letter, now) {
        tallies.entry(handler.to_owned()).or_default().add(turn);
    }
}

fn one(
    (handler, redrive): (&Handler, &Redrive),
    state: Option<&ScheduleState>,
    tally: Option<RedriveTally>,
    now: u64,
) -> RedriveJson {
    let (standing, why) = standing(handler, state, now);
    let next = state.and_then(|state| state.next.as_ref());
    let last = state.and_then(|state| state.last.as_ref());
    RedriveJson {
        handler: handler.name.clone(),
        state: standing,
        why,
        every: format_duration(redrive.every),
        next: next.map(|next| rfc3339(next.due)),
        last: last.map(|last| rfc3339(last.at)),
        due: tally.map(|tally| tally.due),
        waiting: tally.map(|tally| tally.waiting),
        left: tally.map(|tally| tally.left),
        other: tally.map(|tally| tally.other),
    }
}

fn standing(handler: &Handler, state: Option<&ScheduleState>, now: u64) -> (RedriveStanding, Option<String>) {
    let since = |at: u64, by: &str| format!("since {} by {by}", rfc3339(at));
    let Some(state) = state else {
        let why = "no host with this configuration and with relay = true has started";
        return (RedriveStanding::Unarmed, Some(why.to_owned()));
    };
    if let Some(gone) = &state.disarmed {
        let why = format!("{}, whose configuration does not have it", since(gone.at, &gone.by));
        return (RedriveStanding::Disarmed, Some(why));
    }
    if let Some(paused) = &state.paused {
        return (RedriveStanding::Paused, Some(since(paused.at, &paused.by)));
    }
    if state.next.as_ref().is_some_and(|next| next.at + LATE_MS < now) {
        let why = "a round is due, and no host takes it in: a host with relay = true must run";
        return (RedriveStanding::Late, Some(why.to_owned()));
    }
    let differs = handler.redrive_schedule().is_some_and(|own| own != state.spec);
    let why = differs.then(|| format!("host {} has armed it by another configuration", state.armed.by));
    (RedriveStanding::Armed, why)
}
