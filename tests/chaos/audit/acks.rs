//! What the server was told of events.

use std::collections::BTreeMap;

use super::Audit;
use crate::found::Held;
use crate::orders::{HANDLERS, PLAIN};
use crate::world::Look;

impl Audit<'_> {
    /// Nothing was acked before it was decided, and in the end everything is.
    pub(super) fn acks(&mut self, held: &Held) {
        let decided_by: Vec<_> = (0..HANDLERS.len()).map(|handler| self.decided_by(handler)).collect();
        for look in self.known.looks {
            let Look {
                handler,
                acked,
                entries,
            } = *look;
            let name = HANDLERS[handler].0;
            let below = decided_by[handler].range(..=acked).next_back();
            if below.is_none_or(|(_, entry)| *entry <= entries) {
                continue;
            }
            let late = |event: &&u64| {
                let decided = self.decided.get(&(handler, **event));
                decided.is_none_or(|decided| decided.entry > entries)
            };
            let open = self.published.keys().find(late).copied().unwrap_or(0);
            let given_up = held.given_up.get(name);
            if !given_up.is_some_and(|given_up| given_up.contains(&open)) {
                self.wrong(format!(
                    "{name}: {acked} was acked, and {open} was not decided by entry {entries}"
                ));
            }
        }
        let last = self.published.keys().max().copied().unwrap_or(0);
        let plain = self.known.plain.then_some(PLAIN);
        for name in HANDLERS.map(|(name, _)| name).into_iter().chain(plain) {
            let info = &held.consumers[name];
            let acked = &info["ack_floor"]["stream_seq"];
            let waits = (&info["num_pending"], &info["num_ack_pending"]);
            if *acked != last || *waits.0 != 0 || *waits.1 != 0 {
                let (pending, unacked) = waits;
                self.wrong(format!(
                    "{name}: acked up to {acked} of {last}, {pending} not delivered, {unacked} not acked"
                ));
            }
        }
    }

    /// By event, the entry by which it and all before it were decided; those that are not: never.
    fn decided_by(&self, handler: usize) -> BTreeMap<u64, u64> {
        let mut by = 0;
        let events = self.published.keys().map(|event| {
            let decided = self.decided.get(&(handler, *event));
            by = by.max(decided.map_or(u64::MAX, |decided| decided.entry));
            (*event, by)
        });
        events.collect()
    }
}
