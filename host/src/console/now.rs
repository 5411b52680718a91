//! The mesh as a whole: how it stands, and what it is made of.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Console;
use super::runs::line;
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::http::Answer;
use crate::plan::Plan;
use crate::report::status::json::HandlerStatus;
use crate::report::status::{Remarks, dead_letters, look_with};

/// How often handlers are told that are known meanwhile.
const TOLD_EVERY: Duration = Duration::from_millis(300);

/// As `jetmesh status --json` prints it, but for what the hosts report word for word, which the page has by the second, and for what
/// takes long with many dead letters: that is asked for by itself. A JSON text a line: handlers as they are known, and in the end all.
pub async fn status(console: &Console, session: &ViewerSession) -> Result<Answer, ConsoleError> {
    let connection = session.connection().await?;
    let plan = Arc::clone(&session.plan);
    Ok(console.runs.lines(async move |tell| {
        let (some, mut come) = mpsc::unbounded_channel();
        let told = move |handler: &HandlerStatus| {
            // The receiver waits beside.
            let _ = some.send(without_dead(json!(handler)));
        };
        let looked = look_with(&connection, &plan, (None, Remarks::default()), told);
        tokio::pin!(looked);
        let mut ticks = tokio::time::interval(TOLD_EVERY);
        let status = loop {
            tokio::select! {
                status = &mut looked => break status,
                _ = ticks.tick() => {
                    let known: Vec<Value> = std::iter::from_fn(|| come.try_recv().ok()).collect();
                    if !known.is_empty() && tell.send(line(&json!({ "handlers": known }))).await.is_err() {
                        return;
                    }
                }
            }
        };
        let mut status = json!(status);
        for handler in status["handlers"].as_array_mut().into_iter().flatten() {
            *handler = without_dead(handler.take());
        }
        if let Some(status) = status.as_object_mut() {
            status.remove("redrives");
            status.remove("hosts");
        }
        let _ = tell.send(line(&json!({ "status": status }))).await;
    }))
}

fn without_dead(mut handler: Value) -> Value {
    if let Some(handler) = handler.as_object_mut() {
        handler.remove("dead");
    }
    handler
}

/// How many dead letters each handler has, and what is to be warned of about them.
pub async fn dead(session: &ViewerSession) -> Result<Value, ConsoleError> {
    let connection = session.connection().await?;
    let mut remarks = Remarks::default();
    let dead = dead_letters(&connection, &session.plan, &mut remarks).await;
    let counts = dead.map(|(counts, _)| counts);
    Ok(json!({ "dead": counts, "unknown": remarks.unknown, "warnings": remarks.warnings }))
}

/// What flows where, by the configuration.
#[derive(Debug, Serialize)]
pub struct Picture<'a> {
    mesh: &'a str,
    streams: Vec<PictureStream<'a>>,
    handlers: Vec<PictureHandler<'a>>,
    schedules: Vec<PictureSource<'a>>,
    outboxes: Vec<PictureSource<'a>>,
}

#[derive(Debug, Serialize)]
struct PictureStream<'a> {
    stream: &'a str,
    subjects: &'a [String],
}

#[derive(Debug, Serialize)]
struct PictureHandler<'a> {
    handler: &'a str,
    stream: &'a str,
    /// What it reads of its stream.
    subjects: &'a [String],
    /// What it may emit.
    publish: &'a [String],
    ledger: Option<&'a str>,
    /// The bucket of its state.
    bucket: Option<&'a str>,
}

/// What events come from, besides handlers.
#[derive(Debug, Serialize)]
struct PictureSource<'a> {
    name: &'a str,
    /// The subject that it publishes on, or the stream.
    to: &'a str,
}

pub fn picture(plan: &Plan) -> Picture<'_> {
    let streams = plan.streams.iter().map(|stream| PictureStream {
        stream: &stream.name,
        subjects: &stream.subjects,
    });
    let handlers = plan.handlers.iter().map(|handler| PictureHandler {
        handler: &handler.name,
        stream: &handler.stream,
        subjects: &handler.subjects,
        publish: &handler.publish,
        ledger: handler.ledger.as_deref(),
        bucket: handler.bucket.as_deref(),
    });
    let schedules = plan.schedules.iter().flatten().map(|schedule| PictureSource {
        name: &schedule.name,
        to: &schedule.subject,
    });
    let outboxes = plan.outboxes.iter().map(|outbox| PictureSource {
        name: &outbox.name,
        to: &outbox.stream,
    });
    Picture {
        mesh: &plan.mesh,
        streams: streams.collect(),
        handlers: handlers.collect(),
        schedules: schedules.collect(),
        outboxes: outboxes.collect(),
    }
}
