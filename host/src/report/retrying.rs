//! An event between two attempts.

use schemars::JsonSchema;
use serde::Serialize;

use crate::mesh_streams::attempts::{Attempt, AttemptRecord, GivenUp};

/// An event between two attempts.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "retrying", description = "As a line of `jetmesh retrying --json`.")]
#[schemars(title = "An event between two attempts, a line of `jetmesh retrying --json`")]
pub struct RetryingJson<'a> {
    /// HANDLER.INCARNATION.SEQUENCE
    id: String,
    handler: &'a str,
    /// INCARNATION.SEQUENCE
    event: &'a str,
    stream: &'a str,
    /// The event's.
    subject: &'a str,
    /// That were begun.
    attempts: u32,
    /// By the configuration; null: the handler is not in it.
    max_attempts: Option<u32>,
    /// When it began.
    #[schemars(extend("format" = "date-time"))]
    first_attempt: &'a str,
    /// The handler is paused: the next attempt waits until it is resumed.
    pub paused: bool,
    /// Who has given it up: it becomes a dead letter; null: it is not given up.
    given_up: Option<&'a GivenUp>,
    /// When the next attempt is due; null: one runs.
    #[schemars(extend("format" = "date-time"))]
    next: Option<&'a str>,
    /// The host that runs it now.
    running_on: Option<&'a str>,
    code: Option<&'a str>,
    /// The last failure's.
    error: Option<&'a str>,
    /// The last few attempts, oldest first.
    history: &'a [Attempt],
}

impl<'a> RetryingJson<'a> {
    /// `max`: how many attempts its handler has; `None`: it is not in the configuration.
    pub fn of(record: &'a AttemptRecord, max: Option<u32>) -> RetryingJson<'a> {
        let (failed, running) = state(record);
        RetryingJson {
            id: format!("{}.{}", record.handler, record.event),
            handler: &record.handler,
            event: &record.event,
            stream: &record.stream,
            subject: &record.subject,
            attempts: record.attempts,
            max_attempts: max,
            first_attempt: &record.first,
            paused: false,
            given_up: record.given_up.as_ref(),
            next: record.next.as_deref(),
            running_on: running,
            code: failed.map(|failure| failure.code.as_str()),
            error: failed.map(|failure| failure.message.as_str()),
            history: &record.history,
        }
    }
}

/// The last attempt that failed, and the host of the one that runs.
pub fn state(record: &AttemptRecord) -> (Option<&Attempt>, Option<&str>) {
    (record.last_ended(), record.running_on())
}
