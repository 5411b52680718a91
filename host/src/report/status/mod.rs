//! How each handler, ledger, relay and outbox stands, as NATS and the hosts tell it. A question that fails is reported where it
//! belongs, and hides nothing else.

mod handler;
pub mod json;
mod ledger;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use self::json::{DelayedStatus, HandlerStatus, LedgerState, LedgerStatus, MeshStatus, Orphan, RelayStanding};
use super::outbox::{self, OutboxStatus};
use super::redrive::{self, RedriveJson, RedriveStanding};
use super::schedule::{self, ScheduleStanding};
use crate::broker::consumer::{META_HANDLER, META_MESH};
use crate::broker::error::Code;
use crate::broker::provision::DEAD;
use crate::broker::{self, Connection, limits};
use crate::dlq::select::{self, Unread};
use crate::dlq::{Filter, retention};
use crate::event::clock::now_ms;
use crate::event::{EventId, rfc3339};
use crate::mesh_streams::attempts;
use crate::mesh_streams::delayed;
use crate::mesh_streams::pauses::{self, Pauses};
use crate::micro;
use crate::micro::told::endpoints;
use crate::plan::Plan;
use crate::redrive::rule::RedriveTally;

/// Asks NATS and the hosts.
pub async fn look(plan: &Plan) -> Result<MeshStatus, broker::Error> {
    let connection = broker::open_guarded(&plan.nats, "jetmesh status").await?;
    Ok(look_over(&connection, plan).await)
}

/// The same over a connection that is there.
pub async fn look_over(connection: &Connection, plan: &Plan) -> MeshStatus {
    let mut warnings = Vec::new();
    let counts = dead_letters(connection, plan, &mut warnings).await;
    look_with(connection, plan, counts, warnings).await
}

/// The same with dead letters as they were counted before, and what was to be warned of then.
pub async fn look_with(
    connection: &Connection,
    plan: &Plan,
    (dead, tallies): LetterCounts,
    mut warnings: Vec<String>,
) -> MeshStatus {
    let asked = std::time::Instant::now();
    let hosts = micro::hosts(connection, &plan.mesh, "STATS").await;
    let denied = micro::denied(connection, &plan.mesh, "STATS", asked);
    warnings.splice(0..0, denied);
    let mut ledgers = Vec::new();
    for name in plan.ledgers() {
        ledgers.push(ledger::stand(connection, plan, name, &hosts).await);
    }
    let tried = match attempts::by_handler(connection).await {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => None,
        tried => or_warning(tried, &mut warnings),
    };
    let pauses = or_warning(pauses::load(connection, now_ms()).await, &mut warnings).unwrap_or_default();
    let known = (&dead, &pauses);
    let handlers = handlers(connection, plan, &hosts, &ledgers, known, tried.as_ref()).await;
    let near = or_warning(limits::near(connection, plan).await, &mut warnings);
    warnings.extend(near.unwrap_or_default());
    let orphans = orphans_without_host(connection, plan, &hosts, &mut warnings).await;
    let mut outboxes = Vec::new();
    for one in &plan.outboxes {
        outboxes.push(outbox::stand(connection, one, &hosts).await);
    }
    let delayed = delayed_events(connection, &mut warnings).await;
    let (schedules, unread) = or_warning(schedule::all(connection, plan).await, &mut warnings).unwrap_or_default();
    let redrives = redrives(connection, plan, &tallies, &mut warnings).await;
    let late = schedules.iter().any(|one| one.state == ScheduleStanding::Late)
        || redrives.iter().any(|one| one.state == RedriveStanding::Late);
    warnings.extend(unread);
    let works =
        |ledger: &LedgerStatus| ledger.state == LedgerState::Works && ledger.relay.state == RelayStanding::Works;
    let serves = !hosts.is_empty()
        && delayed.late_since.is_none()
        && !late
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
        warnings,
    }
}

