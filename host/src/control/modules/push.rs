//! Versions come into the registry, are signed, and leave it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

use super::Error;
use crate::broker::Connection;
use crate::broker::provision::registry;
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::mesh_streams::audit::AuditEnd;
use crate::mesh_streams::modules::{self, ModuleVersion, named, versions_of};
use crate::plan::Plan;
use crate::wasm::library::{Compiled, WIT_PACKAGE};

/// How often a record is written beside other people.
const TRIES_MAX: u32 = 20;

/// What is pushed, by whom, and as what.
#[derive(Debug)]
pub struct PushOrder {
    pub name: String,
    pub version: Option<String>,
    pub wants: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub note: Option<String>,
    pub by: String,
    /// `None`: it came from a file.
    pub origin: Option<PushedFrom>,
}

/// Where in an OCI registry a module came from.
#[derive(Debug, Clone)]
pub struct PushedFrom {
    /// As a person has named it.
    pub reference: String,
    /// The digest of the manifest that was there, `sha256:…`.
    pub manifest: String,
}

/// Begins the labels that say where a version came from; people give no such labels.
pub const ORIGIN_LABELS: &str = "oci.";

impl PushedFrom {
    fn labels(&self) -> [(String, String); 2] {
        [("reference", &self.reference), ("manifest", &self.manifest)]
            .map(|(key, value)| (format!("{ORIGIN_LABELS}{key}"), value.clone()))
    }
}

/// What has become of a module that was pushed or signed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(
    title = "`jetmesh modules push --json`, `jetmesh modules sign --json`",
    description = ""
)]
pub struct ModulePushed {
    pub name: String,
    /// false: the registry had it so before.
    pub changed: bool,
    #[serde(flatten)]
    pub version: ModuleVersion,
}

/// The same, as it is recorded.
pub fn recorded_push(pushed: &ModulePushed) -> AuditEnd {
    AuditEnd::done(&[
        ("changed", pushed.changed.into()),
        ("unchanged", (!pushed.changed).into()),
    ])
}

/// Stores a module that has been compiled, with its version. A version that is there stays as it is.
///
/// # Errors
/// [`Error::Person`] if it is there as something else, or its version names another module.
pub async fn push(
    connection: &Connection,
    plan: &Plan,
    (bytes, compiled): (&Bytes, &Compiled),
    order: &PushOrder,
) -> Result<ModulePushed, Error> {
    registry(connection, plan).await?;
    let digest = compiled.hash.hex();
    let name = &order.name;
    let others = modules::versions(connection, Some(name)).await?;
    let other = others.iter().filter_map(|(_, other)| other.as_ref().ok());
    let mut other =
        other.filter(|other| other.version.is_some() && other.version == order.version && other.digest != digest);
    if let Some(other) = other.next() {
        return Err(Error::Person(format!(
            "version {} of {name} is another module: a version is pushed once; choose another --version",
            other.told()
        )));
    }
    modules::put_content(connection, &digest, bytes).await?;
    let origin = order.origin.iter().flat_map(PushedFrom::labels);
    let labels = order.labels.clone().into_iter().chain(origin);
    let version = ModuleVersion {
        digest: digest.clone(),
        size: bytes.len() as u64,
        wit: WIT_PACKAGE.to_owned(),
        version: order.version.clone(),
        imports: compiled.imports.clone(),
        wants: order.wants.clone(),
        labels: labels.collect(),
        by: order.by.clone(),
        at: rfc3339(now_ms()),
        note: order.note.clone(),
        signatures: Vec::new(),
    };
    let (there, revision) = modules::version(connection, name, &digest).await?;
    if let Some(there) = there {
        return unchanged(order, there);
    }
    if !modules::put_version(connection, name, revision, &version).await? {
        let (there, _) = modules::version(connection, name, &digest).await?;
        return unchanged(order, there.ok_or_else(|| busy(name))?);
    }
    // Old versions may have been pruned while it came, and with them a content that only they had.
    modules::put_content(connection, &digest, bytes).await?;
    Ok(ModulePushed {
        name: name.clone(),
        changed: true,
        version,
    })
}

fn busy(name: &str) -> Error {
    Error::Person(format!("other people change {name} at the moment: repeat the command"))
}

