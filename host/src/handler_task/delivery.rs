//! An event on its way to a handler, and what came of one attempt at it.

use std::time::Duration;

use crate::dead_letter::{DeathRef, Envelope};
use crate::handler_task::settle::Acker;
use crate::ledger::Committed;
use crate::message::Message;
use crate::outcome::{Outcome, Verdict};
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

    /// Whether a verdict on it is a decision, to stand in the ledger.
    pub fn decides(&self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Done => true,
            Verdict::Dead { .. } => !self.is_of_letter(),
            Verdict::Retry { .. } => false,
        }
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
