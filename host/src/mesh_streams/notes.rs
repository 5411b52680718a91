//! What people note about a group of dead letters, and who takes care of it: a key of the mesh's own bucket for each group. A group
//! has the same id whenever it comes again, so its note stays until a person removes it.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::broker::error::Code;
use crate::broker::kv::{is_tombstone, key_subject, kv_stream};
use crate::broker::provision::MESH_BUCKET;
use crate::broker::{By, Connection, Error};
use crate::event::{Headers, writable};
use crate::text::display::clean;

/// Keys are this and the id of a group.
pub const KEY: &str = "note.";
const FORMAT: u64 = 1;
/// How often a change is tried beside other commands.
const TRIES_MAX: u32 = 20;
/// Notes that are read at a time.
const AT_ONCE: usize = 32;

/// A note on a group of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "note", description = "A note on a group of dead letters.")]
pub struct GroupNote {
    pub text: Option<String>,
    /// Who takes care of the group.
    pub owner: Option<String>,
    /// Who has written it last.
    pub by: String,
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
}

#[derive(Serialize, Deserialize)]
struct StoredNote {
    format: u64,
    #[serde(flatten)]
    note: GroupNote,
}

impl GroupNote {
    /// On one line.
    pub fn told(&self) -> String {
        let owner = self.owner.as_ref().map(|owner| format!("owner {owner}"));
        let text = self.text.clone();
        let what: Vec<String> = owner.into_iter().chain(text).collect();
        clean(&format!("{} ({}, {})", what.join(": "), self.by, self.at))
    }
}

/// The notes on all groups, by the id of the group.
pub async fn load(connection: &Connection) -> Result<BTreeMap<String, GroupNote>, Error> {
    let filter = key_subject(MESH_BUCKET, &format!("{KEY}*"));
    let subjects = match connection.subjects(&kv_stream(MESH_BUCKET), &filter).await {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => Vec::new(),
        subjects => subjects?,
    };
    let prefix = key_subject(MESH_BUCKET, KEY);
    let mut groups: Vec<String> = Vec::new();
    for subject in &subjects {
        groups.extend(subject.strip_prefix(&prefix).map(str::to_owned));
    }
    let notes = stream::iter(groups)
        .map(|group: String| async move {
            let note = of(connection, &group).await?;
            Ok::<_, Error>((group, note))
        })
        .buffer_unordered(AT_ONCE)
        .try_filter_map(|(group, note)| async move { Ok(note.map(|note| (group, note))) });
    notes.try_collect().await
}

/// The note on one group.
pub async fn of(connection: &Connection, group: &str) -> Result<Option<GroupNote>, Error> {
    Ok(stored(connection, group).await?.0)
}

/// The note, and the revision of its key; 0: it was never there.
async fn stored(connection: &Connection, group: &str) -> Result<(Option<GroupNote>, u64), Error> {
    let key = format!("{KEY}{group}");
    let subject = key_subject(MESH_BUCKET, &key);
    let stored = match connection.stored(&kv_stream(MESH_BUCKET), By::Last(&subject)).await {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => None,
        stored => stored?,
    };
    let Some(stored) = stored else {
        return Ok((None, 0));
    };
    if is_tombstone(&stored.raw_headers) {
        return Ok((None, stored.sequence));
    }
    Ok((Some(read(&key, &stored.payload)?), stored.sequence))
}

fn read(key: &str, value: &[u8]) -> Result<GroupNote, Error> {
    let unreadable = |why: String| Error::Unreadable {
        what: format!("key {key} of bucket {MESH_BUCKET}"),
        why,
        remedy: format!("remove it with `nats kv del {MESH_BUCKET} {key}`: then the group has no note"),
    };
    let read: StoredNote = serde_json::from_slice(value).map_err(|error| unreadable(error.to_string()))?;
    match read.format {
        FORMAT => Ok(read.note),
        other => Err(unreadable(format!(
            "it has format {other}, and this jetmesh reads {FORMAT}"
        ))),
    }
}

/// Changes the note on a group, once. `change` is asked again if another person was faster; `None`: the group has no note then.
pub async fn change(
    connection: &Connection,
    group: &str,
    change: impl Fn(Option<GroupNote>) -> Option<GroupNote>,
) -> Result<Option<GroupNote>, Error> {
    let subject = key_subject(MESH_BUCKET, &format!("{KEY}{group}"));
    for _ in 0..TRIES_MAX {
        let (before, revision) = stored(connection, group).await?;
        let after = change(before.clone());
        if after == before {
            return Ok(after);
        }
        let (headers, body) = match &after {
            Some(note) => {
                let note = StoredNote {
                    format: FORMAT,
                    note: note.clone(),
                };
                let body = serde_json::to_vec(&note).expect("a note serialises");
                (Headers::new(), body.into())
            }
            None => (vec![("KV-Operation".to_owned(), "DEL".to_owned())], Bytes::new()),
        };
        let written = connection
            .publish_upon(&subject, revision, writable(&headers), body)
            .await;
        let written = written.map_err(|error| error.in_stream(&kv_stream(MESH_BUCKET)))?;
        if written.is_some() {
            return Ok(after);
        }
    }
    Err(Error::Timeout {
        what: format!("writing {subject}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_on_one_line_who_takes_care_and_why() {
        let note = |text: Option<&str>, owner: Option<&str>| GroupNote {
            text: text.map(str::to_owned),
            owner: owner.map(str::to_owned),
            by: "anna@laptop".to_owned(),
            at: "2026-01-01T00:00:00Z".to_owned(),
        };
        let lines = note(Some("two\nlines \u{1b}[31m"), Some("a\nb")).told();
        assert_eq!(lines, "owner a b: two lines  [31m (anna@laptop, 2026-01-01T00:00:00Z)");
        let told = note(Some("ticket 12"), Some("shop team")).told();
        assert_eq!(told, "owner shop team: ticket 12 (anna@laptop, 2026-01-01T00:00:00Z)");
        assert!(note(Some("ticket 12"), None).told().starts_with("ticket 12 ("));
        assert!(note(None, Some("bo")).told().starts_with("owner bo ("));
    }

    #[test]
    fn a_note_that_cannot_be_read_says_how_it_is_removed() {
        for wrong in ["x", r#"{"format":2,"by":"a","at":"x"}"#] {
            let error = read("note.1d2bd114", wrong.as_bytes()).expect_err("it is not readable");
            assert!(error.to_string().contains("nats kv del mesh note.1d2bd114"), "{error}");
        }
    }
}
