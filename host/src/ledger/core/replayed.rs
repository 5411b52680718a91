//! The replays that were done of late. A letter is resolved a moment after its replay's `done`, and below the floor only the
//! death's record tells of it: who asks in between is answered from here. Pure.

use std::collections::VecDeque;

use super::maps::HashMap;
use crate::event::EventId;

/// More than a relay has in hand.
const MAX: usize = 65_536;

#[derive(Debug, Default, Clone, PartialEq)]
pub struct Replayed {
    /// The entry that has decided it.
    done: HashMap<EventId, u64>,
    order: VecDeque<EventId>,
}

impl Replayed {
    pub fn remember(&mut self, event: &EventId, entry: u64) {
        if self.done.insert(event.clone(), entry).is_none() {
            self.order.push_back(event.clone());
        }
        if self.order.len() > MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.done.remove(&oldest);
        }
    }

    pub fn done_by(&self, event: &EventId) -> Option<u64> {
        self.done.get(event).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered() {
        let mut replayed = Replayed::default();
        for n in 1..=MAX as u64 + 1 {
            replayed.remember(&EventId::of_test(n), n);
            replayed.remember(&EventId::of_test(n), n);
        }
        assert_eq!(replayed.done_by(&EventId::of_test(1)), None);
        assert_eq!(replayed.done_by(&EventId::of_test(2)), Some(2));
        assert_eq!((replayed.done.len(), replayed.order.len()), (MAX, MAX));
    }
}
