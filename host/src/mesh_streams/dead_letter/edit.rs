//! A letter whose payload a person has corrected. Each version of the payload lies on a subject of its own, `<letter>.edit.<n>`:
//! 0 is the payload as it was first. They stay there when the letter is resolved.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::end::purge;
use super::{DEAD_SINCE, Letter, PARTS, room, storable, store};
use crate::broker::error::Code;
use crate::broker::provision::DEAD;
use crate::broker::{By, Connection, Error};
use crate::event::{Headers, header, rfc3339, writable};
use crate::text::display::clean;

/// Of a letter: its edits, a JSON list of [`LetterEdit`]s, oldest first.
pub const EDITS: &str = "Mesh-Edits";
/// Of a version: the [`LetterEdit`] that made it.
const EDIT: &str = "Mesh-Edit";
/// Of a letter that an edit has written, and no replay since.
pub const EDITED: &str = "Mesh-Edited";

/// Edits that a letter takes: each of them is a message that stays, and a line in one of its headers.
pub const EDITS_MAX: usize = 20;

/// One edit of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "edit", description = "An edit of a dead letter's payload.")]
pub struct LetterEdit {
    /// 1 is the first.
    pub number: u32,
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    /// Who has made it.
    pub by: String,
    pub reason: Option<String>,
    /// Size of the payload before and after it.
    pub bytes_before: u64,
    pub bytes: u64,
}

impl LetterEdit {
    /// When, by whom and why, on one line.
    pub fn told(&self) -> String {
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}"));
        clean(&format!("at {} by {}{}", self.at, self.by, reason.unwrap_or_default()))
    }
}

/// Where versions of a letter's payload lie, if it was edited.
pub async fn versions(connection: &Connection, letter: &Letter) -> Result<BTreeSet<String>, Error> {
    if edits(&letter.headers).is_empty() {
        return Ok(BTreeSet::new());
    }
    let all = connection.subjects(DEAD, &format!("{}.edit.*", letter.subject)).await?;
    Ok(all.into_iter().collect())
}

/// What has become of a letter that was to get another payload.
#[derive(Debug, PartialEq, Eq)]
pub enum Rewritten {
    Done,
    /// The letter was resolved or written again since it was read.
    Changed,
    /// The letter does not fit one message with this payload; so many bytes do.
    TooLarge {
        bytes_max: usize,
    },
}

/// Where a version lies.
pub fn version(letter: &str, number: u32) -> String {
    format!("{letter}.edit.{number}")
}

/// The edits in a letter's headers, oldest first.
pub fn edits(headers: &Headers) -> Vec<LetterEdit> {
    header(headers, EDITS)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// Whether an edit was the last that has written a letter with these headers.
pub fn is_edited(headers: &Headers) -> bool {
    header(headers, EDITED).is_some()
}

/// The edits of letters, by the subject of the letter, oldest first; also if a letter is resolved. `letters`: a subject, with or without
/// wildcards. A stream that is not there has none.
pub async fn edits_of(connection: &Connection, letters: &str) -> Result<BTreeMap<String, Vec<LetterEdit>>, Error> {
    let versions = match connection.subjects(DEAD, &format!("{letters}.edit.*")).await {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => return Ok(BTreeMap::new()),
        versions => versions?,
    };
    let mut found: BTreeMap<String, Vec<LetterEdit>> = BTreeMap::new();
    for version in versions {
        // 0 is the payload as it was first.
        let Some((letter, number)) = version.rsplit_once(".edit.").filter(|(_, number)| *number != "0") else {
            continue;
        };
        let stored = connection.stored(DEAD, By::Last(&version)).await?;
        let headers = stored.and_then(|stored| stored.headers().ok()).unwrap_or_default();
        if let Some(edit) = header(&headers, EDIT).and_then(|text| serde_json::from_str::<LetterEdit>(text).ok()) {
            // An edit that began when another one ended here has a later number than its record says.
            let number = number.parse().unwrap_or(edit.number);
            found
                .entry(letter.to_owned())
                .or_default()
                .push(LetterEdit { number, ..edit });
        }
    }
    found
        .values_mut()
        .for_each(|edits| edits.sort_by_key(|edit| edit.number));
    Ok(found)
}

/// Gives a letter, which must be whole, another payload, if it is still the one that was read. `headers`: the letter's, with what
/// the payload changes in them. The number of the edit is the first that is free.
pub async fn edit(
    connection: &Connection,
    letter: &Letter,
    mut headers: Headers,
    payload: Bytes,
    edit: &mut LetterEdit,
) -> Result<Rewritten, Error> {
    let mut edits = edits(&letter.headers);
    edit.number = edits.last().map_or(1, |last| last.number + 1);
    let ours = [PARTS, DEAD_SINCE, EDITS, EDITED];
    headers.retain(|(name, _)| !name.starts_with("Nats-") && !ours.contains(&name.as_str()));
    edits.push(edit.clone());
    headers.extend([
        (DEAD_SINCE.to_owned(), rfc3339(letter.dead_since_ms())),
        (EDITED.to_owned(), "1".to_owned()),
        (EDITS.to_owned(), json_of(&edits)),
    ]);
    let bytes_max = room(connection, &storable(&headers, connection));
    if payload.len() > bytes_max {
        return Ok(Rewritten::TooLarge { bytes_max });
    }
    store(
        connection,
        &version(&letter.subject, 0),
        &Headers::new(),
        letter.payload.clone(),
    )
    .await?;
    // A number is taken if another person edits the letter now, or a command has ended here.
    loop {
        let told = vec![(EDIT.to_owned(), json_of(edit))];
        if store(
            connection,
            &version(&letter.subject, edit.number),
            &told,
            payload.clone(),
        )
        .await?
        {
            break;
        }
        edit.number += 1;
    }
    if let (Some(last), Some((_, value))) = (edits.last_mut(), headers.last_mut()) {
        last.number = edit.number;
        *value = json_of(&edits);
    }
    let map = writable(&storable(&headers, connection));
    let stored = connection
        .publish_upon(&letter.subject, letter.sequence, map, payload)
        .await;
    if stored.map_err(|error| error.in_stream(DEAD))?.is_none() {
        let version = version(&letter.subject, edit.number);
        purge(connection, &version).await?;
        purge(connection, &format!("{version}.>")).await?;
        return Ok(Rewritten::Changed);
    }
    if letter.is_in_parts() {
        purge(connection, &format!("{}.part.>", letter.subject)).await?;
    }
    Ok(Rewritten::Done)
}

fn json_of<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("edits serialise")
}
