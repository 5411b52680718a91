//! The letters that are rehearsed, and the modules that they run on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Rehearsal, Rehearsed, unfit};
use crate::broker::{Connection, Error};
use crate::dlq::meant::{self, FoundLetters, Selected};
use crate::mesh_streams::dead_letter::{self, Letter};
use crate::mesh_streams::modules::{self, ModuleVersion};
use crate::plan::{Handler, Plan};
use crate::wasm::compile::Priority;
use crate::wasm::engine::{self, Runtime};
use crate::wasm::library::{self, Compiled, Library};
use crate::wasm::module::Module;

/// Instances that end while others start.
const SPARE_INSTANCES: usize = 8;

/// A letter that is meant, without its payload.
#[derive(Debug)]
pub struct ChosenLetter {
    subject: String,
    handler: String,
    /// Why it cannot be run.
    unfit: Option<&'static str>,
}

impl ChosenLetter {
    fn of(letter: &Letter) -> ChosenLetter {
        ChosenLetter {
            subject: letter.subject.clone(),
            handler: letter.header(dead_letter::HANDLER).to_owned(),
            unfit: unfit(letter),
        }
    }
}

/// The letters that are meant, oldest first, or in the order of their ids. `newest`: only so many of those that a filter means; 0: all.
pub async fn choose(
    connection: &Connection,
    selected: &Selected,
    newest: usize,
) -> Result<FoundLetters<Vec<ChosenLetter>>, Error> {
    let mut chosen = Vec::new();
    let found = meant::newest(connection, selected, newest, |letter| {
        chosen.push(ChosenLetter::of(&letter));
    })
    .await?;
    Ok(found.with(chosen))
}

/// The handlers whose modules are needed.
pub fn handlers(chosen: &[ChosenLetter]) -> BTreeSet<&str> {
    let run = chosen.iter().filter(|one| one.unfit.is_none());
    run.map(|one| one.handler.as_str()).collect()
}

/// Which module the letters run on.
#[derive(Debug)]
pub enum OnTrial {
    /// Those that the configuration names.
    Configured,
    /// This one.
    File(PathBuf),
    /// A version of the registry: its name there, and its digest.
    Registered(String, String),
    /// A file of a viewer's, with its name.
    Given(PathBuf, Vec<u8>),
}

/// How much a rehearsal may take of this process.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Letters that run at a time.
    pub at_once: usize,
    pub compile: Priority,
}

/// Why there is nothing to run on.
#[derive(Debug)]
pub enum StageError {
    Engine(engine::Error),
    Modules(Vec<library::Error>),
    /// What the registry has cannot be had.
    Registry(Error),
}

/// By handler, its module on trial.
pub struct Stages<'a>(HashMap<&'a str, Rehearsal<'a>>);

