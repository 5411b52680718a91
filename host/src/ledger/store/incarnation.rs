//! Which making of a source stream an event belongs to. A stream that is removed and made again counts from 1 anew:
//! without this, its first event would pass for an old one. One that is restored from a backup is the same as before.
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

/// What a look at the stream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Same,
    New,
}

/// `witness`: the time of the stored message at the known sequence, if there is one. `bound`: a consumer of ours that
/// names the known token is there, and consumers go with their stream.
pub fn compare(known: &Incarnation, created: &str, witness: Option<u64>, bound: bool) -> Seen {
    let recognised = known.sequence > 0 && witness == Some(known.time_ms);
    if known.created == created || recognised || bound {
        Seen::Same
    } else {
        Seen::New
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
             handlers say which making of stream {stream} this is",
            key(stream)
        ),
    })
}

/// The present incarnation of a source stream. `from_head`: what the handler's ledger remembers, for the case that the
/// mesh's own bucket is gone.
pub async fn resolve(
    connection: &Connection,
    stream: &str,
    info: &StreamInfo,
    bound_token: Option<&str>,
    from_head: Option<&Incarnation>,
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
        };
        let known = match bound_token {
            // A live consumer of ours proves its incarnation: consumers go with their stream.
            Some(bound) if known.as_ref().is_none_or(|k| k.token != bound) => Some(present(bound.to_owned())),
            _ => known,
        };
        let mut anew = None;
        let next = match &known {
            None => present(token()[..6].to_owned()),
            Some(known) => {
                let witness = match known.sequence {
                    0 => None,
                    sequence => connection
                        .stored(stream, By::Sequence(sequence))
                        .await?
                        .map(|m| m.time_ms),
                };
                let behind = |info: &StreamInfo| known.created == info.created && known.sequence > info.state.last_seq;
                // What is known may be newer than the look at the stream.
                if behind(info) && connection.stream(stream).await?.as_ref().is_some_and(behind) {
                    return Err(Error::Refused(format!(
                        "stream {stream} has lost its end: it had message {} and ends at {} now. New messages would pass \
                         for old ones that are decided: restore it, or make it anew",
                        known.sequence, info.state.last_seq
                    )));
                }
                match compare(known, &info.created, witness, bound_token == Some(&known.token)) {
                    Seen::Same => {
                        let mut next = present(known.token.clone());
                        if next.sequence < known.sequence && known.created == next.created {
                            (next.sequence, next.time_ms) = (known.sequence, known.time_ms);
                        }
                        next
                    }
                    Seen::New => {
                        anew = Some(known.token.clone());
                        present(token()[..6].to_owned())
                    }
                }
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
            if let Some(was) = anew {
                // One of all hosts and handlers has named it, and says so.
                tracing::warn!(stream, was, now = %next.token,
                    "the source stream was made anew: its events are new ones");
            }
            return Ok(next);
        }
    }
    Err(Error::Timeout {
        what: format!("the incarnation of stream {stream}"),
    })
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
        };
        let rows = [
            ("monday", Some(70), false, Seen::Same),
            ("monday", None, false, Seen::Same),
            ("tuesday", Some(70), false, Seen::Same),
            ("tuesday", Some(99), false, Seen::New),
            ("tuesday", None, false, Seen::New),
            ("tuesday", None, true, Seen::Same),
        ];
        for (created, witness, bound, seen) in rows {
            assert_eq!(
                compare(&known, created, witness, bound),
                seen,
                "{created} {witness:?} {bound}"
            );
        }
    }
}
