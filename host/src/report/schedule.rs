//! How schedules stand.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use crate::broker::kv::kv_stream;
use crate::broker::provision::MESH_BUCKET;
use crate::broker::{self, Connection};
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::plan::{Plan, Schedule, When};
use crate::schedule::state::ScheduleState;
use crate::schedule::store;

/// A schedule. `schedule ls`, `schedule show` and `status` print it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "A schedule")]
pub struct ScheduleJson {
    pub schedule: String,
    pub state: ScheduleStanding,
    /// Why it is not simply armed.
    pub why: Option<String>,
    /// What it is due by: a cron expression with its zone, a period, or a time.
    pub when: String,
    pub subject: String,
    /// The next due time that it waits for.
    #[schemars(extend("format" = "date-time"))]
    pub next: Option<String>,
    /// The due time of the last event.
    #[schemars(extend("format" = "date-time"))]
    pub last: Option<String>,
    /// When the last event was emitted.
    #[schemars(extend("format" = "date-time"))]
    pub last_emitted: Option<String>,
    /// The id of the last event.
    pub last_event: Option<String>,
    /// Where the last event lies, STREAM:SEQUENCE, as `jetmesh trace` takes it. Only `schedule show` looks for it.
    pub last_place: Option<String>,
    /// What each handler has made of the last event. Only `schedule show` looks for it.
    pub last_handlers: Vec<HandlersPart>,
    /// Events at its own due times.
    pub runs: u64,
    /// Due times that passed without an event while no host or no server was up.
    pub missed: u64,
    /// Due times that passed without an event because the event before was not decided.
    pub skipped: u64,
    /// The host that armed it as it is.
    pub armed_by: Option<String>,
    #[schemars(extend("format" = "date-time"))]
    pub armed_at: Option<String>,
}

/// What a handler has made of an event.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct HandlersPart {
    pub handler: String,
    /// As `jetmesh trace --json` has it: done, dead, retrying, delivered, waiting and so on.
    pub state: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleStanding {
    /// It waits for its next due time.
    Armed,
    /// It is due, and has not fired for a minute.
    Late,
    Paused,
    /// It is due, and waits until its last event is decided.
    Held,
    /// It is not due any more.
    Over,
    /// The configuration of the host that started last does not have it.
    Disarmed,
    /// No host has armed it.
    Unarmed,
}

/// A due time. `schedule next` prints it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "A due time of a schedule")]
pub struct ScheduleDue {
    /// The name of the schedule.
    pub schedule: String,
    /// When it is due.
    #[schemars(extend("format" = "date-time"))]
    pub due: String,
    /// When the event comes: later by the jitter.
    #[schemars(extend("format" = "date-time"))]
    pub fires: String,
}

/// Later than this, something keeps a schedule from firing.
const LATE_MS: u64 = 60_000;

impl ScheduleStanding {
    pub fn word(self) -> &'static str {
        match self {
            ScheduleStanding::Armed => "armed",
            ScheduleStanding::Late => "late",
            ScheduleStanding::Paused => "paused",
            ScheduleStanding::Held => "held",
            ScheduleStanding::Over => "over",
            ScheduleStanding::Disarmed => "disarmed",
            ScheduleStanding::Unarmed => "unarmed",
        }
    }
}

impl ScheduleJson {
    /// Of one that is only in the configuration.
    pub fn unarmed(spec: &Schedule) -> ScheduleJson {
        ScheduleJson {
            schedule: spec.name.clone(),
            state: ScheduleStanding::Unarmed,
            why: Some("no host with this configuration has started".to_owned()),
            when: when(spec),
            subject: spec.subject.clone(),
            next: None,
            last: None,
            last_emitted: None,
            last_event: None,
            last_place: None,
            last_handlers: Vec::new(),
            runs: 0,
            missed: 0,
            skipped: 0,
            armed_by: None,
            armed_at: None,
        }
    }

