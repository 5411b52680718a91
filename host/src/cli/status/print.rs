//! What `jetmesh status` prints for people: a table of the handlers, and a line for each thing that a person should know.

use std::fmt::Display;

use serde::Serialize;
use serde_json::Value;

use crate::cli::redrive;
use crate::cli::table::{self, Narrow};
use crate::cli::text::{in_time, span};
use crate::event::clock::{self, now_ms};
use crate::event::parse_rfc3339;
use crate::report::schedule::ScheduleJson;
use crate::report::status::json::{DelayedStatus, HandlerStatus, LedgerStatus, MeshStatus, Orphan, UnknownJson};

/// Without module and decided it fits 80 columns.
const NARROW: Narrow<'_> = Narrow {
    leave_out: &[2, 8, 6],
    cut: &[0],
};
/// A relay's lag is told from here on.
const LAG_MS: u64 = 1000;

/// From this age on, a line tells how old the oldest event of a handler is.
const OLD_MS: u64 = 60_000;

pub fn print(status: &MeshStatus) {
    let names = |hosts: &Vec<Value>| {
        let names: Vec<&str> = hosts.iter().filter_map(|host| host["id"].as_str()).collect();
        format!("{} host(s) {}", names.len(), names.join(", "))
    };
    let hosts = match &status.hosts {
        None => "it is not known which hosts there are".to_owned(),
        Some(hosts) if hosts.is_empty() => "no host answers".to_owned(),
        Some(hosts) => names(hosts),
    };
    println!("mesh {}: {hosts}", status.mesh);
    let rows: Vec<Vec<String>> = status.handlers.iter().map(row).collect();
    let header = [
        "HANDLER",
        "STATE",
        "MODULE",
        "DONE/S",
        "PENDING",
        "OLDEST",
        "IN FLIGHT",
        "RETRYING",
        "DECIDED",
        "DEAD",
    ];
    table::print_narrow(&header, &rows, &NARROW);
    let print = |lines: Vec<String>| lines.iter().for_each(|line| println!("{line}"));
    print(of_handlers_and_ledgers(status));
    super::outbox::print(&status.outboxes);
    print(of_the_rest(status));
    redrive::tell(status.redrives.as_deref().unwrap_or_default());
}

/// A line for each thing that a person should know of the handlers and ledgers.
pub fn of_handlers_and_ledgers(status: &MeshStatus) -> Vec<String> {
    let mut out = Vec::new();
    for one in &status.handlers {
        handler(one, &status.ledgers, &mut out);
    }
    for one in &status.ledgers {
        ledger(one, &mut out);
    }
    out
}

/// The same of one handler.
pub fn of_handler(status: &MeshStatus, one: &HandlerStatus) -> Vec<String> {
    let mut out = Vec::new();
    handler(one, &status.ledgers, &mut out);
    out
}

/// The same of hosts, consumers, delayed events and schedules.
pub fn of_the_rest(status: &MeshStatus) -> Vec<String> {
    let mut out = Vec::new();
    for one in status.hosts.iter().flatten() {
        host(one, &mut out);
    }
    for one in status.orphans.iter().flatten() {
        orphan(one, &mut out);
    }
    let unknown = |one: &UnknownJson| format!("{} is not known: {}", one.what, one.why);
    out.extend(status.unknown.iter().map(unknown));
    out.extend(status.warnings.iter().map(|warning| format!("warning: {warning}")));
    if let Some(status) = &status.delayed {
        delayed(status, &mut out);
    }
    schedules(status.schedules.as_deref().unwrap_or_default(), &mut out);
    out
}

/// One line for those that are as they should be, and one for each other.
fn schedules(all: &[ScheduleJson], out: &mut Vec<String>) {
    let usual = |one: &&ScheduleJson| one.why.is_none();
    let next = all.iter().filter(usual).filter_map(|one| one.next.as_deref());
    match (all.iter().filter(usual).count(), next.min()) {
        (0, _) => {}
        (count, None) => out.push(format!("schedules: {count} over")),
        (count, Some(next)) => {
            let at = parse_rfc3339(next).map_or_else(String::new, |at| format!(" ({})", in_time(at, now_ms())));
            out.push(format!("schedules: {count}; the next one is due at {next}{at}"));
        }
    }
    for one in all {
        if let Some(why) = &one.why {
            out.push(format!("schedule {} is {}: {why}", one.schedule, one.state.word()));
        }
    }
}

