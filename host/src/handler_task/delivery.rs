//! An event on its way to a handler, and what came of one attempt at it.

use std::time::{Duration, Instant};

use crate::event::Message;
use crate::event::outcome::{Outcome, Verdict};
use crate::handler_task::settle::delays::LETTER_LEFT;
use crate::handler_task::settle::{Acker, Settlement};
use crate::ledger::Committed;
use crate::mesh_streams::dead_letter::{DeathRef, Envelope};
use crate::random::Seed;
use crate::wasm::guest::Line;
use crate::wasm::source::ModuleDigest;

/// An event to be handled, from wherever it came.
pub struct Delivery {
    pub message: Message,
    pub acker: Acker,
    /// How often the server has delivered it, this time included.
    pub delivered: u64,
    pub replay: Option<Replay>,
    /// When it came to this host.
    pub at: Instant,
}

impl Delivery {
    /// A dead letter is being tried again: when that fails, its death and itself stand, and nothing is decided.
    pub fn is_of_letter(&self) -> bool {
        self.letter().is_some()
    }

    /// The dead letter that is being tried again.
    pub fn letter(&self) -> Option<&Envelope> {
        self.replay.as_ref()?.letter.as_ref()
    }

    /// Which run of `dlq replay` has asked for it, if that is known.
    pub fn asked_by(&self) -> Option<&str> {
        self.replay.as_ref()?.asked_by.as_deref()
    }

    /// The death that its `done` follows.
    pub fn death(&self) -> Option<DeathRef> {
        self.replay.as_ref()?.death
    }

    /// How it is answered when its event is decided already. A replay may have been begun upon what a replica had: it comes again
    /// and finds out whether its letter is still there.
    pub fn when_decided(&self) -> Settlement {
        match self.is_of_letter() && self.delivered == 1 {
            true => Settlement::Nak(LETTER_LEFT),
            false => Settlement::Ack,
        }
    }

    /// Which turn of its event it is.
    pub fn turn(&self) -> Turn {
        Turn {
            delivered: self.delivered,
            is_replay: self.replay.is_some(),
            of_letter: self.is_of_letter(),
        }
    }
}

/// Which turn of an event a delivery is.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    pub delivered: u64,
    pub is_replay: bool,
    /// A dead letter is replayed: it has attempts of its own, counted by its stream.
    pub of_letter: bool,
}

impl Turn {
    /// Whether its attempt is recorded before it runs.
    pub fn is_recorded(self) -> bool {
        (self.delivered > 1 || self.is_replay) && !self.of_letter
    }

    /// Whether an attempt record may lie there from an earlier turn.
    pub fn may_have_record(self) -> bool {
        self.is_recorded() || self.delivered > 1
    }

    /// Which attempt it is; the first is 1. `recorded`: how many were begun, this one included.
    pub fn attempt(self, recorded: Option<u32>) -> u32 {
        match recorded {
            Some(attempts) => attempts,
            None if self.of_letter => u32::try_from(self.delivered).unwrap_or(u32::MAX),
            None => 1,
        }
    }

    /// Whether an attempt is one too many. A letter is replayed as often as a person asks for it.
    pub fn is_beyond(self, attempt: u32, attempts_max: u32) -> bool {
        attempt > attempts_max && !self.of_letter
    }
}

/// What makes a delivery a replay.
#[derive(Debug)]
pub struct Replay {
    /// `None`: its handler has no ledger, or it was never dead.
    pub death: Option<DeathRef>,
    /// To be settled when it is done. `None`: the event was never dead; the server lost it, and it is run like a first
    /// delivery.
    pub letter: Option<Envelope>,
    /// Which run of `dlq replay` has asked for it.
    pub asked_by: Option<String>,
}

/// What became of one attempt, for the log and the records.
pub struct Ran {
    pub outcome: Outcome,
    pub verdict: Verdict,
    /// Set when it was `done` and committed, or found decided.
    pub committed: Option<Committed>,
    pub lines: Vec<Line>,
    pub took: Duration,
    /// When the guest had ended.
    pub run_ended: Instant,
    /// The same; of a decision, when it was committed.
    pub ended: Instant,
    /// How often it was run again, because what it had read had changed.
    pub reruns: u32,
    pub digest: ModuleDigest,
    /// What its random numbers came from.
    pub seed: Option<Seed>,
}

/// Where a message comes from.
#[derive(Debug, Clone, Copy)]
pub enum Inbound {
    Source,
    Replay,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deliveries, whether it is a replay, whether it is one of a letter: and what follows.
    #[test]
    fn a_turn_is_recorded_and_counted_by_where_it_comes_from() {
        struct Row {
            turn: (u64, bool, bool),
            recorded: bool,
            may_have_record: bool,
            unrecorded_attempt: u32,
        }
        let row = |turn, recorded, may_have_record, unrecorded_attempt| Row {
            turn,
            recorded,
            may_have_record,
            unrecorded_attempt,
        };
        let rows = [
            // The usual event writes nothing.
            row((1, false, false), false, false, 1),
            row((2, false, false), true, true, 1),
            // An event that the sweep has found, or an advisory: it may have been tried.
            row((1, true, false), true, true, 1),
            row((3, true, false), true, true, 1),
            // A letter's replay counts its own deliveries.
            row((1, true, true), false, false, 1),
            row((4, true, true), false, true, 4),
        ];
        for row in rows {
            let (delivered, is_replay, of_letter) = row.turn;
            let turn = Turn {
                delivered,
                is_replay,
                of_letter,
            };
            assert_eq!(turn.is_recorded(), row.recorded, "{turn:?}");
            assert_eq!(turn.may_have_record(), row.may_have_record, "{turn:?}");
            assert_eq!(turn.attempt(None), row.unrecorded_attempt, "{turn:?}");
            assert_eq!(turn.attempt(Some(7)), 7, "{turn:?}: the record knows better");
        }
    }

    #[test]
    fn the_attempt_after_the_last_is_one_too_many_but_not_for_a_letter() {
        let event = Turn {
            delivered: 9,
            is_replay: false,
            of_letter: false,
        };
        assert_eq!(
            [2, 3, 4].map(|attempt| event.is_beyond(attempt, 3)),
            [false, false, true]
        );
        let letter = Turn {
            of_letter: true,
            ..event
        };
        assert!(!letter.is_beyond(4, 3));
    }
}
