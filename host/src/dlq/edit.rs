//! A dead letter gets another payload: what a person has corrected is replayed as the same event.

use bytes::Bytes;

use crate::broker::error::Code;
use crate::broker::{Connection, Error};
use crate::event::outcome::Cause;
use crate::event::{EventId, Headers, rfc3339};
use crate::ledger::identity::{Mark, SEAL, mark, seal};
use crate::mesh_streams::audit::AuditEnd;
use crate::mesh_streams::dead_letter::{self, EDITS_MAX, Letter, LetterEdit, Rewritten};
use crate::mesh_streams::replay_queue;

/// Who corrects a payload, and why.
#[derive(Debug, Clone)]
pub struct EditOrder {
    pub by: String,
    pub reason: Option<String>,
    pub at_ms: u64,
}

/// What has become of an edit.
#[derive(Debug)]
pub enum Edited {
    Done {
        edit: LetterEdit,
        /// A replay was asked for in the meantime, and may have run the payload that was there before.
        replay: bool,
    },
    /// The payload is the same.
    Unchanged,
    /// Nothing is edited, because of this.
    Refused(EditRefusal),
}

impl Edited {
    /// As it is recorded.
    pub fn recorded(&self) -> AuditEnd {
        match self {
            Edited::Done { .. } => AuditEnd::done(&[("edited", 1)]),
            Edited::Unchanged => AuditEnd::done(&[("unchanged", 1)]),
            Edited::Refused(why) => AuditEnd::failed(&why.to_string()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EditRefusal {
    #[error("its stream removed the event before it was decided, so there is no payload to correct")]
    Lost,
    #[error(
        "a replay of it waits or runs, and could take the payload that is there now; edit it when the replay has ended"
    )]
    Replay,
    #[error("it was resolved, replayed or edited in the meantime; `jetmesh dlq show` tells how it is now")]
    Changed,
    #[error(
        "the payload has {bytes} bytes, and {bytes_max} bytes fit one message together with the headers of the letter"
    )]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("it was edited {EDITS_MAX} times, and a dead letter takes no more")]
    TooMany,
}

/// Longest reason, in characters: it is kept in a header.
const REASON_MAX: usize = 500;

/// `Err` says why a reason is not taken.
pub fn check_reason(text: &str) -> Result<(), String> {
    match text.chars().count() {
        0 => Err("it is empty: leave it out if there is none".to_owned()),
        count if count > REASON_MAX => Err(format!("it has {count} characters, and {REASON_MAX} are the most")),
        _ => Ok(()),
    }
}

/// Why the new payload is not JSON, if the one before is.
pub fn no_json(before: &[u8], after: &[u8]) -> Option<String> {
    let parse = |bytes: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(bytes);
    parse(before).ok()?;
    parse(after).err().map(|error| error.to_string())
}

/// Why a letter takes no other payload. `None`: it does.
pub async fn refusal(connection: &Connection, letter: &Letter) -> Result<Option<EditRefusal>, Error> {
    if letter.header(dead_letter::CAUSE) == Cause::Lost.name() {
        return Ok(Some(EditRefusal::Lost));
    }
    if dead_letter::edits(&letter.headers).len() >= EDITS_MAX {
        return Ok(Some(EditRefusal::TooMany));
    }
    Ok(waits(connection, letter).await?.then_some(EditRefusal::Replay))
}

/// Gives a letter, which must be whole and as it was read, another payload.
pub async fn edit(
    connection: &Connection,
    letter: &Letter,
    payload: Bytes,
    order: &EditOrder,
) -> Result<Edited, Error> {
    if payload == letter.payload {
        return Ok(Edited::Unchanged);
    }
    if let Some(refusal) = refusal(connection, letter).await? {
        return Ok(Edited::Refused(refusal));
    }
    let mut edit = LetterEdit {
        number: 0,
        at: rfc3339(order.at_ms),
        by: order.by.clone(),
        reason: order.reason.clone(),
        bytes_before: letter.payload.len() as u64,
        bytes: payload.len() as u64,
    };
    let bytes = payload.len();
    let headers = sealed_again(letter, &payload);
    Ok(
        match dead_letter::edit(connection, letter, headers, payload, &mut edit).await? {
            Rewritten::Done => Edited::Done {
                edit,
                replay: waits(connection, letter).await?,
            },
            Rewritten::Changed => Edited::Refused(EditRefusal::Changed),
            Rewritten::TooLarge { bytes_max } => Edited::Refused(EditRefusal::TooLarge { bytes, bytes_max }),
        },
    )
}

/// The letter's headers for another payload. An event that a handler has emitted keeps its id, which a seal binds to its payload.
fn sealed_again(letter: &Letter, payload: &[u8]) -> Headers {
    let mut headers = letter.headers.clone();
    let originals = dead_letter::originals(&letter.headers);
    if let Mark::Own(id) = mark(&originals, &letter.payload) {
        dead_letter::set_original(&mut headers, SEAL, &seal(id, payload));
    }
    headers
}

/// Whether a replay of the letter waits or runs.
async fn waits(connection: &Connection, letter: &Letter) -> Result<bool, Error> {
    // An undeliverable event has no event of a handler, and is replayed by the command itself.
    let Some(event) = EventId::parse(letter.header(dead_letter::EVENT)) else {
        return Ok(false);
    };
    match replay_queue::waits(connection, letter.header(dead_letter::HANDLER), &event).await {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => Ok(false),
        waits => waits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::header;
    use crate::ledger::identity::EVENT_ID;

    fn letter(seal: &str) -> Letter {
        let headers = [
            (dead_letter::HANDLER, "h"),
            ("Mesh-Original-Mesh-Event-Id", "h.k.1.0"),
            ("Mesh-Original-Mesh-Event-Seal", seal),
        ];
        Letter {
            subject: "$MESH.dead.ORDERS.h.k.7".to_owned(),
            sequence: 3,
            time_ms: 0,
            headers: headers.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
            payload: "before".into(),
        }
    }

    #[test]
    fn an_emitted_event_is_the_same_one_with_a_corrected_payload() {
        let letter = letter(&seal("h.k.1.0", b"before"));
        let originals = dead_letter::originals(&sealed_again(&letter, b"after"));
        assert_eq!(mark(&originals, b"after"), Mark::Own("h.k.1.0"));
        assert_eq!(header(&originals, EVENT_ID), Some("h.k.1.0"));
    }

    #[test]
    fn an_edit_does_not_make_an_event_of_the_mesh_of_one_with_copied_headers() {
        let letter = letter(&seal("h.k.1.0", b"of another event"));
        let originals = dead_letter::originals(&sealed_again(&letter, b"after"));
        assert_eq!(mark(&originals, b"after"), Mark::Copied("h.k.1.0"));
    }
}
