//! `jetmesh status`: asks NATS, and the hosts that run, how each handler and each ledger stands. What cannot be asked is
//! said where it belongs, and hides nothing else.

mod handler;
mod ledger;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};

use super::args::Status;
use super::table::{self, Narrow};
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
use crate::message::clock::{self, now_ms};
use crate::message::{parse_rfc3339, rfc3339};
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
    let dead = connection.stream(DEAD).await;
    match &dead {
        Ok(Some(dead)) => warnings.extend(retention::warnings(dead, plan.mesh_bytes_max)),
        Ok(None) => {}
        Err(error) => warnings.push(format!("dead letters cannot be counted: {error}")),
    }
    let dead = match dead {
        Ok(Some(_)) => {
            let counted = or_warning(letters(&connection).await, &mut warnings);
            let (counts, unread) = counted.unwrap_or_default();
            warnings.extend(unread.told());
            counts
        }
        Ok(None) | Err(_) => BTreeMap::new(),
    };
    let mut ledgers = Vec::new();
    for name in plan.ledgers() {
        ledgers.push(ledger::stand(&connection, plan, name, &hosts).await);
    }
    let tried = match attempts::by_handler(&connection).await {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => None,
        tried => or_warning(tried, &mut warnings),
    };
    let mut endpoints: HashMap<&str, Vec<&Value>> = HashMap::new();
    for endpoint in hosts.iter().filter_map(|host| host["endpoints"].as_array()).flatten() {
        let name = endpoint["name"].as_str().unwrap_or_default();
        endpoints.entry(name).or_default().push(endpoint);
    }
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
    let mut orphans = or_warning(orphans(&connection, plan).await, &mut warnings).unwrap_or_default();
    // Another configuration's handler, which a host serves, is no orphan.
    orphans.retain(|orphan| {
        orphan["handler"]
            .as_str()
            .is_none_or(|name| !endpoints.contains_key(name))
    });
    let (waiting, due) = or_warning(delayed::waiting(&connection).await, &mut warnings).unwrap_or_default();
    let oldest_due = match due {
        0 => None,
        _ => or_warning(delayed::oldest_due(&connection).await, &mut warnings).flatten(),
    };
    let late = oldest_due.filter(|at| now_ms().saturating_sub(*at) > ledger::LATE_MS);
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
        print(plan, &hosts, &handlers, &ledgers);
        print_orphans(&orphans);
        warnings.iter().for_each(|warning| println!("warning: {warning}"));
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
    Ok(if serves { OK } else { UNSERVED })
}

fn or_warning<T>(asked: Result<T, broker::Error>, warnings: &mut Vec<String>) -> Option<T> {
    asked.map_err(|error| warnings.push(error.to_string())).ok()
}

