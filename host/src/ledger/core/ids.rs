//! The events of a handler that are known by an id, for a window: which was the first of its id, and where it was
//! decided. Time is the stream's own. Pure.

use std::sync::Arc;

use super::entry::{Floor, Hash, Id};
use super::memory::{First, Memory};
use crate::event::EventId;

/// What an id takes of a host's memory, about, as measured with 1,000,000 and 10,000,000 of them, also while they are read
/// (`opening::what_remembered_ids_cost_a_host_that_starts` measures it; `docs/benchmarks.md`).
pub const ID_BYTES: u64 = 80;
/// Of that, what is kept of it and its place in a table, which is never full.
#[cfg(test)]
const PLACE_BYTES: u64 = 50;
/// What its entry takes on disk, about, if nothing else stands in that entry.
pub const ENTRY_BYTES: u64 = 700;
/// Ids of emitted events are remembered without being configured, so their number is limited: the newest are kept.
const EMITTED_MAX: usize = 1_000_000;

/// When the floor comes past many at once, the others are forgotten at its next steps: a millisecond's worth, and more than one
/// entry adds. Until then they say nothing: the messages of undecided events are not within their window.
const FORGOTTEN_AT_A_TIME: usize = 4096;

#[derive(Debug, Default, Clone, PartialEq)]
pub struct Ids {
    asked: Memory,
    emitted: Memory,
    /// Decided above the floor: when the floor passes them, it is known to have come to their time.
    ahead: Vec<(EventId, u64)>,
    /// No message above the floor is older than this.
    horizon_ms: u64,
    kinds: Vec<Kind>,
}

/// What many of them have in common. There are few: a source stream is seldom deleted and created again, and its window changes
/// only with the configuration.
#[derive(Debug, Clone, PartialEq)]
struct Kind {
    incarnation: Arc<str>,
    window_ms: u64,
}

impl Ids {
    /// An entry has decided an event that repeats no other.
    pub fn learn(&mut self, id: &Id, event: &EventId, entry: u64, floor: &Floor) {
        // A replay's `done` comes after the death that it follows.
        if self.all(id.hash).any(|first| self.is(first, event)) {
            return;
        }
        let kind = self.kind(&event.incarnation, id.window_ms);
        let first = First::new(id, event.sequence, entry, kind);
        if event.sequence <= floor.of(&event.incarnation) {
            self.horizon_ms = self.horizon_ms.max(id.time_ms);
        } else {
            self.ahead.push((event.clone(), id.time_ms));
        }
        if id.emitted {
            self.emitted.push(first);
            if self.emitted.len() > EMITTED_MAX {
                self.emitted.pop();
            }
        } else {
            self.asked.push(first);
        }
    }

    /// The other event that this one repeats, and the entry that has decided it.
    pub fn first_of(&self, id: &Id, event: &EventId) -> Option<(EventId, u64)> {
        if self.all(id.hash).any(|first| self.is(first, event)) {
            return None;
        }
        let near = |first: &&First| {
            let window_ms = self.kinds.get(first.kind()).map_or(0, |kind| kind.window_ms);
            first.time_ms().abs_diff(id.time_ms) <= window_ms
        };
        let first = self.all(id.hash).filter(near).min_by_key(|first| first.entry)?;
        let event = EventId {
            incarnation: Arc::clone(&self.kinds.get(first.kind())?.incarnation),
            sequence: first.sequence,
        };
        Some((event, first.entry))
    }

    /// The floor has risen: what lies before its time by more than the window can be repeated by nothing that is still
    /// undecided.
    pub fn passed(&mut self, floor: &Floor) {
        let horizon = &mut self.horizon_ms;
        self.ahead.retain(|(event, time_ms)| {
            let ahead = event.sequence > floor.of(&event.incarnation);
            if !ahead {
                *horizon = (*horizon).max(*time_ms);
            }
            ahead
        });
        for memory in [&mut self.asked, &mut self.emitted] {
            let needed = |first: &First| {
                let window_ms = self.kinds.get(first.kind()).map_or(0, |kind| kind.window_ms);
                first.time_ms().saturating_add(window_ms) >= self.horizon_ms
            };
            for _ in 0..FORGOTTEN_AT_A_TIME {
                if memory.first().is_none_or(needed) {
                    break;
                }
                memory.pop();
            }
        }
    }

    /// The first entry that must be read to know what is known here.
    pub fn first_entry(&self) -> Option<u64> {
        let firsts = [self.asked.first(), self.emitted.first()];
        firsts.into_iter().flatten().map(|first| first.entry).min()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.asked.len() + self.emitted.len()
    }

    fn all(&self, hash: Hash) -> impl Iterator<Item = &First> {
        self.asked.all(hash).chain(self.emitted.all(hash))
    }

    fn is(&self, first: &First, event: &EventId) -> bool {
        let of = |kind: &Kind| kind.incarnation == event.incarnation;
        first.sequence == event.sequence && self.kinds.get(first.kind()).is_some_and(of)
    }

