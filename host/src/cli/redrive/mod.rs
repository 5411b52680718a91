//! `jetmesh redrive`: dead letters that the mesh replays by itself, and what a person can do about that.

use std::collections::{BTreeMap, HashSet};

use clap::Subcommand;

use super::audit::{actor, intent};
use super::status::known;
use super::table;
use super::text::{in_time, json_line};
use super::{Args, Error, OK};
use crate::broker::provision::DEAD;
use crate::broker::{self, Connection};
use crate::control::schedule::{recorded, stepped};
use crate::dlq::{Filter, select};
use crate::event::clock::now_ms;
use crate::event::parse_rfc3339;
use crate::mesh_streams::audit::AuditAction;
use crate::mesh_streams::dead_letter::Letter;
use crate::mesh_streams::pauses;
use crate::micro;
use crate::micro::told::endpoints;
use crate::plan::{Handler, Plan};
use crate::redrive::rule::RedriveTally;
use crate::report::redrive::{RedriveJson, add};
use crate::schedule::state::{ActedBy, ScheduleState, ScheduleStep};
use crate::schedule::store::Stepped;

#[derive(Debug, Subcommand)]
pub enum RedriveCommand {
    /// Show how the redrive of each handler stands, and how many dead letters it will replay
    Status(RedriveStatusArgs),
    /// Replay no dead letters by itself, on any host, until it is resumed
    Pause(RedriveNamed),
    /// Resume a paused redrive
    Resume(RedriveNamed),
}

#[derive(Debug, clap::Args)]
pub struct RedriveStatusArgs {
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct RedriveNamed {
    /// Name of the handler; without a name, all
    handler: Option<String>,
}

pub async fn run(args: &Args, command: &RedriveCommand) -> Result<u8, Error> {
    let loaded = args.look()?;
    let plan = &loaded.plan;
    match command {
        RedriveCommand::Status(status) => show(plan, status).await,
        RedriveCommand::Pause(named) => {
            let take = |state: &ScheduleState, by: ActedBy| state.pause(by);
            let words = ("is paused", "is paused already");
            each(plan, named, AuditAction::RedrivePause, take, words).await
        }
        RedriveCommand::Resume(named) => {
            let take = |state: &ScheduleState, by: ActedBy| state.resume(by.at);
            let words = ("is resumed", "is not paused");
            each(plan, named, AuditAction::RedriveResume, take, words).await
        }
    }
}

/// Takes a step of the redrive of one handler, or of all.
async fn each(
    plan: &Plan,
    named: &RedriveNamed,
    action: AuditAction,
    take: impl Fn(&ScheduleState, ActedBy) -> Option<ScheduleStep>,
    (taken, nothing): (&str, &str),
) -> Result<u8, Error> {
    let handlers = meant(plan, named)?;
    let connection = broker::open_guarded(&plan.nats, "jetmesh redrive").await?;
    let actor = actor(&connection, plan);
    for handler in handlers {
        let name = &handler.name;
        let schedule = handler.redrive_name();
        let act = async { Ok::<_, Error>(stepped(plan, &schedule, &take).await?) };
        let told = |stepped: &Option<Stepped>| recorded(stepped.as_ref());
        match actor.acts(intent(action, &[name], name, None), act, told).await? {
            Some(Stepped::Taken(_)) => println!("the redrive of {name} {taken}"),
            Some(Stepped::Nothing) => println!("the redrive of {name} {nothing}"),
            None => {
                return Err(Error::Failed(format!(
                    "the redrive of {name} is not armed: a host with this configuration arms it when it starts"
                )));
            }
        }
    }
    Ok(OK)
}

fn meant<'a>(plan: &'a Plan, named: &RedriveNamed) -> Result<Vec<&'a Handler>, Error> {
    let all: Vec<&Handler> = plan
        .handlers
        .iter()
        .filter(|handler| handler.redrive.is_some())
        .collect();
    let known = match all.as_slice() {
        [] => "the configuration has no [redrive]".to_owned(),
        all => {
            let names: Vec<&str> = all.iter().map(|handler| handler.name.as_str()).collect();
            format!("there is one of {}", names.join(", "))
        }
    };
    let Some(name) = &named.handler else {
        return match all.is_empty() {
            true => Err(Error::Usage(known)),
            false => Ok(all),
        };
    };
    match all.iter().find(|handler| handler.name == *name) {
        Some(handler) => Ok(vec![*handler]),
        None => Err(Error::Usage(format!("there is no redrive of {name}: {known}"))),
    }
}

