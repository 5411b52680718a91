//! Versions come into the registry, are signed, and leave it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::{NonEmptyStringValueParser, OsStringValueParser, TypedValueParser as _};

use super::name;
use super::place::{ModulePlace, fetched, pinned, place};
use crate::app;
use crate::broker::{self, Connection};
use crate::cli::audit::{actor, intent};
use crate::cli::text::{json_line, size};
use crate::cli::{Error, OK, ask};
use crate::control::modules::{self, ModulePushed, ORIGIN_LABELS, PushOrder, recorded_prune, recorded_push};
use crate::mesh_streams::audit::AuditAction;
use crate::mesh_streams::modules::{ModuleVersion, check_want, key_of_seed};
use crate::plan::{Handler, Plan};
use crate::text::display::clean;
use crate::wasm::compile::Priority;
use crate::wasm::library::Library;

/// The import of a module that uses the state of its handler.
const STATE: &str = "jetmesh:handler/state";
/// The import of a module that emits events.
const EVENTS: &str = "jetmesh:handler/events";
/// Longest text of a version or a label.
const TEXT_MAX: usize = 128;

/// Check a module and push it as a version of a name; nothing serves with it before it is promoted
#[derive(Debug, clap::Args)]
pub struct ModulesPush {
    /// The component file, or where it is in an OCI registry: oci://HOST/REPOSITORY:TAG, or @sha256:DIGEST
    #[arg(value_name = "FILE", value_parser = OsStringValueParser::new().try_map(place))]
    from: ModulePlace,
    /// Of several modules at a place in an OCI registry, the one with this title
    #[arg(long, value_name = "TITLE")]
    layer: Option<String>,
    /// The name in the registry
    #[arg(long = "as", value_name = "NAME", value_parser = name)]
    name: String,
    /// What you call this version, such as 1.2.0; it names this module for ever
    #[arg(long, value_name = "VERSION", value_parser = label)]
    version: Option<String>,
    /// What its handler must be granted, or it does not serve: `state`, or `publish:SUBJECT`
    #[arg(long = "want", value_name = "GRANT", value_parser = check_want)]
    wants: Vec<String>,
    /// A label of this version, such as commit=1a2b3c
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    labels: Vec<(String, String)>,
    /// What is new, for people
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    note: Option<String>,
    /// Also sign it with the nkey whose seed is in this file
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Sign a version with an nkey, for hosts that want signatures (`modules.require`)
#[derive(Debug, clap::Args)]
pub struct ModulesSign {
    /// The name in the registry
    #[arg(value_parser = name)]
    name: String,
    /// Digest or version
    #[arg(value_name = "DIGEST")]
    digest: String,
    /// File with the seed of the nkey
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Remove old versions of a name: not the newest, not what serves, and not what a rollback returns to
#[derive(Debug, clap::Args)]
pub struct ModulesPrune {
    /// The name in the registry
    #[arg(value_parser = name)]
    name: String,
    /// How many of the newest versions stay
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    keep: usize,
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Print JSON; requires --yes or --dry-run
    #[arg(long)]
    json: bool,
}

fn label(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_graphic() && c != ',';
    match !text.is_empty() && text.len() <= TEXT_MAX && text.chars().all(good) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "1 to {TEXT_MAX} visible ASCII characters without spaces and commas"
        )),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').ok_or("KEY=VALUE, such as commit=1a2b3c")?;
    if parts.0.starts_with(ORIGIN_LABELS) {
        return Err(format!(
            "labels that begin with {ORIGIN_LABELS} say where a version came from, and are given by `push` itself"
        ));
    }
    Ok((label(parts.0)?, label(parts.1)?))
}

fn seed(path: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(path).map_err(|error| Error::Usage(format!("--key {}: {error}", path.display())))?;
    match key_of_seed(&text) {
        Ok(_) => Ok(text),
        Err(why) => Err(Error::Usage(format!(
            "--key {}: {why}; `nk -gen user` makes one",
            path.display()
        ))),
    }
}

pub async fn push(plan: &Plan, push: &ModulesPush) -> Result<u8, Error> {
    let seed = push.key.as_deref().map(seed).transpose()?;
    let library = Library::new(app::runtime(plan)?);
    let (bytes, origin) = fetched(&push.from, push.layer.as_deref()).await?;
    let compiled = library.given(&push.from.path(), bytes.to_vec(), Priority::Usual).await;
    let compiled = compiled.map_err(|error| Error::Usage(error.to_string()))?;
    let connection = &broker::open(&plan.nats, "jetmesh modules").await?;
    let actor = actor(connection, plan);
    let mut wants = push.wants.clone();
    wants.sort();
    wants.dedup();
    let order = PushOrder {
        name: push.name.clone(),
        version: push.version.clone(),
        wants,
        labels: BTreeMap::from_iter(push.labels.clone()),
        note: push.note.clone(),
        by: actor.by.clone(),
        origin,
    };
    let from = order.origin.as_ref().map(|origin| format!(" from {}", pinned(origin)));
    let from = from.unwrap_or_default();
    let what = format!("{} as {}{from}", &compiled.hash.hex()[..12], push.name);
    let intent_push = intent(
        AuditAction::ModulesPush,
        &[&push.name],
        what.clone(),
        push.note.as_deref(),
    );
    let act = modules::push(connection, plan, (&bytes, &compiled), &order);
    let mut pushed = actor.acts(intent_push, act, recorded_push).await?;
    if let Some(seed) = seed {
        let was_there = !pushed.changed;
        let digest = pushed.version.digest.clone();
        let intent_sign = intent(AuditAction::ModulesSign, &[&push.name], what, None);
        let act = modules::sign(connection, (&push.name, &digest), &seed, &order.by);
        pushed = actor.acts(intent_sign, act, recorded_push).await?;
        pushed.changed |= !was_there;
    }
    match push.json {
        true => println!("{}", json_line(&pushed)),
        false => print(plan, &pushed, &from),
    }
    Ok(OK)
}

