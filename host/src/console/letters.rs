//! Dead letters: by fault, as a list, and one whole.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::conditions::LetterConditions;
use super::query::Query;
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::broker::provision::DEAD;
use crate::dlq::group::{FaultKey, HOURS};
use crate::dlq::select;
use crate::dlq::survey::survey;
use crate::event::rfc3339;
use crate::mesh_streams::notes;
use crate::report::letters::{GroupJson, LetterJson, ShowJson};

/// What one look at the groups reads at most, and for how long.
const LOOKED_AT_MAX: u64 = 200_000;
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Groups that are told: the largest.
const GROUPS_MAX: usize = 500;
/// Letters in one answer.
const PAGE: usize = 100;
/// Bytes of a payload that are told. The commands tell all.
const PAYLOAD_MAX: usize = 256 * 1024;

/// How far it was looked.
#[derive(Debug, Serialize)]
struct LettersLooked {
    looked_at: u64,
    /// How many of those the conditions mean.
    meant: u64,
    /// Back to when; null: to the beginning.
    back_to: Option<String>,
    /// Letters that the stream holds, with resolved ones; null: all were looked at.
    in_stream: Option<u64>,
    /// What could not be read.
    unread: Option<String>,
}

/// A group as the commands tell it, with its last hours.
#[derive(Debug, Serialize)]
struct GroupTold<'a> {
    #[serde(flatten)]
    group: GroupJson<'a>,
    hours: [u64; HOURS],
}

pub async fn groups(session: &ViewerSession, query: &Query) -> Result<Value, ConsoleError> {
    let filter = LetterConditions::of(query)?.filter()?;
    let connection = session.connection().await?;
    there(&connection).await?;
    let survey = survey(&connection, &filter, LOOKED_AT_MAX, LOOK_MAX).await?;
    let looked = LettersLooked {
        looked_at: survey.looked_at,
        meant: survey.meant,
        back_to: survey.in_stream.map(|_| rfc3339(survey.back_to_ms)),
        in_stream: survey.in_stream,
        unread: survey.unread.told(),
    };
    let all = survey.groups.sorted();
    // Who may not read them sees the groups all the same.
    let loaded = notes::load(&connection).await;
    let unread = loaded.as_ref().err().map(ToString::to_string);
    let notes = loaded.unwrap_or_default();
    let mut told = Vec::new();
    for group in all.iter().take(GROUPS_MAX) {
        let hours = group.hours;
        told.push(GroupTold {
            group: GroupJson::of(group, &notes),
            hours,
        });
    }
    Ok(serde_json::json!({ "groups": told, "groups_in_all": all.len(), "looked": looked, "notes_unread": unread }))
}

pub async fn letters(session: &ViewerSession, query: &Query) -> Result<Value, ConsoleError> {
    let filter = LetterConditions::of(query)?.filter()?;
    let before = query.number("before")?;
    let connection = session.connection().await?;
    there(&connection).await?;
    let newest = select::newest(&connection, &filter, PAGE, before).await?;
    let looked = LettersLooked {
        looked_at: newest.looked_at,
        meant: newest.meant,
        back_to: newest.in_stream.map(|_| rfc3339(newest.back_to_ms)),
        in_stream: newest.in_stream,
        unread: newest.unread.told(),
    };
    let more = newest.in_stream.is_some() || newest.meant > newest.letters.len() as u64;
    let next = newest.letters.front().filter(|_| more).map(|letter| letter.sequence);
    let told: Vec<LetterJson<'_>> = newest.letters.iter().rev().map(LetterJson::from).collect();
    Ok(serde_json::json!({ "letters": told, "before": next, "looked": looked }))
}

pub async fn letter(session: &ViewerSession, id: &str) -> Result<Value, ConsoleError> {
    if !select::is_id(id) {
        return Err(ConsoleError::wrong(format!(
            "`{id}` is not HANDLER.INCARNATION.SEQUENCE"
        )));
    }
    let connection = session.connection().await?;
    let Some(mut letter) = select::find(&connection, id).await? else {
        return Err(match select::settled(&connection, id).await? {
            Some(reason) => ConsoleError::missing(format!("dead letter {id} is resolved: {reason}")),
            None => ConsoleError::missing(format!("there is no dead letter {id}")),
        });
    };
    let note = notes::of(&connection, &FaultKey::of(&letter).id())
        .await
        .unwrap_or_default();
    let bytes = letter.payload.len();
    if bytes > PAYLOAD_MAX {
        // Text is cut between two characters.
        let end =
            std::str::from_utf8(&letter.payload).map_or(PAYLOAD_MAX, |text| text.floor_char_boundary(PAYLOAD_MAX));
        letter.payload.truncate(end);
    }
    Ok(
        serde_json::json!({ "letter": ShowJson::of(&letter, note), "payload_bytes": bytes, "payload_cut": bytes > PAYLOAD_MAX }),
    )
}

/// Without the stream there are no letters, and it is not said that there are none.
pub async fn there(connection: &crate::broker::Connection) -> Result<(), ConsoleError> {
    match connection.stream(DEAD).await? {
        Some(_) => Ok(()),
        None => Err(ConsoleError::missing(format!(
            "there is no stream {DEAD}: no host of this mesh has run here, or it was removed; a running host creates it again within \
             a minute"
        ))),
    }
}
