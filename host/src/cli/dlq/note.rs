//! `jetmesh dlq note`: what people note about a group of dead letters.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use schemars::JsonSchema;
use serde::Serialize;

use crate::broker::Connection;
use crate::cli::audit::{actor, intent};
use crate::cli::text::json_line;
use crate::cli::{Error, OK};
use crate::dlq::Filter;
use crate::dlq::note::{self, NoteOrder, OWNER_MAX, TEXT_MAX, is_group};
use crate::mesh_streams::audit::{AuditAction, AuditEnd};
use crate::mesh_streams::notes::{self, GroupNote};
use crate::plan::Plan;

/// Note something about a group of dead letters, for everybody who looks at it; without a text, print the note
///
/// `dlq ls --group` and `dlq show` show the note. A group has the same ID when it comes again, and its note stays until it is
/// removed.
#[derive(Debug, clap::Args)]
pub struct NoteCommand {
    /// ID of a group, which `dlq ls --group` prints
    #[arg(value_name = "GROUP", value_parser = group)]
    pub group: String,
    /// The note, which replaces the one before
    #[arg(value_name = "TEXT", value_parser = text)]
    pub text: Option<String>,
    /// Who takes care of the group
    #[arg(long, value_name = "NAME", value_parser = owner)]
    pub owner: Option<String>,
    /// Remove the note and the owner
    #[arg(long, conflicts_with_all = ["text", "owner"])]
    pub remove: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The note on a group.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "What `jetmesh dlq note --json` prints", description = "")]
pub struct NoteJson<'a> {
    /// The group's id.
    #[schemars(regex(pattern = "^[0-9a-f]{8}$"))]
    group: &'a str,
    /// As it is now; null: there is none.
    note: Option<&'a GroupNote>,
}

fn group(text: &str) -> Result<String, String> {
    match is_group(text) {
        true => Ok(text.to_owned()),
        false => Err("not the ID of a group, which has eight of the digits 0-9 and a-f".to_owned()),
    }
}

fn text(text: &str) -> Result<String, String> {
    within(text, TEXT_MAX)
}

fn owner(text: &str) -> Result<String, String> {
    within(text, OWNER_MAX)
}

fn within(text: &str, most: usize) -> Result<String, String> {
    match text.chars().count() {
        0 => Err("it is empty: --remove removes the note".to_owned()),
        count if count > most => Err(format!("it has {count} characters, and {most} are the most")),
        _ => Ok(text.to_owned()),
    }
}

pub async fn run(connection: &Connection, plan: &Plan, asked: &NoteCommand) -> Result<u8, Error> {
    let group = &asked.group;
    let actor = actor(connection, plan);
    let recorded = async |what: String, act| {
        let what = format!("group {group}: {what}");
        let intent = intent(AuditAction::DlqNote, &[group], what, None);
        actor.acts(intent, act, |_| AuditEnd::done(&[])).await
    };
    let note = if asked.remove {
        let removed = notes::change(connection, group, |_| None);
        recorded("the note and the owner are removed".to_owned(), removed.boxed()).await?
    } else if asked.text.is_none() && asked.owner.is_none() {
        notes::of(connection, group).await?
    } else {
        let exists = exists(connection, group).await?;
        if !exists && notes::of(connection, group).await?.is_none() {
            return Err(Error::Failed(format!(
                "no dead letter is of group {group}; `jetmesh dlq ls --group` lists the groups"
            )));
        }
        let order = NoteOrder {
            text: asked.text.clone(),
            owner: asked.owner.clone(),
            by: actor.by.clone(),
        };
        recorded(order.told(), note::write(connection, group, &order).boxed()).await?
    };
    match (&note, asked.json) {
        (note, true) => println!(
            "{}",
            json_line(&NoteJson {
                group,
                note: note.as_ref()
            })
        ),
        (Some(note), false) => println!("{}", note.told()),
        (None, false) => println!("group {group} has no note"),
    }
    Ok(OK)
}

async fn exists(connection: &Connection, group: &str) -> Result<bool, Error> {
    let filter = Filter {
        group: Some(group.to_owned()),
        ..Filter::default()
    };
    Ok(!super::newest(connection, &filter, 1).await?.letters.is_empty())
}

/// The notes on all groups. That they cannot be read is no reason not to show the rest.
pub async fn all(connection: &Connection) -> BTreeMap<String, GroupNote> {
    notes::load(connection).await.unwrap_or_else(|error| {
        note!("warning: the notes on groups of dead letters cannot be read: {error}");
        BTreeMap::new()
    })
}
