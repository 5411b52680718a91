//! How each handler, ledger, relay and outbox stands, as NATS and the hosts tell it. A question that fails is reported where it
//! belongs, and hides nothing else.

mod handler;
pub mod json;
mod ledger;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;

use futures_util::{StreamExt as _, stream};
use serde_json::Value;

use self::json::{
    DelayedStatus, HandlerStatus, LedgerState, LedgerStatus, MeshStatus, Orphan, RelayStanding, UnknownField,
    UnknownJson,
};
use super::outbox::{self, OutboxStatus};
use super::redrive::{self, RedriveStanding};
use super::schedule::{self, ScheduleStanding};
use crate::broker::consumer::{META_HANDLER, META_MESH};
use crate::broker::provision::DEAD;
use crate::broker::{self, Connection, limits};
use crate::dlq::select::{self, Unread};
use crate::dlq::{Filter, retention};
use crate::event::clock::now_ms;
use crate::event::{EventId, rfc3339};
use crate::fit;
use crate::mesh_streams::attempts;
use crate::mesh_streams::delayed;
use crate::mesh_streams::pauses::{self, Pauses};
use crate::micro;
use crate::micro::told::endpoints;
use crate::plan::Plan;
use crate::redrive::rule::RedriveTally;

/// Handlers that are asked about at a time.
const AT_ONCE: usize = 8;

/// Asks NATS and the hosts.
pub async fn look(plan: &Plan) -> Result<MeshStatus, broker::Error> {
    let connection = broker::open_guarded(&plan.nats, "jetmesh status").await?;
    Ok(look_over(&connection, plan).await)
}

/// The same over a connection that is there.
pub async fn look_over(connection: &Connection, plan: &Plan) -> MeshStatus {
    let mut remarks = Remarks::default();
    let letters = dead_letters(connection, plan, &mut remarks).await;
    look_with(connection, plan, (letters, remarks), |_| {}).await
}

/// The same with dead letters as they were counted before, and what was remarked then. `None`: not known. Each handler is told as soon as
/// it is known.
pub async fn look_with(
    connection: &Connection,
    plan: &Plan,
    (letters, mut remarks): (Option<LetterCounts>, Remarks),
    told: impl FnMut(&HandlerStatus) + Send,
) -> MeshStatus {
    let (dead, tallies) = letters.unzip();
    let hosts = remarks.known(UnknownField::Hosts, micro::hosts(connection, &plan.mesh).await);
    let mut ledgers = Vec::new();
    for name in plan.ledgers() {
        ledgers.push(ledger::stand(connection, plan, name, hosts.as_deref()).await);
    }
    let tried = remarks.known(UnknownField::Retrying, attempts::by_handler(connection).await);
    let pauses = remarks.known(UnknownField::Paused, pauses::load(connection, now_ms()).await);
    let known = HandlersKnown {
        hosts: hosts.as_deref(),
        ledgers: &ledgers,
        dead: dead.as_ref(),
        pauses: pauses.as_ref(),
        tried: tried.as_ref(),
    };
    let handlers = handlers(connection, plan, &known, told).await;
    let near = remarks.known(UnknownField::Limits, limits::near(connection, plan).await);
    remarks.warnings.extend(near.into_iter().flatten());
    let targets = remarks.known(UnknownField::Targets, fit::room(connection, plan).await);
    let takes = targets.as_ref().is_some_and(|targets| targets.problems.is_empty());
    let targets = targets
        .into_iter()
        .flat_map(|targets| targets.problems.into_iter().chain(targets.warnings));
    remarks.warnings.extend(targets);
    let orphans = orphans_without_host(connection, plan, hosts.as_deref(), &mut remarks).await;
    let mut outboxes = Vec::new();
    for one in &plan.outboxes {
        outboxes.push(outbox::stand(connection, one, hosts.as_deref()).await);
    }
    let delayed = remarks.known(UnknownField::Delayed, delayed_events(connection).await);
    let schedules = remarks.known(UnknownField::Schedules, schedule::all(connection, plan).await);
    let (schedules, unread) = schedules.unzip();
    remarks.warnings.extend(unread.into_iter().flatten());
    let redrives = redrive::all(connection, plan, tallies.as_ref(), now_ms()).await;
    let redrives = remarks.known(UnknownField::Redrives, redrives);
    let works =
        |ledger: &LedgerStatus| ledger.state == LedgerState::Works && ledger.relay.state == RelayStanding::Works;
    // What is not known does not serve.
    let serves = hosts.as_ref().is_some_and(|hosts| !hosts.is_empty())
        && delayed.as_ref().is_some_and(|delayed| delayed.late_since.is_none())
        && none(&schedules, |one| one.state == ScheduleStanding::Late)
        && none(&redrives, |one| one.state == RedriveStanding::Late)
        && takes
        && handlers.iter().all(|handler| handler.state.serves())
        && ledgers.iter().all(works)
        && outboxes.iter().all(OutboxStatus::serves);
    MeshStatus {
        mesh: plan.mesh.clone(),
        serves,
        handlers,
        ledgers,
        outboxes,
        delayed,
        schedules,
        redrives,
        orphans,
        hosts,
        unknown: remarks.unknown,
        warnings: remarks.warnings,
    }
}

