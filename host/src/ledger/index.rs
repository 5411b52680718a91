//! What is decided, as the ledger tells it: a floor for each handler and the decisions above it. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::entry::{Entry, Floor, Head, Id, Verdict};
use super::ids::Ids;
use crate::message::EventId;

/// How an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    Done {
        entry: u64,
    },
    Dead {
        entry: u64,
    },
    /// Below the floor: done or dead, long ago.
    Below,
    /// It repeats another event, which this entry has decided.
    Same {
        entry: u64,
    },
}

/// By handler. An event that is at work here is decided by an entry only, not by a floor that has passed it since: its
/// stream may have removed it.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Index {
    handlers: HashMap<String, HandlerIndex>,
    /// The newest entry that was applied.
    newest: u64,
    /// The first entry that says something that the floors do not: where a starting host begins to read.
    reads_from: u64,
}

#[derive(Debug, Default, Clone, PartialEq)]
struct HandlerIndex {
    floor: Floor,
    above: HashMap<EventId, Decided>,
    /// At work here, and undecided when they began.
    open: HashSet<EventId>,
    ids: Ids,
}

impl Index {
    /// The index of a head; the entries from `head.index_from` on are to be applied to it.
    pub fn new(head: &Head) -> Index {
        let of = |floor: &Floor| HandlerIndex {
            floor: floor.clone(),
            ..HandlerIndex::default()
        };
        Index {
            handlers: head
                .floors
                .iter()
                .map(|(name, floor)| (name.clone(), of(floor)))
                .collect(),
            newest: head.index_from.saturating_sub(1),
            reads_from: head.index_from.max(1),
        }
    }

    pub fn decided(&self, handler: &str, event: &EventId) -> Option<Decided> {
        let of = self.handlers.get(handler)?;
        if let Some(decided) = of.above.get(event) {
            return Some(*decided);
        }
        let below = event.sequence <= of.floor.of(&event.incarnation);
        (below && !of.open.contains(event)).then_some(Decided::Below)
    }

    /// Takes an entry in. Totals are the head's: they are not counted here.
    pub fn apply(&mut self, entry: &Entry) {
        self.newest = self.newest.max(entry.n);
        for handler in &entry.reset {
            // What is at work stays so: nobody else decides it meanwhile.
            let open = self.handlers.remove(handler).map(|of| of.open);
            self.of(handler).open = open.unwrap_or_default();
        }
        if !entry.reset.is_empty() {
            self.find_first();
        }
        for decision in &entry.decisions {
            let Some(event) = EventId::parse(&decision.event) else {
                continue;
            };
            if let (Some(id), None) = (&decision.id, &decision.same_as) {
                let HandlerIndex { ids, floor, .. } = self.of(&decision.handler);
                ids.learn(id, &event, entry.n, floor);
            }
            self.decide(&decision.handler, event, decision.verdict, entry.n);
        }
        self.rise(entry);
    }

    /// Takes in which floors have risen.
    pub fn rise(&mut self, entry: &Entry) {
        for (handler, risen) in &entry.floors {
            let of = self.of(handler);
            let before = of.floor.clone();
            of.floor.merge(risen);
            if of.floor != before {
                of.forget();
                self.find_first();
            }
        }
    }

    /// The other event that this one repeats, and the entry that has decided it.
    pub fn first_of(&self, handler: &str, id: &Id, event: &EventId) -> Option<(EventId, u64)> {
        self.handlers.get(handler)?.ids.first_of(id, event)
    }

    /// Takes one decision of an entry in.
    pub fn decide(&mut self, handler: &str, event: EventId, verdict: Verdict, entry: u64) {
        self.newest = self.newest.max(entry);
        let of = self.of(handler);
        let below = event.sequence <= of.floor.of(&event.incarnation);
        if !below || of.open.contains(&event) {
            let decided = match verdict {
                Verdict::Done => Decided::Done { entry },
                Verdict::Dead => Decided::Dead { entry },
            };
            of.above.insert(event, decided);
        }
    }

    fn of(&mut self, handler: &str) -> &mut HandlerIndex {
        if !self.handlers.contains_key(handler) {
            self.handlers.insert(handler.to_owned(), HandlerIndex::default());
        }
        self.handlers.get_mut(handler).expect("it was put there")
    }

    /// An undecided event is at work here from now on, or the replay of one that is dead.
    pub fn open(&mut self, handler: &str, event: &EventId) {
        let below = self.decided(handler, event) == Some(Decided::Below);
        let of = self.of(handler);
        of.open.insert(event.clone());
        if below {
            // Its floor would not say so any more.
            of.above.insert(event.clone(), Decided::Below);
        }
    }

    /// It is not any more.
    pub fn close(&mut self, handler: &str, event: &EventId) {
        self.of(handler).open.remove(event);
    }

