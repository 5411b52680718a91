//! What a relay does (`relay.rs`, `carry.rs`), and the streams that it publishes into. Two hosts may be at it at once:
//! the server moves its pin when one goes silent, and that one may only have slept.

use super::bounds::Bounds;
use super::world::{Broken, Carrying, LetterState, Stands, World, event_of};
use crate::failpoint::mistake::Mistake;
use crate::ledger::core::entry::{Consequence, record_of_death};
use crate::mesh_streams::dead_letter::{DEATH, DeathRef};

impl World {
    /// The next message of consequences, if its entry is committed; one of another append than that entry's is left out.
    pub fn fetch_out(&mut self, host: usize) {
        let at = self.relayed;
        let Some(out) = self.out(at) else { return };
        if out.n > self.server.head.n {
            return;
        }
        let entry = usize::try_from(out.n - 1)
            .ok()
            .and_then(|at| self.server.entries.get(at));
        if entry.is_none_or(|(entry, _)| entry.append != out.append) {
            self.relayed += 1;
            return;
        }
        // A relay that begins looks at what the target holds.
        let there = self.events.iter().enumerate().filter(|(_, event)| event.emitted > 0);
        let there = there.map(|(at, _)| at).collect();
        self.host(host).carrying = Some(Carrying { at, next: 0, there });
    }

    /// Publishes one consequence, or, after the last, acks the message.
    pub fn carry(&mut self, bounds: &Bounds, host: usize) {
        let carrying = self.hosts[host].carrying.clone().expect("it carries");
        let out = self.out(carrying.at).expect("it is stored").clone();
        match out.consequences.get(carrying.next) {
            None => {
                self.relayed = self.relayed.max(carrying.at + 1);
                self.host(host).carrying = None;
            }
            Some(consequence) => {
                let committed = usize::try_from(out.n - 1)
                    .ok()
                    .and_then(|at| self.server.entries.get(at));
                let own = committed.filter(|(entry, _)| out.n <= self.server.head.n && entry.append == out.append);
                let sequence = own.map(|(_, sequence)| *sequence);
                let Some(sequence) = sequence else {
                    return self.breaks(Broken::CarriedOutWrongly);
                };
                self.publish(bounds, consequence, sequence, &carrying.there);
                if let Some(carrying) = &mut self.host(host).carrying {
                    carrying.next += 1;
                }
            }
        }
    }

    /// The mistake of an ack before its confirmation.
    pub fn ack_unconfirmed(&mut self, bounds: &Bounds, host: usize) {
        if bounds.mistake == Some(Mistake::RelayAcksEarly)
            && let Some(carrying) = &self.hosts[host].carrying
        {
            self.relayed = self.relayed.max(carrying.at + 1);
        }
    }

    fn publish(&mut self, bounds: &Bounds, consequence: &Consequence<'_>, entry_sequence: u64, there: &[usize]) {
        match consequence {
            Consequence::Event { id, .. } => {
                let at = event_of(id.rsplit('.').next().unwrap_or_default());
                let by_id = bounds.mistake != Some(Mistake::EmitWithoutId);
                let event = &mut self.events[at];
                if by_id && (there.contains(&at) || event.remembered) {
                    return;
                }
                event.remembered = true;
                event.emitted += 1;
                if event.emitted > 1 || event.stands != Stands::Done {
                    self.breaks(Broken::CarriedOutWrongly);
                }
            }
            // No program of the model emits for later.
            Consequence::Delayed { .. } => {}
            Consequence::Letter {
                subject,
                headers,
                death: place,
                ..
            } => {
                let event = &mut self.events[event_of(subject.rsplit('.').next().unwrap_or_default())];
                let death = headers
                    .iter()
                    .find(|(name, _)| name == DEATH)
                    .and_then(|(_, n)| n.parse().ok());
                // Stored with the expected sequence 0: never twice, never over what settles it.
                if event.letter == LetterState::None {
                    let record = place.map_or(0, |place| record_of_death(entry_sequence, place));
                    event.letter = death.map_or(LetterState::None, |entry| {
                        LetterState::Stored(DeathRef { entry, record })
                    });
                }
            }
            Consequence::Settle { subject, .. } => {
                self.events[event_of(subject.rsplit('.').next().unwrap_or_default())].letter = LetterState::Settled;
            }
        }
    }
}
