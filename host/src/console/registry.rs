//! The registry of modules: what each name serves, its versions, and what a viewer does about it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::audit::{actor, command, intent};
use super::query::Query;
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::broker::Error;
use crate::config::is_name;
use crate::control::modules::{self as control, ChangeOrder, ModuleChange, ModuleChanged, recorded_change};
use crate::mesh_streams::audit::AuditAction;
use crate::mesh_streams::modules::{self, ModuleVersion, Promoted};

/// Of one name.
const VERSIONS_MAX: usize = 50;
const HISTORY_MAX: usize = 20;

/// The names with what they serve; of one name, its versions and what it has served.
pub async fn registry(session: &ViewerSession, query: &Query) -> Result<Value, ConsoleError> {
    let connection = session.connection().await?;
    let one = query.get("name").map(checked).transpose()?;
    let found = modules::versions(&connection, one.as_deref()).await?;
    let mut names: Vec<&str> = session.plan.registered();
    names.extend(found.iter().map(|(name, _)| name.as_str()));
    names.sort_unstable();
    names.dedup();
    names.retain(|name| one.as_deref().is_none_or(|one| one == *name));
    let mut told = Vec::new();
    for name in names {
        let own = found.iter().filter(|(of, _)| of == name);
        let versions: Vec<&ModuleVersion> = own
            .clone()
            .rev()
            .filter_map(|(_, version)| version.as_ref().ok())
            .collect();
        let unreadable: Vec<String> = own
            .filter_map(|(_, version)| Some(version.as_ref().err()?.to_string()))
            .collect();
        let (promoted, revision) = match modules::promoted(&connection, name).await {
            Err(error @ Error::Unreadable { .. }) => {
                told.push(json!({ "name": name, "unreadable": [error.to_string()], "versions": [], "count": 0 }));
                continue;
            }
            promoted => promoted?,
        };
        let history = match one {
            Some(_) => modules::history(&connection, name).await?.0,
            None => Vec::new(),
        };
        let handlers = session
            .plan
            .handlers
            .iter()
            .filter(|one| one.module.registered() == Some(name));
        let handlers: Vec<&str> = handlers.map(|handler| handler.name.as_str()).collect();
        let line = |one: &Promoted| json!({ "revision": one.revision, "record": one.record });
        told.push(json!({
            "name": name, "promoted": promoted, "revision": revision, "handlers": handlers, "count": versions.len(),
            "versions": versions.into_iter().take(VERSIONS_MAX).collect::<Vec<_>>(), "unreadable": unreadable,
            "history": history.iter().take(HISTORY_MAX).map(line).collect::<Vec<_>>(),
        }));
    }
    Ok(json!({ "names": told }))
}

fn checked(name: &str) -> Result<String, ConsoleError> {
    match is_name(name) {
        true => Ok(name.to_owned()),
        false => Err(ConsoleError::wrong("name: not a name in the registry")),
    }
}

/// What a viewer wants of a name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleOrdered {
    name: String,
    /// By digest or by what its author calls it. null: for a rollback, what served before.
    version: Option<String>,
    note: Option<String>,
    /// Only if nothing was changed since the viewer has looked.
    upon: u64,
}

/// Changes what a name serves. `call`: `modules-promote`, `modules-rollback`, `modules-hold` or `modules-resume`.
pub async fn change(session: &ViewerSession, call: &str, order: ModuleOrdered) -> Result<ModuleChanged, ConsoleError> {
    let name = checked(&order.name)?;
    let (action, change) = match (call, &order.version) {
        ("modules-promote", Some(version)) => (
            AuditAction::ModulesPromote,
            ModuleChange::Promote(version.clone(), None),
        ),
        ("modules-rollback", version) => (AuditAction::ModulesRollback, ModuleChange::Rollback(version.clone())),
        ("modules-hold", None) => (AuditAction::ModulesHold, ModuleChange::Hold),
        ("modules-resume", None) => (AuditAction::ModulesResume, ModuleChange::Resume),
        _ => {
            return Err(ConsoleError::wrong(
                "a promotion is of a version, and a hold is of none",
            ));
        }
    };
    let note = order.note.filter(|note| !note.is_empty());
    let word = call.trim_start_matches("modules-");
    let mut words = vec!["modules", word, &name];
    words.extend(order.version.as_deref());
    let same = command(&words, &[("--note", note.as_deref())]);
    let what = match &order.version {
        Some(version) => format!("{name} to {version}"),
        None => name.clone(),
    };
    let connection = session.connection().await?;
    let asked = ChangeOrder {
        by: session.who.clone(),
        note: note.clone(),
        upon: Some(order.upon),
    };
    let intent = intent(action, &[&name], what, note.as_deref(), Some(same));
    let act = async {
        let changed = control::change(&connection, &session.plan, &name, &change, &asked).await;
        changed.map_err(|error| match error {
            control::Error::Person(why) => ConsoleError::wrong(why),
            control::Error::Broker(error) => error.into(),
        })
    };
    let changed = actor(session, &connection).acts(intent, act, recorded_change).await?;
    tracing::info!(
        by = session.who,
        name,
        word,
        note,
        "a viewer of the console has changed what a name of the registry serves"
    );
    Ok(changed)
}