    /// What is at work here, carried over into another index of the same bucket, with what is decided of it by entries
    /// that are not read again: its floor would not say so.
    pub fn keep_open(&mut self, before: &Index) {
        let reads_from = self.reads_from;
        for (handler, of) in &before.handlers {
            let now = self.of(handler);
            now.open.clone_from(&of.open);
            for event in &of.open {
                let Some(decided) = of.above.get(event).copied() else {
                    continue;
                };
                let stays = match decided {
                    Decided::Done { entry } | Decided::Dead { entry } => entry < reads_from,
                    Decided::Below => event.sequence <= now.floor.of(&event.incarnation),
                };
                if stays {
                    now.above.insert(event.clone(), decided);
                }
            }
        }
    }

    /// The floors that a head does not know of yet.
    pub fn risen(&self, head: &Head) -> BTreeMap<String, Floor> {
        let mut risen = BTreeMap::new();
        for (name, of) in &self.handlers {
            let known = head.floors.get(name).cloned().unwrap_or_default();
            let mut merged = known.clone();
            merged.merge(&of.floor);
            if merged != known {
                let totals_aside = Floor {
                    done: 0,
                    dead: 0,
                    ..of.floor.clone()
                };
                risen.insert(name.clone(), totals_aside);
            }
        }
        risen
    }

    /// All matching messages of this incarnation at or below `sequence` are decided.
    pub fn raise(&mut self, handler: &str, incarnation: &str, sequence: u64) {
        let of = self.of(handler);
        of.floor.raise(incarnation, sequence);
        of.forget();
        self.find_first();
    }

    pub fn floor(&self, handler: &str, incarnation: &str) -> u64 {
        self.handlers.get(handler).map_or(0, |of| of.floor.of(incarnation))
    }

    pub fn reads_from(&self) -> u64 {
        self.reads_from
    }

    fn find_first(&mut self) {
        let entries = self.handlers.values().flat_map(|of| of.above.values());
        let above = entries.filter_map(|decided| match decided {
            Decided::Done { entry } | Decided::Dead { entry } => Some(*entry),
            Decided::Below | Decided::Same { .. } => None,
        });
        // Below the floors, an id is known only from its entry.
        let ids = self.handlers.values().filter_map(|of| of.ids.first_entry());
        let first = above.chain(ids).min();
        self.reads_from = first.unwrap_or(self.newest + 1).max(1);
    }

    /// How many decisions are remembered one by one.
    pub fn remembered(&self) -> usize {
        self.handlers.values().map(|of| of.above.len()).sum()
    }
}

impl HandlerIndex {
    fn forget(&mut self) {
        let (floor, open) = (&self.floor, &self.open);
        self.above
            .retain(|event, _| event.sequence > floor.of(&event.incarnation) || open.contains(event));
        self.ids.passed(floor);
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Decision, Hash};
    use super::*;

    fn event(sequence: u64) -> EventId {
        EventId {
            incarnation: "k".into(),
            sequence,
        }
    }

    fn entry(n: u64, sequence: u64, verdict: Verdict) -> Entry {
        let decision = Decision {
            handler: "h".into(),
            event: event(sequence).to_string(),
            verdict,
            id: None,
            same_as: None,
            cause: None,
            code: None,
            message: None,
            attempt: 1,
            module: "m".into(),
            follows_death: None,
        };
        let (append, host, at) = ("a".into(), "x".into(), "t".into());
        Entry {
            n,
            append,
            host,
            at,
            min_reader: 1,
            decisions: vec![decision],
            writes: vec![],
            floors: BTreeMap::new(),
            index_from: None,
            incarnations: BTreeMap::new(),
            reset: vec![],
        }
    }

    #[test]
    fn what_an_entry_decides_is_remembered_until_the_floor_covers_it() {
        let mut index = Index::default();
        index.apply(&entry(1, 5, Verdict::Done));
        index.apply(&entry(2, 7, Verdict::Dead));
        assert_eq!(index.decided("h", &event(5)), Some(Decided::Done { entry: 1 }));
        assert_eq!(index.decided("h", &event(6)), None);
        assert_eq!(index.decided("other", &event(5)), None);
        index.raise("h", "k", 6);
        assert_eq!(index.decided("h", &event(5)), Some(Decided::Below));
        assert_eq!(index.decided("h", &event(7)), Some(Decided::Dead { entry: 2 }));
        assert_eq!((index.remembered(), index.reads_from()), (1, 2));
        index.raise("h", "k", 7);
        assert_eq!((index.remembered(), index.reads_from()), (0, 3));
    }

    #[test]
    fn a_floor_speaks_only_of_its_own_incarnation() {
        let mut index = Index::default();
        index.raise("h", "k", 100);
        assert_eq!(
            index.decided(
                "h",
                &EventId {
                    incarnation: "new".into(),
                    sequence: 3
                }
            ),
            None
        );
        index.raise("h", "new", 2);
        assert_eq!((index.floor("h", "new"), index.floor("h", "k")), (2, 100));
    }

