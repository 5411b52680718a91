//! The state of a ledger's relay on this host, for output (`micro`, `status`, metrics). The relay writes it; others take
//! snapshots.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::event::clock::now_ms;
use crate::histogram::Histogram;

/// How many blocked targets are reported.
pub const BLOCKED_MAX: usize = 100;

/// The relay of one ledger on this host, as far as it concerns people.
#[derive(Debug)]
pub struct RelayState {
    ledger: String,
    now: Mutex<Snapshot>,
    /// How long consequences took from their commit to their publication, in nanoseconds.
    pub published: Histogram,
    /// Events that this host has made dead letters because their targets refuse them.
    undeliverable: AtomicU64,
}

/// How it stood at a moment. Times are milliseconds since the Unix epoch, by this host's clock unless they say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The server gives the consequences to this host: of all hosts that relay, one is active for a ledger.
    pub active: bool,
    /// Since when it has been active, or has not been.
    pub since_ms: u64,
    /// Consequence messages that are taken up and not confirmed. 0 on hosts that are not active.
    pub unconfirmed: usize,
    /// When the oldest of them was stored, by the server's clock; `None`: none is.
    pub oldest_ms: Option<u64>,
    /// So much waits for blocked targets that it takes up nothing more before something of it is done with.
    pub full: bool,
    /// The last error that broke it off, when that was, and how often in a row; `None`: it works.
    pub error: Option<RelayTrouble>,
    /// Targets that take nothing from it for now; [`BLOCKED_MAX`] at most.
    pub blocked: Vec<BlockedTarget>,
    /// Messages that it has left out because no client can read them, since the host began; `None`: there were none.
    pub left_out: Option<LeftOut>,
    /// Nothing else is under way here but what waits for them.
    pub only_waits: bool,
    /// How often its consumer was deleted and created again since the host began, because the server had left consequences
    /// undelivered.
    pub recreated: u64,
}

/// An error that the relay has begun again after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayTrouble {
    pub why: String,
    /// When it came first.
    pub since_ms: u64,
    /// How often since then.
    pub count: u64,
}

/// Messages among the consequences that no client can read: another client than the mesh has stored them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The newest of them, in the stream of the bucket.
    pub sequence: u64,
    pub why: String,
    pub count: u64,
}

/// A target that takes nothing for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedTarget {
    /// The stream; where no stream captures it, the subject.
    pub target: String,
    pub why: String,
    pub since_ms: u64,
    /// When it refused something last, by the server's clock.
    pub refused_ms: u64,
    /// How many events, letters or delayed events wait for it; 0: whether it takes something shows when something comes.
    pub waiting: usize,
    /// How many events have become dead letters since it takes nothing.
    pub letters: u64,
}

/// For how long a refusal says how a target stands, if nothing else comes for it.
const REFUSAL_COUNTS_MS: u64 = 60_000;

impl Snapshot {
    /// Targets that take nothing: something waits for them, or they have refused something within the last minute. Of the others it is
    /// not known any more.
    pub fn blocked_now(&self, now_ms: u64) -> usize {
        let counts =
            |one: &&BlockedTarget| one.waiting > 0 || now_ms.saturating_sub(one.refused_ms) < REFUSAL_COUNTS_MS;
        self.blocked.iter().filter(counts).count()
    }
}

impl RelayState {
    pub fn new(ledger: &str) -> RelayState {
        let now = Snapshot {
            since_ms: now_ms(),
            ..Snapshot::default()
        };
        RelayState {
            ledger: ledger.to_owned(),
            now: Mutex::new(now),
            published: Histogram::times(),
            undeliverable: AtomicU64::new(0),
        }
    }

    /// The bucket that the ledger is of.
    pub fn ledger(&self) -> &str {
        &self.ledger
    }

    /// An event has become a dead letter because its target refuses it.
    pub fn count_undeliverable(&self) {
        self.undeliverable.fetch_add(1, Ordering::Relaxed);
    }

    pub fn undeliverable(&self) -> u64 {
        self.undeliverable.load(Ordering::Relaxed)
    }

    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// The server gives the consequences to this host, or does not any more.
    pub(super) fn active(&self, active: bool) {
        let mut now = self.lock();
        if now.active != active {
            (now.active, now.since_ms) = (active, now_ms());
        }
        if !active {
            (now.unconfirmed, now.oldest_ms, now.full) = (0, None, false);
            now.only_waits = false;
            now.blocked.clear();
        }
    }

    /// It was broken off, and begins again.
    pub(super) fn broke_off(&self, why: String) {
        self.active(false);
        let mut now = self.lock();
        let (since_ms, count) = now
            .error
            .take()
            .map_or((now_ms(), 0), |last| (last.since_ms, last.count));
        let count = count + 1;
        now.error = Some(RelayTrouble { why, since_ms, count });
    }

    /// What is under way.
    pub(super) fn under_way(&self, (unconfirmed, oldest_ms): (usize, Option<u64>), full: bool, only_waits: bool) {
        let mut now = self.lock();
        (now.unconfirmed, now.oldest_ms, now.full, now.only_waits) = (unconfirmed, oldest_ms, full, only_waits);
    }

    pub(super) fn blocked(&self, blocked: Vec<BlockedTarget>) {
        self.lock().blocked = blocked;
    }

    /// A message of the ledger's stream cannot be read.
    pub(super) fn left_out(&self, sequence: u64, why: String) {
        let mut now = self.lock();
        let count = now.left_out.as_ref().map_or(0, |last| last.count) + 1;
        now.left_out = Some(LeftOut { sequence, why, count });
    }

    /// Its consumer was deleted and created again.
    pub(super) fn recreated(&self) {
        self.lock().recreated += 1;
    }

    /// It works.
    pub(super) fn works(&self) {
        self.lock().error = None;
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.now.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_counted_until_the_relay_works_and_a_relay_that_broke_off_is_not_active() {
        let state = RelayState::new("orders");
        state.active(true);
        assert!(state.snapshot().active);
        state.broke_off("first".to_owned());
        let first = state.snapshot();
        assert!(!first.active);
        state.broke_off("second".to_owned());
        let error = state.snapshot().error.expect("it broke off");
        assert_eq!((error.why.as_str(), error.count), ("second", 2));
        assert_eq!(error.since_ms, first.error.expect("it broke off").since_ms);
        state.works();
        assert_eq!(state.snapshot().error, None);
    }
}
