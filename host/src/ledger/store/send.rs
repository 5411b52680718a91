//! Sending an append: one atomic batch of the server.

use std::time::Instant;

use async_nats::HeaderMap;

use crate::broker::connection::{EXPECTED, pub_ack, token};
use crate::broker::{Connection, Error};
use crate::failpoint;
use crate::ledger::core::append::BatchAnswer;
use crate::ledger::core::entry::PART;
use crate::ledger::core::record::{Expect, Record, RecordMark};

/// Header of each message: `<append>-<which sending of it>`.
pub const BATCH_ID: &str = "Nats-Batch-Id";

/// One atomic batch (ADR-50) of an append. `careful`: each message asks for an answer, so that the server names what it
/// dislikes.
pub async fn send(connection: &Connection, (append, records): (&str, &[Record]), careful: bool) -> BatchAnswer {
    let (id, began) = (format!("{append}-{}", token()), Instant::now());
    let last = records.len() - 1;
    for (i, record) in records.iter().enumerate() {
        let mut headers = headers_of(record);
        headers.insert(BATCH_ID, id.as_str());
        headers.insert("Nats-Batch-Sequence", (i + 1).to_string());
        if i == last {
            headers.insert("Nats-Batch-Commit", "1");
            let commit = connection.request(&record.subject, Some(headers), record.body.clone());
            let sent = failpoint::point_after("commit-sent", connection.client.flush());
            return match futures_util::join!(commit, sent).0 {
                Ok(answer) => match pub_ack(&record.subject, &answer) {
                    Ok(ack) => BatchAnswer::Committed(ack.seq),
                    Err(Error::Api { code, text, .. }) => {
                        // It may be refused because the server has not let all of it in.
                        let subjects = records.iter().map(|record| record.subject.as_str());
                        match connection.denied_of("a commit", subjects, began) {
                            Some(denied) => BatchAnswer::Named(denied.to_string()),
                            None => BatchAnswer::of(code, &text),
                        }
                    }
                    Err(_) => BatchAnswer::Unknown,
                },
                Err(error @ Error::Denied { .. }) => BatchAnswer::Named(error.to_string()),
                Err(_) => BatchAnswer::Unknown,
            };
        }
        if careful {
            match connection
                .request(&record.subject, Some(headers), record.body.clone())
                .await
            {
                // An empty answer: taken into the batch.
                Ok(answer) if answer.is_empty() => {}
                Ok(answer) => match pub_ack(&record.subject, &answer) {
                    Ok(_) => {}
                    Err(Error::Api { code, text, .. }) => return BatchAnswer::of(code, &text),
                    Err(_) => return BatchAnswer::Unknown,
                },
                Err(error @ Error::Denied { .. }) => return BatchAnswer::Named(error.to_string()),
                Err(_) => return BatchAnswer::Unknown,
            }
        } else {
            let place = connection.place(&record.subject).into_owned();
            let sent = connection
                .client
                .publish_with_headers(place, headers, record.body.clone())
                .await;
            if sent.is_err() {
                return BatchAnswer::Unknown;
            }
        }
        failpoint::point("batch-half-sent");
    }
    BatchAnswer::Unknown
}

/// What a record expects of the stream, and what it is there.
fn headers_of(record: &Record) -> HeaderMap {
    let mut headers = HeaderMap::new();
    match &record.expect {
        Expect::Nothing => {}
        Expect::Last(sequence) => headers.insert(EXPECTED, sequence.to_string()),
        Expect::LastOf { subject, sequence } => {
            headers.insert(EXPECTED, sequence.to_string());
            headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", subject.as_str());
        }
    }
    match record.mark {
        RecordMark::Plain => {}
        RecordMark::Part => headers.insert(PART, "1"),
        RecordMark::Tombstone => headers.insert("KV-Operation", "DEL"),
    }
    headers
}
