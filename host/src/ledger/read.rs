//! Reading a ledger from its bucket: the head, and the entries that it speaks of.

use async_nats::HeaderMap;

use super::entry::{Entry, Head, READER, Subjects};
use crate::broker::connection::token;
use crate::broker::provision::kv_stream;
use crate::broker::scan::{From, Scan};
use crate::broker::{By, Connection, Error};

/// From here on a missing range of entries is read in one go, not one by one.
const SCAN_FROM: u64 = 32;

/// The head and its stream sequence; `None`: there is none yet, or no more.
pub async fn head(connection: &Connection, stream: &str, subjects: &Subjects) -> Result<Option<(Head, u64)>, Error> {
    let subject = subjects.head();
    match connection.stored(stream, By::Last(&subject)).await? {
        None => Ok(None),
        Some(stored) => Ok(Some((parse(&subject, &stored.payload)?, stored.sequence))),
    }
}

/// The first head of a bucket: it names this making of it.
pub async fn begin(connection: &Connection, stream: &str, subjects: &Subjects) -> Result<(Head, u64), Error> {
    let head = Head {
        min_reader: READER,
        bucket: token(),
        index_from: 1,
        ..Head::default()
    };
    let body = serde_json::to_vec(&head).expect("a head serialises");
    let subject = subjects.head();
    match connection
        .publish_upon(&subject, 0, HeaderMap::new(), body.into())
        .await?
    {
        Some(ack) => Ok((head, ack.seq)),
        // Another host was faster: its head it is.
        None => self::head(connection, stream, subjects)
            .await?
            .ok_or_else(|| Error::Missing {
                what: format!("the head of {stream}"),
            }),
    }
}

/// The entries `from..=to`, which are all there: a head says so; each with its stream sequence.
pub async fn entries(
    connection: &Connection,
    stream: &str,
    subjects: &Subjects,
    from: u64,
    to: u64,
    after_sequence: u64,
) -> Result<Vec<(Entry, u64)>, Error> {
    let mut entries = Vec::new();
    if to - from < SCAN_FROM {
        for n in from..=to {
            let subject = subjects.entry(n);
            let stored = connection
                .stored(stream, By::Last(&subject))
                .await?
                .ok_or_else(|| Error::Missing { what: subject.clone() })?;
            entries.push((entry(&subject, &stored.payload)?, stored.sequence));
        }
        return Ok(entries);
    }
    let filter = [subjects.entries()];
    let mut scan = Scan::start(
        connection,
        stream,
        &filter,
        From::Sequence(after_sequence + 1),
        u64::MAX,
        false,
    )
    .await?;
    while let Some(scanned) = scan.next().await? {
        let entry = self::entry(&scanned.message.subject, &scanned.message.payload)?;
        if (from..=to).contains(&entry.n) {
            entries.push((entry, scanned.sequence));
        }
    }
    let whole = entries.len() as u64 == to - from + 1 && entries.iter().zip(from..).all(|((e, _), n)| e.n == n);
    if !whole {
        // A replica that is behind its leader: the next try finds more.
        return Err(Error::Answer {
            what: format!("entries {from}..={to} of {stream}"),
            why: "not all there".into(),
        });
    }
    Ok(entries)
}

/// An entry as its subject holds it.
pub fn entry(subject: &str, bytes: &[u8]) -> Result<Entry, Error> {
    let entry: Entry = parse(subject, bytes)?;
    let number = subject.rsplit('.').next().and_then(|n| n.parse().ok());
    match entry.flaw(number) {
        Some(why) => Err(unreadable(subject, why)),
        None => Ok(entry),
    }
}

/// Something that a ledger's subject holds: its head, an entry, a death.
pub fn parse<T: serde::de::DeserializeOwned>(subject: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|e| unreadable(subject, e.to_string()))
}

fn unreadable(subject: &str, why: String) -> Error {
    // `$MESH.state.<bucket>.…`
    let stream = kv_stream(subject.split('.').nth(2).unwrap_or("?"));
    Error::Unreadable {
        what: format!("{subject} in stream {stream}"),
        why,
        remedy: format!(
            "something else has written there: restore stream {stream} from a backup with `nats stream restore`, then \
             this goes on"
        ),
    }
}

/// A deleted, purged or expired key (ADR-8, ADR-43).
pub fn is_tombstone(raw_headers: &[u8]) -> bool {
    let text = String::from_utf8_lossy(raw_headers).to_ascii_lowercase();
    text.lines()
        .any(|line| line.starts_with("kv-operation:") || line.starts_with("nats-marker-reason:"))
}