/// `from`: empty, or where it came from.
fn print(plan: &Plan, pushed: &ModulePushed, from: &str) {
    let ModulePushed { name, version, changed } = pushed;
    let told = version.told();
    match changed {
        true => println!("pushed {told} as {name}{from}, {}", size(version.size)),
        false => println!(
            "{name} has {told} already: {} pushed it at {}",
            clean(&version.by),
            version.at
        ),
    }
    for handler in plan.handlers.iter().filter(|h| h.module.registered() == Some(name)) {
        grants(version, handler).iter().for_each(|line| println!("{line}"));
    }
    if let Some(why) = version.unsigned(name, &plan.modules.require) {
        note!("warning: {why}");
    }
    println!(
        "promote it with `jetmesh modules promote {name} {}`",
        &version.digest[..12]
    );
}

/// What a version imports and wants, against what a handler is granted.
fn grants(version: &ModuleVersion, handler: &Handler) -> Vec<String> {
    let imports = version.imports.iter().map(|import| {
        let granted = match import.split('@').next() {
            Some(STATE) => match &handler.bucket {
                Some(bucket) => format!("bucket {bucket}"),
                None => "not granted: the handler has no `bucket`".to_owned(),
            },
            Some(EVENTS) if handler.publish.is_empty() => "not granted: the handler has no `publish`".to_owned(),
            Some(EVENTS) => format!("publish {}", handler.publish.join(", ")),
            _ => "granted".to_owned(),
        };
        format!("  imports {}: {granted}", clean(import))
    });
    let lacks = version.ungranted(handler);
    let wants = version.wants.iter().map(|want| {
        let granted = if lacks.contains(&want.as_str()) {
            "not granted: it does not serve"
        } else {
            "granted"
        };
        format!("  wants {}: {granted}", clean(want))
    });
    let header = format!("handler {}:", handler.name);
    std::iter::once(header).chain(imports).chain(wants).collect()
}

pub async fn sign(connection: &Connection, plan: &Plan, asked: &ModulesSign) -> Result<u8, Error> {
    let seed = seed(&asked.key)?;
    let actor = actor(connection, plan);
    let what = format!("{} of {}", asked.digest, asked.name);
    let intent = intent(AuditAction::ModulesSign, &[&asked.name], what, None);
    let act = modules::sign(connection, (&asked.name, &asked.digest), &seed, &actor.by);
    let signed = actor.acts(intent, act, recorded_push).await?;
    let key = key_of_seed(&seed).unwrap_or_default();
    match (asked.json, signed.changed) {
        (true, _) => println!("{}", json_line(&signed)),
        (_, true) => println!("{} of {} is signed by {key}", signed.version.told(), signed.name),
        (_, false) => println!(
            "{} of {} was signed by {key} before",
            signed.version.told(),
            signed.name
        ),
    }
    Ok(OK)
}

pub async fn prune(connection: &Connection, plan: &Plan, asked: &ModulesPrune) -> Result<u8, Error> {
    if asked.json && !(asked.yes || asked.dry_run) {
        return Err(Error::Usage("--json requires --yes or --dry-run".to_owned()));
    }
    let would = modules::prune(connection, &asked.name, asked.keep, true).await?;
    if !asked.json {
        would.removed.iter().for_each(|digest| println!("{}", &digest[..12]));
    }
    if !asked.dry_run && !would.removed.is_empty() && !asked.yes {
        ask::confirmed(
            "Remove these versions? No rollback returns to them.",
            "nothing is removed",
        )?;
    }
    let pruned = match asked.dry_run || would.removed.is_empty() {
        true => would,
        false => {
            let what = format!("{} version(s) of {}", would.removed.len(), asked.name);
            let intent = intent(AuditAction::ModulesPrune, &[&asked.name], what, None);
            let act = modules::prune(connection, &asked.name, asked.keep, false);
            actor(connection, plan).acts(intent, act, recorded_prune).await?
        }
    };
    match asked.json {
        true => println!("{}", json_line(&pruned)),
        false => println!(
            "{} {} version(s), {} stay",
            if pruned.dry_run { "would remove" } else { "removed" },
            pruned.removed.len(),
            pruned.kept
        ),
    }
    Ok(OK)
}
