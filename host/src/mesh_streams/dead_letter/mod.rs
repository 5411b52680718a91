//! Dead letters: a copy of the event with everything that is known of its end in headers, one per subject
//! `$MESH.dead.<stream>.<handler>.<incarnation>.<sequence>` of the stream `MESH_DEAD`. Storing one twice is harmless.

use async_nats::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use crate::broker::provision::DEAD;
use crate::broker::{Connection, Error, Stored};
use crate::event::outcome::{Cause, Failure};
use crate::event::{EventId, HEADER_BYTES_MAX, Headers, bytes_of, header_bytes, rfc3339, writable};
use crate::mesh_streams::attempts::Attempt;
use crate::mesh_streams::attempts::history::{self, HISTORY};
use crate::text::display::clean;

mod edit;
mod end;
mod envelope;
mod letter;

pub use edit::{EDITED, EDITS_MAX, LetterEdit, Rewritten, edit, edits, edits_of, is_edited, version, versions};
pub use end::{REPLAYED, SETTLED_TTL, discard, resolve, rewrite, settle, settled};
pub use envelope::{DeathRef, Envelope, glance, glance_all};
pub use letter::{Letter, handler_of, id_of, read, stored};

pub const HANDLER: &str = "Mesh-Handler";
pub const STREAM: &str = "Mesh-Stream";
pub const SUBJECT: &str = "Mesh-Subject";
pub const SEQUENCE: &str = "Mesh-Sequence";
pub const TIME: &str = "Mesh-Time";
pub const EVENT: &str = "Mesh-Event";
pub const CAUSE: &str = "Mesh-Cause";
pub const CODE: &str = "Mesh-Code";
pub const ERROR: &str = "Mesh-Error";
pub const ATTEMPTS: &str = "Mesh-Attempts";
pub const MODULE: &str = "Mesh-Module";
pub const FIRST_ATTEMPT: &str = "Mesh-First-Attempt";
pub const LAST_ATTEMPT: &str = "Mesh-Last-Attempt";
/// The ledger's entry that decided the death; a replay follows exactly it.
pub const DEATH: &str = "Mesh-Death";
/// The sequence of the death's record in the ledger's stream, which a replay's `done` overwrites. Letters of earlier builds
/// lack it, and after a torn append it may be another: then the record is looked for.
pub const DEATH_RECORD: &str = "Mesh-Death-Record";
/// The ledger that holds the death.
pub const LEDGER: &str = "Mesh-Ledger";
/// The body is in this many messages on `<subject>.part.<n>`.
pub const PARTS: &str = "Mesh-Parts";
/// Headers of the original that no client can read, in base64.
pub const RAW_HEADERS: &str = "Mesh-Original-Headers-Base64";
/// Before the name of an original header that the server or the mesh would act on.
pub const ORIGINAL: &str = "Mesh-Original-";
/// In place of a letter whose event is done after all, or that was discarded.
pub const SETTLED: &str = "Mesh-Settled";
/// Of a replay, and of what settles its letter: which run of `dlq replay` has asked for it.
pub const ASKED_BY: &str = "Mesh-Asked-By";
/// When it died, if the letter was written again since, or put back: its stream tells only when it was written last.
pub const DEAD_SINCE: &str = "Mesh-Dead-Since";
/// How many of its failed replays the mesh had begun by itself.
pub const REDRIVEN: &str = "Mesh-Redriven";
/// The original headers were larger than what a letter keeps of them; the value is their size in bytes.
pub const CUT: &str = "Mesh-Original-Headers-Cut";
/// Most that a letter takes up of its original's headers.
const ORIGINALS_BYTES_MAX: usize = 64 * 1024;
/// What is kept free in a letter for the headers that come when it is stored.
const HEADERS_ROOM: usize = 256;

/// The dead event: as much of it as is still there.
#[derive(Debug, Clone)]
pub struct Body {
    pub subject: String,
    /// `Err`: the raw bytes of headers that no client can read.
    pub headers: Result<Headers, Bytes>,
    pub payload: Bytes,
    pub time_ms: u64,
}

