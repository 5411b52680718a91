//! From a transaction to the messages of one atomic batch, and from the server's answer to the next step. Pure: this is
//! what decides whether effects happen once, so it can be run without a server.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::entry::{
    Body, Consequence, Death, Decision, Entry, Floor, Head, Out, READER, Subjects, Text, Verdict, Write, key_subject,
};
use super::index::Decided;
use crate::dead_letter::DEATH;
use crate::effects::Read;
use crate::message::EventId;

/// A decision that wants to be appended, with all that must happen together with it.
#[derive(Debug, Clone)]
pub struct Transaction {
    pub handler: String,
    pub event: EventId,
    pub decision: Decision,
    /// What it rests on.
    pub reads: BTreeMap<String, Read>,
    pub writes: BTreeMap<String, Option<Bytes>>,
    pub consequences: Vec<Planned>,
    /// Of a replay: the death that its `done` follows, and that record's sequence.
    pub death: Option<(u64, u64)>,
}

/// A consequence before it is laid out in messages; its body is left out of `consequence`.
#[derive(Debug, Clone)]
pub enum Planned {
    Event {
        id: String,
        subject: String,
        headers: crate::message::Headers,
        payload: Bytes,
    },
    Letter {
        subject: String,
        headers: crate::message::Headers,
        payload: Bytes,
    },
    Settle {
        subject: String,
        reason: String,
    },
}

/// What a message of a batch expects of the stream, checked by the server when the batch commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    Nothing,
    /// The last sequence on the message's own subject; 0: none.
    Last(u64),
    /// The last sequence on another subject.
    LastOf {
        subject: String,
        sequence: u64,
    },
}

/// One message of a batch.
#[derive(Debug, Clone)]
pub struct Record {
    pub subject: String,
    pub expect: Expect,
    /// A part of a payload, or a KV tombstone.
    pub mark: Mark,
    pub body: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Plain,
    Part,
    /// A deleted key, as KV clients write it.
    Tombstone,
}

/// What the host knows of the bucket: it has applied everything up to the head.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    pub head: Head,
    /// The head's own stream sequence; 0: there is none.
    pub head_sequence: u64,
    /// The index's, which may be ahead of the head's.
    pub floors: BTreeMap<String, Floor>,
    pub reads_from: u64,
}

/// Who appends.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    pub append: &'a str,
    pub host: &'a str,
    pub at: &'a str,
}

/// Payloads above this are stored as parts.
const BODY_HERE_MAX: usize = 64 * 1024;
/// Consequences are packed into messages of about this size.
const OUT_BYTES: usize = 192 * 1024;
/// Room in a message for the batch's headers and its subject.
const HEADER_ROOM: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TooLarge(String);

