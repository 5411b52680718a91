//! The dead letters.

use std::collections::BTreeMap;

use super::{Audit, EventFate};
use crate::found::Held;
use crate::mesh::Found;
use crate::orders::{HANDLERS, PLAIN};
use crate::redrives;

impl Audit<'_> {
    /// Each event that is dead has one letter with its bytes and its cause, that of one which was done after its death is resolved,
    /// and no other event has one.
    pub(super) fn letters(&mut self, held: &Held) {
        let mut letters: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
        for letter in &held.letters {
            letters.entry(&letter.subject).or_default().push(letter);
        }
        let mut problems = Vec::new();
        let mut owed = |name: &str, event: &str, sequence: u64, cause: &str| {
            let subject = format!("$MESH.dead.ORDERS.{name}.{event}");
            let found = letters.remove(subject.as_str()).unwrap_or_default();
            let [letter] = found[..] else {
                problems.push(format!("{name} {event} is dead, and has {} letters", found.len()));
                return;
            };
            if let Some(times_max) = self.known.redrives_max {
                problems.extend(redrives::judge(letter, times_max));
            }
            let whole = self.published.get(&sequence).is_some_and(|event| event.is_of(letter));
            if !whole || letter.header("Mesh-Cause") != Some(cause) || letter.header("Mesh-Settled").is_some() {
                problems.push(format!("{name} {event} has a letter that is not its own: {letter:?}"));
            }
        };
        let of_fate = |fate| self.decided.iter().filter(move |(_, decided)| decided.fate == fate);
        for ((handler, sequence), decided) in of_fate(EventFate::Dead) {
            owed(HANDLERS[*handler].0, &decided.event, *sequence, &decided.cause);
        }
        if self.known.plain {
            let any = self.decided.values().next().map_or("", |decided| &decided.event);
            let incarnation = any.split('.').next().unwrap_or_default();
            for (sequence, event) in &self.published {
                if let Some(cause) = event.dies_without_ledger() {
                    owed(PLAIN, &format!("{incarnation}.{sequence}"), *sequence, cause);
                }
            }
        }
        for ((handler, _), decided) in of_fate(EventFate::Revived) {
            let subject = format!("$MESH.dead.ORDERS.{}.{}", HANDLERS[*handler].0, decided.event);
            let found = letters.remove(subject.as_str()).unwrap_or_default();
            if !matches!(found[..], [letter] if letter.header("Mesh-Settled") == Some("replayed")) {
                problems.push(format!(
                    "{subject} is of an event that is done, and is not resolved: {found:?}"
                ));
            }
        }
        problems.extend(
            letters
                .keys()
                .map(|subject| format!("{subject} is a letter of an event that is not dead")),
        );
        self.problems.extend(problems);
    }
}
