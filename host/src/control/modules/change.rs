//! Which version a name serves: promoted, rolled back, held.

use schemars::JsonSchema;
use serde::Serialize;

use super::Error;
use super::hosts::{HostBehind, taken};
use super::rollout::{self, RolloutOrder};
use crate::broker::Connection;
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::failpoint;
use crate::mesh_streams::audit::AuditEnd;
use crate::mesh_streams::modules::{
    self, ModuleAct, ModuleHold, ModuleVersion, Promoted, PromotedRecord, named, versions_of,
};
use crate::plan::Plan;

/// What shall become of a name.
#[derive(Debug, Clone)]
pub enum ModuleChange {
    /// This version, by its digest or its version, serves; with an order for it, step by step.
    Promote(String, Option<RolloutOrder>),
    /// This one that served before serves again; `None`: the one that served last before the present one.
    Rollback(Option<String>),
    Hold,
    Resume,
}

/// Who changes it and why.
#[derive(Debug, Clone)]
pub struct ChangeOrder {
    pub by: String,
    pub note: Option<String>,
    /// Only if the key of what is promoted still has this revision.
    pub upon: Option<u64>,
}

/// What has become of an order to change what a name serves.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(
    title = "`jetmesh modules promote --json`, `rollback`, `hold`, `resume`",
    description = ""
)]
pub struct ModuleChanged {
    pub name: String,
    /// false: it was so before.
    pub changed: bool,
    /// Digest of the version that serves.
    pub digest: String,
    /// As its author calls it.
    pub version: Option<String>,
    /// Digest of what served before; null: nothing did, or the same.
    pub previous: Option<String>,
    /// Of the key of what is promoted.
    pub revision: u64,
    /// Null: nothing keeps another version from being promoted.
    pub hold: Option<ModuleHold>,
    /// Digest of the version that takes over step by step; null: none does.
    pub canary: Option<String>,
    /// Hosts that serve with it; null: they cannot be asked.
    pub hosts: Option<usize>,
    /// Handlers that hosts serve with another version.
    pub behind: Vec<HostBehind>,
}

/// The same, as it is recorded.
pub fn recorded_change(changed: &ModuleChanged) -> AuditEnd {
    AuditEnd::done(&[
        ("changed", changed.changed.into()),
        ("unchanged", (!changed.changed).into()),
    ])
}

/// Changes what a name serves, once, and waits until the hosts have taken it in.
pub async fn change(
    connection: &Connection,
    plan: &Plan,
    name: &str,
    what: &ModuleChange,
    order: &ChangeOrder,
) -> Result<ModuleChanged, Error> {
    let (now, revision) = modules::promoted(connection, name).await?;
    if order.upon.is_some_and(|upon| upon != revision) {
        return Err(faster(name, now.as_ref(), revision));
    }
    failpoint::point("module-change");
    let (record, version) = match what {
        ModuleChange::Promote(text, rollout) => {
            let wanted = (name, text.as_str(), rollout.as_ref());
            promoting(connection, plan, wanted, (now.as_ref(), revision), order).await?
        }
        ModuleChange::Rollback(to) => back(connection, plan, (name, to.as_deref()), now.as_ref(), order).await?,
        ModuleChange::Hold | ModuleChange::Resume => held(connection, name, now.as_ref(), what, order).await?,
    };
    let same =
        |now: &PromotedRecord| now.digest == record.digest && now.hold == record.hold && now.rollout == record.rollout;
    let changed = !now.as_ref().is_some_and(same);
    let revision = match changed {
        false => revision,
        true => match modules::serve(connection, name, revision, &record).await? {
            Some(revision) => revision,
            None => {
                let (now, revision) = modules::promoted(connection, name).await?;
                return Err(faster(name, now.as_ref(), revision));
            }
        },
    };
    let taken = match record.rollout {
        Some(_) => None,
        None => taken(connection, &plan.mesh, name, record.short()).await,
    };
    let previous = now.map(|now| now.digest).filter(|digest| *digest != record.digest);
    Ok(ModuleChanged {
        name: name.to_owned(),
        changed,
        digest: record.digest,
        version: version.and_then(|version| version.version),
        previous,
        revision,
        hold: record.hold,
        canary: record.rollout.map(|rollout| rollout.canary),
        hosts: taken.as_ref().map(|taken| taken.hosts),
        behind: taken.map(|taken| taken.behind).unwrap_or_default(),
    })
}

