//! A batch as a planted mistake lays it out. Nothing here is in a build that serves. Pure.

use std::sync::Arc;

use super::append::Batch;
use super::record::Expect;
use crate::failpoint::mistake::{Mistake, Planted};

impl Planted {
    /// Leaves out what the planted mistake does not check; without one, the batch stays as it is.
    pub fn spoilt(self, mut batch: Batch) -> Batch {
        let (entry, deaths) = (batch.entry_at, batch.entry.deaths());
        let head = entry + 1;
        let keys = head + 1 + deaths;
        let records = batch.records.len();
        let unchecked = match () {
            () if self.is(Mistake::HeadBlind) => head..head + 1,
            () if self.is(Mistake::HeadAndEntryBlind) => entry..head + 1,
            () if self.is(Mistake::DeathBlind) => head + 1..keys,
            () if self.is(Mistake::KeyBlind) => keys..records,
            () if self.is(Mistake::CarrierBlind) => {
                let kept = Arc::make_mut(&mut batch.records);
                kept.retain(|record| !matches!(record.expect, Expect::LastOf { .. }));
                batch.entry_at -= records - kept.len();
                return batch;
            }
            () => return batch,
        };
        for record in &mut Arc::make_mut(&mut batch.records)[unchecked] {
            record.expect = Expect::Nothing;
        }
        batch
    }
}
