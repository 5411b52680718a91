//! What waits: events between two attempts, delayed events, schedules, and handlers that are paused.

use serde::Deserialize;
use serde_json::{Value, json};

use super::audit::{actor, command, intent};
use super::query::Query;
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::broker::kv::kv_stream;
use crate::broker::provision::{ATTEMPTS, MESH_BUCKET};
use crate::control::delayed::{self as delayed_events, DelayedActed, DelayedEvent, DelayedOrder, is_delayed_id};
use crate::control::pause::{self, PauseOrder, Paused, Resumed};
use crate::control::retrying::{self, RetryingActed, RetryingChoice, RetryingOrder};
use crate::control::schedule::{recorded, stepped};
use crate::dlq::select::is_id;
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::mesh_streams::attempts::AttemptRecord;
use crate::mesh_streams::audit::AuditAction;
use crate::mesh_streams::{delayed, pauses};
use crate::plan::{Handler, Plan};
use crate::report::next_due::NextDue;
use crate::report::retrying::RetryingJson;
use crate::report::schedule;
use crate::schedule::store::{Error as ScheduleError, Stepped};

/// Events that are told: those that are due next.
const RETRYING_MAX: usize = 200;
const DELAYED_MAX: usize = 200;

pub async fn retrying(session: &ViewerSession, query: &Query) -> Result<Value, ConsoleError> {
    let (connection, plan) = (session.connection().await?, &session.plan);
    if connection.stream(&kv_stream(ATTEMPTS)).await?.is_none() {
        return Err(ConsoleError::missing(format!(
            "there is no bucket {ATTEMPTS}: no host of this mesh has run here, or it was removed"
        )));
    }
    let pauses = pauses::load(&connection, now_ms()).await?;
    let mut next = NextDue::new(RETRYING_MAX);
    let see = |record: AttemptRecord| next.add(record.next.clone().as_deref(), record);
    let unreadable = retrying::each(&connection, plan, query.get("handler"), see).await?;
    let count = next.count;
    let records = next.sorted();
    let told: Vec<RetryingJson<'_>> = records
        .iter()
        .map(|record| {
            let mut one = RetryingJson::of(record, max(plan, record));
            one.paused = pauses.contains_key(&record.handler);
            one
        })
        .collect();
    Ok(json!({ "retrying": told, "count": count, "unreadable": unreadable }))
}

pub async fn delayed(session: &ViewerSession, query: &Query) -> Result<Value, ConsoleError> {
    let connection = session.connection().await?;
    let mut next = NextDue::new(DELAYED_MAX);
    let see = |event: DelayedEvent| next.add(Some(&event.due.clone()), event);
    let more = delayed_events::each(&connection, query.get("handler"), see).await?;
    let count = next.count;
    Ok(json!({ "delayed": next.sorted(), "count": count, "unread": more }))
}

/// What a viewer wants of delayed events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelayedOrdered {
    ids: Vec<String>,
    reason: Option<String>,
}

pub async fn act_on_delayed(
    session: &ViewerSession,
    order: DelayedOrdered,
    cancels: bool,
) -> Result<DelayedActed, ConsoleError> {
    let DelayedOrdered { ids, reason } = order;
    if ids.is_empty() || ids.len() > DELAYED_MAX {
        return Err(ConsoleError::wrong(format!("select 1 to {DELAYED_MAX} events")));
    }
    if let Some(wrong) = ids.iter().find(|id| !is_delayed_id(id)) {
        return Err(ConsoleError::wrong(format!("`{wrong}` is no id of a delayed event")));
    }
    let by = session.by();
    tracing::info!(
        by,
        cancels,
        events = ids.len(),
        reason,
        "a viewer of the console acts on delayed events"
    );
    let verb = if cancels { "cancel" } else { "now" };
    let words = ["delayed", verb]
        .into_iter()
        .chain(ids.iter().map(String::as_str))
        .chain(["--yes"]);
    let words: Vec<&str> = words.collect();
    let order = match cancels {
        true => DelayedOrder::Cancel { by, reason },
        false => DelayedOrder::Now,
    };
    let same = command(&words, &[("--reason", order.reason())]);
    let what = delayed_events::told(&ids);
    let handlers = delayed_events::handlers(&ids);
    let intent = intent(order.action(), &handlers, what, order.reason(), Some(same));
    let connection = session.connection().await?;
    let act = delayed_events::act(&connection, &ids, &order);
    let told = |acted: &DelayedActed| acted.recorded(&order);
    Ok(actor(session, &connection).acts(intent, act, told).await?)
}

