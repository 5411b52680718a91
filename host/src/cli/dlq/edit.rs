//! `jetmesh dlq edit`: corrects the payload of a dead letter.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

use crate::broker::Connection;
use crate::cli::audit::{actor, intent};
use crate::cli::editor::{self, EditedFile};
use crate::cli::text::json_line;
use crate::cli::{Error, OK, pretty};
use crate::dlq::edit::{self, EditOrder, Edited, check_reason, no_json};
use crate::event::clock::now_ms;
use crate::event::outcome::Cause;
use crate::mesh_streams::audit::AuditAction;
use crate::mesh_streams::dead_letter::{self, Letter, LetterEdit};
use crate::plan::Plan;

/// Correct the payload of a dead letter. A replay then gives the handler this payload, as the same event
///
/// The event in its source stream is not changed, and other handlers are not given the new payload. All versions are kept in the
/// stream MESH_DEAD, also after the dead letter was resolved, with the person and the reason.
#[derive(Debug, clap::Args)]
pub struct EditCommand {
    /// ID that `dlq ls` prints: HANDLER.INCARNATION.SEQUENCE
    pub id: String,
    /// File with the new payload, byte for byte; `-` for standard input [default: edit it in $VISUAL or $EDITOR]
    #[arg(long, value_name = "FILE")]
    pub payload: Option<PathBuf>,
    /// Why, for the history of the dead letter
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// Take a new payload that is not JSON in place of one that is
    #[arg(long)]
    pub not_json: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// An edit that was made.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "What `jetmesh dlq edit --json` has done", description = "")]
pub struct EditJson<'a> {
    /// What people call the letter by: HANDLER.INCARNATION.SEQUENCE.
    id: &'a str,
    /// false: the new payload is the one that was there.
    edited: bool,
    /// null: nothing was edited.
    edit: Option<&'a LetterEdit>,
    /// Where the first version of the payload is kept, and this one, in the stream MESH_DEAD.
    versions: Vec<String>,
    /// A replay was asked for in the meantime, and may have run the payload that was there before.
    replay_meanwhile: bool,
}

fn reason(text: &str) -> Result<String, String> {
    check_reason(text)?;
    Ok(text.to_owned())
}

pub async fn run(connection: &Connection, plan: &Plan, letter: &Letter, asked: &EditCommand) -> Result<u8, Error> {
    let id = letter.id();
    // Before a person takes the trouble.
    if let Some(refusal) = edit::refusal(connection, letter).await? {
        return Err(not_edited(id, &refusal));
    }
    let (payload, file) = match &asked.payload {
        Some(path) => (read(path)?, None),
        None => in_editor(&letter.payload)?,
    };
    let kept = |error: Error| match (error, &file) {
        (Error::Failed(why), Some(file)) => Error::Failed(format!(
            "{why}. What you typed is in {}; use it with --payload",
            file.path().display()
        )),
        (error, Some(file)) => {
            note!("what you typed is in {}; use it with --payload", file.path().display());
            error
        }
        (error, None) => error,
    };
    if let (false, Some(why)) = (asked.not_json, no_json(&letter.payload, &payload)) {
        return Err(kept(Error::Failed(format!(
            "dead letter `{id}` is not edited: its payload is JSON, and the new one is not: {why}; --not-json takes it as it is"
        ))));
    }
    let actor = actor(connection, plan);
    let order = EditOrder {
        by: actor.by.clone(),
        reason: asked.reason.clone(),
        at_ms: now_ms(),
    };
    let handler = letter.header(dead_letter::HANDLER);
    let intent = intent(AuditAction::DlqEdit, &[handler], id, order.reason.as_deref());
    let edited = edit::edit(connection, letter, payload, &order);
    let edited = actor.acts(intent, edited, Edited::recorded).await;
    match edited.map_err(|error| kept(error.into()))? {
        Edited::Refused(refusal) => return Err(kept(not_edited(id, &refusal))),
        Edited::Unchanged => print(asked.json, letter, None, false),
        Edited::Done { edit, replay } => print(asked.json, letter, Some(&edit), replay),
    }
    if let Some(file) = file {
        file.remove();
    }
    Ok(OK)
}

fn not_edited(id: &str, why: &edit::EditRefusal) -> Error {
    Error::Failed(format!("dead letter `{id}` is not edited: {why}"))
}

fn read(path: &Path) -> Result<Bytes, Error> {
    let mut bytes = Vec::new();
    let read = match path.to_str() {
        Some("-") => io::stdin().read_to_end(&mut bytes).map(|_| bytes),
        _ => fs::read(path),
    };
    read.map(Bytes::from)
        .map_err(|error| Error::Failed(format!("{}: {error}", path.display())))
}

/// A person changes it. JSON is laid out for that; what was on one line is on one line again after it.
fn in_editor(payload: &[u8]) -> Result<(Bytes, Option<EditedFile>), Error> {
    let Ok(text) = std::str::from_utf8(payload) else {
        return Err(Error::Failed(
            "the payload is not text: give the new one with --payload FILE".to_owned(),
        ));
    };
    let json = pretty::json(text);
    let ending = if json.is_some() { "json" } else { "txt" };
    let mut shown = json.unwrap_or_else(|| text.to_owned());
    // Editors end the last line.
    if !shown.ends_with('\n') {
        shown.push('\n');
    }
    let file = editor::edit(&shown, ending)?;
    if file.text == shown {
        return Ok((Bytes::copy_from_slice(payload), Some(file)));
    }
    let typed = match text.ends_with('\n') {
        true => file.text.as_str(),
        false => file.text.strip_suffix('\n').unwrap_or(&file.text),
    };
    let one_line = !text.contains('\n');
    let payload = match pretty::compact(typed).filter(|_| one_line) {
        Some(compact) => compact,
        None => typed.to_owned(),
    };
    Ok((payload.into(), Some(file)))
}

fn print(as_json: bool, letter: &Letter, edit: Option<&LetterEdit>, replay: bool) {
    let id = letter.id();
    if as_json {
        let version = |number| dead_letter::version(&letter.subject, number);
        let versions = edit.map_or_else(Vec::new, |edit| vec![version(0), version(edit.number)]);
        let line = EditJson {
            id,
            edited: edit.is_some(),
            edit,
            versions,
            replay_meanwhile: replay,
        };
        println!("{}", json_line(&line));
        return;
    }
    let Some(edit) = edit else {
        println!("dead letter {id} is not edited: the payload is the same");
        return;
    };
    println!(
        "dead letter {id} has another payload: {} bytes before, {} bytes now",
        edit.bytes_before, edit.bytes
    );
    if replay {
        note!(
            "warning: a replay was asked for in the meantime, and may have run the payload that was there before; `jetmesh trace \
             {id}` tells"
        );
    }
    match Cause::parse(letter.header(dead_letter::CAUSE)) {
        Some(Cause::Undeliverable) => println!("`jetmesh dlq replay {id}` publishes it"),
        _ => println!(
            "`jetmesh dlq rehearse {id}` shows what the handler does with it; `jetmesh dlq replay {id}` has it done"
        ),
    }
}
