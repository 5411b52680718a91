//! Reading dead letters: one by its id, or all that a filter means, once through the stream.

use super::Filter;
use crate::broker::provision::DEAD;
use crate::broker::scan::{From, Scan};
use crate::broker::{self, Connection};
use crate::dead_letter::{self, Letter};
use crate::message::{DeliveryInfo, headers_of};

/// Calls `seen` for each unsettled letter that the filter means, oldest first. Their payloads are there only if
/// `payloads` is true, or the filter needs them; that of a letter in parts never is (see [`dead_letter::read`]).
pub async fn each(
    connection: &Connection,
    filter: &Filter,
    payloads: bool,
    mut seen: impl FnMut(Letter),
) -> Result<(), broker::Error> {
    let handler = filter.handler.as_deref().unwrap_or("*");
    let subjects = [format!("$MESH.dead.*.{handler}.*.*")];
    let bare = !payloads && !filter.needs_payload();
    let mut scan = Scan::start(connection, DEAD, &subjects, From::Sequence(1), u64::MAX, bare).await?;
    while let Some(scanned) = scan.next().await? {
        let info = scanned.message.reply.as_deref().and_then(DeliveryInfo::parse);
        let headers = headers_of(scanned.message.headers.as_ref());
        let mut letter = Letter {
            subject: scanned.message.subject.to_string(),
            sequence: scanned.sequence,
            time_ms: info.map_or(0, |i| i.time_ms),
            headers,
            payload: scanned.message.payload,
        };
        if letter.is_settled() {
            continue;
        }
        if filter.needs_payload() && letter.is_in_parts() {
            match dead_letter::read(connection, &letter.subject).await? {
                Some(whole) => letter.payload = whole.payload,
                None => continue,
            }
        }
        if filter.matches(&letter) {
            seen(letter);
        }
    }
    scan.end().await
}

/// One letter, whole. `None`: there is none of this id, or it is settled.
pub async fn find(connection: &Connection, id: &str) -> Result<Option<Letter>, broker::Error> {
    let filter = format!("$MESH.dead.*.{id}");
    for subject in connection.subjects(DEAD, &filter).await? {
        if let Some(letter) = dead_letter::read(connection, &subject).await? {
            return Ok(Some(letter));
        }
    }
    Ok(None)
}

/// Why the letter of an id is settled; `None` if it is not, or there is none.
pub async fn settled(connection: &Connection, id: &str) -> Result<Option<String>, broker::Error> {
    for subject in connection.subjects(DEAD, &format!("$MESH.dead.*.{id}")).await? {
        let letter = dead_letter::stored(connection, &subject).await?;
        if let Some(reason) = letter.as_ref().and_then(Letter::settled) {
            return Ok(Some(reason.to_owned()));
        }
    }
    Ok(None)
}

/// Whether a text can be a letter's id: HANDLER.INCARNATION.SEQUENCE.
pub fn is_id(text: &str) -> bool {
    let tokens: Vec<&str> = text.split('.').collect();
    tokens.len() == 3
        && tokens
            .iter()
            .all(|t| !t.is_empty() && !t.contains(['*', '>', ' ', '\t', '\r', '\n']))
}
