//! `jetmesh status`: asks NATS, and the hosts that run, how each handler and each ledger stands. What cannot be asked is
//! said where it belongs, and hides nothing else.

mod handler;
mod ledger;
mod print;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};

use super::args::Status;
use super::text::in_time;
use super::{Args, Error, OK, UNSERVED};
use crate::attempts;
use crate::broker::consumer::{META_HANDLER, META_MESH};
use crate::broker::error::Code;
use crate::broker::provision::DEAD;
use crate::broker::{self, Connection, limits};
use crate::delayed;
use crate::dlq::select::{self, Unread};
use crate::dlq::{Filter, retention};
use crate::message::clock::now_ms;
use crate::message::rfc3339;
use crate::micro;
use crate::plan::Plan;

pub async fn run(args: &Args, status: &Status) -> Result<u8, Error> {
    let loaded = args.look()?;
    let plan = &loaded.plan;
    let connection = broker::open_guarded(&plan.nats, "jetmesh status").await?;
    let asked = std::time::Instant::now();
    let hosts = micro::hosts(&connection, &plan.mesh, "STATS").await;
    let mut warnings: Vec<String> = micro::denied(&connection, &plan.mesh, "STATS", asked)
        .into_iter()
        .collect();
    let dead = dead_letters(&connection, plan, &mut warnings).await;
    let mut ledgers = Vec::new();
    for name in plan.ledgers() {
        ledgers.push(ledger::stand(&connection, plan, name, &hosts).await);
    }
    let tried = match attempts::by_handler(&connection).await {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => None,
        tried => or_warning(tried, &mut warnings),
    };
    let endpoints = endpoints(&hosts);
    let differences = micro::settings::differences(&hosts);
    let mut handlers = Vec::new();
    for handler in &plan.handlers {
        let name = handler.name.as_str();
        let hosts = handler::Hosts {
            any: !hosts.is_empty(),
            endpoints: endpoints.get(name).map_or(&[], Vec::as_slice),
        };
        let ledger = ledgers
            .iter()
            .find(|l| l["ledger"].as_str() == handler.ledger.as_deref());
        let known = handler::Known {
            ledger,
            differs: differences.get(name),
            dead: dead.get(name).copied().unwrap_or(0),
            tried: tried
                .as_ref()
                .map(|tried| tried.get(name).map_or(&[][..], Vec::as_slice)),
        };
        handlers.push(handler::stand(&connection, handler, &hosts, known).await);
    }
    let near = or_warning(limits::near(&connection, plan).await, &mut warnings);
    warnings.extend(near.unwrap_or_default());
    let orphans = orphans_without_host(&connection, plan, &endpoints, &mut warnings).await;
    let (waiting, due, late) = delayed_events(&connection, &mut warnings).await;
    let serves = !hosts.is_empty()
        && late.is_none()
        && handlers.iter().all(|handler| handler["state"] == "serving")
        && ledgers
            .iter()
            .all(|ledger| ledger["state"] == "works" && ledger["relay"]["state"] == "works");
    if status.json {
        let body = json!({
            "mesh": plan.mesh,
            "serves": serves,
            "handlers": handlers,
            "ledgers": ledgers,
            "delayed": { "waiting": waiting, "due": due, "late_since": late.map(rfc3339) },
            "orphans": orphans,
            "hosts": hosts,
            "warnings": warnings,
        });
        println!("{body:#}");
    } else {
        print::print(plan, &hosts, &handlers, &ledgers);
        print::print_orphans(&orphans);
        warnings.iter().for_each(|warning| println!("warning: {warning}"));
        print_delayed(waiting, due, late);
    }
    Ok(if serves { OK } else { UNSERVED })
}

