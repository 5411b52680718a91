//! `jetmesh pause` and `jetmesh resume`: handlers that take no events for a while.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;

use super::audit::{actor, intent};
use super::text::{in_time, json_line};
use super::{Args, Error, OK, handler_named};
use crate::broker::kv::kv_stream;
use crate::broker::provision::MESH_BUCKET;
use crate::broker::{self, Connection};
use crate::control::pause::{self, PauseOrder, PauseOutcome, Paused, Resumed, lasting};
use crate::event::clock::now_ms;
use crate::mesh_streams::audit::AuditAction;
use crate::mesh_streams::pauses::HandlerPause;
use crate::plan::{Handler, Plan};

/// Pause handlers on all hosts: no event of theirs begins, and no attempt is counted, until they are resumed
///
/// What runs ends as usual. Events wait in their stream, also those between two attempts; so do replays of dead letters that are
/// asked for meanwhile. A pause outlasts restarts of hosts and servers. Of a handler that is paused already, --for and --reason
/// change the pause.
#[derive(Debug, clap::Args)]
pub struct PauseHandlers {
    /// Names of the handlers in the configuration
    #[arg(required = true, value_name = "HANDLER")]
    pub handlers: Vec<String>,
    /// Why, for people who look at the status
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub reason: Option<String>,
    /// How long: the pause ends by itself after this time, such as 30m or 2h [default: until `jetmesh resume`]
    #[arg(long = "for", value_name = "DURATION", value_parser = lasting)]
    pub lasts: Option<Duration>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub json: bool,
}

/// Resume paused handlers on all hosts: their events are taken again
#[derive(Debug, clap::Args)]
pub struct ResumeHandlers {
    /// Names of the handlers in the configuration
    #[arg(required = true, value_name = "HANDLER")]
    pub handlers: Vec<String>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub json: bool,
}

pub async fn pause(args: &Args, asked: &PauseHandlers) -> Result<u8, Error> {
    let loaded = args.look()?;
    let plan = &loaded.plan;
    let handlers = named(plan, &asked.handlers)?;
    let connection = connect(plan, "jetmesh pause").await?;
    let actor = actor(&connection, plan);
    let order = PauseOrder {
        by: actor.by.clone(),
        reason: asked.reason.clone(),
        lasts: asked.lasts,
    };
    let names = names(&handlers);
    let intent = intent(AuditAction::Pause, &names, names.join(", "), asked.reason.as_deref());
    let act = pause::pause(&connection, plan, &handlers, &order);
    for one in actor.acts(intent, act, |all| pause::recorded_paused(all)).await? {
        if asked.json {
            println!("{}", json_line(&one));
            continue;
        }
        print(&one);
        if let Some(why) = &one.consumer_not_paused {
            note!(
                "warning: the hosts obey the pause of {}, and the server does not hold its consumer as well: {why}",
                one.handler
            );
        }
        tell_behind(&one.handler, one.hosts_behind.as_deref());
    }
    Ok(OK)
}

fn print(paused: &Paused) {
    let Paused { handler, pause, .. } = paused;
    let end = match pause.until_ms() {
        Some(until) => format!("until {} ({})", pause.deadline(), in_time(until, now_ms())),
        None => format!("until `jetmesh resume {handler}`"),
    };
    match paused.outcome {
        PauseOutcome::Paused => println!("handler {handler} is paused {end}"),
        PauseOutcome::Changed => println!("handler {handler} was paused before, and is paused {end} now"),
        PauseOutcome::Unchanged => println!(
            "handler {handler} is paused already, {}; --for and --reason change the pause, `jetmesh resume {handler}` ends it",
            since(pause)
        ),
    }
}

pub async fn resume(args: &Args, asked: &ResumeHandlers) -> Result<u8, Error> {
    let loaded = args.look()?;
    let plan = &loaded.plan;
    let handlers = named(plan, &asked.handlers)?;
    let connection = connect(plan, "jetmesh resume").await?;
    let names = names(&handlers);
    let intent = intent(AuditAction::Resume, &names, names.join(", "), None);
    let act = pause::resume(&connection, plan, &handlers);
    let actor = actor(&connection, plan);
    for one in actor.acts(intent, act, |all| pause::recorded_resumed(all)).await? {
        if asked.json {
            println!("{}", json_line(&one));
            continue;
        }
        let Resumed { handler, pause, .. } = &one;
        match (one.resumed, pause) {
            (true, Some(pause)) => println!("handler {handler} is resumed; it was paused {}", since(pause)),
            (true, None) => println!("handler {handler} is resumed: its consumer was paused at the server"),
            (false, _) => println!("handler {handler} is not paused"),
        }
        tell_behind(handler, one.hosts_behind.as_deref());
    }
    Ok(OK)
}

/// Since when, by whom and why.
pub fn since(pause: &HandlerPause) -> String {
    format!("since {} {}", pause.since, pause.told())
}

fn tell_behind(handler: &str, hosts: Option<&[String]>) {
    let who = match hosts {
        Some([]) => return,
        None => {
            note!("warning: whether the hosts obey this for {handler} is not known: they cannot be asked");
            return;
        }
        Some([host]) => format!("host {host} has"),
        Some(hosts) => format!("hosts {} have", hosts.join(", ")),
    };
    note!("warning: {who} not reported that it obeys this for {handler}; `jetmesh status` shows how it stands");
}

async fn connect(plan: &Plan, name: &str) -> Result<Connection, Error> {
    let connection = broker::open_guarded(&plan.nats, name).await?;
    if connection.stream(&kv_stream(MESH_BUCKET)).await?.is_none() {
        return Err(Error::Failed(format!(
            "there is no bucket {MESH_BUCKET}, in which pauses are stored: no host of this mesh has run here"
        )));
    }
    Ok(connection)
}

fn names<'a>(handlers: &[&'a Handler]) -> Vec<&'a str> {
    handlers.iter().map(|handler| handler.name.as_str()).collect()
}

fn named<'a>(plan: &'a Plan, names: &[String]) -> Result<Vec<&'a Handler>, Error> {
    let mut named: Vec<&Handler> = Vec::new();
    for name in names {
        let found = handler_named(plan, name)?;
        if !named.iter().any(|one| one.name == *name) {
            named.push(found);
        }
    }
    Ok(named)
}
