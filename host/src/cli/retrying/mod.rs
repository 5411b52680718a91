//! `jetmesh retrying`: what is between two attempts, and what a person does with it.

mod act;

use serde_json::Value;

use self::act::RetryingAct;
use super::dlq;
use super::pause::since;
use super::table::{self, Narrow};
use super::text::{in_time, json_line, span};
use super::{Args, Error, OK};
use crate::broker::kv::kv_stream;
use crate::broker::provision::ATTEMPTS;
use crate::broker::{self, Connection};
use crate::control::retrying;
use crate::event::clock::now_ms;
use crate::event::parse_rfc3339;
use crate::mesh_streams::attempts::AttemptRecord;
use crate::mesh_streams::pauses::{self, Pauses};
use crate::micro::{self, told};
use crate::plan::Plan;
use crate::report::next_due::NextDue;
use crate::report::retrying::RetryingJson;
pub use crate::report::retrying::state;

/// How many events a table shows if nothing is said.
const TABLE_LIMIT: usize = 100;

const NARROW: Narrow<'_> = Narrow {
    leave_out: &[3],
    cut: &[4],
};

/// List the events that failed and will be tried again: attempt, last error, time of the next attempt
///
/// An event is listed from its first failure until it is decided. Not listed: an event whose first attempt runs or waits,
/// which `jetmesh status` counts as in flight, and the replay of a dead letter, which `jetmesh trace` shows. An event that
/// was decided in the last minute can still be listed. `running on HOST` is what the host recorded before the attempt. If
/// this host has ended since, the server redelivers the event after `ack_wait`. Lines below the table count the events that
/// wait because no attempt of them can be recorded, and name the handlers that are paused: their events wait until
/// `jetmesh resume`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Retrying {
    #[command(subcommand)]
    pub act: Option<RetryingAct>,
    /// Only events of this handler
    #[arg(long, value_name = "NAME", value_parser = dlq::handler)]
    pub handler: Option<String>,
    /// List only the NUMBER events that are due next; 0: all [default: 100, with --json all]
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<usize>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub json: bool,
}

pub async fn run(args: &Args, asked: &Retrying) -> Result<u8, Error> {
    let loaded = args.look()?;
    let plan = &loaded.plan;
    let connection = broker::open_guarded(&plan.nats, "jetmesh retrying").await?;
    if connection.stream(&kv_stream(ATTEMPTS)).await?.is_none() {
        return Err(Error::Failed(format!(
            "there is no bucket {ATTEMPTS}: no host of this mesh has run here, or it was removed; a running host \
             creates it again within a minute"
        )));
    }
    if let Some(act) = &asked.act {
        return act::run(&connection, plan, act).await;
    }
    let limit = asked.limit.unwrap_or(if asked.json { 0 } else { TABLE_LIMIT });
    let now = now_ms();
    let mut next = NextDue::new(limit);
    let pauses = pauses::load(&connection, now).await?;
    let unreadable = retrying::each(&connection, plan, asked.handler.as_deref(), |record| {
        match asked.json && limit == 0 {
            true => println!("{}", json_of(plan, &record, &pauses)),
            false => next.add(record.next.clone().as_deref(), record),
        }
    });
    for why in unreadable.await? {
        note!("warning: {why}");
    }
    let count = next.count;
    let next = next.sorted();
    // What cannot be recorded is in no record.
    let mut hindered = hindered(&connection, plan, asked.handler.as_deref()).await;
    let wanted = |name: &&String| asked.handler.as_ref().is_none_or(|wanted| wanted == *name);
    let paused = pauses.iter().filter(|(name, _)| wanted(name));
    hindered.extend(paused.map(|(name, pause)| format!("{name} is paused {}", since(pause))));
    if asked.json {
        next.iter().for_each(|one| println!("{}", json_of(plan, one, &pauses)));
        hindered.iter().for_each(|line| note!("warning: {line}"));
        return Ok(OK);
    }
    if count == 0 {
        if hindered.is_empty() {
            println!("nothing is being retried");
        }
        hindered.iter().for_each(|line| println!("{line}"));
        return Ok(OK);
    }
    let rows = next.iter().map(|one| row(plan, one, now, &pauses));
    let rows: Vec<Vec<String>> = rows.collect();
    let header = ["ID", "ATTEMPT", "NEXT", "SUBJECT", "CODE", "LAST ERROR"];
    table::print_narrow(&header, &rows, &NARROW);
    if next.len() as u64 != count {
        println!("\nthe next {} of {count}; all of them with --limit 0", next.len());
    }
    if !hindered.is_empty() {
        println!();
    }
    hindered.iter().for_each(|line| println!("{line}"));
    Ok(OK)
}

