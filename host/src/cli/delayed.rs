//! `jetmesh delayed`: events that wait for their time, and what a person does with them.

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;

use super::audit::{actor, intent};
use super::dlq;
use super::table::{self, Narrow};
use super::text::{in_time, json_line};
use super::{Args, Error, FAILED, OK, ask};
use crate::broker;
use crate::control::delayed::{self, DelayedActed, DelayedEvent, DelayedOrder, LOOKED_MAX, is_delayed_id};
use crate::event::clock::now_ms;
use crate::event::parse_rfc3339;
use crate::plan::Plan;
use crate::report::next_due::NextDue;

/// How many events a table shows if nothing is said.
const TABLE_LIMIT: usize = 100;

const NARROW: Narrow<'_> = Narrow {
    leave_out: &[3],
    cut: &[2],
};

/// List the events that wait for their time: those that handlers emit for later, and timers of handlers
///
/// Timers of schedules are not listed: `jetmesh schedule` shows them.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DelayedCommand {
    #[command(subcommand)]
    act: Option<DelayedAct>,
    /// Only events that this handler has emitted
    #[arg(long, value_name = "NAME", value_parser = dlq::handler)]
    handler: Option<String>,
    /// List only the NUMBER events that are due next; 0: all [default: 100, with --json all]
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum DelayedAct {
    /// Publish events now, and not when they are due
    Now(DelayedNow),
    /// Cancel events: they are never published
    ///
    /// A timer of a handler is cancelled by its handler only, because the handler knows it by a key of its bucket.
    Cancel(DelayedCancel),
}

#[derive(Debug, clap::Args)]
struct DelayedNow {
    #[command(flatten)]
    what: DelayedSelection,
}

#[derive(Debug, clap::Args)]
struct DelayedCancel {
    /// Why, for the trace of the event and the audit
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: Option<String>,
    #[command(flatten)]
    what: DelayedSelection,
}

#[derive(Debug, clap::Args)]
struct DelayedSelection {
    /// IDs that `jetmesh delayed` prints: HANDLER.INCARNATION.SEQUENCE.NUMBER
    #[arg(required = true, value_name = "ID", value_parser = id)]
    ids: Vec<String>,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Print the result as JSON; requires --yes
    #[arg(long, requires = "yes")]
    json: bool,
}

fn id(text: &str) -> Result<String, String> {
    match is_delayed_id(text) {
        true => Ok(text.to_owned()),
        false => Err("not HANDLER.INCARNATION.SEQUENCE.NUMBER, as `jetmesh delayed` prints it".to_owned()),
    }
}

pub async fn run(args: &Args, asked: &DelayedCommand) -> Result<u8, Error> {
    let plan = args.look()?.plan;
    if let Some(act) = &asked.act {
        return self::act(&plan, act).await;
    }
    let connection = broker::open_guarded(&plan.nats, "jetmesh delayed").await?;
    let limit = asked.limit.unwrap_or(if asked.json { 0 } else { TABLE_LIMIT });
    let mut next = NextDue::new(limit);
    let see = |event: DelayedEvent| match asked.json && limit == 0 {
        true => println!("{}", json_line(&event)),
        false => next.add(Some(&event.due.clone()), event),
    };
    let more = delayed::each(&connection, asked.handler.as_deref(), see).await?;
    if more > 0 {
        note!("warning: {LOOKED_MAX} events were read, and {more} more wait; --handler reads those of one handler");
    }
    let count = next.count;
    let next = next.sorted();
    if asked.json {
        next.iter().for_each(|event| println!("{}", json_line(event)));
        return Ok(OK);
    }
    if count == 0 {
        println!("no event waits for its time");
        return Ok(OK);
    }
    let now = now_ms();
    let rows: Vec<Vec<String>> = next.iter().map(|event| row(event, now)).collect();
    table::print_narrow(&["ID", "DUE", "SUBJECT", "WHAT"], &rows, &NARROW);
    if next.len() as u64 != count {
        println!("\nthe next {} of {count}; all of them with --limit 0", next.len());
    }
    Ok(OK)
}

fn row(event: &DelayedEvent, now: u64) -> Vec<String> {
    let due = match parse_rfc3339(&event.due) {
        Some(due) if due > now => format!("{}, {}", in_time(due, now), event.due),
        _ => event.due.clone(),
    };
    let what = if event.timer { "timer" } else { "event" };
    vec![event.id.clone(), due, event.subject.clone(), what.to_owned()]
}

async fn act(plan: &Plan, act: &DelayedAct) -> Result<u8, Error> {
    let connection = broker::open(&plan.nats, "jetmesh delayed").await?;
    let actor = actor(&connection, plan);
    let (what, order, question) = match act {
        DelayedAct::Now(now) => (&now.what, DelayedOrder::Now, "Publish these events now?"),
        DelayedAct::Cancel(cancel) => {
            let (by, reason) = (actor.by.clone(), cancel.reason.clone());
            let question = "Cancel these events? They are never published.";
            (&cancel.what, DelayedOrder::Cancel { by, reason }, question)
        }
    };
    let told = delayed::told(&what.ids);
    let asks = what.ids.len() > 1 || matches!(order, DelayedOrder::Cancel { .. });
    if asks && !what.yes {
        println!("{told}");
        ask::confirmed(question, "nothing is changed")?;
    }
    let intent = intent(order.action(), &delayed::handlers(&what.ids), told, order.reason());
    let acts = delayed::act(&connection, &what.ids, &order);
    let acted = actor.acts(intent, acts, |acted| acted.recorded(&order)).await?;
    match what.json {
        true => println!("{}", json_line(&acted)),
        false => print(&acted, &order),
    }
    let all = acted.missing.is_empty() && acted.timers.is_empty();
    Ok(if all { OK } else { FAILED })
}

fn print(acted: &DelayedActed, order: &DelayedOrder) {
    let events = format!("{} event{}", acted.acted, if acted.acted == 1 { "" } else { "s" });
    match order {
        DelayedOrder::Now => println!("{events} due now"),
        DelayedOrder::Cancel { .. } => println!("cancelled {events}"),
    }
    for id in &acted.missing {
        note!(
            "{id} does not wait: it is due, published or cancelled, or there is no such event; `jetmesh trace {id}` shows it"
        );
    }
    for id in &acted.timers {
        note!("{id} is a timer: only its handler, or its schedule, can cancel it");
    }
}
