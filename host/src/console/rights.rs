//! Which orders the viewer's user of NATS may not give, so that the page says it before.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::query::Query;
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::broker::Connection;
use crate::broker::provision::{ATTEMPTS, MESH_BUCKET, MODULES};
use crate::config::is_name;
use crate::dlq::condition;
use crate::fit::may_publish;
use crate::mesh_streams::audit::AuditAction;
use crate::mesh_streams::delayed::{FIRED, WAITS};
use crate::plan::Plan;

/// The order to rehearse on a module that the viewer gives.
pub const UPLOAD: &str = "rehearse-upload";

/// An order of the page, and the subjects that it publishes to.
type OrderNeeds = (&'static str, Vec<String>);

/// By order: the first subject that the user may not publish to; null: none is known. Those on a handler or a schedule, if one is
/// named. Each is tried with a message that the server refuses for another reason, so nothing is changed.
pub async fn missing(
    session: &ViewerSession,
    query: &Query,
) -> Result<BTreeMap<&'static str, Option<String>>, ConsoleError> {
    let named = |name: &str| {
        let checked = query.get(name).map(condition::handler).transpose();
        checked.map_err(|why| ConsoleError::wrong(format!("{name}: {why}")))
    };
    let needs = match (named("handler")?, named("schedule")?) {
        (Some(handler), _) => on_handler(&session.plan, &handler),
        (None, Some(schedule)) => on_schedule(&schedule),
        (None, None) if query.get("module").is_some() => on_module(query.get("module").unwrap_or_default()),
        (None, None) => vec![("note", vec![key("note.check"), record(AuditAction::DlqNote, "check")])],
    };
    let connection = &session.connection().await?;
    let all = needs
        .into_iter()
        .map(async move |(order, subjects)| (order, first_denied(connection, subjects).await));
    Ok(join_all(all).await.into_iter().collect())
}

/// The subject that an order on a handler needs and the user may not publish to; `None`: none is known.
pub async fn lacks(connection: &Connection, plan: &Plan, order: &str, handler: &str) -> Option<String> {
    let mut needs = on_handler(plan, handler).into_iter();
    let (_, subjects) = needs.find(|(own, _)| *own == order)?;
    first_denied(connection, subjects).await
}

async fn first_denied(connection: &Connection, subjects: Vec<String>) -> Option<String> {
    for subject in subjects {
        if !may_publish(connection, &subject).await {
            return Some(subject);
        }
    }
    None
}

fn on_handler(plan: &Plan, name: &str) -> Vec<OrderNeeds> {
    // Letters of a handler can be there that the configuration has no more.
    let handler = plan.handlers.iter().find(|handler| handler.name == name);
    let (stream, consumer) = handler.map_or(("check", "check"), |handler| (&handler.stream, &handler.consumer));
    let letter = format!("$MESH.dead.{stream}.{name}.check.1");
    let ack = format!("$JS.ACK.{stream}.{consumer}.1.1.1.1.1");
    let record = |action| record(action, name);
    let replay = |action| {
        vec![
            format!("$MESH.replay.{name}.list.check"),
            format!("$MESH.replay.{name}.check.1"),
            record(action),
        ]
    };
    vec![
        ("replay", replay(AuditAction::DlqReplay)),
        // Its code runs here, and with the state of the handler, which it can tell to its viewer.
        (UPLOAD, replay(AuditAction::DlqRehearse)),
        ("discard", vec![letter.clone(), record(AuditAction::DlqDiscard)]),
        (
            "edit",
            vec![format!("{letter}.edit.1"), letter, record(AuditAction::DlqEdit)],
        ),
        ("retry-now", vec![ack.clone(), record(AuditAction::RetryingNow)]),
        (
            "give-up",
            vec![
                format!("$KV.{ATTEMPTS}.{name}.check.1"),
                ack,
                record(AuditAction::RetryingGiveUp),
            ],
        ),
        (
            "delayed-now",
            vec![format!("{WAITS}{name}.check.1.0"), record(AuditAction::DelayedNow)],
        ),
        (
            "delayed-cancel",
            vec![format!("{FIRED}{name}.check.1.0"), record(AuditAction::DelayedCancel)],
        ),
        // Without the right to pause its consumer the hosts hold it all the same.
        ("pause", vec![key("paused"), record(AuditAction::Pause)]),
        ("resume", vec![key("paused"), record(AuditAction::Resume)]),
    ]
}

fn on_schedule(name: &str) -> Vec<OrderNeeds> {
    let step = |action| {
        let ledger = format!("$MESH.state.{MESH_BUCKET}.check");
        vec![key(&format!("schedule.{name}")), ledger, record(action, name)]
    };
    vec![
        ("schedule-pause", step(AuditAction::SchedulePause)),
        ("schedule-resume", step(AuditAction::ScheduleResume)),
        ("schedule-run", step(AuditAction::ScheduleRun)),
    ]
}

fn on_module(name: &str) -> Vec<OrderNeeds> {
    let name = if is_name(name) { name } else { "check" };
    let change = |action| vec![format!("$KV.{MODULES}.serving.{name}"), record(action, name)];
    vec![
        ("modules-promote", change(AuditAction::ModulesPromote)),
        ("modules-rollback", change(AuditAction::ModulesRollback)),
        ("modules-hold", change(AuditAction::ModulesHold)),
        ("modules-resume", change(AuditAction::ModulesResume)),
    ]
}

/// Where a key of the mesh's bucket is.
fn key(name: &str) -> String {
    format!("$KV.{MESH_BUCKET}.{name}")
}

/// Where an action on one thing is recorded.
fn record(action: AuditAction, on: &str) -> String {
    format!("$MESH.audit.{}.{on}.check.begin", action.name())
}
