//! From a transaction to the messages of one atomic batch, and from the server's answer to the next step. Pure: this is
//! what decides whether effects happen once, so it can be run without a server.

use super::record::{Expect, Record, RecordMark, json};
use super::rollout::Trial;
use super::transaction::{PlannedTrial, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::{Death, Decision, DecisionKind, Entry, Floor, Head, Incarnation, Subjects, Write};
use super::group::{Group, Member, room};
use super::outs::outs;
use crate::broker::error::{Code, Remedy, remedy};
use crate::broker::kv::key_subject;
use crate::event::effects::Version;
use crate::mesh_streams::modules::RolloutSpec;

/// What an entry contains besides its decisions and writes.
#[derive(Debug, Clone, Default)]
pub struct EntryExtras {
    pub floors: BTreeMap<String, Floor>,
    pub index_from: Option<u64>,
    pub incarnations: BTreeMap<String, Incarnation>,
    pub reset: Vec<String>,
}

/// Who appends.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    pub append: &'a str,
    pub host: &'a str,
    pub at: &'a str,
}

/// Room in a message for the batch's headers and its subject.
const HEADER_ROOM: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BatchTooLarge(pub String);

/// A batch: its messages in the order of the protocol (carriers, consequences, entry, head, deaths, keys), and its entry.
#[derive(Debug, Clone)]
pub struct Batch {
    pub records: Arc<Vec<Record>>,
    pub entry: Arc<Entry>,
    /// Where the entry stands among the records.
    pub entry_at: usize,
}

/// Lays a group out upon a head. `said`: what the entry contains besides. `payload_max` is the server's.
pub fn batch<W>(
    bucket: &str,
    (head, head_sequence): (&Head, u64),
    group: &Group<W>,
    said: EntryExtras,
    by: Author<'_>,
    payload_max: usize,
) -> Result<Batch, BatchTooLarge> {
    let subjects = Subjects::new(bucket);
    let n = head.n + 1;
    let mut records = carriers(&subjects, bucket, group);
    let mut deaths = 0;
    let planned = group.members.iter().flat_map(|member| {
        let place = deaths;
        deaths += usize::from(expected_of_death(&member.tx).is_some());
        member.tx.consequences.iter().map(move |planned| (planned, place))
    });
    records.extend(outs(&subjects, n, by.append, planned, payload_max));
    let (entry, body) = entry(head, group, said, by, payload_max);
    let record = |subject, expect, body| Record {
        subject,
        expect,
        mark: RecordMark::Plain,
        body,
    };
    let entry_at = records.len();
    records.push(record(subjects.entry(n), Expect::Last(0), body));
    let next = json(&head.after(&entry));
    records.push(record(subjects.head(), Expect::Last(head_sequence), next));
    let deaths = group.members.iter();
    records.extend(deaths.filter_map(|member| death(&subjects, n, by.append, &member.tx)));
    records.extend(written(group).map(|(key, base, value)| Record {
        subject: key_subject(bucket, key),
        expect: Expect::Last(base),
        mark: if value.is_some() {
            RecordMark::Plain
        } else {
            RecordMark::Tombstone
        },
        body: value.clone().unwrap_or_default(),
    }));
    check_size(&records, payload_max)?;
    Ok(Batch {
        records: Arc::new(records),
        entry: Arc::new(entry),
        entry_at,
    })
}

/// The group's entry, and how it is stored. What it repeats of the values is left out if it does not fit a message.
fn entry<W>(head: &Head, group: &Group<W>, said: EntryExtras, by: Author<'_>, payload_max: usize) -> (Entry, Bytes) {
    let writes: Vec<Write> = written(group)
        .map(|(key, base, value)| Write::new(key, base, value.as_ref()))
        .collect();
    let decisions = group.members.iter().filter_map(|member| decision(&member.tx, &writes));
    let (rollouts, trials) = counted(head, group);
    let mut entry = Entry {
        n: head.n + 1,
        append: by.append.to_owned(),
        host: by.host.to_owned(),
        at: by.at.to_owned(),
        min_reader: 0,
        decisions: decisions.collect(),
        writes,
        floors: said.floors,
        index_from: said.index_from,
        incarnations: said.incarnations,
        reset: said.reset,
        rollouts,
        trials,
    };
    entry.min_reader = entry.reader(head);
    let mut body = json(&entry);
    if body.len() + HEADER_ROOM > payload_max {
        entry.writes.iter_mut().for_each(|write| write.value = None);
        body = json(&entry);
    }
    (entry, body)
}