fn row(status: &HandlerStatus) -> Vec<String> {
    vec![
        status.handler.clone(),
        word(&status.state),
        status.module.clone().unwrap_or_else(|| "-".to_owned()),
        per_second(status.rate.map(|rate| rate.done)),
        known(status.pending),
        oldest(status),
        known(status.in_flight),
        known(status.retrying),
        decided(status),
        known(status.dead),
    ]
}

fn handler(status: &HandlerStatus, ledgers: &[LedgerStatus], out: &mut Vec<String>) {
    let name = &status.handler;
    if let Some(why) = &status.why {
        let since = since(status.since.as_deref());
        // The handlers of a ledger share its reason, which may be long.
        let ledger = ledgers.iter().find(|ledger| ledger.why.as_ref() == Some(why));
        let why = ledger.map_or_else(
            || why.clone(),
            |ledger| format!("ledger {} is stopped, see below", ledger.ledger),
        );
        out.push(format!("{name} is {}{since}: {why}", word(&status.state)));
    }
    if let Some(pause) = &status.paused {
        out.push(format!(
            "{name} is paused{} {}; `jetmesh resume {name}` resumes it",
            since(Some(&pause.since)),
            pause.told()
        ));
    }
    for one in &status.circuits {
        let next = one["next_probe"].as_str().and_then(parse_rfc3339);
        let next = next.filter(|at| *at > now_ms());
        let next = next.map_or_else(|| "when an event comes".to_owned(), |at| in_time(at, now_ms()));
        out.push(format!(
            "{name}: its circuit on host {} is open{}: {}; the next probe is {next}, {} failed",
            text(&one["host"]),
            since(one["since"].as_str()),
            text(&one["why"]),
            text(&one["probes"])
        ));
    }
    modules(status, out);
    let age = status.oldest.as_deref().and_then(parse_rfc3339);
    if let Some(age) = age.map(|at| now_ms().saturating_sub(at)).filter(|age| *age >= OLD_MS) {
        out.push(format!(
            "{name}: its oldest event that is not settled was stored {} ago",
            span(age)
        ));
    }
    if let Some(removed @ 1..) = status.removed {
        out.push(format!(
            "{name}: stream {} has removed {removed} message(s) before they were delivered, by its limits or by a person; they \
             are lost without a dead letter",
            status.stream
        ));
    }
    if let Some(note) = &status.note {
        out.push(format!("{name}: {note}"));
    }
}

/// Hosts that serve a handler with several modules, or with other settings, or not with what its file has.
fn modules(status: &HandlerStatus, out: &mut Vec<String>) {
    let name = &status.handler;
    if status.modules.len() > 1 {
        let all = status.modules.iter().map(|one| {
            let since = since(one.since.as_deref());
            format!("{} on {} host(s){since}", one.module, one.hosts)
        });
        let all: Vec<String> = all.collect();
        out.push(format!(
            "{name} is served with {} modules: {}",
            all.len(),
            all.join(", ")
        ));
    }
    if let Some(differ) = &status.settings_differ {
        let list = |all: &std::collections::BTreeSet<String>| all.iter().cloned().collect::<Vec<_>>().join(", ");
        out.push(format!(
            "{name} is served with other settings by {} than by {}: {}; give all hosts the same configuration",
            list(&differ.hosts),
            differ.than,
            list(&differ.keys)
        ));
    }
    out.extend(status.rollout.as_ref().map(|rollout| rollout.told(name)));
    for one in &status.modules_not_taken {
        let (since, why) = (since(one["since"].as_str()), text(&one["why"]));
        out.push(format!(
            "{name} is served with the module it had{since}; a newer module is not taken up: {why}"
        ));
    }
}