    fn kind(&mut self, incarnation: &Arc<str>, window_ms: u64) -> usize {
        let is = |kind: &Kind| kind.window_ms == window_ms && kind.incarnation == *incarnation;
        self.kinds.iter().position(is).unwrap_or_else(|| {
            self.kinds.push(Kind {
                incarnation: Arc::clone(incarnation),
                window_ms,
            });
            self.kinds.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(sequence: u64) -> EventId {
        EventId::of_test(sequence)
    }

    fn id(hash: u64, time_ms: u64) -> Id {
        Id::of_test(hash, time_ms)
    }

    fn floor(sequence: u64) -> Floor {
        let mut floor = Floor::default();
        floor.raise("k", sequence);
        floor
    }

    #[test]
    fn an_id_is_known_within_its_window_before_and_after() {
        let mut ids = Ids::default();
        ids.learn(&id(7, 100), &event(5), 1, &floor(0));
        for (time, known) in [(89, false), (90, true), (110, true), (111, false)] {
            assert_eq!(ids.first_of(&id(7, time), &event(6)).is_some(), known, "{time}");
        }
        assert_eq!(ids.first_of(&id(7, 101), &event(6)), Some((event(5), 1)));
        assert_eq!(ids.first_of(&id(7, 100), &event(5)), None, "it does not repeat itself");
        assert_eq!(ids.first_of(&id(8, 100), &event(6)), None);
    }

    #[test]
    fn an_id_is_forgotten_only_when_the_floor_is_past_it_by_the_window() {
        let mut ids = Ids::default();
        ids.learn(&id(1, 100), &event(1), 1, &floor(0));
        ids.learn(&id(2, 110), &event(2), 2, &floor(0));
        ids.learn(&id(3, 111), &event(3), 3, &floor(0));
        ids.passed(&floor(2));
        assert_eq!((ids.len(), ids.first_entry()), (3, Some(1)));
        ids.passed(&floor(3));
        assert_eq!((ids.len(), ids.first_entry()), (2, Some(2)));
        assert_eq!(ids.first_of(&id(1, 110), &event(9)), None);
    }

    #[test]
    fn of_emitted_events_only_so_many_are_remembered() {
        let mut ids = Ids::default();
        let emitted = |hash| Id {
            emitted: true,
            ..id(hash, 100)
        };
        for n in 1..=EMITTED_MAX as u64 + 1 {
            ids.learn(&emitted(n), &event(n), n, &floor(n));
        }
        assert_eq!((ids.len(), ids.first_entry()), (EMITTED_MAX, Some(2)));
        let (bytes, said) = (ids.emitted.bytes() as u64, PLACE_BYTES * EMITTED_MAX as u64);
        assert!(bytes.abs_diff(said) < said / 4, "{bytes} B, said are {said}");
    }

    proptest! {
        /// Messages of a stream with few ids are decided in any order within a few of each other, while the floor follows. The
        /// ids recognise the same duplicates as a memory without end would.
        #[test]
        fn forgetting_changes_no_answer(
            steps in proptest::collection::vec((0u64..4, 0u64..8), 1..60),
            swaps in proptest::collection::vec(any::<bool>(), 60),
        ) {
            let mut time = 0;
            let mut messages: Vec<(u64, Id)> = Vec::new();
            for (n, (hash, pause)) in steps.iter().enumerate() {
                time += pause;
                messages.push((n as u64 + 1, id(*hash, time)));
            }
            let mut order = messages.clone();
            for (at, _) in swaps.iter().enumerate().filter(|(at, swap)| **swap && at + 1 < steps.len()) {
                order.swap(at, at + 1);
            }
            let (mut ids, mut all) = (Ids::default(), Ids::default());
            let (mut decided, mut below) = (std::collections::BTreeSet::new(), 0);
            for (entry, (sequence, id)) in order.iter().enumerate() {
                let (event, entry) = (event(*sequence), entry as u64 + 1);
                let first = ids.first_of(id, &event);
                prop_assert_eq!(&first, &all.first_of(id, &event));
                if first.is_none() {
                    ids.learn(id, &event, entry, &floor(below));
                    all.learn(id, &event, entry, &floor(0));
                }
                decided.insert(*sequence);
                while decided.contains(&(below + 1)) {
                    below += 1;
                }
                ids.passed(&floor(below));
            }
        }

        /// A start at the entry that is reported as needed knows the same.
        #[test]
        fn a_start_in_the_middle_knows_what_is_needed(
            steps in proptest::collection::vec((0u64..5, 0u64..8), 1..60),
        ) {
            let mut time = 0;
            let mut ids = Ids::default();
            let mut learnt: Vec<(u64, Id)> = Vec::new();
            for (n, (hash, pause)) in steps.iter().enumerate() {
                time += pause;
                let (sequence, id) = (n as u64 + 1, id(*hash, time));
                if ids.first_of(&id, &event(sequence)).is_none() {
                    ids.learn(&id, &event(sequence), sequence, &floor(0));
                    learnt.push((sequence, id));
                }
                ids.passed(&floor(sequence));
            }
            let below = steps.len() as u64;
            let from = ids.first_entry().unwrap_or(u64::MAX);
            let mut fresh = Ids::default();
            for (sequence, id) in learnt.iter().filter(|(sequence, _)| *sequence >= from) {
                fresh.learn(id, &event(*sequence), *sequence, &floor(below));
            }
            for hash in 0..5 {
                for later in 0..12 {
                    let (next, next_event) = (id(hash, time + later), event(below + 1));
                    prop_assert_eq!(fresh.first_of(&next, &next_event), ids.first_of(&next, &next_event));
                }
            }
        }
    }
}