impl Body {
    pub fn of(stored: Stored) -> Body {
        let headers = stored.headers().map_err(|_| stored.raw_headers.clone());
        Body {
            subject: stored.subject,
            headers,
            payload: stored.payload,
            time_ms: stored.time_ms,
        }
    }
}

/// What is known of an event's end.
#[derive(Debug, Clone)]
pub struct DeadLetterFacts<'a> {
    pub stream: &'a str,
    pub handler: &'a str,
    pub event: &'a EventId,
    pub cause: Cause,
    pub failure: &'a Failure,
    pub attempts: u32,
    pub module: &'a str,
    /// Milliseconds since the Unix epoch; 0: never tried.
    pub first_attempt_ms: u64,
    pub last_attempt_ms: u64,
    /// The attempts that are known word for word, oldest first.
    pub history: &'a [Attempt],
    /// The ledger that decides its death. Which entry of it does, is put in when the batch is laid out.
    pub ledger: Option<&'a str>,
}

/// Where an event's dead letter lies.
pub fn subject(stream: &str, handler: &str, event: &EventId) -> String {
    format!("$MESH.dead.{stream}.{handler}.{event}")
}

/// The headers of a letter. `body` is `None` when the event was removed before it could be copied.
pub fn headers(facts: &DeadLetterFacts<'_>, body: Option<&Body>) -> Headers {
    let mut list: Headers = Vec::new();
    let mut put = |name: &str, value: String| list.push((name.to_owned(), value));
    put(HANDLER, facts.handler.to_owned());
    put(STREAM, facts.stream.to_owned());
    put(SEQUENCE, facts.event.sequence.to_string());
    put(EVENT, facts.event.to_string());
    put(CAUSE, facts.cause.to_string());
    put(CODE, clean(&facts.failure.code));
    put(ERROR, clean(&facts.failure.message));
    put(ATTEMPTS, facts.attempts.to_string());
    put(MODULE, facts.module.to_owned());
    for (name, ms) in [
        (FIRST_ATTEMPT, facts.first_attempt_ms),
        (LAST_ATTEMPT, facts.last_attempt_ms),
    ] {
        if ms > 0 {
            put(name, rfc3339(ms));
        }
    }
    if !facts.history.is_empty() {
        put(HISTORY, history::value(facts.history));
    }
    if let Some(ledger) = facts.ledger {
        put(LEDGER, ledger.to_owned());
        put(DEATH, "0".to_owned());
    }
    if let Some(body) = body {
        // As it is, because a replay and `--subject` go by it; a header takes no control characters.
        put(SUBJECT, body.subject.replace(|c: char| c.is_ascii_control(), " "));
        put(TIME, rfc3339(body.time_ms));
        match &body.headers {
            Ok(originals) => keep(&mut list, originals),
            Err(raw) if raw.len() > ORIGINALS_BYTES_MAX => put(CUT, raw.len().to_string()),
            Err(raw) => put(RAW_HEADERS, BASE64.encode(raw)),
        }
    }
    list
}

/// The letter of an emitted event that its target refuses: where it lies, and its headers.
pub fn undeliverable(stream: &str, id: &str, to: &str, originals: &Headers, why: &str) -> (String, Headers) {
    let mut list: Headers = vec![
        (STREAM.to_owned(), stream.to_owned()),
        (HANDLER.to_owned(), id.split('.').next().unwrap_or(id).to_owned()),
        (EVENT.to_owned(), id.to_owned()),
        (CAUSE.to_owned(), Cause::Undeliverable.to_string()),
        (CODE.to_owned(), "undeliverable".to_owned()),
        (ERROR.to_owned(), clean(why)),
        (SUBJECT.to_owned(), to.to_owned()),
    ];
    keep(&mut list, originals);
    (undeliverable_subject(stream, id), list)
}

