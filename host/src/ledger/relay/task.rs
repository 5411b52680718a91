//! One consequence that is to be published.

use std::sync::Arc;

use tokio::time::Instant;

use super::blocked::{ConsequencePlace, Waiting};
use super::flight::{Cargo, What};

/// One consequence that is to be published.
pub struct Task {
    pub carried: u64,
    pub place: ConsequencePlace,
    /// The entry that it follows from, and its sequence.
    pub entry: u64,
    pub entry_sequence: u64,
    /// Not fetched before this.
    pub at: Instant,
    /// If it has been tried before.
    pub before: Option<Waiting>,
}

impl Task {
    /// On its way to a target.
    pub(super) fn cargo(self, what: What, subject: String, target: Option<Arc<str>>) -> Cargo {
        Cargo {
            carried: self.carried,
            place: self.place,
            what,
            subject,
            target,
            before: self.before,
            span: None,
        }
    }

    /// Why it becomes a letter, if it does.
    pub(super) fn letter(&self) -> Option<String> {
        self.before.as_ref()?.letter.clone()
    }
}