/// By handler, the hosts' reports of it.
fn endpoints(hosts: &[Value]) -> HashMap<&str, Vec<&Value>> {
    let mut endpoints: HashMap<&str, Vec<&Value>> = HashMap::new();
    for endpoint in hosts.iter().filter_map(|host| host["endpoints"].as_array()).flatten() {
        let name = endpoint["name"].as_str().unwrap_or_default();
        endpoints.entry(name).or_default().push(endpoint);
    }
    endpoints
}

/// How many dead letters each handler has. What keeps them from being counted is a warning.
async fn dead_letters(connection: &Connection, plan: &Plan, warnings: &mut Vec<String>) -> BTreeMap<String, u64> {
    let dead = connection.stream(DEAD).await;
    match &dead {
        Ok(Some(dead)) => warnings.extend(retention::warnings(dead, plan.mesh_bytes_max)),
        Ok(None) => {}
        Err(error) => warnings.push(format!("dead letters cannot be counted: {error}")),
    }
    match dead {
        Ok(Some(_)) => {
            let counted = or_warning(letters(connection).await, warnings);
            let (counts, unread) = counted.unwrap_or_default();
            warnings.extend(unread.told());
            counts
        }
        Ok(None) | Err(_) => BTreeMap::new(),
    }
}

/// Consumers of this mesh whose handler no host serves.
async fn orphans_without_host(
    connection: &Connection,
    plan: &Plan,
    endpoints: &HashMap<&str, Vec<&Value>>,
    warnings: &mut Vec<String>,
) -> Vec<Value> {
    let mut orphans = or_warning(orphans(connection, plan).await, warnings).unwrap_or_default();
    // Another configuration's handler, which a host serves, is no orphan.
    orphans.retain(|orphan| {
        orphan["handler"]
            .as_str()
            .is_none_or(|name| !endpoints.contains_key(name))
    });
    orphans
}

/// How many delayed events wait and are due, and since when one is due that should have been published, in milliseconds since
/// the Unix epoch.
async fn delayed_events(connection: &Connection, warnings: &mut Vec<String>) -> (u64, u64, Option<u64>) {
    let (waiting, due) = or_warning(delayed::waiting(connection).await, warnings).unwrap_or_default();
    let oldest_due = match due {
        0 => None,
        _ => or_warning(delayed::oldest_due(connection).await, warnings).flatten(),
    };
    let late = oldest_due.filter(|at| now_ms().saturating_sub(*at) > ledger::LATE_MS);
    (waiting, due, late)
}

/// Says how many delayed events there are.
fn print_delayed(waiting: u64, due: u64, late: Option<u64>) {
    if let Some(at) = late {
        println!(
            "delayed events are late: one has been due since {}; no host publishes it, or its host's log says why not",
            in_time(at, now_ms())
        );
    }
    match (waiting, due) {
        (0, 0) => {}
        (waiting, 0) => println!("delayed events: {waiting} wait for their time"),
        (waiting, due) => {
            println!("delayed events: {waiting} wait for their time, {due} are due and not published yet");
        }
    }
}

fn or_warning<T>(asked: Result<T, broker::Error>, warnings: &mut Vec<String>) -> Option<T> {
    asked.map_err(|error| warnings.push(error.to_string())).ok()
}

/// How many dead letters of each handler wait for a person.
async fn letters(connection: &Connection) -> Result<(BTreeMap<String, u64>, Unread), broker::Error> {
    let mut counts = BTreeMap::new();
    let count = |letter: crate::dead_letter::Letter| {
        let handler = letter.id().split('.').next().unwrap_or_default().to_owned();
        *counts.entry(handler).or_insert(0) += 1;
    };
    let unread = select::each(connection, &Filter::default(), false, count).await?;
    Ok((counts, unread))
}

/// Consumers of this mesh whose handler is not in the configuration.
async fn orphans(connection: &Connection, plan: &Plan) -> Result<Vec<Value>, broker::Error> {
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
                found.push(json!({ "stream": stream, "consumer": consumer["name"], "handler": handler }));
            }
        }
    }
    Ok(found)
}
