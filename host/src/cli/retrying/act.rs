//! `jetmesh retrying now` and `jetmesh retrying give-up`.

use std::collections::BTreeMap;

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;

use crate::broker::Connection;
use crate::cli::audit::{actor, intent};
use crate::cli::dlq::{handler, pattern};
use crate::cli::text::json_line;
use crate::cli::{Error, FAILED, OK, ask, handler_named};
use crate::control::retrying::{self, ChosenEvents, RetryingActed, RetryingChoice, RetryingFilter, RetryingOrder};
use crate::dlq::select::is_id;
use crate::plan::Plan;

#[derive(Debug, Subcommand)]
pub enum RetryingAct {
    /// Begin the next attempt at events now, and not when it is due
    Now(RetryingNow),
    /// Give events up: no attempt follows, and each becomes a dead letter
    GiveUp(RetryingGiveUp),
}

#[derive(Debug, clap::Args)]
pub struct RetryingNow {
    #[command(flatten)]
    what: RetryingSelection,
}

#[derive(Debug, clap::Args)]
pub struct RetryingGiveUp {
    /// Why, for the dead letters
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: Option<String>,
    #[command(flatten)]
    what: RetryingSelection,
}

#[derive(Debug, clap::Args)]
struct RetryingSelection {
    /// IDs that `jetmesh retrying` prints: HANDLER.INCARNATION.SEQUENCE
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Only events of this handler
    #[arg(long, value_name = "NAME", value_parser = handler)]
    handler: Option<String>,
    /// Only events with a subject that matches this pattern; `*` and `>` as in NATS
    #[arg(long, value_name = "SUBJECT", value_parser = pattern)]
    subject: Option<String>,
    /// Only events whose last failure has this code
    #[arg(long, value_name = "CODE", value_parser = NonEmptyStringValueParser::new())]
    code: Option<String>,
    /// All events between two attempts
    #[arg(long)]
    all: bool,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Print the result as JSON; requires --yes
    #[arg(long, requires = "yes", conflicts_with = "dry_run")]
    json: bool,
}

impl RetryingSelection {
    fn choice(&self) -> Result<RetryingChoice, Error> {
        let filter = RetryingFilter {
            handler: self.handler.clone(),
            subject: self.subject.clone(),
            code: self.code.clone(),
        };
        let usage = |text: &str| Err(Error::Usage(text.to_owned()));
        match (self.ids.is_empty(), filter.is_empty(), self.all) {
            (true, true, false) => usage("select events: with an ID, a condition such as --handler, or --all"),
            (false, true, false) => {
                self.ids.iter().try_for_each(|id| check(id))?;
                let mut ids = self.ids.clone();
                ids.sort();
                ids.dedup();
                Ok(RetryingChoice::Ids(ids))
            }
            (false, _, _) => usage("IDs cannot be combined with conditions: leave the conditions out"),
            (true, false, true) => usage("--all cannot be combined with conditions: leave the conditions out"),
            (true, _, _) => Ok(RetryingChoice::Matching(filter)),
        }
    }
}

fn check(id: &str) -> Result<(), Error> {
    match is_id(id) {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "`{id}` is not HANDLER.INCARNATION.SEQUENCE, as `jetmesh retrying` prints it"
        ))),
    }
}

/// What an order is called.
struct Words {
    question: &'static str,
    otherwise: &'static str,
    done: &'static str,
    running: &'static str,
}

const NOW: Words = Words {
    question: "Begin the next attempt now?",
    otherwise: "nothing is changed",
    done: "asked for the next attempt at",
    running: "runs at this moment, and is left alone",
};
const GIVE_UP: Words = Words {
    question: "Give these events up? No attempt follows, and they become dead letters.",
    otherwise: "nothing is given up",
    done: "gave up",
    running: "runs at this moment: if this attempt fails, none follows",
};

pub async fn run(connection: &Connection, plan: &Plan, act: &RetryingAct) -> Result<u8, Error> {
    let actor = actor(connection, plan);
    let (what, order, words) = match act {
        RetryingAct::Now(now) => (&now.what, RetryingOrder::Now, NOW),
        RetryingAct::GiveUp(give_up) => {
            let by = actor.by.clone();
            let reason = give_up.reason.clone();
            (&give_up.what, RetryingOrder::GiveUp { by, reason }, GIVE_UP)
        }
    };
    let choice = what.choice()?;
    if let Some(name) = &what.handler {
        // One that is named by mistake would be one without events.
        handler_named(plan, name)?;
    }
    let chosen = retrying::choose(connection, plan, &choice).await?;
    chosen.unreadable.iter().for_each(|why| note!("warning: {why}"));
    if what.dry_run {
        println!("{}", summary(&chosen));
        missing(&chosen.missing);
        return Ok(OK);
    }
    let asks = chosen.events.len() > 1 || matches!(order, RetryingOrder::GiveUp { .. });
    if asks && !what.yes && !chosen.events.is_empty() {
        println!("{}", summary(&chosen));
        ask::confirmed(words.question, words.otherwise)?;
    }
    let intent = intent(order.action(), &chosen.handlers(), chosen.told(), order.reason());
    let act = retrying::act(connection, plan, chosen, &order);
    let acted = actor.acts(intent, act, |acted| acted.recorded(&order)).await?;
    match what.json {
        true => println!("{}", json_line(&acted)),
        false => print(&acted, &words),
    }
    Ok(if acted.missing.is_empty() { OK } else { FAILED })
}

fn events(count: u64) -> String {
    format!("{count} event{}", if count == 1 { "" } else { "s" })
}

fn summary(chosen: &ChosenEvents) -> String {
    let mut handlers: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &chosen.events {
        *handlers.entry(&event.handler).or_default() += 1;
    }
    let handlers: Vec<String> = handlers
        .iter()
        .map(|(name, count)| format!("{count} of {name}"))
        .collect();
    match handlers.as_slice() {
        [] => "no such events".to_owned(),
        handlers => format!("{}: {}", events(chosen.events.len() as u64), handlers.join(", ")),
    }
}

fn print(acted: &RetryingActed, words: &Words) {
    println!("{} {}", words.done, events(acted.acted));
    for id in &acted.running {
        note!("{id} {}", words.running);
    }
    missing(&acted.missing);
    for one in &acted.waits {
        note!("events of {} wait: {}", one.handler, one.why);
    }
}

fn missing(ids: &[String]) {
    for id in ids {
        note!(
            "no event `{id}` is between two attempts, or it is decided already: `jetmesh trace {id}` shows where it is"
        );
    }
}
