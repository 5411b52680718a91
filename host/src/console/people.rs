//! What people write on dead letters: notes on groups, and corrected payloads.

use serde::Deserialize;
use serde_json::{Value, json};

use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::dlq::edit::{EditOrder, Edited, edit};
use crate::dlq::select;
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::mesh_streams::notes::{self, GroupNote};

/// As long as what the commands take.
const TEXT_MAX: usize = 500;
const OWNER_MAX: usize = 100;

/// A note that a viewer writes; what is not given stays as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoteOrdered {
    group: String,
    text: Option<String>,
    owner: Option<String>,
}

pub async fn note(session: &ViewerSession, order: NoteOrdered) -> Result<Value, ConsoleError> {
    let is_group = order.group.len() == 8 && order.group.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_group {
        return Err(ConsoleError::wrong("the id of a group has eight hexadecimal digits"));
    }
    let long = |text: &Option<String>, most: usize| text.as_ref().is_some_and(|text| text.chars().count() > most);
    if long(&order.text, TEXT_MAX) || long(&order.owner, OWNER_MAX) {
        return Err(ConsoleError::wrong(format!(
            "a note has at most {TEXT_MAX} characters, and an owner {OWNER_MAX}"
        )));
    }
    if order.text.is_none() && order.owner.is_none() {
        return Err(ConsoleError::wrong("write a note, or who takes care of the group"));
    }
    let connection = session.connection().await?;
    let (by, at) = (session.by(), rfc3339(now_ms()));
    let written = |before: Option<GroupNote>| {
        let (text, owner) = before.map_or((None, None), |before| (before.text, before.owner));
        Some(GroupNote {
            text: order.text.clone().or(text),
            owner: order.owner.clone().or(owner),
            by: by.clone(),
            at: at.clone(),
        })
    };
    let note = notes::change(&connection, &order.group, written).await?;
    tracing::info!(by, group = order.group, "a viewer of the console has written a note");
    Ok(json!({ "note": note }))
}

/// A payload that a viewer has corrected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditOrdered {
    id: String,
    /// Of the letter as the viewer has seen it.
    sequence: u64,
    payload: String,
    reason: Option<String>,
}

pub async fn correct(session: &ViewerSession, order: EditOrdered) -> Result<Value, ConsoleError> {
    if !select::is_id(&order.id) {
        return Err(ConsoleError::wrong(format!(
            "`{}` is not HANDLER.INCARNATION.SEQUENCE",
            order.id
        )));
    }
    let connection = session.connection().await?;
    let changed = || ConsoleError::wrong("the letter was resolved, replayed or corrected meanwhile: load it again");
    let letter = select::find(&connection, &order.id).await?;
    let letter = letter
        .filter(|letter| letter.sequence == order.sequence)
        .ok_or_else(changed)?;
    let is_json = |bytes: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map(|_| ());
    if let (Ok(()), Err(why)) = (is_json(&letter.payload), is_json(order.payload.as_bytes())) {
        return Err(ConsoleError::wrong(format!(
            "the payload was JSON, and the new one is not: {why}; `jetmesh dlq edit --not-json` takes it as it is"
        )));
    }
    let by = EditOrder {
        by: session.by(),
        reason: order.reason,
        at_ms: now_ms(),
    };
    tracing::info!(
        by = by.by,
        letter = order.id,
        "a viewer of the console corrects the payload of a dead letter"
    );
    match edit(&connection, &letter, order.payload.into(), &by).await? {
        Edited::Refused(why) => Err(ConsoleError::refused(format!("it is not corrected: {why}"))),
        Edited::Unchanged => Ok(json!({ "edited": false, "replay": false })),
        Edited::Done { replay, .. } => Ok(json!({ "edited": true, "replay": replay })),
    }
}
