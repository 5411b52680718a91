//! The bucket's stream, one message a subject, and what the server does with an atomic batch: it looks at what each
//! record expects, stores all of them or none, and gives them contiguous sequences.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

use super::program::{KEYS, Values, bytes, value};
use crate::broker::kv::key_subject;
use crate::ledger::core::append::Batch;
use crate::ledger::core::entry::{Death, DecisionKind, Entry, Head, Out, Subjects, WITHOUT_ROLLOUTS};
use crate::ledger::core::record::{Expect, Record, RecordMark};
use crate::mesh_streams::dead_letter::DeathRef;

pub const BUCKET: &str = "b";

/// The name of one append. The lowest that stands nowhere is taken, so that equal states get equal names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub host: usize,
    pub number: usize,
}

impl Name {
    pub fn text(self) -> String {
        format!("<append-{}-{}>", self.host, self.number)
    }
}

/// A batch that was laid out to be sent.
#[derive(Debug, Clone)]
pub struct Laid {
    pub name: Name,
    pub batch: Batch,
    /// Of each record all but its sequence and the append's name, as a number.
    marks: Vec<u64>,
}

impl Laid {
    pub fn new(name: Name, batch: Batch) -> Laid {
        let text = name.text();
        let mark = |record: &Record| {
            let body = String::from_utf8_lossy(&record.body).replace(&text, "");
            digest(&(&record.subject, body, record.mark == RecordMark::Tombstone))
        };
        let marks = batch.records.iter().map(mark).collect();
        Laid { name, batch, marks }
    }

    /// What it is, whatever it is called.
    pub fn digest(&self) -> u64 {
        let expects: Vec<String> = self.batch.records.iter().map(|r| format!("{:?}", r.expect)).collect();
        digest(&(&self.marks, expects))
    }
}

/// A message of the stream.
#[derive(Debug, Clone)]
pub struct ModelStored {
    pub sequence: u64,
    pub body: Bytes,
    pub tombstone: bool,
    pub by: Option<Name>,
    mark: u64,
}

/// The stream, and, read once, what it holds.
#[derive(Debug, Clone)]
pub struct ModelServer {
    pub last: u64,
    pub subjects: BTreeMap<String, ModelStored>,
    pub head: Head,
    pub head_sequence: u64,
    /// Entry n is at n - 1, with its sequence.
    pub entries: Vec<(Arc<Entry>, u64)>,
    /// How many of them, the oldest, are collected.
    pub collected: usize,
    /// In the stream's order.
    pub outs: Vec<Arc<Out>>,
}

impl ModelServer {
    /// A bucket that already holds values, with its first head.
    pub fn new(start: Values) -> ModelServer {
        let head = Head {
            min_reader: WITHOUT_ROLLOUTS,
            bucket: "incarnation".to_owned(),
            index_from: 1,
            ..Head::default()
        };
        let (entries, outs, subjects) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut server = ModelServer {
            last: 0,
            subjects,
            head: head.clone(),
            head_sequence: 1,
            entries,
            collected: 0,
            outs,
        };
        let body = serde_json::to_vec(&head).expect("a head is JSON");
        server.store(Subjects::new(BUCKET).head(), body.into(), false, None, 0);
        for (key, start) in KEYS.into_iter().zip(start) {
            if let Some(start) = start {
                server.put(key, start);
            }
        }
        server
    }

    /// A person's `nats kv put`.
    pub fn put(&mut self, key: &str, value: u8) {
        self.store(key_subject(BUCKET, key), bytes(value), false, None, digest(&value));
    }

    /// A key as the leader tells it: its revision, 0 if it never was, and its value.
    pub fn key(&self, key: &str) -> (u64, Option<Bytes>) {
        match self.subjects.get(&key_subject(BUCKET, key)) {
            None => (0, None),
            Some(stored) => (stored.sequence, (!stored.tombstone).then(|| stored.body.clone())),
        }
    }