/// The events that cannot continue as the hosts report them, a line for each handler and reason.
async fn hindered(connection: &Connection, plan: &Plan, handler: Option<&str>) -> Vec<String> {
    let hosts = match micro::hosts(connection, &plan.mesh).await {
        Ok(hosts) => hosts,
        Err(error) => {
            note!("warning: what keeps events from continuing is not known: {error}");
            return Vec::new();
        }
    };
    let mut lines = Vec::new();
    for (name, all) in told::hindered_by_handler(&hosts) {
        if handler.is_none_or(|wanted| wanted == name) {
            lines.extend(all.iter().map(|one| degraded(name, one)));
        }
    }
    lines
}

/// A reason why some events of a handler cannot continue, and since when.
pub fn degraded(handler: &str, hindrance: &Value) -> String {
    let since = hindrance["since"].as_str().and_then(parse_rfc3339);
    let since = since.map_or_else(String::new, |since| {
        format!(" (for {})", span(now_ms().saturating_sub(since)))
    });
    format!("{handler} is degraded{since}: {}", told::hindrance(hindrance))
}

/// When the next attempt is due, in words.
pub fn next(record: &AttemptRecord, now: u64) -> String {
    match (state(record).1, record.next.as_deref().and_then(parse_rfc3339)) {
        (Some(host), _) => format!("running on {host}"),
        (None, Some(due)) if due > now => format!("{}, {}", in_time(due, now), of_day(due, now)),
        (None, Some(due)) => format!("due since {}", of_day(due, now)),
        (None, None) => "unknown".to_owned(),
    }
}

/// A time without what is the same now: `14:03:22Z`, or with its date.
fn of_day(at: u64, now: u64) -> String {
    let (at, now) = (crate::event::rfc3339(at), crate::event::rfc3339(now));
    let seconds = at.split('.').next().unwrap_or(&at).to_owned();
    match seconds.split_once('T') {
        Some((day, time)) if now.starts_with(day) => format!("{time}Z"),
        _ => format!("{seconds}Z"),
    }
}

fn max(plan: &Plan, record: &AttemptRecord) -> Option<u32> {
    let handler = plan.handlers.iter().find(|h| h.name == record.handler)?;
    Some(handler.retry.max_attempts)
}

fn row(plan: &Plan, record: &AttemptRecord, now: u64, pauses: &Pauses) -> Vec<String> {
    let (failed, running) = state(record);
    let waits = running.is_none() && pauses.contains_key(&record.handler);
    let due = match (&record.given_up, waits) {
        (Some(_), _) => "given up".to_owned(),
        (None, true) => "when resumed".to_owned(),
        (None, false) => next(record, now),
    };
    let max = max(plan, record).map_or_else(|| "?".to_owned(), |max| max.to_string());
    vec![
        format!("{}.{}", record.handler, record.event),
        format!("{} of {max}", record.attempts),
        due,
        record.subject.clone(),
        failed.map(|f| f.code.clone()).unwrap_or_default(),
        failed.map(|f| f.message.clone()).unwrap_or_default(),
    ]
}

fn json_of(plan: &Plan, record: &AttemptRecord, pauses: &Pauses) -> String {
    let mut one = RetryingJson::of(record, max(plan, record));
    one.paused = pauses.contains_key(&record.handler);
    json_line(&one)
}