fn ledger(status: &LedgerStatus, out: &mut Vec<String>) {
    let name = &status.ledger;
    if let Some(why) = &status.why {
        let since = since(status.since.as_deref());
        out.push(format!("ledger {name} is {}{since}: {why}", word(&status.state)));
    }
    let relay = &status.relay;
    if let Some(why) = &relay.why {
        let waits = match relay.waiting {
            None => String::new(),
            Some(waiting) => format!(
                ", {waiting} consequence message(s) wait{}",
                since(relay.oldest.as_deref())
            ),
        };
        out.push(format!("relay of {name} is {}{waits}: {why}", word(&relay.state)));
    }
    if let (None, Some(waiting), Some(lag)) = (&relay.why, relay.waiting, relay.lag_ms)
        && lag >= LAG_MS
    {
        out.push(format!(
            "relay of {name}: {waiting} consequence message(s) wait, the oldest for {}",
            span(lag)
        ));
    }
    for one in relay.blocked.iter().filter(|one| one["waiting"] == 0) {
        let (target, since, why) = (text(&one["target"]), since(one["since"].as_str()), text(&one["why"]));
        out.push(format!(
            "relay of {name}: {target} takes nothing{since}: {why}; {} event(s) became dead letters, and none waits now",
            text(&one["letters"])
        ));
    }
    if let Some(left_out) = &relay.left_out {
        let of = |key: &str| text(&left_out[key]);
        out.push(format!(
            "relay of {name} has left out {} message(s) of stream KV_{name} that cannot be parsed, and that the \
             mesh has not written; the last is {}: {}",
            of("count"),
            of("sequence"),
            of("why")
        ));
    }
}

fn host(host: &Value, out: &mut Vec<String>) {
    let (id, data) = (text(&host["id"]), &host["data"]);
    if let Some(apart) = data["clock_ahead_ms"].as_i64().and_then(clock::difference) {
        out.push(format!(
            "host {id}: its clock is {apart} that of the NATS server; set it right, for instance with NTP"
        ));
    }
    if let Some(lost) = data["log_lines_lost"].as_u64().filter(|lost| *lost > 0) {
        out.push(format!(
            "host {id} has lost {lost} log line(s): standard error took none"
        ));
    }
    for told in data["panics"].as_array().into_iter().flatten() {
        let (task, count) = (text(&told["task"]), text(&told["count"]));
        out.push(format!(
            "host {id}: {task} has panicked {count} time(s), a defect of jetmesh: {}",
            text(&told["last"])
        ));
    }
}

fn orphan(orphan: &Orphan, out: &mut Vec<String>) {
    let Orphan {
        stream,
        consumer,
        handler,
    } = orphan;
    out.push(format!(
        "orphan: consumer {consumer} on stream {stream} belongs to handler {handler}, which is not in the configuration; \
         remove it with `nats consumer rm {stream} {consumer}`"
    ));
}

fn delayed(status: &DelayedStatus, out: &mut Vec<String>) {
    if let Some(at) = status.late_since.as_deref().and_then(parse_rfc3339) {
        out.push(format!(
            "delayed events and timers are late: one has been due since {}; no host publishes it, or its host's log says why not",
            in_time(at, now_ms())
        ));
    }
    match (status.waiting, status.due) {
        (0, 0) => {}
        (waiting, 0) => out.push(format!("delayed events and timers: {waiting} wait for their time")),
        (waiting, due) => {
            out.push(format!(
                "delayed events and timers: {waiting} wait for their time, {due} are due and not published yet"
            ));
        }
    }
}

/// The word that the JSON has for a state.
pub fn word(state: &impl Serialize) -> String {
    text(&serde_json::to_value(state).expect("a state serialises"))
}

/// What is not known is no number.
pub fn known(value: Option<impl Display>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

/// A rate, as people read it.
pub fn per_second(rate: Option<f64>) -> String {
    match rate {
        None => known(rate),
        Some(0.0) => "0".to_owned(),
        Some(rate) if rate < 10.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

/// How old the oldest event is that is not settled.
fn oldest(status: &HandlerStatus) -> String {
    match (status.oldest.as_deref().and_then(parse_rfc3339), status.pending) {
        (Some(at), _) => span(now_ms().saturating_sub(at)),
        (None, Some(_)) => "-".to_owned(),
        (None, None) => known(None::<u64>),
    }
}

/// Without a ledger nothing counts decisions.
pub fn decided(status: &HandlerStatus) -> String {
    status.decided.map_or_else(|| "-".to_owned(), known)
}

/// What a host has told.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// For how long, if that is known.
fn since(at: Option<&str>) -> String {
    let at = at.and_then(parse_rfc3339);
    at.map_or_else(String::new, |at| {
        format!(" (for {} so far)", span(now_ms().saturating_sub(at)))
    })
}
