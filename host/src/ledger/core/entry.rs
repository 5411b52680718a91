//! What a ledger stores, as JSON that a person can read with `nats stream view KV_<bucket>`.
//!
//! Subjects, all in the bucket's stream: `$MESH.state.<bucket>.ledger.<n>` (entries), `.out.<n>` and `.out.<n>.<k>`
//! (consequences), `.head`, `.dead.<handler>.<event>` (one record per death), `.check` (carriers of expectations).

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use super::consequence::{Consequence, Out, PART, StoredBody};
pub use super::id::{Hash, Id};
pub use super::incarnation::Incarnation;
use super::rollout::{self, RolloutState, Trial};
use crate::event::EventId;
use crate::event::outcome::Cause;
use crate::mesh_streams::modules::RolloutSpec;

/// The newest format that this host can read.
pub const READER: u32 = 3;
/// The format that it writes while no rollout was counted in the ledger: hosts of before read that.
pub const WITHOUT_ROLLOUTS: u32 = 2;
/// Values above this are not repeated in the entry.
pub const VALUE_IN_ENTRY_MAX: usize = 16 * 1024;

/// Subjects of one bucket's ledger.
pub struct Subjects(String);

impl Subjects {
    pub fn new(bucket: &str) -> Subjects {
        Subjects(format!("$MESH.state.{bucket}"))
    }

    pub fn head(&self) -> String {
        format!("{}.head", self.0)
    }

    pub fn entry(&self, n: u64) -> String {
        format!("{}.ledger.{n}", self.0)
    }

    pub fn entries(&self) -> String {
        format!("{}.ledger.>", self.0)
    }

    /// Message `k` of an entry's consequences; 0 is the first.
    pub fn out(&self, n: u64, k: usize) -> String {
        if k == 0 {
            format!("{}.out.{n}", self.0)
        } else {
            format!("{}.out.{n}.{k}", self.0)
        }
    }

    pub fn outs(&self) -> String {
        format!("{}.out.>", self.0)
    }

    pub fn death(&self, handler: &str, event: &str) -> String {
        format!("{}.dead.{handler}.{event}", self.0)
    }

    pub fn check(&self) -> String {
        format!("{}.check", self.0)
    }
}

/// One append's decisions and writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub n: u64,
    /// Which append it was; a resend of the same append carries the same.
    pub append: String,
    pub host: String,
    /// When it was appended, RFC 3339.
    pub at: String,
    pub min_reader: u32,
    pub decisions: Vec<Decision>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<Write>,
    /// Floors that have risen since the entry before, by handler.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub floors: BTreeMap<String, Floor>,
    /// Where a starting host begins to read, if that has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_from: Option<u64>,
    /// What is new of source streams.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub incarnations: BTreeMap<String, Incarnation>,
    /// Handlers of which everything is forgotten that entries before this one have decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reset: Vec<String>,
    /// Rollouts that begin with this entry, by handler.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rollouts: BTreeMap<String, RolloutSpec>,
    /// First attempts during a rollout, also of events that are not decided yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<Trial>,
}

impl Entry {
    /// Which format a host must read for this entry upon a head.
    pub fn reader(&self, head: &Head) -> u32 {
        match self.rollouts.is_empty() && head.rollouts.is_empty() {
            true => WITHOUT_ROLLOUTS,
            false => READER,
        }
    }

    /// Its deaths, and the deaths that a replay's `done` overwrites: each has a record in the batch.
    pub fn deaths(&self) -> usize {
        let recorded = |d: &&Decision| d.verdict == DecisionKind::Dead || d.follows_death.is_some();
        self.decisions.iter().filter(recorded).count()
    }

    /// What is wrong with an entry that reads as one: a decision on nothing, a value that is none, or another's number.
    pub fn flaw(&self, n: Option<u64>) -> Option<String> {
        if n.is_some_and(|n| n != self.n) {
            return Some(format!("it has the number {}", self.n));
        }
        let events = self.decisions.iter().flat_map(|d| d.same_as.iter().chain([&d.event]));
        let event = events.into_iter().find(|event| EventId::parts(event).is_none());
        let value = self.writes.iter().find(|write| match &write.value {
            Some(value @ Text::Base64(_)) => value.bytes().is_err(),
            Some(Text::Text(_)) | None => false,
        });
        event
            .map(|event| format!("`{event}` names no event"))
            .or_else(|| value.map(|write| format!("the value of {} is no base64", write.key)))
    }

    /// The revision of its first written key. The sequences of a batch are contiguous: after the entry come the head,
    /// the deaths and the keys.
    pub fn first_revision(&self, sequence: u64) -> u64 {
        record_of_death(sequence, self.deaths())
    }
}

/// The sequence of the record of one of an entry's deaths, by the entry's own sequence and the death's place among them.
pub fn record_of_death(entry_sequence: u64, place: usize) -> u64 {
    entry_sequence + 2 + place as u64
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecisionKind {
    Done,
    Dead,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub handler: String,
    /// `<incarnation>.<sequence>`.
    pub event: String,
    pub verdict: DecisionKind,
    /// What it is known by besides, for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// The event that it repeats: nothing was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub attempt: u32,
    pub module: String,
    /// The entry of the death that this `done` of a replay follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows_death: Option<u64>,
    /// Which of the entry's writes are its own, by their places there. Of a key that several decisions write, the entry
    /// has the last value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<usize>,
}

impl Decision {
    /// An event is done in this attempt, with nothing more to it.
    pub fn done(handler: &str, event: String, attempt: u32, module: String) -> Decision {
        Decision {
            handler: handler.to_owned(),
            event,
            verdict: DecisionKind::Done,
            id: None,
            same_as: None,
            cause: None,
            code: None,
            message: None,
            attempt,
            module,
            follows_death: None,
            writes: Vec::new(),
        }
    }

    /// A decision of a handler in the first attempt, with nothing more to it.
    #[cfg(test)]
    pub fn of_test(handler: &str, event: &str, verdict: DecisionKind) -> Decision {
        let done = Decision::done(handler, event.to_owned(), 1, "m".to_owned());
        Decision { verdict, ..done }
    }
}

/// A key's final value in this entry, and the revision that it had before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Write {
    pub key: String,
    pub base: u64,
    /// Absent: deleted, or too large to be repeated here (see `bytes`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Text<'static>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
}

