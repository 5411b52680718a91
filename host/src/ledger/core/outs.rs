//! Consequences laid out as messages of a batch: as few as their bytes allow. Pure.

use std::borrow::Cow;

use super::transaction::Planned;
use bytes::Bytes;

use super::entry::{Consequence, StoredBody, Subjects, Text};
use crate::event::rfc3339;
use crate::ledger::core::record::{Expect, Record, RecordMark, json};
use crate::mesh_streams::dead_letter::DEATH;

/// Payloads above this are stored as parts.
pub const BODY_HERE_MAX: usize = 64 * 1024;
/// Consequences are packed into messages of about this size.
pub const OUT_BYTES: usize = 192 * 1024;

/// In the order of the transactions; large payloads in parts of their own, before the message that names them. With each
/// goes the place of its transaction's death among those of the entry.
pub fn outs<'a>(
    subjects: &Subjects,
    n: u64,
    append: &str,
    planned: impl Iterator<Item = (&'a Planned, usize)>,
    payload_max: usize,
) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut packed: Vec<u8> = Vec::new();
    for (one, death) in planned {
        let consequence = consequence(one, (n, death), &mut |payload| {
            lay(subjects, n, payload, payload_max, &mut records)
        });
        if packed.is_empty() {
            // The fields of `entry::Out`, written bit by bit because its list is long.
            packed = format!("{{\"n\":{n},\"append\":\"{append}\",\"consequences\":[").into_bytes();
        } else {
            packed.push(b',');
        }
        packed.extend_from_slice(&json(&consequence));
        if packed.len() > OUT_BYTES.min(payload_max / 4) {
            flush(subjects, n, &mut packed, &mut records);
        }
    }
    flush(subjects, n, &mut packed, &mut records);
    records
}

fn flush(subjects: &Subjects, n: u64, packed: &mut Vec<u8>, records: &mut Vec<Record>) {
    if packed.is_empty() {
        return;
    }
    packed.extend_from_slice(b"]}");
    records.push(Record {
        subject: subjects.out(n, records.len()),
        expect: Expect::Nothing,
        mark: RecordMark::Plain,
        body: std::mem::take(packed).into(),
    });
}

/// A payload where its consequence is, or in parts.
fn lay<'a>(
    subjects: &Subjects,
    n: u64,
    payload: &'a Bytes,
    payload_max: usize,
    records: &mut Vec<Record>,
) -> StoredBody<'a> {
    if payload.len() <= BODY_HERE_MAX && in_json(payload) <= payload_max / 4 {
        return StoredBody::Here(Text::of(payload));
    }
    let mut parts = Vec::new();
    for chunk in payload.chunks((payload_max / 2).max(1024)) {
        parts.push(records.len());
        records.push(Record {
            subject: subjects.out(n, records.len()),
            expect: Expect::Nothing,
            mark: RecordMark::Part,
            body: payload.slice_ref(chunk),
        });
    }
    StoredBody::Parts(parts)
}

fn consequence<'a>(
    planned: &'a Planned,
    (n, death): (u64, usize),
    lay: &mut dyn FnMut(&'a Bytes) -> StoredBody<'a>,
) -> Consequence<'a> {
    match planned {
        Planned::Event {
            id,
            subject,
            headers,
            payload,
        } => Consequence::Event {
            id: id.into(),
            subject: subject.into(),
            headers: Cow::Borrowed(headers),
            body: lay(payload),
        },
        Planned::Delayed {
            id,
            due_ms,
            subject,
            headers,
            payload,
        } => Consequence::Delayed {
            id: id.into(),
            due: rfc3339(*due_ms),
            subject: subject.into(),
            headers: Cow::Borrowed(headers),
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
            Consequence::Letter {
                subject: subject.into(),
                headers: Cow::Owned(headers.iter().map(named).collect()),
                body: lay(payload),
                death: Some(death),
            }
        }
        Planned::Settle {
            subject,
            reason,
            in_parts,
            asked_by,
        } => Consequence::Settle {
            subject: subject.into(),
            reason: reason.into(),
            in_parts: *in_parts,
            asked_by: asked_by.as_deref().map(Cow::Borrowed),
        },
    }
}

/// At most how long bytes are in JSON: as text with its escapes, or in base64.
pub fn in_json(bytes: &[u8]) -> usize {
    let escapes: usize = bytes
        .iter()
        .map(|b| match b {
            b'"' | b'\\' => 1,
            0..0x20 => 5,
            _ => 0,
        })
        .sum();
    (bytes.len() + escapes).max(bytes.len() * 4 / 3 + 4)
}
