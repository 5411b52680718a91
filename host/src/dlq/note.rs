//! What a person writes about a group of dead letters.

use crate::broker::{Connection, Error};
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::mesh_streams::notes::{self, GroupNote};

/// Longest text, in characters: a note is read at a glance.
pub const TEXT_MAX: usize = 500;
pub const OWNER_MAX: usize = 100;

/// A text and an owner; what is not given stays as it is.
#[derive(Debug, Clone, Default)]
pub struct NoteOrder {
    pub text: Option<String>,
    pub owner: Option<String>,
    pub by: String,
}

impl NoteOrder {
    /// In a few words.
    pub fn told(&self) -> String {
        let owner = self.owner.as_ref().map(|owner| format!("owner {owner}"));
        let all: Vec<String> = owner.into_iter().chain(self.text.clone()).collect();
        all.join(": ")
    }
}

/// Whether a text can be the id of a group: eight of the digits 0-9 and a-f.
pub fn is_group(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 8 && text.bytes().all(is_digit)
}

/// Writes the note on a group; returns it as it is then.
pub async fn write(connection: &Connection, group: &str, order: &NoteOrder) -> Result<Option<GroupNote>, Error> {
    let at = rfc3339(now_ms());
    let written = |before: Option<GroupNote>| {
        let (text, owner) = before.map_or((None, None), |before| (before.text, before.owner));
        Some(GroupNote {
            text: order.text.clone().or(text),
            owner: order.owner.clone().or(owner),
            by: order.by.clone(),
            at: at.clone(),
        })
    };
    notes::change(connection, group, written).await
}
