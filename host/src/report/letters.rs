//! Dead letters and their groups.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::dlq::group::{self, LetterGroup};
use crate::dlq::payload::{self, Header, Payload};
use crate::event::outcome::Cause;
use crate::event::rfc3339;
use crate::mesh_streams::attempts::{Attempt, history};
use crate::mesh_streams::dead_letter::{self, Letter, LetterEdit};
use crate::mesh_streams::notes::GroupNote;

/// A dead letter.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "A dead letter, a line of `jetmesh dlq ls --json`", description = "")]
pub struct LetterJson<'a> {
    /// What people call the letter by: HANDLER.INCARNATION.SEQUENCE.
    id: &'a str,
    /// Where the letter lies.
    subject: &'a str,
    /// Of the letter in the stream MESH_DEAD.
    sequence: u64,
    /// When the event died.
    #[schemars(extend("format" = "date-time"))]
    dead_since: String,
    /// The handler that failed on it.
    handler: &'a str,
    /// Why the event is dead.
    #[schemars(with = "Cause")]
    cause: &'a str,
    /// Of the last failure.
    code: &'a str,
    /// Of the last failure.
    error: &'a str,
    /// How often it was tried; 0 if that is not known.
    attempts: u32,
    /// How many of its failed replays the mesh has begun by itself.
    redriven: u32,
    /// Digest of the module of the last attempt; empty if there was none.
    module: &'a str,
    /// The event: INCARNATION.SEQUENCE; of an undeliverable one its own id.
    event: &'a str,
    /// The event's subject; empty if it was lost.
    event_subject: &'a str,
    /// When the first attempt began; empty if it is not known.
    first_attempt: &'a str,
    /// When the last attempt began; empty if it is not known.
    last_attempt: &'a str,
}

impl<'a> From<&'a Letter> for LetterJson<'a> {
    fn from(letter: &'a Letter) -> LetterJson<'a> {
        let of = |name: &str| letter.header(name);
        LetterJson {
            id: letter.id(),
            subject: &letter.subject,
            sequence: letter.sequence,
            dead_since: rfc3339(letter.dead_since_ms()),
            handler: of(dead_letter::HANDLER),
            cause: of(dead_letter::CAUSE),
            code: of(dead_letter::CODE),
            error: of(dead_letter::ERROR),
            attempts: of(dead_letter::ATTEMPTS).parse().unwrap_or(0),
            redriven: letter.redriven(),
            module: of(dead_letter::MODULE),
            event: of(dead_letter::EVENT),
            event_subject: of(dead_letter::SUBJECT),
            first_attempt: of(dead_letter::FIRST_ATTEMPT),
            last_attempt: of(dead_letter::LAST_ATTEMPT),
        }
    }
}

/// A group of dead letters.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(
    title = "A group of dead letters, a line of `jetmesh dlq ls --group --json`",
    description = ""
)]
pub struct GroupJson<'a> {
    /// The group's id.
    #[schemars(regex(pattern = "^[0-9a-f]{8}$"))]
    group: String,
    /// How many letters it has.
    #[schemars(range(min = 1))]
    count: u64,
    /// Of these: were replayed, and have failed again.
    failed_again: u64,
    /// When the first of them died.
    #[schemars(extend("format" = "date-time"))]
    first: String,
    /// When the last of them died.
    #[schemars(extend("format" = "date-time"))]
    last: String,
    handler: &'a str,
    /// Why the event is dead.
    #[schemars(with = "Cause")]
    cause: &'a str,
    code: &'a str,
    /// The error without what differs from event to event.
    message: &'a str,
    /// The module's digest.
    module: &'a str,
    /// The id of the newest letter.
    sample: &'a str,
    /// The newest letter's error, word for word.
    error: &'a str,
    /// What people have noted about the group; null: nothing.
    note: Option<&'a GroupNote>,
}

impl<'a> GroupJson<'a> {
    /// `notes`: by the id of the group.
    pub fn of(group: &'a LetterGroup, notes: &'a BTreeMap<String, GroupNote>) -> GroupJson<'a> {
        let id = group.key.id();
        GroupJson {
            note: notes.get(&id),
            group: id,
            count: group.count,
            failed_again: group.failed_again,
            first: rfc3339(group.first_ms),
            last: rfc3339(group.last_ms),
            handler: &group.key.handler,
            cause: &group.key.cause,
            code: &group.key.code,
            message: &group.key.message,
            module: &group.key.module,
            sample: &group.sample,
            error: &group.error,
        }
    }
}

/// Everything that is known of a dead letter.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(
    title = "Everything that is known of a dead letter, `jetmesh dlq show --json`",
    description = ""
)]
pub struct ShowJson<'a> {
    #[serde(flatten)]
    letter: LetterJson<'a>,
    /// The event's stream.
    stream: &'a str,
    /// When the event was stored; empty if it is not known.
    event_time: &'a str,
    /// The ledger that holds the death; empty if the handler has none.
    ledger: &'a str,
    /// The ledger's entry that decided the death.
    death: Option<u64>,
    /// The id of its group.
    group: String,
    /// What people have noted about the group; null: nothing.
    note: Option<GroupNote>,
    /// The attempts that are known word for word, oldest first.
    history: Vec<Attempt>,
    /// The edits of its payload, oldest first.
    edits: Vec<LetterEdit>,
    /// The event's headers.
    headers: Vec<Header>,
    /// Headers that no client can read; empty if there are none.
    raw_headers_base64: &'a str,
    /// The event's payload.
    payload: Payload,
}

impl<'a> ShowJson<'a> {
    /// `note`: that on its group.
    pub fn of(letter: &'a Letter, note: Option<GroupNote>) -> ShowJson<'a> {
        let of = |name: &str| letter.header(name);
        ShowJson {
            letter: LetterJson::from(letter),
            stream: of(dead_letter::STREAM),
            event_time: of(dead_letter::TIME),
            ledger: of(dead_letter::LEDGER),
            death: of(dead_letter::DEATH).parse().ok(),
            group: group::FaultKey::of(letter).id(),
            note,
            history: history::of(&letter.headers),
            edits: dead_letter::edits(&letter.headers),
            headers: payload::headers(&dead_letter::originals(&letter.headers)),
            raw_headers_base64: of(dead_letter::RAW_HEADERS),
            payload: Payload::of(&letter.payload),
        }
    }
}