async fn show(plan: &Plan, status: &RedriveStatusArgs) -> Result<u8, Error> {
    let connection = broker::open_guarded(&plan.nats, "jetmesh redrive").await?;
    let tallies = tallies(&connection, plan).await?;
    let mut all = crate::report::redrive::all(&connection, plan, Some(&tallies), now_ms()).await?;
    let hosts = micro::hosts(&connection, &plan.mesh).await.unwrap_or_else(|error| {
        note!("warning: whether a circuit is open is not known: {error}");
        Vec::new()
    });
    let open = endpoints(&hosts).filter(|endpoint| endpoint["data"]["circuit"].is_object());
    let open: HashSet<&str> = open.filter_map(|endpoint| endpoint["name"].as_str()).collect();
    for one in all.iter_mut().filter(|one| open.contains(one.handler.as_str())) {
        let why = || "a host whose circuit for this handler is open leaves its rounds out".to_owned();
        one.why.get_or_insert_with(why);
    }
    let pauses = pauses::load(&connection, now_ms()).await?;
    for one in all.iter_mut().filter(|one| pauses.contains_key(&one.handler)) {
        let why = || "its handler is paused: replays wait until that is resumed".to_owned();
        one.why.get_or_insert_with(why);
    }
    if status.json {
        all.iter().for_each(|one| println!("{}", json_line(one)));
    } else if all.is_empty() {
        println!("there is no redrive: [redrive] in the configuration switches it on");
    } else {
        print(&all);
    }
    Ok(OK)
}

async fn tallies(connection: &Connection, plan: &Plan) -> Result<BTreeMap<String, RedriveTally>, Error> {
    let mut tallies = BTreeMap::new();
    if connection.stream(DEAD).await?.is_none() {
        return Ok(tallies);
    }
    let now = now_ms();
    let count = |letter: Letter| add(&mut tallies, plan, &letter, now);
    let unread = select::each(connection, &Filter::default(), false, count).await?;
    if let Some(told) = unread.told() {
        note!("warning: {told}");
    }
    Ok(tallies)
}

fn print(all: &[RedriveJson]) {
    let now = now_ms();
    let time = |at: &Option<String>| {
        let at = at.as_deref().and_then(parse_rfc3339);
        at.map_or_else(|| "-".to_owned(), |at| in_time(at, now))
    };
    let row = |one: &RedriveJson| {
        vec![
            one.handler.clone(),
            one.state.word().to_owned(),
            one.every.clone(),
            time(&one.next),
            time(&one.last),
            known(one.due),
            known(one.waiting),
            known(one.left),
            known(one.other),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let header = [
        "HANDLER", "STATE", "EVERY", "NEXT", "LAST", "DUE", "WAITING", "LEFT", "OTHER",
    ];
    table::print(&header, &rows);
    tell(all);
}

/// A line for each redrive that a person should know of.
pub fn tell(all: &[RedriveJson]) {
    for one in all {
        if let Some(why) = &one.why {
            println!("the redrive of {} is {}: {why}", one.handler, one.state.word());
        }
        let counts = [one.due, one.waiting, one.left, one.other];
        if let (Some(left @ 1..), Some(letters)) = (one.left, counts.into_iter().sum::<Option<u64>>()) {
            println!(
                "{left} of {letters} dead letters of {} were replayed as often as `max_times` allows: they wait for a person",
                one.handler
            );
        }
    }
}