/// Another person was faster: who, when, and what.
fn faster(name: &str, now: Option<&PromotedRecord>, revision: u64) -> Error {
    let what = match now {
        None => format!("what was promoted as {name} was removed"),
        Some(now) => format!(
            "{name} was changed meanwhile: version {} was {} by {} at {}{}",
            now.short(),
            now.act.word(),
            now.by,
            now.at,
            now.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default()
        ),
    };
    Error::Person(format!(
        "{what} (revision {revision}); nothing is changed: look at it with `jetmesh modules history {name}`, and repeat the command \
         if you still mean it"
    ))
}

/// What served before the present version was promoted, the newest first: not what it was rolled back from.
fn before<'a>(history: &'a [Promoted], now: Option<&'a PromotedRecord>) -> impl Iterator<Item = &'a str> {
    let present = now.map(|now| now.digest.as_str());
    let promoted =
        |one: &&Promoted| one.record.act == ModuleAct::Promoted && Some(one.record.digest.as_str()) == present;
    let later = history.iter().take_while(|one| !promoted(one)).count();
    // Its promotion may be older than all that is kept.
    let later = if later == history.len() { 0 } else { later };
    let digests = history[later..].iter().map(|one| one.record.digest.as_str());
    digests.filter(move |digest| Some(*digest) != present)
}

pub type NextPromoted = (PromotedRecord, Option<ModuleVersion>);

pub fn record(version: &ModuleVersion, act: ModuleAct, order: &ChangeOrder) -> PromotedRecord {
    PromotedRecord {
        digest: version.digest.clone(),
        act,
        by: order.by.clone(),
        at: rfc3339(now_ms()),
        note: order.note.clone(),
        hold: None,
        rollout: None,
    }
}

/// Why a version may not serve with this configuration, if it may not.
fn unfit(plan: &Plan, name: &str, version: &ModuleVersion) -> Option<String> {
    let followers = plan
        .handlers
        .iter()
        .filter(|handler| handler.module.registered() == Some(name));
    let unsigned = version.unsigned(name, &plan.modules.require);
    unsigned.or_else(|| followers.into_iter().find_map(|handler| version.refused_by(handler)))
}

async fn promoting(
    connection: &Connection,
    plan: &Plan,
    (name, text, rollout): (&str, &str, Option<&RolloutOrder>),
    (now, revision): (Option<&PromotedRecord>, u64),
    order: &ChangeOrder,
) -> Result<NextPromoted, Error> {
    let versions = versions_of(connection, name).await?;
    let version = named(&versions, name, text).map_err(Error::Person)?;
    if let Some(hold) = now.and_then(|now| now.hold.as_ref()) {
        let reason = hold
            .reason
            .as_ref()
            .map(|reason| format!(" ({reason})"))
            .unwrap_or_default();
        return Err(Error::Person(format!(
            "{name} is held by {} since {}{reason}: no version is promoted until `jetmesh modules resume {name}`",
            hold.by, hold.at
        )));
    }
    if let Some(why) = unfit(plan, name, version) {
        return Err(Error::Person(format!("{why}; nothing is changed")));
    }
    if let Some(running) = now.and_then(|now| now.rollout.as_ref())
        && (rollout.is_some() || running.canary != version.digest)
    {
        return Err(rollout::is_running(name, running));
    }
    // It is read as a host reads it: what a host could not have is not promoted.
    modules::content(connection, &version.digest).await?;
    match (rollout, now) {
        (Some(rollout), Some(now)) if now.digest != version.digest => {
            rollout::check(plan, name)?;
            let begun = record(version, ModuleAct::RolloutBegun, order);
            let next = PromotedRecord {
                digest: now.digest.clone(),
                rollout: Some(rollout.spec(name, now, &version.digest, revision)),
                ..begun
            };
            Ok((next, Some(version.clone())))
        }
        (Some(_), None) => Err(Error::Person(format!(
            "nothing is promoted as {name}: there is no version to compare a canary with; promote this one without steps"
        ))),
        _ => Ok((record(version, ModuleAct::Promoted, order), Some(version.clone()))),
    }
}