async fn handlers(
    connection: &Connection,
    plan: &Plan,
    hosts: &[Value],
    ledgers: &[LedgerStatus],
    (dead, pauses): (&BTreeMap<String, u64>, &Pauses),
    tried: Option<&BTreeMap<String, Vec<EventId>>>,
) -> Vec<HandlerStatus> {
    let mut by_name: HashMap<&str, Vec<&Value>> = HashMap::new();
    for endpoint in endpoints(hosts) {
        let name = endpoint["name"].as_str().unwrap_or_default();
        by_name.entry(name).or_default().push(endpoint);
    }
    let mut differences = micro::settings::differences(hosts);
    let mut handlers = Vec::new();
    for handler in &plan.handlers {
        let name = handler.name.as_str();
        let told = handler::Hosts {
            any: !hosts.is_empty(),
            endpoints: by_name.get(name).map_or(&[], Vec::as_slice),
        };
        let known = handler::Known {
            ledger: ledgers.iter().find(|l| Some(&l.ledger) == handler.ledger.as_ref()),
            differs: differences.remove(name),
            dead: dead.get(name).copied().unwrap_or(0),
            paused: pauses.get(name),
            tried: tried.map(|tried| tried.get(name).map_or(&[][..], Vec::as_slice)),
        };
        handlers.push(handler::stand(connection, handler, &told, known).await);
    }
    handlers
}

async fn redrives(
    connection: &Connection,
    plan: &Plan,
    tallies: &BTreeMap<String, RedriveTally>,
    warnings: &mut Vec<String>,
) -> Vec<RedriveJson> {
    let all = redrive::all(connection, plan, tallies, now_ms()).await;
    all.unwrap_or_else(|error| {
        warnings.push(error.to_string());
        Vec::new()
    })
}

/// How many dead letters each handler has, and how they stand with its redrive. What keeps them from being counted is a warning.
pub async fn dead_letters(connection: &Connection, plan: &Plan, warnings: &mut Vec<String>) -> LetterCounts {
    let dead = connection.stream(DEAD).await;
    match &dead {
        Ok(Some(dead)) => warnings.extend(retention::warnings(dead, plan.mesh_bytes_max)),
        Ok(None) => {}
        Err(error) => warnings.push(format!("dead letters cannot be counted: {error}")),
    }
    match dead {
        Ok(Some(_)) => {
            let counted = or_warning(letters(connection, plan).await, warnings);
            let (counts, unread) = counted.unwrap_or_default();
            warnings.extend(unread.told());
            counts
        }
        Ok(None) | Err(_) => LetterCounts::default(),
    }
}

/// Consumers of this mesh whose handler no host serves.
async fn orphans_without_host(
    connection: &Connection,
    plan: &Plan,
    hosts: &[Value],
    warnings: &mut Vec<String>,
) -> Vec<Orphan> {
    let mut orphans = or_warning(orphans(connection, plan).await, warnings).unwrap_or_default();
    // Another configuration's handler, which a host serves, is no orphan.
    let served = |orphan: &Orphan| endpoints(hosts).any(|endpoint| endpoint["name"] == orphan.handler.as_str());
    orphans.retain(|orphan| !served(orphan));
    orphans
}

async fn delayed_events(connection: &Connection, warnings: &mut Vec<String>) -> DelayedStatus {
    let (waiting, due) = or_warning(delayed::waiting(connection).await, warnings).unwrap_or_default();
    let oldest_due = match due {
        0 => None,
        _ => or_warning(delayed::oldest_due(connection).await, warnings).flatten(),
    };
    let late = oldest_due.filter(|at| now_ms().saturating_sub(*at) > ledger::LATE_MS);
    DelayedStatus {
        waiting,
        due,
        late_since: late.map(rfc3339),
    }
}

fn or_warning<T>(asked: Result<T, broker::Error>, warnings: &mut Vec<String>) -> Option<T> {
    asked.map_err(|error| warnings.push(error.to_string())).ok()
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