/// The messages of a batch, in the order of the protocol: carriers, consequences, entry, head, deaths, keys.
/// `payload_max` is the server's.
pub fn batch(
    bucket: &str,
    applied: &Applied,
    tx: &Transaction,
    by: By<'_>,
    payload_max: usize,
) -> Result<(Vec<Record>, Head), TooLarge> {
    let subjects = Subjects::new(bucket);
    let n = applied.head.n + 1;
    let mut records = carriers(&subjects, bucket, tx);
    records.extend(outs(&subjects, n, by.append, &tx.consequences, payload_max));
    let mut entry = Entry {
        n,
        append: by.append.to_owned(),
        host: by.host.to_owned(),
        at: by.at.to_owned(),
        min_reader: READER,
        decisions: vec![tx.decision.clone()],
        writes: tx
            .writes
            .iter()
            .map(|(key, value)| Write::new(key, base(tx, key), value.as_ref()))
            .collect(),
    };
    if json(&entry).len() + HEADER_ROOM > payload_max {
        entry.writes.iter_mut().for_each(|write| write.value = None);
    }
    let record = |subject, expect, body| Record {
        subject,
        expect,
        mark: Mark::Plain,
        body,
    };
    records.push(record(subjects.entry(n), Expect::Last(0), json(&entry)));
    let head = next_head(applied, tx, n);
    records.push(record(
        subjects.head(),
        Expect::Last(applied.head_sequence),
        json(&head),
    ));
    let death = subjects.death(&tx.handler, &tx.event.to_string());
    let body = |verdict| {
        json(&Death {
            n,
            append: by.append.to_owned(),
            verdict,
        })
    };
    match (tx.decision.verdict, tx.death) {
        (Verdict::Dead, _) => records.push(record(death, Expect::Last(0), body(Verdict::Dead))),
        (Verdict::Done, Some((_, sequence))) => {
            records.push(record(death, Expect::Last(sequence), body(Verdict::Done)));
        }
        (Verdict::Done, None) => {}
    }
    for (key, value) in &tx.writes {
        records.push(Record {
            subject: key_subject(bucket, key),
            expect: Expect::Last(base(tx, key)),
            mark: if value.is_some() { Mark::Plain } else { Mark::Tombstone },
            body: value.clone().unwrap_or_default(),
        });
    }
    if records.len() > 1000 {
        return Err(TooLarge(format!(
            "{} messages do not fit one batch of 1,000",
            records.len()
        )));
    }
    if let Some(record) = records.iter().find(|r| r.body.len() + HEADER_ROOM > payload_max) {
        return Err(TooLarge(format!(
            "{} of {} bytes does not fit the server's max_payload of {payload_max}",
            record.subject,
            record.body.len()
        )));
    }
    Ok((records, head))
}

/// A key is written upon the revision that the transaction has read; one that it only wrote, upon whatever is there,
/// which the committer has looked up and put among the reads.
fn base(tx: &Transaction, key: &str) -> u64 {
    tx.reads.get(key).map_or(0, |read| read.revision)
}

/// Keys that were only read must still be what they were: one carrier each.
fn carriers(subjects: &Subjects, bucket: &str, tx: &Transaction) -> Vec<Record> {
    let only_read = tx.reads.iter().filter(|(key, _)| !tx.writes.contains_key(*key));
    only_read
        .map(|(key, read)| Record {
            subject: subjects.check(),
            expect: Expect::LastOf {
                subject: key_subject(bucket, key),
                sequence: read.revision,
            },
            mark: Mark::Plain,
            body: Bytes::new(),
        })
        .collect()
}

fn next_head(applied: &Applied, tx: &Transaction, n: u64) -> Head {
    let mut head = Head {
        n,
        min_reader: READER,
        ..applied.head.clone()
    };
    for (handler, floor) in &applied.floors {
        let known = head.floors.entry(handler.clone()).or_default();
        let (done, dead) = (known.done, known.dead);
        let before = std::mem::replace(known, floor.clone());
        known.merge(&before);
        (known.done, known.dead) = (done, dead);
    }
    let floor = head.floors.entry(tx.handler.clone()).or_insert_with(|| Floor {
        incarnation: tx.event.incarnation.to_string(),
        ..Floor::default()
    });
    match tx.decision.verdict {
        Verdict::Done => floor.done += 1,
        Verdict::Dead => floor.dead += 1,
    }
    if tx.death.is_some() {
        floor.dead = floor.dead.saturating_sub(1);
    }
    head.index_from = applied.reads_from.max(applied.head.index_from);
    head
}