/// Where such a letter lies; `id`: `<handler>.<incarnation>.<sequence>.<which of its emits>`.
pub fn undeliverable_subject(stream: &str, id: &str) -> String {
    let (event, emit) = id.rsplit_once('.').unwrap_or((id, "0"));
    format!("$MESH.dead.{stream}.{event}-{emit}")
}

/// The subjects of such letters of all events that a handler has emitted in an incarnation of its source.
pub fn undeliverable_letters(stream: &str, handler: &str, event: &EventId) -> String {
    format!("$MESH.dead.{stream}.{handler}.{}.*", event.incarnation)
}

/// Puts the original headers into a letter, as far as they fit.
fn keep(list: &mut Headers, originals: &Headers) {
    let all: usize = originals.iter().map(bytes_of).sum();
    let mut room = ORIGINALS_BYTES_MAX;
    for one in originals {
        let size = bytes_of(one);
        if size <= room {
            room -= size;
            list.push((kept(&one.0), one.1.clone()));
        }
    }
    if all > ORIGINALS_BYTES_MAX {
        list.push((CUT.to_owned(), all.to_string()));
    }
}

/// An original header's name in the letter: as it was, unless the server or the mesh would act on it.
fn kept(name: &str) -> String {
    let prefix = name.get(..5).unwrap_or_default();
    if prefix.eq_ignore_ascii_case("nats-") || prefix.eq_ignore_ascii_case("mesh-") {
        format!("{ORIGINAL}{name}")
    } else {
        name.to_owned()
    }
}

/// The original headers, out of a letter's.
pub fn originals(letter: &Headers) -> Headers {
    let original = |(name, value): &(String, String)| Some((original(name)?.to_owned(), value.clone()));
    letter.iter().filter_map(original).collect()
}

/// Gives an original header of a letter another value, if the original had it.
pub fn set_original(letter: &mut Headers, name: &str, value: &str) {
    let is = |own: &str| original(own).is_some_and(|original| original.eq_ignore_ascii_case(name));
    for (_, old) in letter.iter_mut().filter(|(own, _)| is(own)) {
        value.clone_into(old);
    }
}

/// What a letter's header was called in the original. `None`: it is the letter's own.
fn original(name: &str) -> Option<&str> {
    match name.strip_prefix(ORIGINAL) {
        Some("Headers-Base64" | "Headers-Cut") => None,
        Some(original) => Some(original),
        None if name.starts_with("Mesh-") || name.starts_with("Nats-") => None,
        None => Some(name),
    }
}

/// Stores a letter if its subject is free; stored (`true`) or already there (`false`) are both success. A body that does
/// not fit one message goes before it in parts.
pub async fn store(connection: &Connection, subject: &str, headers: &Headers, payload: Bytes) -> Result<bool, Error> {
    let (map, body) = fitting(connection, subject, headers, payload).await?;
    insert(connection, subject, map, body).await
}

/// Whether a letter fits one message.
pub fn fits(connection: &Connection, headers: &Headers, payload: &Bytes) -> bool {
    payload.len() <= room(connection, headers)
}

/// How many bytes of payload fit one message beside these headers of a letter.
fn room(connection: &Connection, headers: &Headers) -> usize {
    let taken = header_bytes(headers) + HEADERS_ROOM;
    connection.client.max_payload().saturating_sub(taken)
}

/// The headers of a letter as its stream takes them, whatever the event has brought along: there is a letter in any case.
pub fn storable(headers: &Headers, connection: &Connection) -> Headers {
    within(
        headers.clone(),
        HEADER_BYTES_MAX.min(connection.client.max_payload()) - HEADERS_ROOM,
    )
}