fn unchanged(order: &PushOrder, there: ModuleVersion) -> Result<ModulePushed, Error> {
    let asked = (&order.version, &order.wants, &order.labels);
    // The same module may come from several places; the first one stays.
    let labels = there.labels.iter().filter(|(key, _)| !key.starts_with(ORIGIN_LABELS));
    let labels: BTreeMap<String, String> = labels.map(|(key, value)| (key.clone(), value.clone())).collect();
    let says = order.version.is_some() || !order.wants.is_empty() || !order.labels.is_empty();
    if says && asked != (&there.version, &there.wants, &labels) {
        return Err(Error::Person(format!(
            "this module was pushed as {} of {} by {} at {}, with another --version, --want or --label: a version is pushed once; \
             build it again, or push it as another name",
            there.told(),
            order.name,
            there.by,
            there.at
        )));
    }
    Ok(ModulePushed {
        name: order.name.clone(),
        changed: false,
        version: there,
    })
}

/// Signs a version with the seed of an nkey. One that this key has signed stays as it is.
pub async fn sign(
    connection: &Connection,
    (name, text): (&str, &str),
    seed: &str,
    by: &str,
) -> Result<ModulePushed, Error> {
    let versions = versions_of(connection, name).await?;
    let digest = named(&versions, name, text).map_err(Error::Person)?.digest.clone();
    let key = modules::key_of_seed(seed).map_err(Error::Person)?;
    for _ in 0..TRIES_MAX {
        let (version, revision) = modules::version(connection, name, &digest).await?;
        let mut version = version.ok_or_else(|| busy(name))?;
        let mut changed = false;
        if !version.is_signed(name, &key) {
            let signature = modules::sign(seed, name, &version, by, rfc3339(now_ms())).map_err(Error::Person)?;
            version.signatures.retain(|other| other.key != key);
            version.signatures.push(signature);
            changed = true;
            if !modules::put_version(connection, name, revision, &version).await? {
                continue;
            }
        }
        return Ok(ModulePushed {
            name: name.to_owned(),
            changed,
            version,
        });
    }
    Err(busy(name))
}

/// What was removed from the registry.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "`jetmesh modules prune --json`", description = "")]
pub struct PrunedModules {
    pub name: String,
    /// Digests of the versions that were removed, or would be.
    pub removed: Vec<String>,
    /// How many versions stay.
    pub kept: usize,
    /// true: nothing was removed.
    pub dry_run: bool,
}

/// The same, as it is recorded.
pub fn recorded_prune(pruned: &PrunedModules) -> AuditEnd {
    AuditEnd::done(&[("removed", pruned.removed.len() as u64)])
}

/// Removes the versions of a name but the newest ones, the promoted one, the one that takes over from it, and the one
/// that a rollback returns to.
pub async fn prune(connection: &Connection, name: &str, keep: usize, dry_run: bool) -> Result<PrunedModules, Error> {
    let versions = versions_of(connection, name).await?;
    let (history, _) = modules::history(connection, name).await?;
    let mut stay: BTreeSet<&str> = versions
        .iter()
        .rev()
        .take(keep)
        .map(|one| one.digest.as_str())
        .collect();
    let promoted = history.first().map(|one| one.record.digest.as_str());
    let before = history
        .iter()
        .map(|one| one.record.digest.as_str())
        .find(|digest| Some(*digest) != promoted);
    stay.extend(promoted);
    stay.extend(before);
    let canary = history.first().and_then(|one| one.record.rollout.as_ref());
    stay.extend(canary.map(|rollout| rollout.canary.as_str()));
    let old: Vec<&ModuleVersion> = versions
        .iter()
        .filter(|one| !stay.contains(one.digest.as_str()))
        .collect();
    let removed: Vec<String> = old.iter().map(|one| one.digest.clone()).collect();
    if !dry_run {
        for digest in &removed {
            modules::remove_version(connection, name, digest).await?;
        }
        let left = modules::versions(connection, None).await?;
        // The content of a version that cannot be read may be any.
        if left.iter().all(|(_, version)| version.is_ok()) {
            let used: BTreeSet<&str> = left
                .iter()
                .filter_map(|(_, one)| Some(one.as_ref().ok()?.digest.as_str()))
                .collect();
            for digest in removed.iter().filter(|digest| !used.contains(digest.as_str())) {
                modules::remove_content(connection, digest).await?;
            }
        }
    }
    Ok(PrunedModules {
        name: name.to_owned(),
        kept: versions.len() - removed.len(),
        removed,
        dry_run,
    })
}
