//! An event between two attempts.

use std::collections::BinaryHeap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::event::parse_rfc3339;
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

/// Of many records those that are due next.
#[derive(Debug)]
pub struct NextDue {
    /// At most so many; 0: all.
    limit: usize,
    heap: BinaryHeap<DueRecord>,
    /// How many there were.
    pub count: u64,
}

impl NextDue {
    pub fn new(limit: usize) -> NextDue {
        NextDue {
            limit,
            heap: BinaryHeap::new(),
            count: 0,
        }
    }

    pub fn add(&mut self, record: AttemptRecord) {
        self.count += 1;
        let due = record.next.as_deref().and_then(parse_rfc3339).unwrap_or(0);
        let count = self.count;
        self.heap.push(DueRecord { due, count, record });
        if self.limit > 0 && self.heap.len() > self.limit {
            // The last due goes.
            self.heap.pop();
        }
    }

    /// Those that are due first, first.
    pub fn sorted(self) -> Vec<AttemptRecord> {
        let sorted = self.heap.into_sorted_vec();
        sorted.into_iter().map(|one| one.record).collect()
    }
}

/// A record in the order of what is due: those that run first.
#[derive(Debug)]
struct DueRecord {
    due: u64,
    /// In the order of the bucket.
    count: u64,
    record: AttemptRecord,
}

impl DueRecord {
    fn key(&self) -> (u64, u64) {
        (self.due, self.count)
    }
}

impl PartialEq for DueRecord {
    fn eq(&self, other: &DueRecord) -> bool {
        self.key() == other.key()
    }
}

impl Eq for DueRecord {}

impl PartialOrd for DueRecord {
    fn partial_cmp(&self, other: &DueRecord) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DueRecord {
    fn cmp(&self, other: &DueRecord) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}
