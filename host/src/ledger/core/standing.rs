//! The events that stand in a group: each at most once, and none twice under another sequence. Pure.

use super::entry::{Hash, Id};
use super::maps::{HashMap, HashSet};
use crate::event::EventId;
use crate::ledger::core::transaction::Transaction;

#[derive(Debug, Default, Clone)]
pub struct Standing {
    /// By handler.
    events: HashMap<String, HashSet<EventId>>,
    /// Those that are known by an id and repeat no other, with their time.
    ids: HashMap<(String, Hash), Vec<(EventId, u64)>>,
}

impl Standing {
    pub fn contains(&self, handler: &str, event: &EventId) -> bool {
        self.events.get(handler).is_some_and(|events| events.contains(event))
    }

    /// The other event that this one repeats.
    pub fn first_of(&self, handler: &str, id: &Id, event: &EventId) -> Option<EventId> {
        let same = self.ids.get(&(handler.to_owned(), id.hash))?;
        let near = |(other, time_ms): &&(EventId, u64)| other != event && time_ms.abs_diff(id.time_ms) <= id.window_ms;
        same.iter().find(near).map(|(first, _)| first.clone())
    }

    pub fn insert(&mut self, tx: &Transaction) {
        let Some(decision) = &tx.decision else { return };
        let events = match self.events.get_mut(&tx.handler) {
            Some(events) => events,
            None => self.events.entry(tx.handler.clone()).or_default(),
        };
        events.insert(tx.event.clone());
        if let (Some(id), None) = (&decision.id, &decision.same_as) {
            let same = self.ids.entry((tx.handler.clone(), id.hash)).or_default();
            same.push((tx.event.clone(), id.time_ms));
        }
    }

    pub fn remove(&mut self, tx: &Transaction) {
        let Some(decision) = &tx.decision else { return };
        if let Some(events) = self.events.get_mut(&tx.handler) {
            events.remove(&tx.event);
        }
        if let Some(id) = &decision.id {
            let key = (tx.handler.clone(), id.hash);
            if let Some(same) = self.ids.get_mut(&key) {
                same.retain(|(event, _)| *event != tx.event);
                if same.is_empty() {
                    self.ids.remove(&key);
                }
            }
        }
    }

    pub fn clear(&mut self) {
        self.events.clear();
        self.ids.clear();
    }
}