impl<'a> Stages<'a> {
    /// Compiles what is needed.
    ///
    /// # Cancel safety
    /// Dropped half-way, nothing is left of it.
    pub async fn new(
        connection: &Connection,
        plan: &'a Plan,
        handlers: &BTreeSet<&str>,
        module: OnTrial,
        share: Share,
    ) -> Result<Stages<'a>, StageError> {
        let memory = plan.handlers.iter().map(|h| h.memory_bytes_max).max().unwrap_or(0);
        // Instances that are kept for reuse give way.
        let runtime = Runtime::new(share.at_once + SPARE_INSTANCES, memory).map_err(StageError::Engine)?;
        let meant = plan.handlers.iter().filter(|h| handlers.contains(h.name.as_str()));
        let meant: Vec<&Handler> = meant.collect();
        let library = Library::new(runtime);
        let compiled = match module {
            OnTrial::Configured => return configured(connection, plan, &meant, &library, share.compile).await,
            OnTrial::Registered(name, digest) => {
                let loaded = modules::load(connection, (plan, &library), (&name, &digest), share.compile).await;
                let compiled = loaded.map_err(|error| StageError::Registry(error.into()))?;
                return Ok(Stages::with(
                    connection,
                    meant.into_iter().map(|handler| (handler, Arc::clone(&compiled))),
                ));
            }
            OnTrial::File(path) => library.all(&vec![path.as_path(); meant.len()], share.compile).await,
            OnTrial::Given(name, bytes) => {
                let compiled = library.given(&name, bytes, share.compile).await;
                compiled
                    .map(|compiled| vec![compiled; meant.len()])
                    .map_err(|error| vec![error])
            }
        };
        let compiled = compiled.map_err(StageError::Modules)?;
        Ok(Stages::with(connection, meant.into_iter().zip(compiled)))
    }

    fn with(connection: &Connection, modules: impl Iterator<Item = (&'a Handler, Arc<Compiled>)>) -> Stages<'a> {
        let stage = |(handler, compiled): (&'a Handler, _)| {
            let rehearsal = Rehearsal::new(connection, handler, Module::new(compiled));
            (handler.name.as_str(), rehearsal)
        };
        Stages(modules.map(stage).collect())
    }

    /// By handler, the digest of its module.
    pub fn modules(&self) -> BTreeMap<String, String> {
        let of = |(handler, stage): (&&str, &Rehearsal<'_>)| ((*handler).to_owned(), stage.module.digest.to_string());
        self.0.iter().map(of).collect()
    }

    /// Runs one letter; returns its id.
    ///
    /// # Cancel safety
    /// Dropped half-way, nothing has happened.
    pub async fn rehearse(&self, connection: &Connection, chosen: &ChosenLetter) -> Result<(String, Came), Error> {
        let id = dead_letter::id_of(&chosen.subject).to_owned();
        if let Some(why) = chosen.unfit {
            return Ok((id, Came::Skipped(why.to_owned())));
        }
        let Some(stage) = self.0.get(chosen.handler.as_str()) else {
            let why = format!("handler {} is not in the configuration", chosen.handler);
            return Ok((id, Came::Skipped(why)));
        };
        let Some(letter) = dead_letter::read(connection, &chosen.subject).await? else {
            return Ok((id, Came::Skipped("it has been resolved meanwhile".to_owned())));
        };
        Ok((id, Came::Ran(stage.run(letter).await?)))
    }
}

/// The name in the registry that a handler follows, with its versions; or why it has none.
pub async fn versions(
    connection: &Connection,
    plan: &Plan,
    handler: &str,
) -> Result<Result<(String, Vec<ModuleVersion>), String>, Error> {
    let configured = plan.handlers.iter().find(|one| one.name == handler);
    let Some(name) = configured.and_then(|one| one.module.registered()) else {
        return Ok(Err(format!(
            "handler {handler} does not follow the registry: its `module` is no `registry` in the configuration; give a file"
        )));
    };
    Ok(Ok((name.to_owned(), modules::versions_of(connection, name).await?)))
}

/// The modules that the configuration names: files, and what is promoted in the registry.
async fn configured<'a>(
    connection: &Connection,
    plan: &'a Plan,
    meant: &[&'a Handler],
    library: &Library,
    priority: Priority,
) -> Result<Stages<'a>, StageError> {
    let with_file = |handler: &&'a Handler| Some((*handler, handler.module.file()?));
    let files: Vec<(&'a Handler, &Path)> = meant.iter().filter_map(with_file).collect();
    let paths: Vec<&Path> = files.iter().map(|(_, path)| *path).collect();
    let compiled = library.all(&paths, priority).await.map_err(StageError::Modules)?;
    let mut modules: Vec<(&'a Handler, Arc<Compiled>)> =
        files.into_iter().map(|(handler, _)| handler).zip(compiled).collect();
    for handler in meant {
        if let Some(name) = handler.module.registered() {
            let loaded = modules::first(connection, (plan, library), name, priority).await;
            modules.push((handler, loaded.map_err(StageError::Registry)?.compiled));
        }
    }
    Ok(Stages::with(connection, modules.into_iter()))
}

/// What came of one letter.
#[derive(Debug)]
pub enum Came {
    Ran(Rehearsed),
    Skipped(String),
}
