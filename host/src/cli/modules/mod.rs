//! `jetmesh modules`: the registry of modules, which versions it has, and which of them serve.

mod change;
mod place;
mod rehearse;
mod rollout;
pub mod show;
mod store;
pub mod why;

use clap::Subcommand;

use super::{Args, Error};
use crate::broker;
use crate::config;
use crate::control::modules as registry;
use crate::oci;

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Error {
        match error {
            registry::Error::Person(why) => Error::Failed(why),
            registry::Error::Broker(error) => Error::Broker(error),
        }
    }
}

impl From<oci::Error> for Error {
    fn from(error: oci::Error) -> Error {
        Error::Failed(error.to_string())
    }
}

/// Keep versions of modules in NATS, and choose which of them serve
///
/// A handler follows the registry with `module = "registry"`, or `module = "registry:NAME"`. Its hosts take up what is promoted while
/// they serve. A version is named by 6 or more digits of its digest, or by what --version called it.
#[derive(Debug, Subcommand)]
pub enum ModulesCommand {
    Ls(show::ModulesLs),
    Show(show::ModulesShow),
    History(show::ModulesHistory),
    Diff(show::ModulesDiff),
    Push(store::ModulesPush),
    Sign(store::ModulesSign),
    Pull(place::ModulesPull),
    Rehearse(rehearse::ModulesRehearse),
    Promote(change::ModulesPromote),
    Rollback(change::ModulesRollback),
    Why(why::ModulesWhy),
    Hold(change::ModulesHold),
    Resume(change::ModulesResume),
    Prune(store::ModulesPrune),
}

pub async fn run(args: &Args, command: &ModulesCommand) -> Result<u8, Error> {
    let plan = &args.look()?.plan;
    if let ModulesCommand::Push(push) = command {
        // What is wrong with the file is said without a server.
        return store::push(plan, push).await;
    }
    let connection = &broker::open(&plan.nats, "jetmesh modules").await?;
    match command {
        ModulesCommand::Ls(ls) => show::ls(connection, plan, ls).await,
        ModulesCommand::Show(show) => show::show(connection, show).await,
        ModulesCommand::History(history) => show::history(connection, history).await,
        ModulesCommand::Diff(diff) => show::diff(connection, diff).await,
        ModulesCommand::Push(_) => unreachable!("it was done above"),
        ModulesCommand::Sign(sign) => store::sign(connection, plan, sign).await,
        ModulesCommand::Pull(pull) => place::pull(connection, plan, pull).await,
        ModulesCommand::Rehearse(rehearse) => rehearse::rehearse(connection, plan, rehearse).await,
        ModulesCommand::Promote(promote) => change::promote(connection, plan, promote).await,
        ModulesCommand::Rollback(rollback) => change::rollback(connection, plan, rollback).await,
        ModulesCommand::Why(why) => why::why(connection, plan, why).await,
        ModulesCommand::Hold(hold) => change::hold(connection, plan, hold).await,
        ModulesCommand::Resume(resume) => change::resume(connection, plan, resume).await,
        ModulesCommand::Prune(prune) => store::prune(connection, plan, prune).await,
    }
}

/// A name in the registry.
fn name(text: &str) -> Result<String, String> {
    match config::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("not a name, which is {}", config::NAME)),
    }
}
