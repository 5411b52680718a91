//! The mesh as a whole: how it stands, and what it is made of.

use serde::Serialize;
use serde_json::{Value, json};

use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::plan::Plan;
use crate::report::status::{Remarks, dead_letters, look_with};

/// As `jetmesh status --json` prints it, but for what the hosts report word for word, which the page has by the second, and for what
/// takes long with many dead letters: that is asked for by itself.
pub async fn status(session: &ViewerSession) -> Result<Value, ConsoleError> {
    let connection = session.connection().await?;
    let status = look_with(&connection, &session.plan, None, Remarks::default()).await;
    let mut status = json!(status);
    let handlers = status["handlers"].as_array_mut();
    for handler in handlers.into_iter().flatten().filter_map(Value::as_object_mut) {
        handler.remove("dead");
    }
    if let Some(status) = status.as_object_mut() {
        status.remove("redrives");
        status.remove("hosts");
    }
    Ok(status)
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
