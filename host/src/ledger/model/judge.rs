//! What must be so whenever the server stores an append, and of every state.

use super::bounds::Bounds;
use super::program::{KEYS, value};
use super::server::{Laid, ModelServer};
use super::world::{Broken, Event, HANDLER, INCARNATION, Stands, World, event_of};
use crate::event::outcome::Cause;
use crate::ledger::core::entry::{Decision, DecisionKind};

/// Judges an append by running its transactions one after another on what the server held at that moment.
pub fn append(
    bounds: &Bounds,
    before: &ModelServer,
    after: &ModelServer,
    laid: &Laid,
    events: &mut [Event],
) -> Option<Broken> {
    let entry = &laid.batch.entry;
    if entry.n != before.head.n + 1 || after.head.n != entry.n {
        return Some(Broken::Numbers);
    }
    let mut values = before.values();
    for decision in &entry.decisions {
        let event = event_of(decision.event.rsplit('.').next().unwrap_or_default());
        let stands = &mut events[event].stands;
        let may = match (*stands, decision.follows_death) {
            (Stands::Open, None) => true,
            (Stands::Dead(n), Some(death)) => n == death,
            _ => false,
        };
        if !may {
            return Some(Broken::DecidedTwice);
        }
        *stands = match decision.verdict {
            DecisionKind::Done => Stands::Done,
            DecisionKind::Dead => Stands::Dead(entry.n),
        };
        match (decision.verdict, bounds.programs[event].run(values)) {
            (DecisionKind::Done, Some(writes)) => {
                for (value, write) in values.iter_mut().zip(writes) {
                    *value = write.unwrap_or(*value);
                }
            }
            (DecisionKind::Dead, None) => {}
            (DecisionKind::Dead, Some(_)) if !rejects(decision) => {}
            (DecisionKind::Done, None) | (DecisionKind::Dead, Some(_)) => return Some(Broken::NotSerial),
        }
    }
    if after.values() != values {
        return Some(Broken::NotSerial);
    }
    for key in KEYS {
        let write = entry.writes.iter().find(|write| write.key == key);
        let (is, was) = (after.key(key), before.key(key));
        let told = match write {
            None => is == was,
            Some(write) if write.bytes.is_some() && write.value.is_none() => write.base == was.0,
            Some(write) => {
                let told = write.value.as_ref().and_then(|text| text.bytes().ok());
                write.base == was.0 && told.as_ref().map(value) == is.1.as_ref().map(value)
            }
        };
        if !told && bounds.mistake.is_none() {
            return Some(Broken::LedgerIsNotTheState);
        }
    }
    let floor = after.head.floors.get(HANDLER).map_or(0, |floor| floor.of(INCARNATION));
    let passed = |(event, at): (&Event, u64)| at <= floor && event.stands == Stands::Open;
    events.iter().zip(1..).any(passed).then_some(Broken::FloorTooHigh)
}

fn rejects(decision: &Decision) -> bool {
    decision.cause == Some(Cause::Rejected)
}

impl World {
    /// What a host believes of the present head and of present revisions is so.
    pub fn judge_beliefs(&mut self) {
        let mut wrong = false;
        for book in self
            .hosts
            .iter()
            .filter(|host| host.connected)
            .filter_map(|host| host.book.as_ref())
        {
            if book.head.n == self.server.head.n {
                wrong |= book.head != self.server.head || book.head_sequence != self.server.head_sequence;
            }
            for key in KEYS {
                let (revision, value) = self.server.key(key);
                let known = book.view.cache.peek(key);
                wrong |= known.is_some_and(|known| known.revision == revision && known.value != value);
                wrong |= known.is_some_and(|known| known.revision > revision);
            }
        }
        if wrong {
            self.breaks(Broken::BelievesWrongly);
        }
    }
}
