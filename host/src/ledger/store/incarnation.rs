//! Which incarnation of a source stream an event belongs to. A stream that is deleted and created again counts from 1 again:
//! without incarnations, its first event would be taken for an old one. A stream that is restored from a backup is the same as
//! before.
//!
//! The token is the mesh's own, kept in its bucket under `incarnation.<stream>` and in the heads of ledgers.

use crate::broker::connection::token;
use crate::broker::kv::is_tombstone;
use crate::broker::kv::key_subject;
use crate::broker::kv::kv_stream;
use crate::broker::provision::MESH_BUCKET;
use crate::broker::stream::StreamInfo;
use crate::broker::{By, Connection, Error};
use crate::ledger::core::entry::Incarnation;
use async_nats::HeaderMap;

/// What the stream's information shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamSeen {
    Same,
    New,
}

/// `recognised`: a message by which it is known is stored there. `bound`: a consumer of ours that names it is there, and
/// consumers go with their stream.
pub fn compare(known: &Incarnation, created: &str, recognised: bool, bound: bool) -> StreamSeen {
    if known.created == created || recognised || bound {
        StreamSeen::Same
    } else {
        StreamSeen::New
    }
}

/// The key of the mesh's own bucket that tells a stream's present incarnation.
pub fn key(stream: &str) -> String {
    format!("incarnation.{stream}")
}

/// Reads what the key of a stream holds.
pub fn parse(stream: &str, value: &[u8]) -> Result<Incarnation, Error> {
    serde_json::from_slice(value).map_err(|e| Error::Unreadable {
        what: format!("key {} of bucket {MESH_BUCKET}", key(stream)),
        why: e.to_string(),
        remedy: format!(
            "restore it, or remove it with `nats kv purge {MESH_BUCKET} {}`: then the ledgers and consumers of its \
             handlers show which incarnation of stream {stream} this is",
            key(stream)
        ),
    })
}

/// Why a source stream needs another name.
enum Renamed {
    /// The stream was deleted and created again.
    Recreated,
    /// It ends at a message before the one that it had.
    Cut { end: u64, had: u64 },
}

/// The current incarnation of a source stream. `from_head`: the one in the handler's ledger, also for the case that the mesh's
/// own bucket is missing. `newest`: the same that this host has seen for a handler without a ledger.
pub async fn resolve(
    connection: &Connection,
    stream: &str,
    info: &StreamInfo,
    bound_token: Option<&str>,
    (from_head, newest): (Option<&Incarnation>, Option<&Incarnation>),
) -> Result<Incarnation, Error> {
    let subject = key_subject(MESH_BUCKET, &key(stream));
    for _ in 0..10 {
        let stored = connection.stored(&kv_stream(MESH_BUCKET), By::Last(&subject)).await?;
        let revision = stored.as_ref().map_or(0, |s| s.sequence);
        let known = match stored.filter(|s| !is_tombstone(&s.raw_headers)) {
            Some(stored) => Some(parse(stream, &stored.payload)?),
            None => from_head.cloned(),
        };
        let last = match info.state.last_seq {
            0 => None,
            sequence => connection.stored(stream, By::Sequence(sequence)).await?,
        };
        let present = |token: String| Incarnation {
            token,
            created: info.created.clone(),
            sequence: last.as_ref().map_or(0, |m| m.sequence),
            time_ms: last.as_ref().map_or(0, |m| m.time_ms),
            former: Vec::new(),
        };
        let known = match bound_token {
            // A live consumer of ours proves its incarnation: consumers go with their stream.
            Some(bound) if known.as_ref().is_none_or(|k| !k.has(bound)) => Some(present(bound.to_owned())),
            _ => known,
        };
        let (next, found) = match &known {
            None => (present(new_token()), None),
            Some(known) => {
                let bound = bound_token.is_some_and(|bound| known.has(bound));
                let witness = witness(known, [from_head, newest]);
                follow(connection, stream, info, (known, witness, bound), present).await?
            }
        };
        if revision > 0 && known.as_ref() == Some(&next) {
            return Ok(next);
        }
        let body = serde_json::to_vec(&next).expect("an incarnation serialises");
        let stored = connection.publish_upon(&subject, revision, HeaderMap::new(), body.into());
        // Else another host was faster: take what it wrote.
        let stored = stored.await.map_err(|error| error.in_stream(&kv_stream(MESH_BUCKET)))?;
        if stored.is_some() {
            // One of all hosts and handlers has named it, and says so.
            if let (Some(known), Some(found)) = (&known, found) {
                tell(stream, known, &next, &found);
            }
            return Ok(next);
        }
    }
    Err(Error::Timeout {
        what: format!("the incarnation of stream {stream}"),
    })
}

