//! `jetmesh dlq`: find dead letters, understand them, and give them back.

mod args;
pub mod discard;
pub mod edit;
pub mod export;
pub mod ls;
pub mod note;
pub mod rehearse;
pub mod replay;
mod selection;
pub mod show;

pub use args::Dlq;
pub use selection::{handler, pattern, time};

use super::stop::Stop;
use super::{Args, Error};
use crate::broker::provision::DEAD;
use crate::broker::{self, Connection};
use crate::dlq::Filter;
use crate::dlq::select::{self, Newest};
use crate::mesh_streams::dead_letter::Letter;

pub async fn run(args: &Args, dlq: &Dlq, stop: &Stop) -> Result<u8, Error> {
    let loaded = args.look()?;
    let connection = broker::open_guarded(&loaded.plan.nats, "jetmesh dlq").await?;
    if connection.stream(DEAD).await?.is_none() {
        return Err(Error::Failed(format!(
            "there is no stream {DEAD}: no host of this mesh has run here, or it was removed; a running host creates \
             it again within a minute"
        )));
    }
    if let Some(name) = dlq.handler()
        && !loaded.plan.handlers.iter().any(|handler| handler.name == name)
        // Dead letters of rows have its name.
        && !loaded.plan.outboxes.iter().any(|outbox| outbox.name == name)
    {
        // It may have had one, and its letters are there still.
        let names: Vec<&str> = loaded
            .plan
            .handlers
            .iter()
            .map(|handler| handler.name.as_str())
            .collect();
        note!(
            "warning: the configuration has no handler {name}; it has {}",
            names.join(", ")
        );
    }
    match dlq {
        Dlq::Ls(ls) => ls::run(&connection, &loaded.plan, ls).await,
        Dlq::Show(show) => show::run(&connection, &find(&connection, &show.id).await?, show.json).await,
        Dlq::Rehearse(rehearse) => rehearse::run(&connection, &loaded.plan, rehearse, stop).await,
        Dlq::Replay(replay) => replay::run(&loaded.plan, &connection, replay, stop).await,
        Dlq::Edit(edit) => {
            let letter = find(&connection, &edit.id).await?;
            edit::run(&connection, &loaded.plan, &letter, edit).await
        }
        Dlq::Note(note) => note::run(&connection, &loaded.plan, note).await,
        Dlq::Discard(discard) => discard::run(&connection, &loaded.plan, discard, stop).await,
        Dlq::Export(export) => export::export(&connection, export, stop).await,
        Dlq::Import(import) => export::import(&connection, &loaded.plan, import, stop).await,
    }
}

/// See [`select::each`]; what cannot be read is said.
async fn each(connection: &Connection, filter: &Filter, seen: impl FnMut(Letter)) -> Result<(), broker::Error> {
    let unread = select::each(connection, filter, false, seen).await?;
    if let Some(told) = unread.told() {
        note!("warning: {told}");
    }
    Ok(())
}

/// See [`select::newest`]; the same.
async fn newest(connection: &Connection, filter: &Filter, most: usize) -> Result<Newest, broker::Error> {
    let newest = select::newest(connection, filter, most, (None, None)).await?;
    if let Some(told) = newest.looked.unread.told() {
        note!("warning: {told}");
    }
    Ok(newest)
}

/// One letter, whole.
async fn find(connection: &Connection, id: &str) -> Result<Letter, Error> {
    selection::check_id(id)?;
    if let Some(letter) = select::find(connection, id).await? {
        return Ok(letter);
    }
    Err(match select::settled(connection, id).await? {
        Some(reason) => resolved(id, &reason),
        None => Error::Failed(unknown(&format!("`{id}`"))),
    })
}

/// Of an id whose letter is no longer there.
fn resolved(id: &str, reason: &str) -> Error {
    Error::Failed(format!("no dead letter `{id}`: it is resolved, {reason}"))
}

/// Of one id, or of some.
fn unknown(ids: &str) -> String {
    format!("no dead letter {ids}; `jetmesh dlq ls` lists them")
}
