//! What a host tells of its outboxes.

use schemars::JsonSchema;
use serde::Serialize;

use crate::event::rfc3339;
use crate::outbox::OutboxState;

#[derive(Debug, Serialize, JsonSchema)]
pub struct OutboxStats<'a> {
    outbox: &'a str,
    /// `standby`: another host publishes. `retrying`: something keeps it, and the host tries again. `stopped`: a person must act.
    #[schemars(extend("enum" = ["starting", "publishing", "standby", "paused", "retrying", "stopped"]))]
    state: &'static str,
    #[schemars(extend("format" = "date-time"))]
    since: String,
    /// Why it does not publish.
    why: Option<String>,
    /// Rows in the table, 100001 for more than 100000; of a log, those that this host has read. null: not known.
    waiting: Option<u64>,
    /// When the oldest of them was written.
    #[schemars(extend("format" = "date-time"))]
    oldest: Option<String>,
    /// Bytes of its log that PostgreSQL keeps for the outbox; null: the outbox is not of a log.
    wal_bytes: Option<u64>,
    /// Bytes of this log that are not settled.
    lag_bytes: Option<u64>,
    /// Rows that this host has published since it began.
    published: u64,
    /// Rows that this host has made dead letters since it began.
    dead: u64,
    /// What it found when the database or the stream was an older copy; null: neither was.
    restored: Option<String>,
}

impl<'a> OutboxStats<'a> {
    pub fn of(outbox: &'a OutboxState) -> OutboxStats<'a> {
        let now = outbox.snapshot();
        OutboxStats {
            outbox: &outbox.name,
            state: now.standing.word(),
            since: rfc3339(now.since_ms),
            why: now.why,
            waiting: now.backlog.and_then(|backlog| backlog.rows),
            wal_bytes: now.backlog.and_then(|backlog| backlog.log).map(|log| log.held),
            lag_bytes: now.backlog.and_then(|backlog| backlog.log).map(|log| log.behind),
            oldest: now.backlog.and_then(|backlog| backlog.oldest_ms).map(rfc3339),
            published: now.published,
            dead: now.dead,
            restored: now.restored,
        }
    }
}