fn max(plan: &Plan, record: &AttemptRecord) -> Option<u32> {
    let handler = plan.handlers.iter().find(|handler| handler.name == record.handler)?;
    Some(handler.retry.max_attempts)
}

pub async fn others(session: &ViewerSession) -> Result<Value, ConsoleError> {
    let (connection, plan) = (session.connection().await?, &session.plan);
    let pauses = pauses::load(&connection, now_ms()).await?;
    let (schedules, unread) = schedule::all(&connection, plan).await?;
    let (waiting, due) = delayed::waiting(&connection).await?;
    let oldest = match due {
        0 => None,
        _ => delayed::oldest_due(&connection).await?.map(rfc3339),
    };
    let handlers: Vec<&str> = plan.handlers.iter().map(|handler| handler.name.as_str()).collect();
    Ok(json!({
        "handlers": handlers, "paused": pauses, "schedules": schedules, "unread": unread,
        "delayed": { "waiting": waiting, "due": due, "oldest_due": oldest },
    }))
}

/// Events between two attempts that are meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryingOrdered {
    ids: Vec<String>,
    reason: Option<String>,
}

pub async fn act(
    session: &ViewerSession,
    order: RetryingOrdered,
    gives_up: bool,
) -> Result<RetryingActed, ConsoleError> {
    if order.ids.is_empty() || order.ids.len() > RETRYING_MAX {
        return Err(ConsoleError::wrong(format!("select 1 to {RETRYING_MAX} events")));
    }
    if let Some(wrong) = order.ids.iter().find(|id| !is_id(id)) {
        return Err(ConsoleError::wrong(format!(
            "`{wrong}` is not HANDLER.INCARNATION.SEQUENCE"
        )));
    }
    let (connection, plan) = (session.connection().await?, &session.plan);
    let ids = RetryingChoice::Ids(order.ids.clone());
    let chosen = retrying::choose(&connection, plan, &ids).await?;
    let by = session.by();
    tracing::info!(
        by,
        gives_up,
        events = chosen.events.len(),
        reason = order.reason,
        "a viewer of the console acts on retrying events"
    );
    let verb = if gives_up { "give-up" } else { "now" };
    let ids = order.ids.iter().map(String::as_str);
    let words: Vec<&str> = ["retrying", verb].into_iter().chain(ids).chain(["--yes"]).collect();
    let order = match gives_up {
        true => RetryingOrder::GiveUp {
            by,
            reason: order.reason,
        },
        false => RetryingOrder::Now,
    };
    let same = command(&words, &[("--reason", order.reason())]);
    let intent = intent(
        order.action(),
        &chosen.handlers(),
        chosen.told(),
        order.reason(),
        Some(same),
    );
    let act = retrying::act(&connection, plan, chosen, &order);
    let told = |acted: &RetryingActed| acted.recorded(&order);
    Ok(actor(session, &connection).acts(intent, act, told).await?)
}

/// A pause that a viewer wants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseOrdered {
    handler: String,
    reason: Option<String>,
    /// Such as `90m`; null: until it is resumed.
    lasts: Option<String>,
}

pub async fn pause(session: &ViewerSession, order: PauseOrdered) -> Result<Vec<Paused>, ConsoleError> {
    let handler = of_plan(&session.plan, &order.handler)?;
    let lasts = order.lasts.as_deref().map(pause::lasting).transpose();
    let same = command(
        &["pause", &handler.name],
        &[("--reason", order.reason.as_deref()), ("--for", order.lasts.as_deref())],
    );
    let order = PauseOrder {
        by: session.by(),
        reason: order.reason,
        lasts: lasts.map_err(|why| ConsoleError::wrong(format!("how long: {why}")))?,
    };
    let connection = session.connection().await?;
    there(&connection).await?;
    tracing::info!(
        by = order.by,
        handler = handler.name,
        reason = order.reason,
        "a viewer of the console pauses a handler"
    );
    let name = handler.name.as_str();
    let intent = intent(AuditAction::Pause, &[name], name, order.reason.as_deref(), Some(same));
    let handlers = [handler];
    let act = pause::pause(&connection, &session.plan, &handlers, &order);
    let told = |all: &Vec<Paused>| pause::recorded_paused(all);
    Ok(actor(session, &connection).acts(intent, act, told).await?)
}

