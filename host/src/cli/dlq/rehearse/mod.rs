//! `jetmesh dlq rehearse`: what would become of dead letters with a module, while nothing happens.

mod show;

use std::path::PathBuf;

use futures_util::StreamExt as _;

use crate::app;
use crate::broker::Connection;
use crate::cli::dlq::selection::Selection;
use crate::cli::stop::Stop;
use crate::cli::text::json_line;
use crate::cli::{Error, FAILED, OK, table};
use crate::dlq::rehearse::AT_ONCE;
use crate::dlq::rehearse::stage::{self, ChosenLetter, OnTrial, Share, StageError, Stages};
use crate::mesh_streams::modules::named;
use crate::plan::Plan;
use crate::report::rehearsal::RehearsalLine;
use crate::report::rehearsal::account::RehearsalAccount;
use crate::wasm::compile::Priority;

/// Run dead letters on a module without effects; nothing in NATS changes
///
/// Each event runs once, like the first attempt of a replay: with the settings, grants and limits of its handler, and with
/// the state as it is now. Writes and emitted events are only shown. Two rehearsed events do not see each other's writes:
/// of two orders for the last piece, both would succeed in a rehearsal, and only one in a replay.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 if all events would succeed and a stream would store everything that they emit; 1 otherwise."
)]
pub struct Rehearse {
    /// Module to run them on [default: the module in the handler's configuration]
    #[arg(long, value_name = "FILE")]
    pub module: Option<PathBuf>,
    /// Version of the registry to run them on, by digest or by what its author calls it; the handler must follow the registry
    #[arg(long, value_name = "VERSION", conflicts_with = "module")]
    pub version: Option<String>,
    /// Rehearse only the newest NUMBER; 0: all
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub limit: usize,
    /// Print JSON: one object per line for each dead letter, and a last one with the summary
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub selection: Selection,
}

pub async fn run(connection: &Connection, plan: &Plan, args: &Rehearse, stop: &Stop) -> Result<u8, Error> {
    let chosen = choose(connection, args).await?;
    let handlers = stage::handlers(&chosen);
    let given = args.module.is_some() || args.version.is_some();
    if given && handlers.len() > 1 {
        let handlers = Vec::from_iter(handlers).join(", ");
        return Err(Error::Usage(format!(
            "a module is one handler's, and the letters are of {handlers}: add --handler"
        )));
    }
    let share = Share {
        at_once: AT_ONCE,
        compile: Priority::Usual,
    };
    let module = match (&args.module, &args.version, handlers.first()) {
        (Some(file), _, _) => OnTrial::File(file.clone()),
        (None, Some(text), Some(handler)) => {
            let versions = stage::versions(connection, plan, handler).await?;
            let (name, versions) = versions.map_err(Error::Usage)?;
            let version = named(&versions, &name, text).map_err(Error::Failed)?;
            OnTrial::Registered(name, version.digest.clone())
        }
        _ => OnTrial::Configured,
    };
    let stages = Stages::new(connection, plan, &handlers, module, share).await;
    let stages = stages.map_err(|error| match error {
        StageError::Engine(error) => app::Error::Engine(error),
        StageError::Modules(errors) => app::Error::modules(errors, plan),
        StageError::Registry(error) => app::Error::Broker(error),
    })?;
    stop.heed();
    let mut account = RehearsalAccount::default();
    let runs = chosen.iter().map(|one| stages.rehearse(connection, one));
    let mut runs = futures_util::stream::iter(runs)
        .take_until(stop.asked())
        .buffered(AT_ONCE);
    while let Some(run) = runs.next().await {
        let (id, run) = run?;
        account.add(&id, &run);
        match args.json {
            true => println!("{}", json_line(&RehearsalLine::of(&id, &run))),
            false => show::lines(&id, &run, table::terminal_columns())
                .iter()
                .for_each(|line| println!("{line}")),
        }
    }
    let summary = account.summary(stages.modules());
    match args.json {
        true => println!("{}", json_line(&RehearsalLine::Summary { summary })),
        false => show::summary(&summary),
    }
    if let Some(code) = stop.code() {
        note!("interrupted: not all of them were rehearsed");
        return Ok(code);
    }
    Ok(if account.all_succeed() { OK } else { FAILED })
}

async fn choose(connection: &Connection, args: &Rehearse) -> Result<Vec<ChosenLetter>, Error> {
    let found = stage::choose(connection, &args.selection.selected()?, args.limit).await?;
    if let Some(told) = &found.unread {
        note!("warning: {told}");
    }
    match (found.resolved.first(), found.unknown.first()) {
        (Some((id, reason)), _) => Err(super::resolved(id, reason)),
        (None, Some(id)) => Err(Error::Failed(super::unknown(&format!("`{id}`")))),
        (None, None) => Ok(found.letters),
    }
}