/// Consequences as few messages: large payloads in parts of their own, before the message that names them.
fn outs(subjects: &Subjects, n: u64, append: &str, planned: &[Planned], payload_max: usize) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut packed: Vec<Consequence> = Vec::new();
    let mut size = 0;
    let part_max = (payload_max / 2).max(1024);
    let flush = |records: &mut Vec<Record>, packed: &mut Vec<Consequence>| {
        if !packed.is_empty() {
            let out = Out {
                n,
                append: append.to_owned(),
                consequences: std::mem::take(packed),
            };
            let (subject, body) = (subjects.out(n, records.len()), json(&out));
            records.push(Record {
                subject,
                expect: Expect::Nothing,
                mark: Mark::Plain,
                body,
            });
        }
    };
    for one in planned {
        let mut lay = |payload: &Bytes| {
            if payload.len() <= BODY_HERE_MAX && json(&Text::of(payload)).len() <= payload_max / 4 {
                return Body::Here(Text::of(payload));
            }
            let mut parts = Vec::new();
            for chunk in payload.chunks(part_max) {
                parts.push(records.len());
                let (subject, body) = (subjects.out(n, records.len()), payload.slice_ref(chunk));
                records.push(Record {
                    subject,
                    expect: Expect::Nothing,
                    mark: Mark::Part,
                    body,
                });
            }
            Body::Parts(parts)
        };
        let consequence = match one {
            Planned::Event {
                id,
                subject,
                headers,
                payload,
            } => Consequence::Event {
                id: id.clone(),
                subject: subject.clone(),
                headers: headers.clone(),
                body: lay(payload),
            },
            Planned::Letter {
                subject,
                headers,
                payload,
            } => {
                // Only here is it known which entry decides the death.
                let named = |(name, value): &(String, String)| match name == DEATH {
                    true => (name.clone(), n.to_string()),
                    false => (name.clone(), value.clone()),
                };
                let headers = headers.iter().map(named).collect();
                Consequence::Letter {
                    subject: subject.clone(),
                    headers,
                    body: lay(payload),
                }
            }
            Planned::Settle { subject, reason } => Consequence::Settle {
                subject: subject.clone(),
                reason: reason.clone(),
            },
        };
        size += json(&consequence).len();
        packed.push(consequence);
        if size > OUT_BYTES.min(payload_max / 4) {
            flush(&mut records, &mut packed);
            size = 0;
        }
    }
    flush(&mut records, &mut packed);
    records
}

fn json(value: &impl serde::Serialize) -> Bytes {
    // Maps with text keys and plain fields: nothing here can fail to be written.
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

/// The server's answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The last message's sequence.
    Committed(u64),
    /// An expectation did not hold.
    Refused,
    /// Nobody knows whether it is stored.
    Unknown,
    /// The server says what is wrong, and it will stay wrong.
    Named(String),
}

impl Answer {
    /// By JetStream's `err_code`: 10071 and 10164 are failed expectations; 10176 says only that the batch is not whole,
    /// whatever the reason.
    pub fn of(code: u64, text: &str) -> Answer {
        match code {
            10071 | 10164 => Answer::Refused,
            // Also: temporarily unavailable, no leader, too many open batches, nobody listens.
            0 | 10008 | 10009 | 10023 | 10176 | 10210 => Answer::Unknown,
            _ => Answer::Named(format!("{text} ({code})")),
        }
    }
}

/// What to do with a transaction whose batch was refused, once the ledger has been read up to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This very append is in the ledger.
    Committed,
    /// Somebody else decided the event.
    Decided(Decided),
    /// What it rests on has changed.
    RunAgain,
    /// It still stands: send it upon the new head.
    SendAgain,
    /// Nothing has moved: another copy of it may still be on its way.
    LookAgain,
}

/// `own_entry`: this append was found among the entries. `decided`: what the index says of the event. `moved`: whether
/// a key that it rests on has another revision now; `head_moved`: whether there are new entries.
pub fn after_refusal(own_entry: bool, decided: Option<Decided>, moved: bool, head_moved: bool) -> Next {
    match (own_entry, decided, moved, head_moved) {
        (true, ..) => Next::Committed,
        (false, Some(decided), ..) => Next::Decided(decided),
        (false, None, true, _) => Next::RunAgain,
        (false, None, false, true) => Next::SendAgain,
        (false, None, false, false) => Next::LookAgain,
    }
}

/// Whether the index's word on an event makes this transaction moot. A replay's `done` follows exactly its own death.
pub fn moot(decided: Option<Decided>, death: Option<(u64, u64)>) -> Option<Decided> {
    match (decided, death) {
        (Some(Decided::Dead { entry }), Some((n, _))) if entry == n => None,
        // Below the floor the death's own record, which the batch expects unchanged, is the witness.
        (Some(Decided::Below), Some(_)) => None,
        (decided, _) => decided,
    }
}