    pub fn of(state: &ScheduleState, plan: &Plan, now: u64) -> ScheduleJson {
        let (standing, why) = standing(state, plan, now);
        let last = state.last.as_ref();
        ScheduleJson {
            state: standing,
            why,
            next: state.next.as_ref().map(|next| rfc3339(next.due)),
            last: last.map(|last| rfc3339(last.due)),
            last_emitted: last.map(|last| rfc3339(last.at)),
            last_event: last.map(|last| last.id.clone()),
            runs: state.runs,
            missed: state.missed,
            skipped: state.skipped,
            armed_by: Some(state.armed.by.clone()),
            armed_at: Some(rfc3339(state.armed.at)),
            ..ScheduleJson::unarmed(&state.spec)
        }
    }
}

/// Every schedule that is stored or in the configuration, by name; and why some cannot be read.
pub async fn all(connection: &Connection, plan: &Plan) -> Result<(Vec<ScheduleJson>, Vec<String>), broker::Error> {
    let own = plan.schedules.iter().flatten().map(|spec| spec.name.clone());
    let mut names: BTreeSet<String> = own.collect();
    if connection.stream(&kv_stream(MESH_BUCKET)).await?.is_some() {
        names.extend(store::names(connection).await?);
    }
    let (mut all, mut unread) = (Vec::new(), Vec::new());
    for name in names {
        match (store::fetch(connection, &name).await, of_plan(plan, &name)) {
            (Ok(Some(state)), _) => all.push(ScheduleJson::of(&state, plan, now_ms())),
            (Ok(None), Some(spec)) => all.push(ScheduleJson::unarmed(spec)),
            (Ok(None), None) => {}
            (Err(store::Error::Broker(error)), _) => return Err(error),
            (Err(error), _) => unread.push(error.to_string()),
        }
    }
    Ok((all, unread))
}

/// The schedule of this name in the configuration.
pub fn of_plan<'a>(plan: &'a Plan, name: &str) -> Option<&'a Schedule> {
    plan.schedules.iter().flatten().find(|schedule| schedule.name == name)
}

fn standing(state: &ScheduleState, plan: &Plan, now: u64) -> (ScheduleStanding, Option<String>) {
    let since = |at: u64, by: &str| format!("since {} by {by}", rfc3339(at));
    if let Some(gone) = &state.disarmed {
        let why = format!("{}, whose configuration does not have it", since(gone.at, &gone.by));
        return (ScheduleStanding::Disarmed, Some(why));
    }
    if let Some(paused) = &state.paused {
        return (ScheduleStanding::Paused, Some(since(paused.at, &paused.by)));
    }
    let own = plan.schedules.iter().flatten().find(|own| own.name == state.spec.name);
    let differs = match own {
        None => Some(format!(
            "this configuration does not have it; host {} has armed it",
            state.armed.by
        )),
        Some(own) if *own != state.spec => Some(format!(
            "this configuration has it otherwise than host {}, which has armed it; the next host that starts arms it \
             as its own configuration says",
            state.armed.by
        )),
        Some(_) => None,
    };
    if let Some(since) = state.held {
        let last = state.last.as_ref().map_or("", |last| &last.id);
        let why = format!("since {}: event {last} is not decided by every handler", rfc3339(since));
        return (ScheduleStanding::Held, Some(why));
    }
    match &state.next {
        None => (ScheduleStanding::Over, differs),
        Some(next) if now > next.at.saturating_add(LATE_MS) => {
            let why = format!("it was to fire at {}, and no host has taken it in", rfc3339(next.at));
            (ScheduleStanding::Late, Some(why))
        }
        Some(_) => (ScheduleStanding::Armed, differs),
    }
}

/// What a schedule is due by, in words.
pub fn when(spec: &Schedule) -> String {
    match &spec.timetable.when {
        When::Cron { expression, zone, .. } => format!("{expression} ({zone})"),
        When::Every(seconds) => {
            let period = std::time::Duration::from_secs(*seconds);
            format!("every {}", humantime::format_duration(period))
        }
        When::At(ms) => format!("at {}", rfc3339(*ms)),
    }
}
