//! The events of a handler that are known by an id, for a window: which was the first of its id, and where it was
//! decided. Time is the stream's own. Pure.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::entry::{Floor, Hash, Id};
use crate::message::EventId;

/// What an id takes of a host's memory, about, as measured with 300,000 and 1,000,000 of them; while they are read, a third
/// more (`opening::what_remembered_ids_cost_a_host_that_starts` measures it).
pub const ID_BYTES: u64 = 300;
/// Of that, its place in the table, which is never full, and in the order.
#[cfg(test)]
const PLACE_BYTES: u64 = 120;
/// What its entry takes on disk, about, if nothing else stands in that entry.
pub const ENTRY_BYTES: u64 = 700;
/// Emitted events are remembered without anybody asking: no more than so many, the newest.
const EMITTED_MAX: usize = 1_000_000;

#[derive(Debug, Default, Clone, PartialEq)]
pub struct Ids {
    /// The newest first of each id.
    known: HashMap<Hash, First, BuildHasherDefault<ByItself>>,
    /// Those of an id that was used again after its window, while the floor has not passed it yet. Few.
    older: HashMap<Hash, Vec<First>>,
    /// In the order of their entries.
    asked: VecDeque<(u64, Hash)>,
    emitted: VecDeque<(u64, Hash)>,
    /// Decided above the floor: when the floor passes them, it is known to have come to their time.
    ahead: Vec<(EventId, u64)>,
    /// No message above the floor is older than this.
    horizon_ms: u64,
    incarnations: Vec<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq)]
struct First {
    sequence: u64,
    time_ms: u64,
    window_ms: u64,
    entry: u64,
    /// Which of the incarnations.
    incarnation: u32,
}

/// Hashes are spread already.
#[derive(Debug, Default, Clone, Copy)]
struct ByItself(u64);

impl Hasher for ByItself {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Ids {
    /// An entry has decided an event that repeats no other.
    pub fn learn(&mut self, id: &Id, event: &EventId, entry: u64, floor: &Floor) {
        // A replay's `done` comes after the death that it follows.
        if self.all(id.hash).any(|first| self.is(first, event)) {
            return;
        }
        let first = First {
            sequence: event.sequence,
            time_ms: id.time_ms,
            window_ms: id.window_ms,
            entry,
            incarnation: self.number(&event.incarnation),
        };
        if let Some(before) = self.known.insert(id.hash, first) {
            self.older.entry(id.hash).or_default().push(before);
        }
        if event.sequence <= floor.of(&event.incarnation) {
            self.horizon_ms = self.horizon_ms.max(id.time_ms);
        } else {
            self.ahead.push((event.clone(), id.time_ms));
        }
        let order = if id.emitted { &mut self.emitted } else { &mut self.asked };
        order.push_back((entry, id.hash));
        if self.emitted.len() > EMITTED_MAX
            && let Some((entry, hash)) = self.emitted.pop_front()
        {
            self.drop_first(entry, hash);
        }
    }

    /// The other event that this one repeats, and the entry that has decided it.
    pub fn first_of(&self, id: &Id, event: &EventId) -> Option<(EventId, u64)> {
        if self.all(id.hash).any(|first| self.is(first, event)) {
            return None;
        }
        let near = |first: &&First| first.time_ms.abs_diff(id.time_ms) <= first.window_ms;
        let first = self.all(id.hash).find(near)?;
        let event = EventId {
            incarnation: Arc::clone(self.incarnations.get(first.incarnation as usize)?),
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
        for emitted in [false, true] {
            while let Some((entry, hash)) = self.order(emitted).front().copied() {
                let needed = |first: &First| first.time_ms.saturating_add(first.window_ms) >= self.horizon_ms;
                if self.all(hash).any(|first| first.entry == entry && needed(first)) {
                    break;
                }
                self.order(emitted).pop_front();
                self.drop_first(entry, hash);
            }
        }
    }

    /// The first entry that must be read to know what is known here.
    pub fn first_entry(&self) -> Option<u64> {
        let fronts = [self.asked.front(), self.emitted.front()];
        fronts.into_iter().flatten().map(|(entry, _)| *entry).min()
    }

    pub fn len(&self) -> usize {
        self.asked.len() + self.emitted.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn order(&mut self, emitted: bool) -> &mut VecDeque<(u64, Hash)> {
        if emitted { &mut self.emitted } else { &mut self.asked }
    }

    fn all(&self, hash: Hash) -> impl Iterator<Item = &First> {
        let older = self.older.get(&hash).into_iter().flatten();
        older.chain(self.known.get(&hash))
    }

    fn is(&self, first: &First, event: &EventId) -> bool {
        first.sequence == event.sequence
            && self.incarnations.get(first.incarnation as usize) == Some(&event.incarnation)
    }

    fn number(&mut self, incarnation: &Arc<str>) -> u32 {
        let known = self.incarnations.iter().position(|known| known == incarnation);
        let at = known.unwrap_or_else(|| {
            self.incarnations.push(Arc::clone(incarnation));
            self.incarnations.len() - 1
        });
        // A source stream is not made anew so often.
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    fn drop_first(&mut self, entry: u64, hash: Hash) {
        if let Some(older) = self.older.get_mut(&hash)
            && let Some(at) = older.iter().position(|first| first.entry == entry)
        {
            older.remove(at);
            if older.is_empty() {
                self.older.remove(&hash);
            }
        } else if self.known.get(&hash).is_some_and(|first| first.entry == entry) {
            self.known.remove(&hash);
        }
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
        assert_eq!(
            (ids.len(), ids.known.len(), ids.first_entry()),
            (EMITTED_MAX, EMITTED_MAX, Some(2))
        );
        let bytes = ids.known.capacity() * (size_of::<(Hash, First)>() + 1) + ids.emitted.capacity() * 24;
        let said = PLACE_BYTES * EMITTED_MAX as u64;
        assert!((bytes as u64).abs_diff(said) < said / 2, "{bytes} B, said are {said}");
    }

    proptest! {
        /// Messages of a stream with few ids, decided in any order within a few of each other, while the floor follows:
        /// what is said to be a repetition is what a memory without end would say.
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

        /// Whoever reads from the entry on that is said to be needed knows the same.
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
