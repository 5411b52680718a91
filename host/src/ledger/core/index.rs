//! What is decided, as the ledger tells it: a floor for each handler and the decisions above it. Pure.

use std::collections::BTreeMap;

use super::entry::{DecisionKind, Entry, Floor, Head, Id};
use super::ids::Ids;
use super::maps::{HashMap, HashSet};
use super::replayed::Replayed;
use crate::event::EventId;

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
    replayed: Replayed,
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
        if let Some(entry) = of.replayed.done_by(event) {
            return Some(Decided::Done { entry });
        }
        let below = event.sequence <= of.floor.of(&event.incarnation);
        (below && !of.open.contains(event)).then_some(Decided::Below)
    }

    /// Takes an entry in. Totals are the head's: they are not counted here.
    pub fn apply(&mut self, entry: &Entry) {
        self.newest = self.newest.max(entry.n);
        for handler in &entry.reset {
            // Events that are at work stay so: no other task decides them meanwhile.
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
            if decision.follows_death.is_some() {
                self.of(&decision.handler).replayed.remember(&event, entry.n);
            }
            self.decide(&decision.handler, event, decision.verdict, entry.n);
        }
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

    fn decide(&mut self, handler: &str, event: EventId, verdict: DecisionKind, entry: u64) {
        let of = self.of(handler);
        let below = event.sequence <= of.floor.of(&event.incarnation);
        if !below || of.open.contains(&event) {
            let decided = match verdict {
                DecisionKind::Done => Decided::Done { entry },
                DecisionKind::Dead => Decided::Dead { entry },
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

    /// Forgets what is decided, but for the floors, the replays, and what is at work here.
    pub fn keep_only_work(&mut self) {
        for of in self.handlers.values_mut() {
            let open = &of.open;
            of.above.retain(|event, _| open.contains(event));
            of.above.shrink_to_fit();
            of.ids = Ids::default();
        }
    }

    /// What has left since it was carried over is not at work any more; what has come since is.
    pub fn take_work(&mut self, now: &Index) {
        for (handler, of) in &mut self.handlers {
            let still = now.handlers.get(handler).map(|now| &now.open);
            of.open.retain(|event| still.is_some_and(|open| open.contains(event)));
        }
        for (handler, of) in &now.handlers {
            let new = |event: &&EventId| !self.handlers.get(handler).is_some_and(|of| of.open.contains(*event));
            let came: Vec<EventId> = of.open.iter().filter(new).cloned().collect();
            came.iter().for_each(|event| self.open(handler, event));
        }
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
                    Decided::Done { entry } | Decided::Dead { entry } | Decided::Same { entry } => entry < reads_from,
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

    #[cfg(test)]
    pub fn was_replayed(&self, handler: &str, event: &EventId) -> bool {
        let of = self.handlers.get(handler);
        of.is_some_and(|of| of.replayed.done_by(event).is_some())
    }

    /// How many decisions are remembered one by one.
    #[cfg(test)]
    fn remembered(&self) -> usize {
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
mod tests;