    pub fn values(&self) -> Values {
        KEYS.map(|key| self.key(key).1.as_ref().map(value))
    }

    /// The death of an event, if it is dead.
    pub fn death(&self, handler: &str, event: &str) -> Option<DeathRef> {
        let stored = self.subjects.get(&Subjects::new(BUCKET).death(handler, event))?;
        let death: Death = serde_json::from_slice(&stored.body).expect("a death record is JSON");
        let (entry, record) = (death.n, stored.sequence);
        (death.verdict == DecisionKind::Dead).then_some(DeathRef { entry, record })
    }

    pub fn last_of(&self, subject: &str) -> u64 {
        self.subjects.get(subject).map_or(0, |stored| stored.sequence)
    }

    /// Whether everything that the batch expects is so.
    pub fn accepts(&self, records: &[Record]) -> bool {
        let mut written = BTreeSet::new();
        records.iter().all(|record| {
            let fits = match &record.expect {
                Expect::Nothing => true,
                // An expectation on what the batch itself has written is refused.
                Expect::Last(sequence) => {
                    !written.contains(&record.subject) && self.last_of(&record.subject) == *sequence
                }
                Expect::LastOf { subject, sequence } => self.last_of(subject) == *sequence,
            };
            written.insert(&record.subject);
            fits
        })
    }

    /// Whether the batch expects a state that has passed: it will never be accepted.
    pub fn is_past(&self, records: &[Record]) -> bool {
        records.iter().any(|record| match &record.expect {
            // What never was can be so again, when it is collected.
            Expect::Nothing | Expect::Last(0) => false,
            Expect::Last(sequence) => self.last_of(&record.subject) > *sequence,
            Expect::LastOf { subject, sequence } => self.last_of(subject) > *sequence,
        })
    }

    /// Stores a batch that it accepts. Gives the last sequence, and the entry that was stored under its number before.
    pub fn take(&mut self, laid: &Laid) -> (u64, Option<Arc<Entry>>) {
        let subjects = Subjects::new(BUCKET);
        let n = laid.batch.entry.n;
        let mut before = None;
        for (record, mark) in laid.batch.records.iter().zip(&laid.marks) {
            let tombstone = record.mark == RecordMark::Tombstone;
            self.store(
                record.subject.clone(),
                record.body.clone(),
                tombstone,
                Some(laid.name),
                *mark,
            );
            if record.subject == subjects.head() {
                self.head = serde_json::from_slice(&record.body).expect("a head is JSON");
                self.head_sequence = self.last;
            } else if record.subject == subjects.entry(n) {
                let entry: Entry = serde_json::from_slice(&record.body).expect("an entry is JSON");
                let (entry, at) = (Arc::new(entry), usize::try_from(n - 1).expect("few entries"));
                match self.entries.get_mut(at) {
                    Some(known) => before = Some(std::mem::replace(known, (entry, self.last)).0),
                    None => self.entries.push((entry, self.last)),
                }
            } else if record.subject.starts_with(&subjects.out(n, 0)) {
                let out = serde_json::from_slice(&record.body).expect("consequences are JSON");
                self.outs.push(Arc::new(out));
            }
        }
        (self.last, before)
    }

    /// The oldest entry goes.
    pub fn collect(&mut self) {
        self.collected += 1;
        self.subjects
            .remove(&Subjects::new(BUCKET).entry(self.collected as u64));
    }

    fn store(&mut self, subject: String, body: Bytes, tombstone: bool, by: Option<Name>, mark: u64) {
        self.last += 1;
        let sequence = self.last;
        self.subjects.insert(
            subject,
            ModelStored {
                sequence,
                body,
                tombstone,
                by,
                mark,
            },
        );
    }

    /// Each message: its sequence, a digest of its contents, and its append.
    pub fn digests(&self) -> impl Iterator<Item = (u64, u64, Option<Name>)> {
        self.subjects
            .values()
            .map(|stored| (stored.sequence, stored.mark, stored.by))
    }
}

pub fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
