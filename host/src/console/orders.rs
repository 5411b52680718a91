//! What a page can order. Each order is a function of the commands, over the viewer's connection, and is logged with the viewer's name.

use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::Console;
use super::audit::{actor, intent};
use super::conditions::LetterSelection;
use super::exports;
use super::people;
use super::registry;
use super::rehearsal_order::RehearsalOrder;
use super::rehearsals;
use super::runs::{self, ReplayOrder};
use super::session::ViewerSession;
use super::site::{body, json as answer};
use super::trouble::ConsoleError;
use super::waiting::{self, ScheduleAct};
use crate::broker::Error;
use crate::dlq::condition::pattern;
use crate::dlq::discard::{Discarded, discard};
use crate::dlq::meant;
use crate::event::header_map;
use crate::http::Answer;
use crate::mesh_streams::audit::{AuditAction, AuditEnd};
use crate::text::shell::quoted;

pub async fn obey(
    console: &Console,
    session: Arc<ViewerSession>,
    call: &str,
    request: Request<Incoming>,
) -> Result<Answer, ConsoleError> {
    match call {
        "replay-plan" => answer(&runs::plan(&session, &body::<ReplayOrder>(request).await?).await?),
        "replay" => {
            let order: ReplayOrder = body(request).await?;
            let run = runs::begin(&console.runs, session, order).await?;
            answer(&json!({ "run": run }))
        }
        "replay-stop" => {
            let order: StopOrder = body(request).await?;
            let connection = session.connection().await?;
            let intent = intent(
                AuditAction::ReplayStop,
                &[],
                format!("replay {}", order.run),
                None,
                None,
            );
            let act = async { console.runs.stop(&order.run) };
            let actor = actor(&session, &connection);
            actor.acts(intent, act, |()| AuditEnd::done(&[])).await?;
            tracing::info!(
                by = session.who,
                run = order.run,
                "a viewer of the console has stopped a replay"
            );
            answer(&json!({}))
        }
        "discard-plan" => {
            let order: DiscardOrder = body(request).await?;
            answer(&json!({ "command": order.command() }))
        }
        "discard" => answer(&discarded(&session, &body::<DiscardOrder>(request).await?).await?),
        "export-plan" => answer(&exports::plan(&body(request).await?)),
        "export" => answer(&exports::order(&session, body(request).await?).await?),
        "rehearse-plan" => answer(&json!({ "command": body::<RehearsalOrder>(request).await?.command() })),
        "rehearse" => rehearsals::begin(console, session, request).await,
        "note" => answer(&people::note(&session, body(request).await?).await?),
        "edit" => answer(&people::correct(&session, body(request).await?).await?),
        "retry-now" => answer(&waiting::act(&session, body(request).await?, false).await?),
        "give-up" => answer(&waiting::act(&session, body(request).await?, true).await?),
        "delayed-now" => answer(&waiting::act_on_delayed(&session, body(request).await?, false).await?),
        "delayed-cancel" => answer(&waiting::act_on_delayed(&session, body(request).await?, true).await?),
        "pause" => answer(&waiting::pause(&session, body(request).await?).await?),
        "resume" => answer(&waiting::resume(&session, body(request).await?).await?),
        "modules-promote" | "modules-rollback" | "modules-hold" | "modules-resume" => {
            answer(&registry::change(&session, call, body(request).await?).await?)
        }
        "schedule-pause" => answer(&waiting::step(&session, body(request).await?, ScheduleAct::Pause).await?),
        "schedule-resume" => answer(&waiting::step(&session, body(request).await?, ScheduleAct::Resume).await?),
        "schedule-run" => answer(&waiting::step(&session, body(request).await?, ScheduleAct::Run).await?),
        "publish" if console.publishes() => answer(&published(&session, body(request).await?).await?),
        _ => Err(ConsoleError::missing(format!("there is no order {call}"))),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StopOrder {
    run: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiscardOrder {
    selection: LetterSelection,
    reason: Option<String>,
}

impl DiscardOrder {
    fn command(&self) -> String {
        let reason = self
            .reason
            .as_ref()
            .map(|reason| format!("--reason {}", quoted(reason)));
        let more: Vec<String> = reason.into_iter().chain(["--yes".to_owned()]).collect();
        self.selection.command("discard", &more)
    }
}

async fn discarded(session: &ViewerSession, order: &DiscardOrder) -> Result<Discarded, ConsoleError> {
    let connection = session.connection().await?;
    let selected = order.selection.selected()?;
    let found = meant::bare(&connection, &selected).await?;
    let reason = match &order.reason {
        Some(reason) => format!("{reason} (by {})", session.who),
        None => format!("by {}", session.who),
    };
    let mut missing = found.unknown;
    missing.extend(found.resolved.into_iter().map(|(id, _)| id));
    let act = async {
        let ended = session.ended.wait();
        let (mut done, failed) = discard(&connection, &found.letters, Some(&reason), ended).await;
        done.missing = missing;
        Ok::<_, ConsoleError>((done, failed))
    };
    let handlers = meant::handlers(&found.letters);
    let (why, command) = (order.reason.as_deref(), Some(order.command()));
    let intent = intent(AuditAction::DlqDiscard, &handlers, selected.told(), why, command);
    let told = |(done, failed): &(Discarded, Option<Error>)| done.recorded(failed.as_ref());
    let (done, failed) = actor(session, &connection).acts(intent, act, told).await?;
    tracing::info!(
        by = session.who,
        what = selected.told(),
        reason = order.reason,
        discarded = done.discarded,
        "a viewer of the console has discarded dead letters"
    );
    match failed {
        Some(error) if done.discarded == 0 => Err(error.into()),
        _ => Ok(done),
    }
}

/// An event to try things out with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventOrdered {
    subject: String,
    payload: String,
}

async fn published(session: &ViewerSession, event: EventOrdered) -> Result<serde_json::Value, ConsoleError> {
    let wrong = |why: &str| ConsoleError::wrong(format!("subject: {why}"));
    let subject = pattern(&event.subject).map_err(|why| wrong(&why))?;
    if subject.contains(['*', '>']) || subject.starts_with('$') {
        return Err(wrong(
            "an event has one without wildcards, and none of NATS or of the mesh",
        ));
    }
    let none = header_map(&Vec::new()).unwrap_or_default();
    let connection = session.connection().await?;
    let stored = connection.publish(&subject, none, event.payload.into()).await?;
    Ok(json!({ "sequence": stored.seq }))
}
