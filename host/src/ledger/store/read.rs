//! Reading a ledger from its bucket: the head, and the entries that it speaks of.

use async_nats::HeaderMap;

use crate::broker::connection::token;
use crate::broker::kv::kv_stream;
use crate::broker::scan::{From, Scan};
use crate::broker::{By, Connection, Error, Stored};
use crate::ledger::core::entry::{Entry, Head, Subjects, WITHOUT_ROLLOUTS};

/// From here on a missing range of entries is read in one go, not one by one.
const SCAN_FROM: u64 = 32;
/// Entries that are taken in before others on the thread get their turn: about a millisecond.
const AT_A_TIME: u64 = 128;

/// The head and its stream sequence; `None`: there is none yet, or no more.
pub async fn head(connection: &Connection, stream: &str, subjects: &Subjects) -> Result<Option<(Head, u64)>, Error> {
    let subject = subjects.head();
    match connection.stored(stream, By::Last(&subject)).await? {
        None => Ok(None),
        Some(stored) => Ok(Some((parse(&subject, &stored.payload)?, stored.sequence))),
    }
}

/// The bucket whose current incarnation has this token.
pub async fn bucket_of(connection: &Connection, incarnation: &str) -> Result<Option<String>, Error> {
    for stream in connection.streams_of("$MESH.state.*.head").await? {
        let Some(bucket) = stream.strip_prefix("KV_") else {
            continue;
        };
        let head = head(connection, &stream, &Subjects::new(bucket)).await?;
        if head.is_some_and(|(head, _)| head.bucket == incarnation) {
            return Ok(Some(bucket.to_owned()));
        }
    }
    Ok(None)
}

/// Stores the first head of a bucket, with a new token for this incarnation.
pub async fn begin(connection: &Connection, stream: &str, subjects: &Subjects) -> Result<(Head, u64), Error> {
    let head = Head {
        min_reader: WITHOUT_ROLLOUTS,
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

/// The same as [`each`], one by one, if they are few. `false`: they are too many for that.
///
/// # Errors
/// [`Error::Missing`] if one of them is not there; those before it have been seen.
pub async fn few(
    connection: &Connection,
    stream: &str,
    subjects: &Subjects,
    (from, to): (u64, u64),
    mut see: impl FnMut(&Entry, u64),
) -> Result<bool, Error> {
    if to - from >= SCAN_FROM {
        return Ok(false);
    }
    for n in from..=to {
        let subject = subjects.entry(n);
        let stored = connection
            .stored(stream, By::Last(&subject))
            .await?
            .ok_or_else(|| Error::Missing { what: subject.clone() })?;
        see(&entry(&subject, &stored.payload)?, stored.sequence);
    }
    Ok(true)
}

/// Every entry that is stored, in their order.
pub async fn stored(
    connection: &Connection,
    stream: &str,
    subjects: &Subjects,
    see: &mut impl FnMut(&Entry),
) -> Result<(), Error> {
    let filter = [subjects.entries()];
    let mut scan = Scan::start(connection, stream, &filter, From::Sequence(1), u64::MAX, false).await?;
    while let Some(scanned) = scan.next().await? {
        if let Ok(entry) = entry(&scanned.message.subject, &scanned.message.payload) {
            see(&entry);
        }
    }
    scan.end().await
}

/// The entries `from..=to`, which must all exist according to a head; each with its stream sequence, in their order. Other
/// tasks of the thread run between them. `connection`: a guarded one.
///
/// # Errors
/// [`Error::Answer`] if one of them is not there; those before it have been seen.
pub async fn each(
    connection: &Connection,
    stream: &str,
    subjects: &Subjects,
    (from, to): (u64, u64),
    after_sequence: u64,
    mut see: impl FnMut(&Entry, u64),
) -> Result<(), Error> {
    let filter = [subjects.entries()];
    let first = From::Sequence(after_sequence + 1);
    let mut scan = Scan::start(connection, stream, &filter, first, u64::MAX, false).await?;
    let mut next = from;
    while next <= to {
        let Some(scanned) = scan.next().await? else { break };
        let subject = match &scanned.malformed {
            Some(malformed) => String::from_utf8_lossy(&malformed.subject),
            None => scanned.message.subject.as_str().into(),
        };
        // Something else may lie beside the entries that the head speaks of.
        let number: Option<u64> = subject.rsplit('.').next().and_then(|n| n.parse().ok());
        if number.is_none_or(|n| n < from || n > to) {
            continue;
        }
        if let Some(malformed) = &scanned.malformed {
            return Err(unreadable(&subject, malformed.why()));
        }
        let entry = self::entry(&subject, &scanned.message.payload)?;
        if entry.n != next {
            break;
        }
        see(&entry, scanned.sequence);
        next += 1;
        if next.is_multiple_of(AT_A_TIME) {
            tokio::task::yield_now().await;
        }
    }
    scan.end().await?;
    if next <= to {
        // A replica that is behind its leader: the next try finds more.
        return Err(Error::Answer {
            what: format!("entries {from}..={to} of {stream}"),
            why: format!("entry {next} is not there"),
        });
    }
    Ok(())
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

/// What the next entry's place holds, if it is no entry: nothing can be appended before it is removed.
pub fn in_the_way(stored: &Stored, stream: &str) -> Option<Error> {
    let error = entry(&stored.subject, &stored.payload).err()?;
    let (subject, sequence) = (&stored.subject, stored.sequence);
    Some(Error::Unreadable {
        what: format!("{subject}, message {sequence} of stream {stream}, where the next entry belongs,"),
        why: match error {
            Error::Unreadable { why, .. } => why,
            other => other.to_string(),
        },
        remedy: format!(
            "something else has written there: remove it with `nats stream purge {stream} --subject '{subject}'`; \
             then the hosts continue"
        ),
    })
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
            "something else has written there: restore stream {stream} from a backup with `nats stream restore`; \
             then the hosts continue"
        ),
    }
}
