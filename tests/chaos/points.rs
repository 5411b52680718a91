//! The points at which something happens to a host.

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
    /// An outbox of a SQLite.
    Outbox,
}

const fn point(name: &'static str, passes: u32, work: Work) -> Point {
    Point { name, passes, work }
}

/// Some are passed once per event, some once per append, some only when an event fails.
pub const POINTS: [Point; 31] = [
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
    point("outbox-before", 20, Work::Outbox),
    point("outbox-stored", 20, Work::Outbox),
    point("outbox-lettered", 3, Work::Outbox),
    point("outbox-confirmed", 20, Work::Outbox),
];
