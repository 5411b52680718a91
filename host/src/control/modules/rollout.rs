//! A version that takes over step by step: what is ordered, and what is refused.

use super::Error;
use super::change::{ChangeOrder, NextPromoted, record};
use crate::broker::Connection;
use crate::mesh_streams::modules::{ModuleAct, PromotedRecord, RolloutSpec, RolloutStep, named, versions_of};
use crate::plan::Plan;

/// The steps by which a version is to take over.
#[derive(Debug, Clone)]
pub struct RolloutOrder {
    pub steps: Vec<RolloutStep>,
    /// In millionths: see [`RolloutSpec`].
    pub alpha: u32,
    pub margin: u32,
    pub only: Option<(String, String)>,
}

impl RolloutOrder {
    /// `revision`: of the record that it is written upon.
    pub fn spec(&self, name: &str, now: &PromotedRecord, canary: &str, revision: u64) -> RolloutSpec {
        RolloutSpec {
            number: revision,
            name: name.to_owned(),
            serving: now.digest.clone(),
            canary: canary.to_owned(),
            steps: self.steps.clone(),
            alpha: self.alpha,
            margin: self.margin,
            only: self.only.clone(),
        }
    }
}

/// Refuses a name whose handlers cannot be judged.
pub fn check(plan: &Plan, name: &str) -> Result<(), Error> {
    let follows = |handler: &&crate::plan::Handler| handler.module.registered() == Some(name);
    let mut followers = plan.handlers.iter().filter(follows).peekable();
    if followers.peek().is_none() {
        return Err(Error::Person(format!(
            "no handler of this configuration has `module = \"registry:{name}\"`: a canary is judged by the events of its handlers; \
             give the configuration of the hosts, or promote without steps"
        )));
    }
    match followers.find(|handler| handler.ledger.is_none()) {
        Some(handler) => Err(Error::Person(format!(
            "handler {} keeps no ledger, and a canary is judged by what the ledger counts: promote without steps, or remove \
             `idempotency = \"none\"` from the handler",
            handler.name
        ))),
        None => Ok(()),
    }
}

/// The refusal of a change during a rollout.
pub fn is_running(name: &str, running: &RolloutSpec) -> Error {
    let canary = &running.canary[..12];
    Error::Person(format!(
        "a rollout of {name} is under way: version {canary} takes over from {} step by step. `jetmesh modules why {name}` shows how far \
         it is, `jetmesh modules promote {name} {canary}` ends it with the canary, and `jetmesh modules rollback {name}` without it",
        &running.serving[..12]
    ))
}

/// Ends a rollout with the version that serves.
pub async fn given_up(
    connection: &Connection,
    (name, to): (&str, Option<&str>),
    (now, running): (&PromotedRecord, &RolloutSpec),
    order: &ChangeOrder,
) -> Result<NextPromoted, Error> {
    let versions = versions_of(connection, name).await?;
    if let Some(text) = to
        && named(&versions, name, text).map_err(Error::Person)?.digest != now.digest
    {
        return Err(is_running(name, running));
    }
    let version = versions.iter().find(|one| one.digest == now.digest);
    let Some(version) = version else {
        return Err(Error::Person(format!(
            "the registry no longer describes the version {} that serves",
            now.short()
        )));
    };
    Ok((record(version, ModuleAct::RolledBack, order), Some(version.clone())))
}