/// A handler that a viewer wants resumed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeOrdered {
    handler: String,
}

pub async fn resume(session: &ViewerSession, order: ResumeOrdered) -> Result<Vec<Resumed>, ConsoleError> {
    let handler = of_plan(&session.plan, &order.handler)?;
    let connection = session.connection().await?;
    there(&connection).await?;
    tracing::info!(
        by = session.by(),
        handler = handler.name,
        "a viewer of the console resumes a handler"
    );
    let name = handler.name.as_str();
    let same = command(&["resume", name], &[]);
    let intent = intent(AuditAction::Resume, &[name], name, None, Some(same));
    let handlers = [handler];
    let act = pause::resume(&connection, &session.plan, &handlers);
    let told = |all: &Vec<Resumed>| pause::recorded_resumed(all);
    Ok(actor(session, &connection).acts(intent, act, told).await?)
}

fn of_plan<'a>(plan: &'a Plan, name: &str) -> Result<&'a Handler, ConsoleError> {
    let found = plan.handlers.iter().find(|handler| handler.name == name);
    found.ok_or_else(|| ConsoleError::missing(format!("the configuration has no handler {name}")))
}

async fn there(connection: &crate::broker::Connection) -> Result<(), ConsoleError> {
    match connection.stream(&kv_stream(MESH_BUCKET)).await? {
        Some(_) => Ok(()),
        None => Err(ConsoleError::missing(format!(
            "there is no bucket {MESH_BUCKET}, in which pauses are stored: no host of this mesh has run here"
        ))),
    }
}

/// A step of a schedule that a viewer wants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleOrdered {
    schedule: String,
}

#[derive(Debug, Clone, Copy)]
pub enum ScheduleAct {
    Pause,
    Resume,
    Run,
}

impl ScheduleAct {
    /// What it is recorded as, and the word of its command.
    fn action(self) -> (AuditAction, &'static str) {
        match self {
            ScheduleAct::Pause => (AuditAction::SchedulePause, "pause"),
            ScheduleAct::Resume => (AuditAction::ScheduleResume, "resume"),
            ScheduleAct::Run => (AuditAction::ScheduleRun, "run"),
        }
    }
}

/// Returns what has become of it, in words.
pub async fn step(session: &ViewerSession, order: ScheduleOrdered, act: ScheduleAct) -> Result<Value, ConsoleError> {
    let name = &order.schedule;
    tracing::info!(
        by = session.by(),
        schedule = name,
        ?act,
        "a viewer of the console acts on a schedule"
    );
    let due = now_ms() / 1000 * 1000;
    let taken = stepped(&session.plan, name, |state, by| match act {
        ScheduleAct::Pause => state.pause(by),
        ScheduleAct::Resume => state.resume(by.at),
        ScheduleAct::Run => Some(state.extra(&[due], by.at)),
    });
    let (action, verb) = act.action();
    let same = command(&["schedule", verb, name], &[]);
    let intent = intent(action, &[name], name, None, Some(same));
    let connection = session.connection().await?;
    let actor = actor(session, &connection);
    let taken = actor.acts(intent, taken, |taken| recorded(taken.as_ref())).await?;
    let told = match taken {
        None => {
            return Err(ConsoleError::missing(format!(
                "schedule {name} is not armed: a host arms it when it starts"
            )));
        }
        Some(Stepped::Nothing) => format!("schedule {name} is so already"),
        Some(Stepped::Taken(step)) => match (act, step.events.first()) {
            (ScheduleAct::Run, Some(event)) => format!("emitted {}", event.id),
            (ScheduleAct::Pause, _) => format!("schedule {name} is paused"),
            (ScheduleAct::Resume | ScheduleAct::Run, _) => format!("schedule {name} is resumed"),
        },
    };
    Ok(json!({ "told": told }))
}

impl From<ScheduleError> for ConsoleError {
    fn from(error: ScheduleError) -> ConsoleError {
        match error {
            ScheduleError::Broker(error) => error.into(),
            other => ConsoleError::new(hyper::StatusCode::BAD_GATEWAY, other.to_string()),
        }
    }
}