impl Write {
    pub fn new(key: &str, base: u64, value: Option<&Bytes>) -> Write {
        Write {
            key: key.to_owned(),
            base,
            value: value
                .filter(|v| v.len() <= VALUE_IN_ENTRY_MAX)
                .map(|v| Text::of(v).into_owned()),
            bytes: value.map(Bytes::len),
        }
    }
}

/// Bytes in JSON: as text where they are text, else in base64.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Text<'a> {
    Text(Cow<'a, str>),
    Base64(String),
}

impl<'a> Text<'a> {
    pub fn of(bytes: &'a [u8]) -> Text<'a> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Text::Text(text.into()),
            Err(_) => Text::Base64(BASE64.encode(bytes)),
        }
    }

    pub fn into_owned(self) -> Text<'static> {
        match self {
            Text::Text(text) => Text::Text(text.into_owned().into()),
            Text::Base64(text) => Text::Base64(text),
        }
    }

    pub fn into_bytes(self) -> Result<Bytes, String> {
        match self {
            Text::Text(text) => Ok(text.into_owned().into()),
            Text::Base64(text) => BASE64.decode(text).map(Bytes::from).map_err(|e| e.to_string()),
        }
    }

    pub fn bytes(&self) -> Result<Bytes, String> {
        self.clone().into_bytes()
    }
}

/// The newest entry's number and what a starting host must know. Its stream sequence is the compare-and-set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    pub n: u64,
    pub min_reader: u32,
    /// The token of this creation of the bucket.
    pub bucket: String,
    /// By handler.
    #[serde(default)]
    pub floors: BTreeMap<String, Floor>,
    /// A starting host reads the entries from here on.
    pub index_from: u64,
    /// By source stream.
    pub incarnations: BTreeMap<String, Incarnation>,
    /// The last rollout of each handler.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rollouts: BTreeMap<String, RolloutState>,
}

impl Head {
    /// The head that follows from a head and the entry after it, so that a host which has the entries has the head too.
    pub fn after(&self, entry: &Entry) -> Head {
        let mut head = self.clone();
        head.n = entry.n;
        head.min_reader = entry.min_reader;
        for handler in &entry.reset {
            head.floors.remove(handler);
            head.rollouts.remove(handler);
        }
        for (handler, risen) in &entry.floors {
            head.floors.entry(handler.clone()).or_default().merge(risen);
        }
        for decision in &entry.decisions {
            if !head.floors.contains_key(&decision.handler) {
                head.floors.insert(decision.handler.clone(), Floor::default());
            }
            let Some(totals) = head.floors.get_mut(&decision.handler) else {
                continue;
            };
            match decision.verdict {
                DecisionKind::Done => totals.done += 1,
                DecisionKind::Dead => totals.dead += 1,
            }
            if decision.follows_death.is_some() {
                totals.dead = totals.dead.saturating_sub(1);
            }
        }
        head.index_from = entry.index_from.unwrap_or(head.index_from);
        head.incarnations.extend(entry.incarnations.clone());
        rollout::count(&mut head.rollouts, entry);
        head
    }
}

/// How far a handler has decided everything, and how much it has decided in all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    pub incarnation: String,
    /// Every matching message at or below this sequence is decided.
    pub floor: u64,
    /// The floors of other incarnations that it has had.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub done: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dead: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Floor {
    /// The floor of an incarnation.
    pub fn of(&self, incarnation: &str) -> u64 {
        if self.incarnation == incarnation {
            self.floor
        } else {
            self.others.get(incarnation).copied().unwrap_or(0)
        }
    }

    /// Everything of this incarnation at or below `sequence` is decided; it is the present one from now on.
    pub fn raise(&mut self, incarnation: &str, sequence: u64) {
        if self.incarnation != incarnation {
            let floor = sequence.max(self.others.remove(incarnation).unwrap_or(0));
            let (was, at) = (
                std::mem::replace(&mut self.incarnation, incarnation.to_owned()),
                self.floor,
            );
            if !was.is_empty() {
                self.others.insert(was, at);
            }
            self.floor = floor;
        }
        self.floor = self.floor.max(sequence);
    }

    /// Takes in what another host knows: no floor ever goes back. Which incarnation is the present one stays as it is.
    pub fn merge(&mut self, other: &Floor) {
        let theirs = other.others.iter().map(|(incarnation, floor)| (incarnation, *floor));
        for (incarnation, floor) in theirs.chain(std::iter::once((&other.incarnation, other.floor))) {
            if self.incarnation.is_empty() || self.incarnation == *incarnation {
                self.incarnation.clone_from(incarnation);
                self.floor = self.floor.max(floor);
            } else if !incarnation.is_empty() {
                let known = self.others.entry(incarnation.clone()).or_default();
                *known = (*known).max(floor);
            }
        }
    }
}

/// The record of one death, until a replay's `done` overwrites it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Death {
    /// The entry that decided it.
    pub n: u64,
    pub append: String,
    pub verdict: DecisionKind,
}