/// Whether it is known that there is none of these.
fn none<T>(all: &Option<Vec<T>>, these: impl Fn(&T) -> bool) -> bool {
    all.as_ref().is_some_and(|all| !all.iter().any(these))
}

/// What a person should know besides the figures.
#[derive(Debug, Default)]
pub struct Remarks {
    pub unknown: Vec<UnknownJson>,
    pub warnings: Vec<String>,
}

impl Remarks {
    /// What was asked for; an error is remarked.
    fn known<T>(&mut self, field: UnknownField, asked: Result<T, impl Display>) -> Option<T> {
        let remark = |error| self.unknown.push(field.because(format!("{error:#}")));
        asked.map_err(remark).ok()
    }
}

/// What is known of all handlers; `None`: it is not known.
struct HandlersKnown<'a> {
    hosts: Option<&'a [Value]>,
    ledgers: &'a [LedgerStatus],
    dead: Option<&'a BTreeMap<String, u64>>,
    pauses: Option<&'a Pauses>,
    tried: Option<&'a BTreeMap<String, Vec<EventId>>>,
}

async fn handlers(
    connection: &Connection,
    plan: &Plan,
    all: &HandlersKnown<'_>,
    mut told: impl FnMut(&HandlerStatus) + Send,
) -> Vec<HandlerStatus> {
    let hosts = all.hosts.unwrap_or_default();
    let mut by_name: HashMap<&str, Vec<&Value>> = HashMap::new();
    for endpoint in endpoints(hosts) {
        let name = endpoint["name"].as_str().unwrap_or_default();
        by_name.entry(name).or_default().push(endpoint);
    }
    let mut differences = micro::settings::differences(hosts);
    let mut asked = Vec::new();
    for handler in &plan.handlers {
        let name = handler.name.as_str();
        let hosts = handler::Hosts {
            any: all.hosts.map(|hosts| !hosts.is_empty()),
            endpoints: by_name.get(name).map_or(&[], Vec::as_slice),
        };
        let known = handler::Known {
            ledger: all.ledgers.iter().find(|l| Some(&l.ledger) == handler.ledger.as_ref()),
            differs: differences.remove(name),
            dead: all.dead.map(|dead| dead.get(name).copied().unwrap_or(0)),
            paused: match all.pauses {
                Some(pauses) => pauses.get(name).cloned(),
                None => handler::obeyed(hosts.endpoints),
            },
            tried: all.tried.map(|tried| tried.get(name).map_or(&[][..], Vec::as_slice)),
        };
        asked.push(handler::stand(connection, handler, hosts, known));
    }
    let mut asked = stream::iter(asked).buffered(AT_ONCE);
    let mut handlers = Vec::new();
    while let Some(handler) = asked.next().await {
        told(&handler);
        handlers.push(handler);
    }
    handlers
}

