//! What `jetmesh status` prints for people: a table of the handlers, and a line for each thing that a person should know.

use serde_json::Value;

use super::super::table::{self, Narrow};
use super::super::text::in_time;
use crate::message::clock::{self, now_ms};
use crate::message::parse_rfc3339;
use crate::plan::Plan;

pub fn print(plan: &Plan, hosts: &[Value], handlers: &[Value], ledgers: &[Value]) {
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
    handlers.iter().for_each(handler);
    ledgers.iter().for_each(ledger);
    hosts.iter().for_each(host);
}

fn handler(handler: &Value) {
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

fn ledger(ledger: &Value) {
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

fn host(host: &Value) {
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

pub fn print_orphans(orphans: &[Value]) {
    for orphan in orphans {
        let (stream, consumer) = (text(&orphan["stream"]), text(&orphan["consumer"]));
        println!(
            "orphan: consumer {consumer} on stream {stream} belongs to handler {}, which is not in the configuration; \
             remove it with `nats consumer rm {stream} {consumer}`",
            text(&orphan["handler"])
        );
    }
}