async fn back(
    connection: &Connection,
    plan: &Plan,
    (name, to): (&str, Option<&str>),
    now: Option<&PromotedRecord>,
    order: &ChangeOrder,
) -> Result<NextPromoted, Error> {
    if let Some((now, running)) = now.and_then(|now| now.rollout.as_ref().map(|running| (now, running))) {
        return rollout::given_up(connection, (name, to), (now, running), order).await;
    }
    let (history, _) = modules::history(connection, name).await?;
    let served: Vec<&str> = history.iter().map(|one| one.record.digest.as_str()).collect();
    let versions = versions_of(connection, name).await?;
    let there = |digest: &str| versions.iter().find(|one| one.digest == digest);
    let version = match to {
        Some(text) => {
            let version = named(&versions, name, text).map_err(Error::Person)?;
            if !served.contains(&version.digest.as_str()) {
                return Err(Error::Person(format!(
                    "version {} of {name} has not served, as far as its history is kept: `jetmesh modules promote {name} {}` promotes it",
                    version.told(),
                    &version.digest[..12]
                )));
            }
            version
        }
        None => {
            let earlier = before(&history, now);
            let fit = |version: &&ModuleVersion| unfit(plan, name, version).is_none();
            earlier.filter_map(there).find(fit).ok_or_else(|| {
                Error::Person(format!(
                    "no earlier version of {name} has served that the registry still has: `jetmesh modules history {name}` shows what \
                     has, and `jetmesh modules promote {name} DIGEST` promotes any version"
                ))
            })?
        }
    };
    if let Some(why) = unfit(plan, name, version) {
        return Err(Error::Person(format!("{why}; nothing is changed")));
    }
    let mut next = record(version, ModuleAct::RolledBack, order);
    // A hold keeps new versions away, and stays.
    next.hold = now.and_then(|now| now.hold.clone());
    Ok((next, Some(version.clone())))
}

async fn held(
    connection: &Connection,
    name: &str,
    now: Option<&PromotedRecord>,
    what: &ModuleChange,
    order: &ChangeOrder,
) -> Result<NextPromoted, Error> {
    let Some(now) = now else {
        return Err(Error::Person(format!(
            "nothing is promoted as {name}: there is nothing to hold; `jetmesh modules promote {name} DIGEST` promotes a version"
        )));
    };
    if let Some(running) = &now.rollout {
        return Err(rollout::is_running(name, running));
    }
    let (version, _) = modules::version(connection, name, &now.digest).await?;
    let mut next = PromotedRecord {
        act: if matches!(what, ModuleChange::Hold) {
            ModuleAct::Held
        } else {
            ModuleAct::Resumed
        },
        by: order.by.clone(),
        at: rfc3339(now_ms()),
        note: order.note.clone(),
        ..now.clone()
    };
    next.hold = match (what, &now.hold) {
        (ModuleChange::Hold, Some(hold)) if order.note.is_none() || order.note == hold.reason => Some(hold.clone()),
        (ModuleChange::Hold, _) => Some(ModuleHold {
            by: order.by.clone(),
            at: next.at.clone(),
            reason: order.note.clone(),
        }),
        _ => None,
    };
    Ok((next, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_after_a_rollback_goes_further_back_and_not_to_what_was_bad() {
        let one = |digest: &str, act: ModuleAct| Promoted {
            record: PromotedRecord {
                digest: digest.to_owned(),
                act,
                by: String::new(),
                at: String::new(),
                note: None,
                hold: None,
                rollout: None,
            },
            revision: 0,
        };
        let (promoted, back) = (ModuleAct::Promoted, ModuleAct::RolledBack);
        let goes = |history: &[Promoted]| {
            before(history, history.first().map(|one| &one.record))
                .next()
                .map(str::to_owned)
        };
        let mut history = vec![one("c", promoted), one("b", promoted), one("a", promoted)];
        assert_eq!(goes(&history).as_deref(), Some("b"));
        history.insert(0, one("b", back));
        history.insert(0, one("b", ModuleAct::Held));
        assert_eq!(goes(&history).as_deref(), Some("a"));
        history.insert(0, one("a", back));
        assert_eq!(goes(&history), None, "nothing served before it");
        // It is promoted again: what it was promoted over served before it.
        history.insert(0, one("c", promoted));
        assert_eq!(goes(&history).as_deref(), Some("a"));
        assert_eq!(
            goes(&[one("a", back), one("b", promoted)]).as_deref(),
            Some("b"),
            "its promotion is forgotten"
        );
    }
}
