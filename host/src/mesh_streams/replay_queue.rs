//! Asking for replays, and what has been asked for: an event in a message of its own, or up to [`LIST_MAX`] dead letters
//! of one handler in one.

use std::collections::HashSet;

use async_nats::HeaderMap;
use bytes::Bytes;

use crate::broker::connection::token;
use crate::broker::provision::REPLAY;
use crate::broker::{By, Connection, Error};
use crate::event::EventId;
use crate::mesh_streams::dead_letter::{self, ASKED_BY};

/// Header of a replay: the subject of the dead letter that it replays.
pub const LETTER: &str = "Mesh-Letter";
/// Most letters in one list. They are read together, and if one of them is delivered again, all are.
pub const LIST_MAX: usize = 64;
/// In place of an incarnation, whose names are longer.
const LIST: &str = "list.";

/// Where a replay waits; `id`: `<handler>.<incarnation>.<sequence>`, as a letter's.
pub fn subject(id: &str) -> String {
    format!("$MESH.replay.{id}")
}

/// Which list it is, out of what follows the handler in a subject. `None`: it is none.
pub fn list_of(named: &str) -> Option<&str> {
    named.strip_prefix(LIST)
}

/// Asks for an event to be run once more. Asking twice while the first is waiting does nothing.
pub async fn ask(connection: &Connection, handler: &str, event: &EventId) -> Result<(), Error> {
    asked(connection, &subject(&format!("{handler}.{event}")), HeaderMap::new()).await
}

async fn asked(connection: &Connection, subject: &str, headers: HeaderMap) -> Result<(), Error> {
    connection
        .publish_upon(subject, 0, headers, Bytes::new())
        .await
        .map(|_| ())
        .map_err(|error| error.in_stream(REPLAY))
}

/// Asks for dead letters of one handler, by where they lie, at most [`LIST_MAX`]. One letter by itself is as any other event;
/// of several, those that wait already are asked for twice. So several are only for handlers with a ledger, which knows what
/// is done. `run`: who asks, by which the one who asked is told of what becomes of it.
pub async fn ask_for(connection: &Connection, handler: &str, letters: &[String], run: &str) -> Result<(), Error> {
    let mut headers = HeaderMap::new();
    headers.insert(ASKED_BY, run);
    match letters {
        [] => Ok(()),
        [letter] => {
            headers.insert(LETTER, letter.as_str());
            asked(connection, &subject(dead_letter::id_of(letter)), headers).await
        }
        letters => {
            let subject = subject(&format!("{handler}.{LIST}{}", token()));
            let list = letters.join("\n").into();
            let sent = connection.publish(&subject, headers, list).await;
            sent.map(|_| ()).map_err(|error| error.in_stream(REPLAY))
        }
    }
}

/// Whether a text can name a run of `dlq replay`. Any user may choose it, and it is written into headers that others read.
pub fn is_run(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The letters of a list.
pub fn letters(list: &[u8]) -> impl Iterator<Item = &str> {
    list.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .filter(|line| !line.is_empty())
}

/// What waits to be run once more by a handler, `<handler>.<incarnation>.<sequence>` each.
pub async fn waiting(connection: &Connection, handler: &str) -> Result<HashSet<String>, Error> {
    let mut waiting = HashSet::new();
    let prefix = subject("");
    for subject in connection.subjects(REPLAY, &subject(&format!("{handler}.>"))).await? {
        let Some(id) = subject.strip_prefix(&prefix) else {
            continue;
        };
        let named = id.strip_prefix(handler).and_then(|rest| rest.strip_prefix('.'));
        if named.and_then(list_of).is_none() {
            waiting.insert(id.to_owned());
        } else if let Some(list) = connection.stored(REPLAY, By::Last(&subject)).await? {
            waiting.extend(letters(&list.payload).map(|letter| dead_letter::id_of(letter).to_owned()));
        }
    }
    Ok(waiting)
}

/// Whether an event waits to be run once more.
pub async fn waits(connection: &Connection, handler: &str, event: &EventId) -> Result<bool, Error> {
    let id = format!("{handler}.{event}");
    if connection.stored(REPLAY, By::Last(&subject(&id))).await?.is_some() {
        return Ok(true);
    }
    let lists = subject(&format!("{handler}.{LIST}>"));
    for list in connection.subjects(REPLAY, &lists).await? {
        let list = connection.stored(REPLAY, By::Last(&list)).await?;
        if list.is_some_and(|list| letters(&list.payload).any(|letter| dead_letter::id_of(letter) == id)) {
            return Ok(true);
        }
    }
    Ok(false)
}
