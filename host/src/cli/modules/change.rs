//! Which version serves: promote, go back, hold.

use clap::builder::NonEmptyStringValueParser;

use super::name;
use super::rollout::RolloutFlags;
use crate::broker::Connection;
use crate::cli::audit::{actor, intent};
use crate::cli::text::json_line;
use crate::cli::{Error, OK, UNSERVED};
use crate::control::modules::{self, ChangeOrder, ModuleChange, ModuleChanged, recorded_change};
use crate::mesh_streams::audit::AuditAction;
use crate::plan::Plan;
use crate::text::display::clean;

/// Let a version serve on all hosts; waits until they have taken it up
#[derive(Debug, clap::Args)]
pub struct ModulesPromote {
    /// The name in the registry
    #[arg(value_parser = name)]
    name: String,
    /// Digest or version
    #[arg(value_name = "DIGEST")]
    digest: String,
    #[command(flatten)]
    rollout: RolloutFlags,
    #[command(flatten)]
    how: ModulesHow,
}

/// Let an earlier version serve again; waits until all hosts have taken it up
#[derive(Debug, clap::Args)]
pub struct ModulesRollback {
    /// The name in the registry
    #[arg(value_parser = name)]
    name: String,
    /// Digest or version of one that has served [default: the last one that served before]
    #[arg(value_name = "DIGEST")]
    digest: Option<String>,
    #[command(flatten)]
    how: ModulesHow,
}

/// Keep a name at its version: none is promoted until it is resumed, but a rollback is possible
#[derive(Debug, clap::Args)]
pub struct ModulesHold {
    /// The name in the registry
    #[arg(value_parser = name)]
    name: String,
    #[command(flatten)]
    how: ModulesHow,
}

/// End a hold
#[derive(Debug, clap::Args)]
pub struct ModulesResume {
    /// The name in the registry
    #[arg(value_parser = name)]
    name: String,
    #[command(flatten)]
    how: ModulesHow,
}

#[derive(Debug, clap::Args)]
struct ModulesHow {
    /// Why, for the history and the audit
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    note: Option<String>,
    /// Only if nothing was changed since this revision, which `show` and `history` print
    #[arg(long, value_name = "REVISION")]
    upon: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn promote(connection: &Connection, plan: &Plan, asked: &ModulesPromote) -> Result<u8, Error> {
    let rollout = asked.rollout.order().map_err(Error::Usage)?;
    let change = ModuleChange::Promote(asked.digest.clone(), rollout);
    act(
        connection,
        plan,
        &asked.name,
        (AuditAction::ModulesPromote, change),
        &asked.how,
    )
    .await
}

pub async fn rollback(connection: &Connection, plan: &Plan, asked: &ModulesRollback) -> Result<u8, Error> {
    let change = ModuleChange::Rollback(asked.digest.clone());
    act(
        connection,
        plan,
        &asked.name,
        (AuditAction::ModulesRollback, change),
        &asked.how,
    )
    .await
}

pub async fn hold(connection: &Connection, plan: &Plan, asked: &ModulesHold) -> Result<u8, Error> {
    act(
        connection,
        plan,
        &asked.name,
        (AuditAction::ModulesHold, ModuleChange::Hold),
        &asked.how,
    )
    .await
}

pub async fn resume(connection: &Connection, plan: &Plan, asked: &ModulesResume) -> Result<u8, Error> {
    act(
        connection,
        plan,
        &asked.name,
        (AuditAction::ModulesResume, ModuleChange::Resume),
        &asked.how,
    )
    .await
}

async fn act(
    connection: &Connection,
    plan: &Plan,
    name: &str,
    (action, change): (AuditAction, ModuleChange),
    how: &ModulesHow,
) -> Result<u8, Error> {
    let actor = actor(connection, plan);
    let order = ChangeOrder {
        by: actor.by.clone(),
        note: how.note.clone(),
        upon: how.upon,
    };
    let what = match &change {
        ModuleChange::Promote(text, _) | ModuleChange::Rollback(Some(text)) => format!("{name} to {text}"),
        ModuleChange::Rollback(None) | ModuleChange::Hold | ModuleChange::Resume => name.to_owned(),
    };
    let intent = intent(action, &[name], what, how.note.as_deref());
    let acts = modules::change(connection, plan, name, &change, &order);
    let changed = actor.acts(intent, acts, recorded_change).await?;
    match how.json {
        true => println!("{}", json_line(&changed)),
        false => print(&changed, &change),
    }
    Ok(if changed.behind.is_empty() { OK } else { UNSERVED })
}

fn print(changed: &ModuleChanged, change: &ModuleChange) {
    let ModuleChanged {
        name, digest, version, ..
    } = changed;
    let version = version
        .as_ref()
        .map(|version| format!(" ({version})"))
        .unwrap_or_default();
    let told = format!("{}{version}", &digest[..12]);
    let was = match &changed.previous {
        Some(previous) => format!(", before it {}", &previous[..12]),
        None => String::new(),
    };
    match (change, changed.changed) {
        (ModuleChange::Promote(..), _) if let Some(canary) = &changed.canary => {
            println!(
                "{name} takes version {} up step by step, and serves {} meanwhile; `jetmesh modules why {name}` shows how far it is",
                &canary[..12],
                &digest[..12]
            );
            return;
        }
        (ModuleChange::Promote(..), true) => println!("{name} is promoted to {told}{was}"),
        (ModuleChange::Rollback(_), true) => println!("{name} is rolled back to {told}{was}"),
        (ModuleChange::Promote(..) | ModuleChange::Rollback(_), false) => println!("{name} serves {told} already"),
        (ModuleChange::Hold, true) => {
            println!("{name} is held at {told} until `jetmesh modules resume {name}`; a rollback is possible");
        }
        (ModuleChange::Hold, false) => println!("{name} is held already"),
        (ModuleChange::Resume, true) => println!("{name} is no longer held; it serves {told}"),
        (ModuleChange::Resume, false) => println!("{name} is not held"),
    }
    match changed.hosts {
        None => note!("warning: whether hosts serve with it is not known: they cannot be asked"),
        Some(0) if changed.behind.is_empty() => println!("no host follows {name} at the moment"),
        Some(hosts) => println!("{hosts} host(s) serve with it"),
    }
    for one in &changed.behind {
        let why = one
            .why
            .as_deref()
            .map_or("it has not told why; `jetmesh status` shows it".to_owned(), clean);
        note!(
            "warning: handler {} of host {} does not serve with it: {why}",
            one.handler,
            one.host
        );
    }
}
