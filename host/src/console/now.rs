//! The mesh as a whole: how it stands, and what it is made of.

use serde::Serialize;

use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::plan::Plan;
use crate::report::status::json::MeshStatus;
use crate::report::status::look_with;

/// As `jetmesh status --json` prints it, but for what the hosts report word for word: the page has that by the second.
pub async fn status(session: &ViewerSession) -> Result<MeshStatus, ConsoleError> {
    let connection = session.connection().await?;
    let mut status = look_with(&connection, &session.plan).await;
    status.hosts.clear();
    Ok(status)
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
