//! Transactions that will be one append: what they touch, and how much of a batch they fill. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::entry::{DecisionKind, VALUE_IN_ENTRY_MAX};
use super::outs::{BODY_HERE_MAX, OUT_BYTES, in_json};
use crate::event::effects::Version;
use crate::ledger::core::transaction::Planned;
use crate::ledger::core::transaction::Transaction;

/// Which transaction of this host.
pub type TxId = u64;

/// Transactions that stand or fall together. `W`: who waits for them.
#[derive(Debug, Clone)]
pub struct Group<W> {
    pub members: Vec<Member<W>>,
    /// Every key that they touch.
    pub keys: BTreeMap<String, Touched>,
    pub(in crate::ledger) room: GroupRoom,
}

#[derive(Debug, Clone)]
pub struct Member<W> {
    pub id: TxId,
    pub tx: Transaction,
    pub waiter: W,
}

/// A key that a group touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// What the group found there.
    pub base: Version,
    /// The last one that wrote it, and what. `None`: it was only read, and must still be what it was.
    pub write: Option<(TxId, Option<Bytes>)>,
}

/// How much of one append something fills.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupRoom {
    pub messages: usize,
    /// Of the entry, in bytes.
    pub entry: usize,
    /// Of all messages, in bytes.
    pub bytes: usize,
}

/// What one append may be: a batch holds 1,000 messages (10199), two of which are the entry and the head; its bytes are
/// what the server keeps in memory until the commit.
const MESSAGES_MAX: usize = 990;
const BYTES_MAX: usize = 2 * 1024 * 1024;
/// A message beside its body: subject, batch headers, framing.
const MESSAGE_BYTES: usize = 256;
/// A decision in its entry beside its texts, and a written key beside its name and value.
const DECISION_BYTES: usize = 192;
const WRITE_BYTES: usize = 96;
/// What an event is known by, in the entry.
const ID_BYTES: usize = 160;
/// A counted attempt in the entry, beside its handler's name.
const TRIAL_BYTES: usize = 192;

impl<W> Default for Group<W> {
    fn default() -> Group<W> {
        Group {
            members: Vec::new(),
            keys: BTreeMap::new(),
            room: GroupRoom::default(),
        }
    }
}

impl<W> Group<W> {
    /// Whether there is room for one more, that touches these keys. A group of one is what it is: `batch` says whether
    /// it can be sent.
    pub fn fits(&self, more: GroupRoom, versions: &BTreeMap<String, Version>, payload_max: usize) -> bool {
        // The count of new keys is looked up only where it matters.
        self.members.is_empty()
            || Group::<W>::holds(self.room.plus(more), payload_max)
            || Group::<W>::holds(self.with(more, versions), payload_max)
    }

    /// How much it holds with one more. A key is one message, however many transactions touch it.
    fn with(&self, more: GroupRoom, versions: &BTreeMap<String, Version>) -> GroupRoom {
        let known = versions.keys().filter(|key| self.keys.contains_key(*key)).count();
        let messages = more.messages.saturating_sub(known);
        self.room.plus(GroupRoom { messages, ..more })
    }

    /// Whether an append can be as large.
    pub fn holds(room: GroupRoom, payload_max: usize) -> bool {
        room.messages + room.bytes / OUT_BYTES <= MESSAGES_MAX
            && room.entry <= payload_max / 2
            && room.bytes <= BYTES_MAX
    }

    /// Whether the keys that both touch are the same ones to both.
    pub fn agrees(&self, versions: &BTreeMap<String, Version>) -> bool {
        versions.iter().all(|(key, version)| match self.keys.get(key) {
            None => true,
            Some(Touched {
                write: Some((by, _)), ..
            }) => *version == Version::Pending(*by),
            Some(Touched { write: None, base }) => version == base,
        })
    }

    /// `versions`: of each key that the transaction touches, the one that it finds. `more`: its [`room`].
    pub fn add(&mut self, member: Member<W>, versions: &BTreeMap<String, Version>, more: GroupRoom) {
        self.room = self.with(more, versions);
        for (key, version) in versions {
            let write = member.tx.writes.get(key).map(|value| (member.id, value.clone()));
            match self.keys.get_mut(key) {
                Some(touched) => touched.write = write.or(touched.write.take()),
                None => {
                    let base = *version;
                    self.keys.insert(key.clone(), Touched { base, write });
                }
            }
        }
        self.members.push(member);
    }

    /// Only transactions that wait for others: nothing is to be sent.
    pub fn decides_nothing(&self) -> bool {
        self.members.iter().all(|member| member.tx.only_waits())
    }
}

impl GroupRoom {
    fn plus(self, other: GroupRoom) -> GroupRoom {
        GroupRoom {
            messages: self.messages + other.messages,
            entry: self.entry + other.entry,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// At most what a transaction adds to an append.
pub fn room(tx: &Transaction) -> GroupRoom {
    let trial = tx
        .trial
        .as_ref()
        .map_or(0, |planned| TRIAL_BYTES + planned.trial.handler.len());
    let Some(decision) = &tx.decision else {
        return GroupRoom {
            messages: tx.reads.len() * usize::from(trial > 0),
            entry: trial,
            bytes: trial,
        };
    };
    let message = decision.message.as_ref().map_or(0, |text| in_json(text.as_bytes()));
    let same_as = decision.same_as.as_ref().map_or(0, String::len);
    let id = decision.id.as_ref().map_or(0, |_| ID_BYTES) + same_as;
    let mut room = GroupRoom {
        messages: usize::from(decision.verdict == DecisionKind::Dead || tx.death.is_some()),
        entry: DECISION_BYTES + decision.handler.len() + decision.event.len() + message + id + trial,
        bytes: 0,
    };
    let only_read = tx.reads.keys().filter(|key| !tx.writes.contains_key(*key)).count();
    room.messages += tx.writes.len() + only_read;
    for (key, value) in &tx.writes {
        let value = value.as_ref();
        room.entry += WRITE_BYTES
            + key.len()
            + value
                .filter(|v| v.len() <= VALUE_IN_ENTRY_MAX)
                .map_or(0, |v| in_json(v));
        room.bytes += value.map_or(0, Bytes::len);
    }
    for planned in &tx.consequences {
        let (subject, headers, payload) = match planned {
            Planned::Event {
                subject,
                headers,
                payload,
                ..
            }
            | Planned::Delayed {
                subject,
                headers,
                payload,
                ..
            }
            | Planned::Letter {
                subject,
                headers,
                payload,
            } => (subject, headers.as_slice(), payload.as_ref()),
            Planned::Settle { subject, .. } => (subject, [].as_slice(), [].as_slice()),
        };
        let headers: usize = headers.iter().map(|(n, v)| n.len() + in_json(v.as_bytes()) + 8).sum();
        // A large payload has messages of its own.
        room.messages += payload.len() / BODY_HERE_MAX;
        room.bytes += MESSAGE_BYTES + subject.len() + headers + in_json(payload);
    }
    room.bytes += room.entry + room.messages * MESSAGE_BYTES;
    room
}