fn print(plan: &Plan, hosts: &[Value], handlers: &[Value], ledgers: &[Value]) {
    let names: Vec<&str> = hosts.iter().filter_map(|h| h["id"].as_str()).collect();
    match names.as_slice() {
        [] => println!("mesh {}: no host answers", plan.mesh),
        names => println!("mesh {}: {} host(s) {}", plan.mesh, names.len(), names.join(", ")),
    }
    let columns = [
        "handler",
        "state",
        "pending",
        "in_flight",
        "retrying",
        "decided",
        "dead",
        "module",
    ];
    let rows: Vec<Vec<String>> = handlers
        .iter()
        .map(|h| columns.iter().map(|column| text(&h[*column])).collect())
        .collect();
    let header = [
        "HANDLER",
        "STATE",
        "PENDING",
        "IN FLIGHT",
        "RETRYING",
        "DECIDED",
        "DEAD",
        "MODULE",
    ];
    let narrow = Narrow {
        leave_out: &[4, 5],
        cut: &[0],
    };
    table::print_narrow(&header, &rows, &narrow);
    for handler in handlers {
        let name = text(&handler["handler"]);
        if let Some(why) = handler["why"].as_str() {
            println!(
                "{name} is {}{}: {why}",
                text(&handler["state"]),
                since(&handler["since"])
            );
        }
        if let Some(modules) = handler["modules"].as_array().filter(|modules| modules.len() > 1) {
            let of = |one: &Value| {
                let since = since(&one["since"]);
                format!("{} on {} host(s){since}", text(&one["module"]), one["hosts"])
            };
            let all: Vec<String> = modules.iter().map(of).collect();
            println!("{name} is served with {} modules: {}", all.len(), all.join(", "));
        }
        if let Some(differ) = handler["settings_differ"].as_object() {
            let list = |key: &str| {
                let all = differ[key].as_array().into_iter().flatten();
                all.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
            };
            println!(
                "{name} is served with other settings by {} than by {}: {}; give all hosts the same configuration",
                list("hosts"),
                text(&differ["than"]),
                list("keys")
            );
        }
        for one in handler["modules_not_taken"].as_array().into_iter().flatten() {
            let (since, why) = (since(&one["since"]), text(&one["why"]));
            println!("{name} is served with the module it had{since}; what its file has now is not taken up: {why}");
        }
        if let Some(note) = handler["note"].as_str() {
            println!("{name}: {note}");
        }
    }
    for ledger in ledgers {
        let name = text(&ledger["ledger"]);
        if let Some(why) = ledger["why"].as_str() {
            println!(
                "ledger {name} is {}{}: {why}",
                text(&ledger["state"]),
                since(&ledger["since"])
            );
        }
        let relay = &ledger["relay"];
        if let Some(why) = relay["why"].as_str() {
            let waits = match relay["waiting"].as_u64() {
                None => String::new(),
                Some(waiting) => format!(", {waiting} consequence message(s) wait{}", since(&relay["oldest"])),
            };
            println!("relay of {name} is {}{waits}: {why}", text(&relay["state"]));
        }
        let blocked = relay["blocked"].as_array().into_iter().flatten();
        for one in blocked.filter(|one| one["waiting"] == 0) {
            let (target, since, why) = (text(&one["target"]), since(&one["since"]), text(&one["why"]));
            println!(
                "relay of {name}: {target} takes nothing{since}: {why}; {} event(s) became dead letters, and none waits now",
                text(&one["letters"])
            );
        }
        if let Some(left_out) = relay["left_out"].as_object() {
            let of = |key: &str| text(&left_out[key]);
            println!(
                "relay of {name} has left out {} message(s) of stream KV_{name} that cannot be parsed, and that the \
                 mesh has not written; the last is {}: {}",
                of("count"),
                of("sequence"),
                of("why")
            );
        }
    }
    for host in hosts {
        let (id, data) = (text(&host["id"]), &host["data"]);
        if let Some(apart) = data["clock_ahead_ms"].as_i64().and_then(clock::difference) {
            println!("host {id}: its clock is {apart} that of the NATS server; set it right, for instance with NTP");
        }
        if let Some(lost) = data["log_lines_lost"].as_u64().filter(|lost| *lost > 0) {
            println!("host {id} has lost {lost} log line(s): standard error took none");
        }
        for told in data["panics"].as_array().into_iter().flatten() {
            let (task, count) = (text(&told["task"]), text(&told["count"]));
            println!(
                "host {id}: {task} has panicked {count} time(s), a defect of jetmesh: {}",
                text(&told["last"])
            );
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Since when, if that is known.
fn since(at: &Value) -> String {
    let at = at.as_str().and_then(parse_rfc3339);
    at.map_or_else(String::new, |at| format!(" (since {})", in_time(at, now_ms())))
}

fn print_orphans(orphans: &[Value]) {
    for orphan in orphans {
        let (stream, consumer) = (text(&orphan["stream"]), text(&orphan["consumer"]));
        println!(
            "orphan: consumer {consumer} on stream {stream} belongs to handler {}, which is not in the configuration; \
             remove it with `nats consumer rm {stream} {consumer}`",
            text(&orphan["handler"])
        );
    }
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
