//! What a relay must not take for unpublished.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What a relay that begins must not take for unpublished.
#[derive(Default)]
pub struct Lookback {
    /// Consequences up to this sequence may have been published before.
    pub until: u64,
    /// When the oldest of them was stored.
    pub(super) from_ms: u64,
    /// What follows from any entry may be there, not only from those that are not confirmed.
    pub(super) by_any_entry: bool,
    /// By subject, the ids of the events that are in the target since then.
    pub(super) subjects: HashMap<String, Arc<HashSet<String>>>,
    /// The same by stream, of those that were read whole: one look serves all of their subjects.
    pub(super) streams: HashMap<String, Arc<HashSet<String>>>,
}

/// The ids of the events that a look has found.
#[derive(Default)]
pub struct Looked {
    pub ids: HashSet<String>,
    /// The stream, if all of its subjects were read: it stores events under other subjects than they are published on.
    pub whole: Option<String>,
}

impl Lookback {
    /// What was seen there is no longer all that may be there.
    pub fn forget(&mut self, subject: &str) {
        self.subjects.remove(subject);
        self.streams.clear();
    }

    pub fn saw(&mut self, subject: String, found: Looked) {
        let ids = Arc::new(found.ids);
        if let Some(stream) = found.whole {
            self.streams.insert(stream, Arc::clone(&ids));
        }
        self.subjects.insert(subject, ids);
    }

    /// What was found for a subject. `None`: it was not looked for. `target`: the stream that captures it, if that is known.
    pub fn ids(&self, subject: &str, target: Option<&str>) -> Option<&HashSet<String>> {
        let by_stream = || self.streams.get(target?);
        self.subjects.get(subject).or_else(by_stream).map(|ids| &**ids)
    }
}
