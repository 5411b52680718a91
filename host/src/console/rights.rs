//! Which orders the viewer's user of NATS may not give, so that the page says it before.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::query::Query;
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::broker::provision::{ATTEMPTS, MESH_BUCKET};
use crate::dlq::condition;
use crate::fit::may_publish;
use crate::mesh_streams::audit::AuditAction;
use crate::mesh_streams::delayed::{FIRED, WAITS};
use crate::plan::Plan;

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
        (None, None) => vec![("note", vec![key("note.check"), record(AuditAction::DlqNote, "check")])],
    };
    let connection = session.connection().await?;
    let all = needs.into_iter().map(|(order, subjects)| {
        let connection = &connection;
        async move {
            for subject in subjects {
                if !may_publish(connection, &subject).await {
                    return (order, Some(subject));
                }
            }
            (order, None)
        }
    });
    Ok(join_all(all).await.into_iter().collect())
}

fn on_handler(plan: &Plan, name: &str) -> Vec<OrderNeeds> {
    // Letters of a handler can be there that the configuration has no more.
    let handler = plan.handlers.iter().find(|handler| handler.name == name);
    let (stream, consumer) = handler.map_or(("check", "check"), |handler| (&handler.stream, &handler.consumer));
    let letter = format!("$MESH.dead.{stream}.{name}.check.1");
    let ack = format!("$JS.ACK.{stream}.{consumer}.1.1.1.1.1");
    let record = |action| record(action, name);
    vec![
        (
            "replay",
            vec![
                format!("$MESH.replay.{name}.list.check"),
                format!("$MESH.replay.{name}.check.1"),
                record(AuditAction::DlqReplay),
            ],
        ),
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

/// Where a key of the mesh's bucket is.
fn key(name: &str) -> String {
    format!("$KV.{MESH_BUCKET}.{name}")
}

/// Where an action on one thing is recorded.
fn record(action: AuditAction, on: &str) -> String {
    format!("$MESH.audit.{}.{on}.check.begin", action.name())
}
