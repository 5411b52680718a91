//! `jetmesh dlq rehearse`: what would become of dead letters with a module, while nothing happens.

mod account;
mod json;
mod show;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;

use self::account::Account;
pub use self::json::RehearsalLine;
use crate::app;
use crate::broker::Connection;
use crate::cli::dlq::selection::Selection;
use crate::cli::stop::Stop;
use crate::cli::text::json_line;
use crate::cli::{Error, FAILED, OK, table};
use crate::dlq::Filter;
use crate::dlq::meant::Selected;
use crate::dlq::rehearse::{AT_ONCE, Rehearsal, Rehearsed, unfit};
use crate::mesh_streams::dead_letter::{self, Letter};
use crate::plan::{Handler, Plan};
use crate::wasm::compile::Priority;
use crate::wasm::engine::Runtime;
use crate::wasm::library::Library;
use crate::wasm::module::Module;

/// Instances that end while others start.
const SPARE_INSTANCES: usize = 8;

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
    let run = chosen.iter().filter(|one| one.unfit.is_none());
    let handlers: BTreeSet<&str> = run.map(|one| one.handler.as_str()).collect();
    if let (Some(module), true) = (&args.module, handlers.len() > 1) {
        let handlers = Vec::from_iter(handlers).join(", ");
        return Err(Error::Usage(format!(
            "--module {}: a module is one handler's, and the letters are of {handlers}: add --handler",
            module.display()
        )));
    }
    let stages = stages(connection, plan, args, &handlers).await?;
    stop.heed();
    let mut account = Account::default();
    let runs = chosen.iter().map(|one| rehearse(connection, &stages, one));
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
    match args.json {
        true => {
            let summary = account.json(&stages);
            println!("{}", json_line(&RehearsalLine::Summary { summary }));
        }
        false => account.print(&stages),
    }
    if let Some(code) = stop.code() {
        note!("interrupted: not all of them were rehearsed");
        return Ok(code);
    }
    Ok(if account.all_succeed() { OK } else { FAILED })
}

/// A letter that is meant, without its payload.
struct Chosen {
    subject: String,
    handler: String,
    /// Why it cannot be run.
    unfit: Option<&'static str>,
}

async fn choose(connection: &Connection, args: &Rehearse) -> Result<Vec<Chosen>, Error> {
    let chosen = |letter: &Letter| Chosen {
        subject: letter.subject.clone(),
        handler: letter.header(dead_letter::HANDLER).to_owned(),
        unfit: unfit(letter),
    };
    let mut newest = VecDeque::new();
    match args.selection.selected()? {
        Selected::Ids(ids) => {
            for id in ids {
                newest.push_back(chosen(&super::find(connection, &id).await?));
            }
        }
        Selected::Filter(filter) => each(connection, &filter, args.limit, &mut newest, chosen).await?,
    }
    Ok(newest.into())
}

async fn each(
    connection: &Connection,
    filter: &Filter,
    limit: usize,
    newest: &mut VecDeque<Chosen>,
    chosen: impl Fn(&Letter) -> Chosen,
) -> Result<(), Error> {
    match limit {
        0 => super::each(connection, filter, false, |letter| newest.push_back(chosen(&letter))).await?,
        limit => newest.extend(
            super::newest(connection, filter, limit)
                .await?
                .letters
                .iter()
                .map(chosen),
        ),
    }
    Ok(())
}

/// By handler, its module on trial.
async fn stages<'a>(
    connection: &Connection,
    plan: &'a Plan,
    args: &Rehearse,
    handlers: &BTreeSet<&str>,
) -> Result<HashMap<&'a str, Rehearsal<'a>>, Error> {
    let memory = plan.handlers.iter().map(|h| h.memory_bytes_max).max().unwrap_or(0);
    // Reused instances are kept by each of the modules.
    let instances = AT_ONCE * handlers.len().max(1) + SPARE_INSTANCES;
    let runtime = Runtime::new(instances, memory).map_err(app::Error::Engine)?;
    let meant = plan.handlers.iter().filter(|h| handlers.contains(h.name.as_str()));
    let meant: Vec<&Handler> = meant.collect();
    let paths: Vec<&Path> = meant
        .iter()
        .map(|handler| args.module.as_ref().unwrap_or(&handler.module).as_path())
        .collect();
    let compiled = Library::new(runtime).all(&paths, Priority::Usual).await;
    let compiled = compiled.map_err(|errors| app::Error::modules(errors, plan))?;
    let stage = |(handler, compiled): (&'a Handler, _)| {
        let rehearsal = Rehearsal::new(connection, handler, Module::new(compiled));
        (handler.name.as_str(), rehearsal)
    };
    Ok(meant.into_iter().zip(compiled).map(stage).collect())
}

/// What came of one letter.
enum Came {
    Ran(Rehearsed),
    Skipped(String),
}

async fn rehearse(
    connection: &Connection,
    stages: &HashMap<&str, Rehearsal<'_>>,
    chosen: &Chosen,
) -> Result<(String, Came), Error> {
    let id = dead_letter::id_of(&chosen.subject).to_owned();
    if let Some(why) = chosen.unfit {
        return Ok((id, Came::Skipped(why.to_owned())));
    }
    let Some(stage) = stages.get(chosen.handler.as_str()) else {
        let why = format!("handler {} is not in the configuration", chosen.handler);
        return Ok((id, Came::Skipped(why)));
    };
    let Some(letter) = dead_letter::read(connection, &chosen.subject).await? else {
        return Ok((id, Came::Skipped("it has been settled meanwhile".to_owned())));
    };
    Ok((id, Came::Ran(stage.run(letter).await?)))
}