/// Leaves out the event's own headers, the largest first, and then the history, until the rest fits into this number of bytes.
fn within(mut headers: Headers, bytes_max: usize) -> Headers {
    let all = header_bytes(&headers);
    if all <= bytes_max {
        return headers;
    }
    let own = |name: &str| original(name).is_some() || name == RAW_HEADERS;
    let brought: usize = headers.iter().filter(|(name, _)| own(name)).map(bytes_of).sum();
    let mut over = all - bytes_max;
    while over > 0 {
        let spare = headers.iter().enumerate().filter(|(_, (name, _))| own(name));
        let largest = spare.max_by_key(|(_, one)| bytes_of(one)).map(|(at, _)| at);
        let Some(at) = largest.or_else(|| headers.iter().position(|(name, _)| name == HISTORY)) else {
            break;
        };
        over = over.saturating_sub(bytes_of(&headers.remove(at)));
    }
    if brought > 0 && !headers.iter().any(|(name, _)| name == CUT) {
        headers.push((CUT.to_owned(), brought.to_string()));
    }
    headers
}

/// The one message of a letter; of a body that does not fit, the parts are stored here.
async fn fitting(
    connection: &Connection,
    subject: &str,
    headers: &Headers,
    body: Bytes,
) -> Result<(HeaderMap, Bytes), Error> {
    let headers = storable(headers, connection);
    // A letter can always be written: an original header that the client refuses is not worth losing it.
    let mut map = writable(&headers);
    if fits(connection, &headers, &body) {
        return Ok((map, body));
    }
    let chunk = (connection.client.max_payload() / 2).max(1024);
    let mut parts = 0;
    for part in body.chunks(chunk) {
        parts += 1;
        let subject = format!("{subject}.part.{parts}");
        insert(connection, &subject, HeaderMap::new(), body.slice_ref(part)).await?;
    }
    map.insert(PARTS, parts.to_string());
    Ok((map, Bytes::new()))
}

async fn insert(connection: &Connection, subject: &str, headers: HeaderMap, body: Bytes) -> Result<bool, Error> {
    let stored = connection.publish_upon(subject, 0, headers, body).await;
    Ok(stored.map_err(|error| error.in_stream(DEAD))?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::header;

    #[test]
    fn original_headers_come_back_as_they_were_and_control_headers_do_not_act() {
        let event = EventId {
            incarnation: "k".into(),
            sequence: 7,
        };
        let failure = Failure {
            code: "c".into(),
            message: "no\nstock".into(),
        };
        let facts = DeadLetterFacts {
            stream: "ORDERS",
            handler: "h",
            event: &event,
            cause: Cause::Rejected,
            failure: &failure,
            attempts: 1,
            module: "m",
            first_attempt_ms: 1,
            last_attempt_ms: 2,
            history: &[],
            ledger: Some("inventory"),
        };
        let originals_in: Headers = vec![
            ("Nats-Msg-Id".into(), "o-1".into()),
            ("Trace".into(), "a".into()),
            ("Trace".into(), "b".into()),
            ("Mesh-Hops".into(), "2".into()),
        ];
        let body = Body {
            subject: "orders.created".into(),
            headers: Ok(originals_in.clone()),
            payload: Bytes::new(),
            time_ms: 5,
        };
        let letter = headers(&facts, Some(&body));
        assert!(!letter.iter().any(|(name, _)| name.starts_with("Nats-")));
        assert_eq!(header(&letter, ERROR), Some("no stock"));
        assert_eq!(originals(&letter), originals_in);
        assert_eq!(id_of(&subject("ORDERS", "h", &event)), "h.k.7");
    }

    #[test]
    fn the_headers_of_a_letter_are_cut_until_they_fit_the_largest_of_the_events_own_first() {
        let big = |name: &str, bytes: usize| (name.to_owned(), "x".repeat(bytes));
        let letter: Headers = vec![
            (EVENT.to_owned(), "h.k.7.0".to_owned()),
            big("Trace", 300),
            big("Large", 2000),
            big("Mesh-Original-Nats-Msg-Id", 1000),
        ];
        assert_eq!(within(letter.clone(), 4000), letter);
        let cut = within(letter.clone(), 1600);
        let names: Vec<&str> = cut.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [EVENT, "Trace", "Mesh-Original-Nats-Msg-Id", CUT]);
        assert_eq!(header(&cut, CUT), Some("3347"));
        let bare = within(letter, 100);
        assert_eq!(bare.len(), 2, "what the letter says itself stays: {bare:?}");
    }
}
