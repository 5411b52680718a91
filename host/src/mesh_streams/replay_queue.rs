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
/// Header of the replay of one letter: the sequence of the letter in its stream, if only that letter is meant as it was read.
pub const LETTER_SEQUENCE: &str = "Mesh-Letter-Sequence";
/// Begins the name of a run that the mesh has begun by itself. In place of an event it is the order to begin one.
pub const REDRIVE: &str = "redrive";
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

/// A dead letter that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LetterRef<'a> {
    /// Where it lies.
    pub subject: &'a str,
    /// Its sequence, if only that letter is meant as it was read: then asking twice replays it once.
    pub sequence: Option<u64>,
}

impl<'a> LetterRef<'a> {
    /// As a line of a list has it.
    fn parse(line: &'a str) -> LetterRef<'a> {
        let bound = line
            .split_once(' ')
            .and_then(|(subject, sequence)| Some((subject, sequence.parse().ok()?)));
        match bound {
            Some((subject, sequence)) => LetterRef {
                subject,
                sequence: Some(sequence),
            },
            None => LetterRef {
                subject: line,
                sequence: None,
            },
        }
    }

    fn line(&self) -> String {
        match self.sequence {
            Some(sequence) => format!("{} {sequence}", self.subject),
            None => self.subject.to_owned(),
        }
    }
}

/// Asks for dead letters of one handler, at most [`LIST_MAX`]. One letter by itself is as any other event;
/// of several, those that wait already are asked for twice. So several are only for handlers with a ledger, which knows what
/// is done. `run`: who asks, by which the one who asked is told of what becomes of it.
pub async fn ask_for(
    connection: &Connection,
    handler: &str,
    letters: &[LetterRef<'_>],
    run: &str,
) -> Result<(), Error> {
    let mut headers = HeaderMap::new();
    headers.insert(ASKED_BY, run);
    match letters {
        [] => Ok(()),
        [letter] => {
            headers.insert(LETTER, letter.subject);
            if let Some(sequence) = letter.sequence {
                headers.insert(LETTER_SEQUENCE, sequence.to_string());
            }
            asked(connection, &subject(dead_letter::id_of(letter.subject)), headers).await
        }
        letters => {
            let subject = subject(&format!("{handler}.{LIST}{}", token()));
            let lines: Vec<String> = letters.iter().map(LetterRef::line).collect();
            let list = lines.join("\n").into();
            let sent = connection.publish(&subject, headers, list).await;
            sent.map(|_| ()).map_err(|error| error.in_stream(REPLAY))
        }
    }
}

/// Whether a text can name a run of `dlq replay`. Any user may choose it, and it is written into headers that others read.
pub fn is_run(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether the mesh has begun this run by itself.
pub fn is_redrive(run: &str) -> bool {
    run.len() > REDRIVE.len() && run.starts_with(REDRIVE)
}

/// The letters of a list.
pub fn letters(list: &[u8]) -> impl Iterator<Item = LetterRef<'_>> {
    list.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .filter(|line| !line.is_empty())
        .map(LetterRef::parse)
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
            waiting.extend(letters(&list.payload).map(|letter| dead_letter::id_of(letter.subject).to_owned()));
        }
    }
    Ok(waiting)
}

/// Where the request is that names this event alone, by its sequence.
pub async fn place(connection: &Connection, handler: &str, event: &EventId) -> Result<Option<u64>, Error> {
    let subject = subject(&format!("{handler}.{event}"));
    let stored = connection.stored(REPLAY, By::Last(&subject)).await?;
    Ok(stored.map(|stored| stored.sequence))
}

/// Whether an event waits to be run once more.
pub async fn waits(connection: &Connection, handler: &str, event: &EventId) -> Result<bool, Error> {
    let id = format!("{handler}.{event}");
    if place(connection, handler, event).await?.is_some() {
        return Ok(true);
    }
    let lists = subject(&format!("{handler}.{LIST}>"));
    for list in connection.subjects(REPLAY, &lists).await? {
        let list = connection.stored(REPLAY, By::Last(&list)).await?;
        if list.is_some_and(|list| letters(&list.payload).any(|letter| dead_letter::id_of(letter.subject) == id)) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_list_names_a_letter_as_it_was_read_or_as_it_is() {
        let letter = |subject, sequence| LetterRef { subject, sequence };
        let all = [
            letter("$MESH.dead.S.h.k.1", None),
            letter("$MESH.dead.S.h.k.2", Some(7)),
        ];
        let lines: Vec<String> = all.iter().map(LetterRef::line).collect();
        let list = lines.join("\n");
        assert_eq!(letters(list.as_bytes()).collect::<Vec<_>>(), all);
        let other = letters(b"not a letter\n\n").collect::<Vec<_>>();
        assert_eq!(other, [letter("not a letter", None)]);
    }

    #[test]
    fn a_run_of_the_mesh_is_told_from_one_of_a_person() {
        assert!(is_redrive("redriveab12") && is_run("redriveab12"));
        assert!(!is_redrive("redrive") && !is_redrive("ab12redrive"));
    }
}
