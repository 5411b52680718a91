//! Whether two versions wanted the same of an event.

use crate::event::effects::{Effects, Emit};
use crate::event::outcome::Outcome;

/// Times that are counted from now differ between two runs by as much.
const DUE_APART_MS: u64 = 10_000;

/// What the other version wanted different, in words; `None`: both wanted the same.
pub fn difference((outcome, served): (&Outcome, &Effects), (other, effects): (&Outcome, &Effects)) -> Option<String> {
    if outcome.name() != other.name() {
        return Some(format!("it ended with {} instead of {}", other.name(), outcome.name()));
    }
    for key in served.writes.keys().chain(effects.writes.keys()) {
        match (served.writes.get(key), effects.writes.get(key)) {
            (own, theirs) if own == theirs => {}
            (Some(_), None) => return Some(format!("it does not write key {key}")),
            (None, _) => return Some(format!("it writes key {key}")),
            (Some(_), Some(_)) => return Some(format!("it writes another value to key {key}")),
        }
    }
    let (own, theirs) = (served.emits.len(), effects.emits.len());
    if own != theirs {
        return Some(format!("it emits {theirs} event(s) instead of {own}"));
    }
    let differs = served
        .emits
        .iter()
        .zip(&effects.emits)
        .find(|(own, theirs)| !same(own, theirs));
    if let Some((own, _)) = differs {
        return Some(format!("it emits something else to {}", own.subject));
    }
    let timers = |effects: &Effects| {
        let named = effects
            .timers
            .iter()
            .map(|(name, timer)| (name.clone(), timer.is_some()));
        named.collect::<Vec<_>>()
    };
    (timers(served) != timers(effects)).then(|| "it sets other timers".to_owned())
}

fn same(own: &Emit, theirs: &Emit) -> bool {
    let due = match (own.due_ms, theirs.due_ms) {
        (Some(own), Some(theirs)) => own.abs_diff(theirs) <= DUE_APART_MS,
        (own, theirs) => own == theirs,
    };
    due && own.subject == theirs.subject && own.headers == theirs.headers && own.payload == theirs.payload
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effects(key: &str, value: &'static str, emits: &[(&str, Option<u64>)]) -> Effects {
        let mut effects = Effects::default();
        effects.writes.insert(key.to_owned(), Some(value.into()));
        effects.emits = emits
            .iter()
            .map(|(subject, due_ms)| Emit {
                subject: (*subject).to_owned(),
                headers: Vec::new(),
                payload: "x".into(),
                due_ms: *due_ms,
            })
            .collect();
        effects
    }

    #[test]
    fn what_two_versions_want_different_is_named() {
        let served = effects("a", "1", &[("events.a", Some(5_000))]);
        let done = Outcome::Done;
        let reject = Outcome::Reject {
            code: "c".to_owned(),
            message: "m".to_owned(),
        };
        let rows = [
            (&done, effects("a", "1", &[("events.a", Some(6_000))]), None),
            (
                &reject,
                effects("a", "1", &[("events.a", Some(6_000))]),
                Some("it ended with"),
            ),
            (
                &done,
                effects("a", "2", &[("events.a", Some(5_000))]),
                Some("another value to key a"),
            ),
            (
                &done,
                effects("b", "1", &[("events.a", Some(5_000))]),
                Some("does not write key a"),
            ),
            (&done, effects("a", "1", &[]), Some("0 event(s) instead of 1")),
            (
                &done,
                effects("a", "1", &[("events.b", Some(5_000))]),
                Some("something else to events.a"),
            ),
            (
                &done,
                effects("a", "1", &[("events.a", None)]),
                Some("something else to events.a"),
            ),
        ];
        for (outcome, effects, expected) in rows {
            let found = difference((&done, &served), (outcome, &effects));
            match expected {
                None => assert_eq!(found, None),
                Some(text) => assert!(
                    found.as_ref().is_some_and(|found| found.contains(text)),
                    "{found:?}: {text}"
                ),
            }
        }
    }
}
