//! How far the rollout of a handler's module is, as far as this host has read the ledger.

use super::bucket::Bucket;
use crate::ledger::core::rollout::{RolloutEnd, RolloutState};

impl Bucket {
    /// The last rollout of a handler that was counted.
    pub fn rollout(&self, handler: &str) -> Option<RolloutState> {
        self.book().head.rollouts.get(handler).cloned()
    }

    /// The step of a rollout, from 0, and how it has ended if it has. `None`: the ledger counts a later one.
    pub fn rollout_step(&self, handler: &str, number: u64) -> Option<(usize, Option<RolloutEnd>)> {
        let book = self.book();
        let Some(known) = book
            .head
            .rollouts
            .get(handler)
            .filter(|known| known.spec.number >= number)
        else {
            return Some((0, None));
        };
        (known.spec.number == number).then(|| (known.step(), known.verdict.as_ref().map(|verdict| verdict.end)))
    }
}
