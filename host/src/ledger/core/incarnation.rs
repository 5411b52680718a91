//! What the mesh knows of a source stream: its incarnation, and how the stream is recognised. Pure.

use serde::{Deserialize, Serialize};

/// What the mesh knows of a source stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// Of the events that are stored now.
    pub token: String,
    /// When the server made the stream; another time after a restore, too.
    pub created: String,
    /// A message by which the stream is recognised: its sequence and time. 0: none was seen yet. In a ledger, no event of this
    /// incarnation with a higher sequence is decided.
    pub sequence: u64,
    pub time_ms: u64,
    /// The stream has lost its end, and uses the sequences that it had there again: whose the events before are, in their
    /// order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Former>,
}

/// The events of a stream up to a sequence, from where the one before ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    pub token: String,
    pub until: u64,
}

impl Incarnation {
    /// Whose the event at a sequence is.
    pub fn of(&self, sequence: u64) -> &str {
        let former = self.former.iter().find(|former| sequence <= former.until);
        former.map_or(&self.token, |former| &former.token)
    }

    /// Whether events of this token are in the stream.
    pub fn has(&self, token: &str) -> bool {
        self.token == token || self.former.iter().any(|former| former.token == token)
    }

    /// The stream has lost everything behind `end`: what comes there now is of `token`.
    pub fn cut(&self, end: u64, token: String) -> Incarnation {
        let mut former: Vec<Former> = self
            .former
            .iter()
            .filter(|former| former.until < end)
            .cloned()
            .collect();
        former.push(Former {
            token: self.of(end).to_owned(),
            until: end,
        });
        Incarnation {
            token,
            former,
            ..self.clone()
        }
    }

    /// An event has come that is to be decided.
    pub fn saw(&mut self, token: &str, sequence: u64, time_ms: u64) {
        if self.token == token && sequence > self.sequence {
            (self.sequence, self.time_ms) = (sequence, time_ms);
        }
    }

    /// Takes in what another has seen of the same.
    pub fn merge(&mut self, other: &Incarnation) {
        if self.created == other.created {
            self.saw(&other.token, other.sequence, other.time_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Incarnation {
        Incarnation {
            token: "a".into(),
            created: "monday".into(),
            sequence: 7,
            time_ms: 70,
            former: Vec::new(),
        }
    }

    #[test]
    fn what_comes_in_the_place_of_what_was_lost_is_of_another_incarnation() {
        let once = known().cut(5, "b".into());
        assert_eq!([4, 5, 6].map(|at| once.of(at).to_owned()), ["a", "a", "b"]);
        let twice = once.cut(9, "c".into());
        assert_eq!([5, 6, 9, 10].map(|at| twice.of(at).to_owned()), ["a", "b", "b", "c"]);
        let deeper = twice.cut(3, "d".into());
        assert_eq!([3, 4, 6, 10].map(|at| deeper.of(at).to_owned()), ["a", "d", "d", "d"]);
        assert!(deeper.has("a") && deeper.has("d") && !deeper.has("b") && !deeper.has("c"));
    }

    #[test]
    fn what_was_seen_only_grows_and_is_of_its_own_incarnation() {
        let mut seen = known();
        seen.saw("a", 6, 60);
        seen.saw("b", 9, 90);
        assert_eq!(seen, known());
        seen.saw("a", 9, 90);
        assert_eq!((seen.sequence, seen.time_ms), (9, 90));
        let mut other = known();
        other.merge(&seen);
        assert_eq!(other, seen);
    }
}
