//! A decision that is to be appended, with everything that must happen together with it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::{Decision, DecisionKind};
use super::index::Decided;
use super::rollout::Trial;
use crate::event::EventId;
use crate::event::effects::Version;
use crate::mesh_streams::dead_letter::DeathRef;
use crate::mesh_streams::modules::RolloutSpec;

/// A decision that wants to be appended, with all that must happen together with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Transaction {
    pub handler: String,
    pub event: EventId,
    /// `None`: it decides nothing, and waits until what it has read is committed.
    pub decision: Option<Decision>,
    /// The session of the ledger that its reads belong to.
    pub session: u64,
    /// What it rests on.
    pub reads: BTreeMap<String, Version>,
    pub writes: BTreeMap<String, Option<Bytes>>,
    pub consequences: Vec<Planned>,
    /// Of a replay: the death that its `done` follows.
    pub death: Option<DeathRef>,
    /// Its attempt is counted for a rollout.
    pub trial: Option<Box<PlannedTrial>>,
}

/// An attempt that is to be counted, and the rollout that it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedTrial {
    pub trial: Trial,
    pub spec: Arc<RolloutSpec>,
}

impl Transaction {
    /// Whether it only waits until what it has read is committed: it appends nothing.
    pub fn only_waits(&self) -> bool {
        self.decision.is_none() && self.trial.is_none()
    }

    /// Its event repeats another: that is decided, and nothing of what it wanted happens.
    pub fn repeats(&mut self, first: &EventId) {
        self.reads.clear();
        self.writes.clear();
        self.consequences.clear();
        self.trial = None;
        if let Some(decision) = &mut self.decision {
            decision.verdict = DecisionKind::Done;
            decision.same_as = Some(first.to_string());
            (decision.cause, decision.code, decision.message) = (None, None, None);
        }
    }

    /// Whether it was taken for a repetition of another event.
    pub fn is_repetition(&self) -> bool {
        self.decision
            .as_ref()
            .is_some_and(|decision| decision.same_as.is_some())
    }
}

/// A consequence before it is laid out in messages; its body is left out of `consequence`.
#[derive(Debug, Clone, PartialEq)]
pub enum Planned {
    Event {
        id: String,
        subject: String,
        headers: crate::event::Headers,
        payload: Bytes,
    },
    Delayed {
        id: String,
        /// In milliseconds since the Unix epoch.
        due_ms: u64,
        subject: String,
        headers: crate::event::Headers,
        payload: Bytes,
    },
    Letter {
        subject: String,
        headers: crate::event::Headers,
        payload: Bytes,
    },
    Settle {
        subject: String,
        reason: String,
        in_parts: bool,
        asked_by: Option<String>,
    },
}

/// The decision in the index because of which this transaction does not run, if there is one. A replay's `done` follows exactly its
/// own death.
pub fn already_decided(decided: Option<Decided>, death: Option<DeathRef>) -> Option<Decided> {
    match (decided, death) {
        (Some(Decided::Dead { entry }), Some(death)) if entry == death.entry => None,
        // Below the floor the death's own record, which the batch expects unchanged, is the witness.
        (Some(Decided::Below), Some(_)) => None,
        (decided, _) => decided,
    }
}
