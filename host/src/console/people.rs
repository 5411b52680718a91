//! What people write on dead letters: notes on groups, and corrected payloads.

use serde::Deserialize;
use serde_json::{Value, json};

use super::audit::{actor, command, intent};
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::dlq::edit::{EditOrder, Edited, check_reason, edit, no_json};
use crate::dlq::note::{self, NoteOrder, OWNER_MAX, TEXT_MAX, is_group};
use crate::dlq::select;
use crate::event::clock::now_ms;
use crate::mesh_streams::audit::{AuditAction, AuditEnd};
use crate::mesh_streams::dead_letter;

/// A note that a viewer writes; what is not given stays as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoteOrdered {
    group: String,
    text: Option<String>,
    owner: Option<String>,
}

pub async fn note(session: &ViewerSession, order: NoteOrdered) -> Result<Value, ConsoleError> {
    if !is_group(&order.group) {
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
    let ordered = NoteOrder {
        text: order.text,
        owner: order.owner,
        by: session.by(),
    };
    let mut words = vec!["dlq", "note", &order.group];
    words.extend(ordered.text.as_deref());
    let same = command(&words, &[("--owner", ordered.owner.as_deref())]);
    let intent = intent(
        AuditAction::DlqNote,
        &[&order.group],
        format!("group {}: {}", order.group, ordered.told()),
        None,
        Some(same),
    );
    let act = note::write(&connection, &order.group, &ordered);
    let note = actor(session, &connection)
        .acts(intent, act, |_| AuditEnd::done(&[]))
        .await?;
    tracing::info!(
        by = ordered.by,
        group = order.group,
        "a viewer of the console has written a note"
    );
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
    if let Some(reason) = &order.reason {
        check_reason(reason).map_err(|why| ConsoleError::wrong(format!("the reason: {why}")))?;
    }
    let connection = session.connection().await?;
    let changed = || ConsoleError::wrong("the letter was resolved, replayed or corrected meanwhile: load it again");
    let letter = select::find(&connection, &order.id).await?;
    let letter = letter
        .filter(|letter| letter.sequence == order.sequence)
        .ok_or_else(changed)?;
    if let Some(why) = no_json(&letter.payload, order.payload.as_bytes()) {
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
    let reason = by.reason.as_deref();
    let same = command(&["dlq", "edit", &order.id], &[("--reason", reason)]);
    let handler = letter.header(dead_letter::HANDLER);
    let intent = intent(AuditAction::DlqEdit, &[handler], &order.id, reason, Some(same));
    let act = edit(&connection, &letter, order.payload.into(), &by);
    match actor(session, &connection).acts(intent, act, Edited::recorded).await? {
        Edited::Refused(why) => Err(ConsoleError::refused(format!("it is not corrected: {why}"))),
        Edited::Unchanged => Ok(json!({ "edited": false, "replay": false })),
        Edited::Done { replay, .. } => Ok(json!({ "edited": true, "replay": replay })),
    }
}
