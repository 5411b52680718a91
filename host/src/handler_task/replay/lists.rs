//! The lists of dead letters that a handler replays at a time.

use std::collections::{HashMap, HashSet};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;

use crate::event::EventId;

/// Letters of lists that each handler works on at a time: they wait for their commits, which the fewer a second cost the
/// less.
const LETTERS_IN_FLIGHT: usize = 2048;

/// How many lists are remembered with their settled letters, for when they are delivered again; of other lists each letter is
/// looked at again.
const KNOWN_MAX: usize = 1_000;

/// The lists that a lane works on.
pub struct Lists {
    pub(super) room: Semaphore,
    /// By the list's own name: those of its letters that are settled.
    settled: Mutex<HashMap<String, HashSet<EventId>>>,
    /// Held while a round of its redrive runs here.
    pub(super) redrive: Semaphore,
}

impl Default for Lists {
    fn default() -> Lists {
        Lists {
            room: Semaphore::new(LETTERS_IN_FLIGHT),
            settled: Mutex::default(),
            redrive: Semaphore::new(1),
        }
    }
}

impl Lists {
    pub(super) fn settled(&self) -> MutexGuard<'_, HashMap<String, HashSet<EventId>>> {
        self.settled.lock()
    }

    pub(super) fn remember(&self, list: &str, settled: HashSet<EventId>) {
        let mut known = self.settled();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.entry(list.to_owned()).or_default().extend(settled);
    }
}
