//! What a handler has done on this host, and whether it takes events.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::broker::Error;
use crate::event::clock::now_ms;
use crate::event::outcome::Cause;

/// What this host has done for a handler since it started.
#[derive(Default)]
pub struct Counters {
    pub done: AtomicU64,
    pub retried: AtomicU64,
    /// Events that died, by [`Cause::ALL`].
    deaths: [AtomicU64; Cause::ALL.len()],
    /// Answered without running: decided before.
    pub repeated: AtomicU64,
    /// Of these: duplicates under another sequence, recognised by their id.
    pub known_by_id: AtomicU64,
    /// Messages that their stream has removed before this handler was given them, as far as it was seen.
    pub removed: AtomicU64,
    /// Events from outside with headers that the mesh has made for another one.
    pub copied: AtomicU64,
    pub conflicts: AtomicU64,
    pub busy_ns: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub fn died(&self, cause: Cause) {
        if let Some(at) = Cause::ALL.iter().position(|one| *one == cause) {
            Counters::add(&self.deaths[at], 1);
        }
    }

    /// How many events died.
    pub fn dead(&self) -> u64 {
        self.deaths().map(|(_, count)| count).sum()
    }

    /// The same by cause.
    pub fn deaths(&self) -> impl Iterator<Item = (Cause, u64)> + '_ {
        let counts = self.deaths.iter().map(|count| count.load(Ordering::Relaxed));
        Cause::ALL.into_iter().zip(counts)
    }

    /// Counts one more. `true`: it is the first.
    pub fn is_first(counter: &AtomicU64) -> bool {
        counter.fetch_add(1, Ordering::Relaxed) == 0
    }
}

/// Whether a handler takes events on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServingState {
    Starting,
    Serving,
    /// It tries again by itself.
    Connecting,
    /// Nothing changes until a person acts.
    Stopped,
}

impl ServingState {
    pub fn word(self) -> &'static str {
        match self {
            ServingState::Starting => "starting",
            ServingState::Serving => "serving",
            ServingState::Connecting => "connecting",
            ServingState::Stopped => "stopped",
        }
    }
}

/// How a handler stands on this host.
#[derive(Debug, Clone)]
pub struct ServingStatus {
    pub state: ServingState,
    /// Why it does not serve.
    pub why: Option<String>,
    pub since_ms: u64,
}

/// The same, as it changes.
pub struct StatusCell(watch::Sender<ServingStatus>);

impl Default for StatusCell {
    fn default() -> StatusCell {
        StatusCell(watch::Sender::new(ServingStatus {
            state: ServingState::Starting,
            why: None,
            since_ms: now_ms(),
        }))
    }
}

impl StatusCell {
    pub fn set(&self, state: ServingState, why: Option<&Error>) {
        self.0.send_modify(|status| {
            if status.state != state {
                (status.state, status.since_ms) = (state, now_ms());
            }
            status.why = why.map(ToString::to_string);
        });
    }

    pub fn get(&self) -> ServingStatus {
        self.0.borrow().clone()
    }

    /// Completes when the first try to serve has ended, well or not.
    pub async fn began(&self) {
        let began = |status: &ServingStatus| !matches!(status.state, ServingState::Starting);
        // The sender is this cell.
        let _ = self.0.subscribe().wait_for(began).await;
    }
}
