//! What is decided, as the ledger tells it: a floor for each handler and the decisions above it. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::entry::{Entry, Floor, Head, Verdict};
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
}

#[derive(Debug, Default)]
pub struct Index {
    handlers: HashMap<String, HandlerIndex>,
    /// Events that are at work here and were undecided when they began: only an entry decides them, not a floor that
    /// has passed them since, because their stream has removed them.
    open: HashSet<(String, EventId)>,
    /// The newest entry that was applied.
    newest: u64,
    /// The first entry that says something that the floors do not: where a starting host begins to read.
    reads_from: u64,
}

#[derive(Debug, Default, Clone, PartialEq)]
struct HandlerIndex {
    floor: Floor,
    above: BTreeMap<EventId, Decided>,
}

impl Index {
    /// The index of a head; the entries from `head.index_from` on are to be applied to it.
    pub fn new(head: &Head) -> Index {
        let floors = head.floors.iter();
        Index {
            handlers: floors
                .map(|(name, floor)| {
                    (
                        name.clone(),
                        HandlerIndex {
                            floor: floor.clone(),
                            above: BTreeMap::new(),
                        },
                    )
                })
                .collect(),
            open: HashSet::new(),
            newest: head.index_from.saturating_sub(1),
            reads_from: head.index_from.max(1),
        }
    }

    pub fn decided(&self, handler: &str, event: &EventId) -> Option<Decided> {
        let of = self.handlers.get(handler)?;
        if let Some(decided) = of.above.get(event) {
            return Some(*decided);
        }
        if self.open.contains(&(handler.to_owned(), event.clone())) {
            return None;
        }
        (event.sequence <= of.floor.of(&event.incarnation)).then_some(Decided::Below)
    }

    /// Takes an entry in. Totals are the head's: they are not counted here.
    pub fn apply(&mut self, entry: &Entry) {
        self.newest = self.newest.max(entry.n);
        for decision in &entry.decisions {
            let Some(event) = EventId::parse(&decision.event) else {
                continue;
            };
            let decided = match decision.verdict {
                Verdict::Done => Decided::Done { entry: entry.n },
                Verdict::Dead => Decided::Dead { entry: entry.n },
            };
            let of = self.handlers.entry(decision.handler.clone()).or_default();
            let below = event.sequence <= of.floor.of(&event.incarnation);
            if !below || self.open.contains(&(decision.handler.clone(), event.clone())) {
                of.above.insert(event, decided);
            }
        }
    }

    /// An undecided event is at work here from now on.
    pub fn open(&mut self, handler: &str, event: &EventId) {
        self.open.insert((handler.to_owned(), event.clone()));
    }

    /// It is not any more.
    pub fn close(&mut self, handler: &str, event: &EventId) {
        self.open.remove(&(handler.to_owned(), event.clone()));
    }

    /// The floors as the next head is to carry them.
    pub fn floors(&self) -> BTreeMap<String, Floor> {
        self.handlers
            .iter()
            .map(|(name, of)| (name.clone(), of.floor.clone()))
            .collect()
    }

    /// A head read from the bucket says how far others have come.
    pub fn adopt(&mut self, head: &Head) {
        for (name, floor) in &head.floors {
            let of = self.handlers.entry(name.clone()).or_default();
            of.floor.merge(floor);
            (of.floor.done, of.floor.dead) = (floor.done, floor.dead);
            of.forget(name, &self.open);
        }
        self.find_first();
    }

    /// All matching messages of this incarnation at or below `sequence` are decided.
    pub fn raise(&mut self, handler: &str, incarnation: &str, sequence: u64) {
        let of = self.handlers.entry(handler.to_owned()).or_default();
        of.floor.raise(incarnation, sequence);
        of.forget(handler, &self.open);
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
        let first = entries
            .filter_map(|decided| match decided {
                Decided::Done { entry } | Decided::Dead { entry } => Some(*entry),
                Decided::Below => None,
            })
            .min();
        self.reads_from = first.unwrap_or(self.newest + 1).max(1);
    }

    /// How many decisions are remembered one by one.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.handlers.values().map(|of| of.above.len()).sum()
    }
}

impl HandlerIndex {
    fn forget(&mut self, handler: &str, open: &HashSet<(String, EventId)>) {
        let floor = &self.floor;
        self.above.retain(|event, _| {
            let below = event.sequence <= floor.of(&event.incarnation);
            !below || open.contains(&(handler.to_owned(), event.clone()))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Decision;
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
        assert_eq!((index.len(), index.reads_from()), (1, 2));
        index.raise("h", "k", 7);
        assert_eq!((index.len(), index.reads_from()), (0, 3));
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
        let head = Head {
            floors: BTreeMap::from([("h".to_owned(), theirs)]),
            ..Head::default()
        };
        index.adopt(&head);
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
    fn a_done_after_a_death_overwrites_it() {
        let mut index = Index::default();
        index.apply(&entry(1, 5, Verdict::Dead));
        index.apply(&entry(2, 5, Verdict::Done));
        assert_eq!(index.decided("h", &event(5)), Some(Decided::Done { entry: 2 }));
    }
}