    #[test]
    fn another_hosts_head_takes_no_floor_back() {
        let mut index = Index::default();
        index.raise("h", "k", 500);
        index.raise("h", "new", 10);
        let mut theirs = Floor::default();
        theirs.raise("k", 400);
        let mut said = entry(1, 9, Verdict::Done);
        said.floors = BTreeMap::from([("h".to_owned(), theirs)]);
        index.apply(&said);
        assert_eq!((index.floor("h", "new"), index.floor("h", "k")), (10, 500));
    }

    #[test]
    fn a_floor_does_not_decide_what_is_at_work() {
        let mut index = Index::default();
        index.open("h", &event(5));
        index.raise("h", "k", 9);
        assert_eq!(index.decided("h", &event(5)), None);
        assert_eq!(index.decided("h", &event(6)), Some(Decided::Below));
        index.apply(&entry(1, 5, Verdict::Dead));
        assert_eq!(index.decided("h", &event(5)), Some(Decided::Dead { entry: 1 }));
        index.close("h", &event(5));
        index.raise("h", "k", 10);
        assert_eq!(index.decided("h", &event(5)), Some(Decided::Below));
    }

    #[test]
    fn a_replay_below_the_floor_is_decided_and_its_done_is_seen() {
        let mut index = Index::default();
        index.raise("h", "k", 9);
        index.open("h", &event(5));
        assert_eq!(index.decided("h", &event(5)), Some(Decided::Below));
        let mut anew = Index::default();
        anew.raise("h", "k", 9);
        anew.keep_open(&index);
        assert_eq!(anew.decided("h", &event(5)), Some(Decided::Below));
        anew.apply(&entry(2, 5, Verdict::Done));
        assert_eq!(anew.decided("h", &event(5)), Some(Decided::Done { entry: 2 }));
    }

    #[test]
    fn a_decision_of_what_is_at_work_outlives_a_reconnect() {
        let mut index = Index::default();
        index.open("h", &event(5));
        index.apply(&entry(1, 5, Verdict::Dead));
        let mut floor = Floor::default();
        floor.raise("k", 9);
        let head = Head {
            n: 2,
            index_from: 2,
            floors: BTreeMap::from([("h".to_owned(), floor)]),
            ..Head::default()
        };
        let mut anew = Index::new(&head);
        anew.keep_open(&index);
        assert_eq!(anew.decided("h", &event(5)), Some(Decided::Dead { entry: 1 }));
    }

    #[test]
    fn an_id_keeps_its_entry_until_the_floor_is_past_its_window() {
        let id = |hash, time_ms| Id {
            hash: Hash([hash, 0]),
            time_ms,
            window_ms: 10,
            emitted: false,
        };
        let with = |n, sequence, hash, time_ms| {
            let mut entry = entry(n, sequence, Verdict::Done);
            entry.decisions[0].id = Some(id(hash, time_ms));
            entry
        };
        let mut entries = [with(1, 1, 7, 100), with(2, 2, 7, 105), with(3, 3, 8, 111)];
        entries[1].decisions[0].same_as = Some(event(1).to_string());
        let mut index = Index::default();
        entries.iter().for_each(|entry| index.apply(entry));
        assert_eq!(index.first_of("h", &id(7, 110), &event(9)), Some((event(1), 1)));
        assert_eq!(index.first_of("other", &id(7, 110), &event(9)), None);
        index.raise("h", "k", 2);
        assert_eq!(index.reads_from(), 1, "whoever starts must learn the id");
        index.raise("h", "k", 3);
        assert_eq!(index.reads_from(), 3);
        assert_eq!(index.first_of("h", &id(7, 110), &event(9)), None);
    }

    #[test]
    fn a_reset_forgets_one_handler_and_what_comes_after_it_is_remembered() {
        let mut index = Index::default();
        index.raise("h", "k", 6);
        index.raise("other", "k", 6);
        index.apply(&entry(1, 9, Verdict::Dead));
        let mut reset = entry(2, 3, Verdict::Done);
        reset.reset = vec!["h".into()];
        index.apply(&reset);
        assert_eq!(index.decided("h", &event(9)), None);
        assert_eq!(index.decided("h", &event(6)), None);
        assert_eq!(index.decided("h", &event(3)), Some(Decided::Done { entry: 2 }));
        assert_eq!(index.decided("other", &event(6)), Some(Decided::Below));
    }

    #[test]
    fn a_head_follows_from_the_one_before_and_a_reset() {
        let head = Head::default().after(&entry(1, 5, Verdict::Done));
        let mut reset = entry(2, 5, Verdict::Done);
        (reset.reset, reset.decisions) = (vec!["h".into()], vec![]);
        let head = head.after(&reset);
        assert_eq!((head.n, head.floors.contains_key("h")), (2, false));
    }

    #[test]
    fn a_done_after_a_death_overwrites_it() {
        let mut index = Index::default();
        index.apply(&entry(1, 5, Verdict::Dead));
        index.apply(&entry(2, 5, Verdict::Done));
        assert_eq!(index.decided("h", &event(5)), Some(Decided::Done { entry: 2 }));
    }
}