/// The first attempts that a group counts, and the rollouts of them that the head does not know.
fn counted<W>(head: &Head, group: &Group<W>) -> (BTreeMap<String, RolloutSpec>, Vec<Trial>) {
    let mut rollouts: BTreeMap<String, RolloutSpec> = BTreeMap::new();
    let planned = group.members.iter().filter_map(|member| member.tx.trial.as_deref());
    let mut trials = Vec::new();
    for PlannedTrial { trial, spec } in planned {
        let of_head = head.rollouts.get(&trial.handler).map_or(0, |known| known.spec.number);
        let of_group = rollouts.get(&trial.handler).map_or(0, |known| known.number);
        if spec.number > of_head.max(of_group) {
            rollouts.insert(trial.handler.clone(), RolloutSpec::clone(spec));
        }
        trials.push(trial.clone());
    }
    (rollouts, trials)
}

/// Whether the server takes a batch of these.
fn check_size(records: &[Record], payload_max: usize) -> Result<(), BatchTooLarge> {
    if records.len() > 1000 {
        return Err(BatchTooLarge(format!(
            "{} messages do not fit one batch of 1,000",
            records.len()
        )));
    }
    if let Some(record) = records.iter().find(|r| r.body.len() + HEADER_ROOM > payload_max) {
        return Err(BatchTooLarge(format!(
            "{} of {} bytes does not fit the server's max_payload of {payload_max}",
            record.subject,
            record.body.len()
        )));
    }
    Ok(())
}

/// Whether a transaction fits a batch of its own.
pub fn fits_alone(
    bucket: &str,
    upon: (&Head, u64),
    tx: &Transaction,
    versions: &BTreeMap<String, Version>,
    payload_max: usize,
) -> Result<(), BatchTooLarge> {
    let mut group = Group::default();
    let (id, waiter, more) = (0, (), room(tx));
    let tx = tx.clone();
    group.add(Member { id, tx, waiter }, versions, more);
    let by = Author {
        append: "",
        host: "",
        at: "",
    };
    batch(bucket, upon, &group, EntryExtras::default(), by, payload_max).map(drop)
}

/// A transaction's decision as its entry holds it. `writes`: the group's, in the order of their keys.
fn decision(tx: &Transaction, writes: &[Write]) -> Option<Decision> {
    let place = |key: &String| writes.binary_search_by(|write| write.key.cmp(key)).ok();
    let mut decision = tx.decision.clone()?;
    decision.writes = tx.writes.keys().filter_map(place).collect();
    Some(decision)
}

/// The record of a death, or of what a replay has made of it.
fn death(subjects: &Subjects, n: u64, append: &str, tx: &Transaction) -> Option<Record> {
    let decision = tx.decision.as_ref()?;
    let expect = expected_of_death(tx)?;
    Some(Record {
        subject: subjects.death(&tx.handler, &decision.event),
        expect,
        mark: RecordMark::Plain,
        body: json(&Death {
            n,
            append: append.to_owned(),
            verdict: decision.verdict,
        }),
    })
}

/// What the record of its death must be before. `None`: it has none.
fn expected_of_death(tx: &Transaction) -> Option<Expect> {
    match (tx.decision.as_ref()?.verdict, tx.death) {
        (DecisionKind::Dead, _) => Some(Expect::Last(0)),
        (DecisionKind::Done, Some(death)) => Some(Expect::Last(death.record)),
        (DecisionKind::Done, None) => None,
    }
}

/// The keys that a group writes: each once, upon the revision that the group found, with its final value.
fn written<W>(group: &Group<W>) -> impl Iterator<Item = (&String, u64, &Option<Bytes>)> {
    group.keys.iter().filter_map(|(key, touched)| {
        let (_, value) = touched.write.as_ref()?;
        Some((key, stored(touched.base), value))
    })
}

/// Keys that were only read must still be what they were: one carrier each.
fn carriers<W>(subjects: &Subjects, bucket: &str, group: &Group<W>) -> Vec<Record> {
    let only_read = group.keys.iter().filter(|(_, touched)| touched.write.is_none());
    only_read
        .map(|(key, touched)| Record {
            subject: subjects.check(),
            expect: Expect::LastOf {
                subject: key_subject(bucket, key),
                sequence: stored(touched.base),
            },
            mark: RecordMark::Plain,
            body: Bytes::new(),
        })
        .collect()
}

/// When a group is sent, everything before it is committed, so what it rests on is stored.
fn stored(version: Version) -> u64 {
    match version {
        Version::Stored(revision) => revision,
        // No revision is so high: the server would refuse it.
        Version::Pending(_) => u64::MAX >> 1,
    }
}

/// The server's answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchAnswer {
    /// The last message's sequence.
    Committed(u64),
    /// An expectation did not hold.
    Refused,
    /// Whether it is stored is not known.
    Unknown,
    /// The server says what is wrong, and it will stay wrong.
    Named(String),
}

impl BatchAnswer {
    pub fn of(code: Code, text: &str) -> BatchAnswer {
        match remedy(code) {
            Remedy::LookAgain => BatchAnswer::Refused,
            Remedy::TryAgain => BatchAnswer::Unknown,
            Remedy::Person => BatchAnswer::Named(format!("{text} ({})", code.0)),
        }
    }
}
