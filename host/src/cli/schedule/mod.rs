//! `jetmesh schedule`: what the mesh emits by itself at certain times, and what a person can do with it.

mod act;
mod list;
mod show;

use clap::Subcommand;

use super::stop::Stop;
use super::{Args, Error};
use crate::broker;
use crate::event::parse_rfc3339;
use crate::plan::Plan;
use crate::report::schedule::of_plan;
use crate::schedule::store;

#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// List the schedules with their state, their last and next due time, and what they missed
    Ls(ScheduleLs),
    /// Show all that is known of a schedule
    Show(ScheduleShow),
    /// Print the next due times of a schedule
    Next(ScheduleNext),
    /// Pause a schedule: no event comes of it until it is resumed
    Pause(ScheduleNamed),
    /// Resume a paused schedule; due times during the pause stay without an event
    Resume(ScheduleNamed),
    /// Emit one event of a schedule now, besides those of its due times
    Run(ScheduleRun),
    /// Emit an event for each due time of a period, whether or not it had one before
    Backfill(ScheduleBackfill),
}

#[derive(Debug, clap::Args)]
pub struct ScheduleLs {
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct ScheduleNamed {
    /// Name of the schedule
    name: String,
}

#[derive(Debug, clap::Args)]
pub struct ScheduleShow {
    /// Name of the schedule
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct ScheduleNext {
    /// Name of the schedule
    name: String,
    /// How many due times
    #[arg(short, long, default_value_t = 10, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1000))]
    number: u16,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct ScheduleRun {
    /// Name of the schedule
    name: String,
    /// Due time that the event names, as RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub struct ScheduleBackfill {
    /// Name of the schedule
    name: String,
    /// First due time, as RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: u64,
    /// Last due time, as RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: u64,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

fn time(text: &str) -> Result<u64, String> {
    parse_rfc3339(text).ok_or_else(|| "not a time: RFC 3339 is, for instance 2030-01-01T00:00:00Z".to_owned())
}

pub async fn run(args: &Args, command: &ScheduleCommand, stop: &Stop) -> Result<u8, Error> {
    let loaded = args.look()?;
    let plan = &loaded.plan;
    let connection = broker::open_guarded(&plan.nats, "jetmesh schedule").await?;
    match command {
        ScheduleCommand::Ls(ls) => list::ls(&connection, plan, ls).await,
        ScheduleCommand::Show(show) => show::show(&connection, plan, show, stop).await,
        ScheduleCommand::Next(next) => list::next(&connection, plan, next).await,
        ScheduleCommand::Pause(named) => act::pause(&connection, plan, &named.name).await,
        ScheduleCommand::Resume(named) => act::resume(&connection, plan, &named.name).await,
        ScheduleCommand::Run(run) => act::run(&connection, plan, run).await,
        ScheduleCommand::Backfill(backfill) => act::backfill(&connection, plan, backfill).await,
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        match error {
            store::Error::Broker(error) => Error::Broker(error),
            other => Error::Failed(other.to_string()),
        }
    }
}

fn unknown(plan: &Plan, name: &str) -> Error {
    let names: Vec<&str> = plan.schedules.iter().flatten().map(|s| s.name.as_str()).collect();
    let known = match names.as_slice() {
        [] => "the configuration has none".to_owned(),
        names => format!("the configuration has {}", names.join(", ")),
    };
    Error::Usage(format!(
        "there is no schedule {name}: {known}, and `jetmesh schedule ls` lists what is armed"
    ))
}

/// One that no host has armed.
fn unarmed(plan: &Plan, name: &str) -> Error {
    match of_plan(plan, name) {
        Some(_) => Error::Failed(format!(
            "schedule {name} is not armed: a host with this configuration arms it when it starts"
        )),
        None => unknown(plan, name),
    }
}