/// Says that a source stream has another name.
fn tell(stream: &str, known: &Incarnation, next: &Incarnation, found: &Renamed) {
    let (was, now) = (&known.token, &next.token);
    match found {
        Renamed::Recreated => {
            tracing::warn!(stream, %was, %now, "the source stream was deleted and created again: its events are new ones")
        }
        Renamed::Cut { end, had } => tracing::warn!(stream, end, lost_from = end + 1, had, %was, %now,
            "the source stream has lost its last messages: what comes there now are new events"),
    }
}

/// Who has seen the newest message of a known incarnation.
fn witness<'a>(known: &'a Incarnation, seen: [Option<&'a Incarnation>; 2]) -> &'a Incarnation {
    let same = seen.into_iter().flatten().filter(|seen| seen.token == known.token);
    same.fold(
        known,
        |one, other| if other.sequence > one.sequence { other } else { one },
    )
}

/// What a stream is now that was known: the same incarnation, perhaps without its end, or a new one. `bound`: a live consumer
/// names the known one. `present`: the stream as it is, under a token.
async fn follow(
    connection: &Connection,
    stream: &str,
    info: &StreamInfo,
    (known, witness, bound): (&Incarnation, &Incarnation, bool),
    present: impl Fn(String) -> Incarnation,
) -> Result<(Incarnation, Option<Renamed>), Error> {
    let at = time_at(connection, stream, witness.sequence).await?;
    let mut recognised = at == Some(witness.time_ms);
    if !recognised && !bound && known.created != info.created {
        recognised = time_at(connection, stream, known.sequence).await? == Some(known.time_ms);
    }
    if compare(known, &info.created, recognised, bound) == StreamSeen::New {
        return Ok((present(new_token()), Some(Renamed::Recreated)));
    }
    let end = match at {
        Some(at) if at == witness.time_ms => None,
        // Other messages are there in the place of those that were lost, or none.
        Some(_) => Some(end_before(connection, stream, witness).await?),
        None => match connection.ends_before(stream, witness.sequence, info).await? {
            Some(_) => Some(end_before(connection, stream, witness).await?),
            None => None,
        },
    };
    let now = present(known.token.clone());
    let mut next = Incarnation {
        former: known.former.clone(),
        ..now
    };
    if let Some(end) = end {
        let had = witness.sequence;
        return Ok((next.cut(end, new_token()), Some(Renamed::Cut { end, had })));
    }
    if next.sequence < known.sequence && known.created == next.created {
        (next.sequence, next.time_ms) = (known.sequence, known.time_ms);
    }
    Ok((next, None))
}

/// The token of a new incarnation.
fn new_token() -> String {
    token()[..6].to_owned()
}

async fn time_at(connection: &Connection, stream: &str, sequence: u64) -> Result<Option<u64>, Error> {
    let stored = match sequence {
        0 => None,
        sequence => connection.stored(stream, By::Sequence(sequence)).await?,
    };
    Ok(stored.map(|stored| stored.time_ms))
}

/// The last sequence of a stream that has lost its end, up to which it is as it was: what was stored since then is younger
/// than the newest message that it had.
async fn end_before(connection: &Connection, stream: &str, had: &Incarnation) -> Result<u64, Error> {
    let info = connection.stream(stream).await?.ok_or_else(|| Error::Missing {
        what: format!("stream {stream}"),
    })?;
    // Between these is the first that is younger.
    let (mut from, mut to) = (info.state.first_seq.max(1), info.state.last_seq + 1);
    while from < to {
        let middle = u64::midpoint(from, to);
        match connection.stored_next(stream, middle, ">").await? {
            Some(old) if old.time_ms <= had.time_ms => from = old.sequence + 1,
            Some(_) | None => to = middle,
        }
    }
    if from > had.sequence {
        return Err(Error::Refused(format!(
            "stream {stream} has lost its last messages: message {} is not the one that was there, and its time does \
             not show which messages are new. New messages would be taken for old ones that are decided: restore the \
             stream, or delete it and create it again",
            had.sequence
        )));
    }
    Ok(from - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_stream_is_the_same_and_a_remade_one_is_not() {
        let known = Incarnation {
            token: "k".into(),
            created: "monday".into(),
            sequence: 7,
            time_ms: 70,
            former: Vec::new(),
        };
        let rows = [
            ("monday", true, false, StreamSeen::Same),
            ("monday", false, false, StreamSeen::Same),
            ("tuesday", true, false, StreamSeen::Same),
            ("tuesday", false, false, StreamSeen::New),
            ("tuesday", false, true, StreamSeen::Same),
        ];
        for (created, recognised, bound, seen) in rows {
            assert_eq!(
                compare(&known, created, recognised, bound),
                seen,
                "{created} {recognised} {bound}"
            );
        }
    }
}