/// How many dead letters each handler has, and how they stand with its redrive. `None`: what keeps them from being counted is
/// remarked.
pub async fn dead_letters(connection: &Connection, plan: &Plan, remarks: &mut Remarks) -> Option<LetterCounts> {
    let dead = connection.stream(DEAD).await;
    let Some(dead) = remarks.known(UnknownField::Dead, dead)? else {
        return Some(LetterCounts::default());
    };
    remarks.warnings.extend(retention::warnings(&dead, plan.mesh_bytes_max));
    let counted = letters(connection, plan).await;
    let (counts, unread) = remarks.known(UnknownField::Dead, counted)?;
    remarks.warnings.extend(unread.told());
    Some(counts)
}

/// Consumers of this mesh whose handler no host serves.
async fn orphans_without_host(
    connection: &Connection,
    plan: &Plan,
    hosts: Option<&[Value]>,
    remarks: &mut Remarks,
) -> Option<Vec<Orphan>> {
    // Another configuration's handler, which a host serves, is no orphan.
    let hosts = hosts?;
    let mut orphans = remarks.known(UnknownField::Orphans, orphans(connection, plan).await)?;
    let served = |orphan: &Orphan| endpoints(hosts).any(|endpoint| endpoint["name"] == orphan.handler.as_str());
    orphans.retain(|orphan| !served(orphan));
    Some(orphans)
}

async fn delayed_events(connection: &Connection) -> Result<DelayedStatus, broker::Error> {
    let (waiting, due) = delayed::waiting(connection).await?;
    let oldest_due = match due {
        0 => None,
        _ => delayed::oldest_due(connection).await?,
    };
    let late = oldest_due.filter(|at| now_ms().saturating_sub(*at) > ledger::LATE_MS);
    Ok(DelayedStatus {
        waiting,
        due,
        late_since: late.map(rfc3339),
    })
}

/// By handler: how many dead letters it has, and how they stand with its redrive.
pub type LetterCounts = (BTreeMap<String, u64>, BTreeMap<String, RedriveTally>);

async fn letters(connection: &Connection, plan: &Plan) -> Result<(LetterCounts, Unread), broker::Error> {
    let (mut counts, mut tallies) = LetterCounts::default();
    let now = now_ms();
    let count = |letter: crate::mesh_streams::dead_letter::Letter| {
        let handler = letter.id().split('.').next().unwrap_or_default().to_owned();
        *counts.entry(handler).or_insert(0) += 1;
        redrive::add(&mut tallies, plan, &letter, now);
    };
    let unread = select::each(connection, &Filter::default(), false, count).await?;
    Ok(((counts, tallies), unread))
}

/// Consumers of this mesh whose handler is not in the configuration.
async fn orphans(connection: &Connection, plan: &Plan) -> Result<Vec<Orphan>, broker::Error> {
    let mut streams: Vec<&str> = plan.handlers.iter().map(|h| h.stream.as_str()).collect();
    streams.extend(plan.streams.iter().map(|s| s.name.as_str()));
    streams.sort_unstable();
    streams.dedup();
    let known: HashSet<(&str, &str)> = plan
        .handlers
        .iter()
        .map(|h| (h.name.as_str(), h.consumer.as_str()))
        .collect();
    let mut found = Vec::new();
    for stream in streams {
        if connection.stream(stream).await?.is_none() {
            continue;
        }
        for consumer in connection.consumers(stream).await? {
            let metadata = &consumer["config"]["metadata"];
            let (Some(mesh), Some(handler)) = (metadata[META_MESH].as_str(), metadata[META_HANDLER].as_str()) else {
                continue;
            };
            let name = consumer["name"].as_str().unwrap_or_default();
            if mesh == plan.mesh && !known.contains(&(handler, name)) {
                found.push(Orphan {
                    stream: stream.to_owned(),
                    consumer: name.to_owned(),
                    handler: handler.to_owned(),
                });
            }
        }
    }
    Ok(found)
}
