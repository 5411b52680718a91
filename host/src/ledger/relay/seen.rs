//! What a relay must not take for unpublished.

use std::collections::{HashMap, HashSet};

/// What a relay that begins must not take for unpublished.
#[derive(Default)]
pub struct Look {
    /// Consequences up to this sequence may have been published before.
    pub until: u64,
    /// When the oldest of them was stored.
    pub(super) from_ms: u64,
    /// What follows from any entry may be there, not only from those that are not confirmed.
    pub(super) by_any_entry: bool,
    /// By subject, the ids of the events that are in the target since then.
    pub(super) seen: HashMap<String, HashSet<String>>,
}

impl Look {
    /// What was seen there is no longer all that may be there.
    pub fn forget(&mut self, subject: &str) {
        self.seen.remove(subject);
    }

    pub fn saw(&mut self, subject: String, ids: HashSet<String>) {
        self.seen.insert(subject, ids);
    }
}
