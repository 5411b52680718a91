//! The points at which something happens to a host.

use std::fmt;

use crate::rows::Source;
use crate::support::postgres;

/// A failpoint of the host (`host/src/failpoint/mod.rs`).
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub name: &'static str,
    /// At which pass at most it is hit.
    pub passes: u32,
    pub work: Work,
}

/// What a round has, so that its point is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Orders. Each round has them.
    Orders,
    /// Their consequences, which a relay publishes.
    Relay,
    /// A schedule that is due each second.
    Schedule,
    /// A redrive that looks each second.
    Redrive,
    /// Timers that handlers set and cancel.
    Timers,
    /// A version of a module that takes over step by step.
    Rollout,
    /// A service with an outbox.
    Outbox(Database),
}

/// The database of a service, and what of it an outbox reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres(Source),
}

impl Work {
    /// Whether this machine has what it needs.
    pub fn is_possible(self) -> bool {
        !matches!(self, Work::Outbox(Database::Postgres(_))) || postgres::is_there()
    }
}

const SQLITE: Work = Work::Outbox(Database::Sqlite);
const TABLE: Work = Work::Outbox(Database::Postgres(Source::Table));
const LOG: Work = Work::Outbox(Database::Postgres(Source::Log));

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match self.work {
            Work::Outbox(Database::Sqlite) => f.write_str(" of a SQLite"),
            Work::Outbox(Database::Postgres(Source::Table)) => f.write_str(" of a table of PostgreSQL"),
            Work::Outbox(Database::Postgres(Source::Log)) => f.write_str(" of the log of PostgreSQL"),
            _ => Ok(()),
        }
    }
}

const fn point(name: &'static str, passes: u32, work: Work) -> Point {
    Point { name, passes, work }
}

/// Some are passed once per event, some once per append, some only when an event fails.
pub const POINTS: [Point; 42] = [
    point("after-pull", 40, Work::Orders),
    point("attempt-written", 3, Work::Orders),
    point("before-run", 40, Work::Orders),
    point("mid-run", 40, Work::Orders),
    point("after-run", 40, Work::Orders),
    point("joined", 40, Work::Orders),
    point("batch-half-sent", 30, Work::Orders),
    point("commit-sent", 5, Work::Orders),
    point("commit-confirmed", 5, Work::Orders),
    point("floor-written", 1, Work::Orders),
    point("death-decided", 3, Work::Orders),
    point("before-ack", 30, Work::Orders),
    point("ack-sent", 30, Work::Orders),
    point("relay-published", 20, Work::Relay),
    point("relay-confirmed", 20, Work::Relay),
    point("relay-acked", 3, Work::Relay),
    point("before-letter", 3, Work::Relay),
    point("letter-stored", 3, Work::Relay),
    point("advisory-acked", 2, Work::Orders),
    point("schedule-due", 1, Work::Schedule),
    point("schedule-fired", 1, Work::Schedule),
    point("redrive-begun", 2, Work::Redrive),
    point("replays-asked", 2, Work::Redrive),
    point("before-history", 8, Work::Redrive),
    point("redrive-over", 2, Work::Redrive),
    point("timer-due", 12, Work::Timers),
    point("timer-fired", 12, Work::Timers),
    point("canary-run", 8, Work::Rollout),
    point("canary-failed", 2, Work::Rollout),
    point("rollout-end", 1, Work::Rollout),
    point("outbox-before", 20, SQLITE),
    point("outbox-stored", 20, SQLITE),
    point("outbox-lettered", 3, SQLITE),
    point("outbox-confirmed", 20, SQLITE),
    point("outbox-before", 20, TABLE),
    point("outbox-stored", 20, TABLE),
    point("outbox-lettered", 3, TABLE),
    point("outbox-confirmed", 20, TABLE),
    point("outbox-before", 20, LOG),
    point("outbox-stored", 20, LOG),
    point("outbox-lettered", 3, LOG),
    point("outbox-confirmed", 20, LOG),
];
