//! `jetmesh check`: everything that can be said before a start; `jetmesh config`: what is in force.

use std::collections::BTreeMap;
use std::time::Duration;

use super::args::Check;
use super::{Args, Error, OK, REFUSED};
use crate::app;
use crate::app::modules::OfFiles;
use crate::broker::provision::DEAD;
use crate::broker::{self, Connection, limits};
use crate::calendar::Calendar;
use crate::config;
use crate::dlq::retention;
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::event::subject::covers;
use crate::fit;
use crate::ledger::core::ids::{ENTRY_BYTES, ID_BYTES};
use crate::mesh_streams::modules;
use crate::outbox;
use crate::plan::{Handler, Identity, OutboxSource, Plan, Schedule, Stream};
use crate::process::limits as system;
use crate::report::schedule::when;
use crate::wasm::compile::Priority;
use crate::wasm::engine::INSTANCES_MAX;
use crate::wasm::library::Library;

pub fn print_config(args: &Args) -> Result<u8, Error> {
    let loaded = args.load()?;
    println!("# {}", loaded.path.display());
    print!("{}", config::effective(&loaded.plan));
    Ok(OK)
}

pub async fn run(args: &Args, check: &Check) -> Result<u8, Error> {
    let loaded = args.load()?;
    let plan = &loaded.plan;
    let library = Library::new(app::runtime(plan)?);
    let files = app::modules::of_files(&library, plan).await?;
    println!("{}: valid", loaded.path.display());
    for warning in &loaded.warnings {
        println!("warning: {warning}");
    }
    handlers(plan, &files);
    for line in plan.schedules.iter().flatten().map(due_next) {
        println!("{line}");
    }
    outboxes(plan).await;
    let wanted: usize = plan.handlers.iter().map(|h| h.concurrency).sum();
    if wanted > INSTANCES_MAX {
        println!(
            "up to {wanted} instances can be needed at a time; {INSTANCES_MAX} of them run at a time, and the other \
             events wait"
        );
    }
    let (connections, files) = (plan.nats.connections, app::open_files(plan));
    println!(
        "a host has {} connections to NATS, up to {} at times, and up to {files} open files",
        connections.usual, connections.most
    );
    if let Some(short) = system::open_files_short(files) {
        println!("warning: {short}");
    }
    remembered(plan, check.rate).iter().for_each(|line| println!("{line}"));
    if !check.connect {
        return Ok(OK);
    }
    let connection = broker::open(&plan.nats, "jetmesh check").await?;
    let fit = fit::look(&connection, plan).await?;
    if !fit.made.is_empty() {
        let list = fit.made.join(", ");
        println!("streams that are not there, and that a start makes: {list}");
    }
    for warning in fit.warnings.into_iter().chain(warnings(&connection, plan).await?) {
        println!("warning: {warning}");
    }
    let mut problems = fit.problems;
    problems.extend(registered(&connection, plan, &library).await?);
    if problems.is_empty() {
        println!(
            "nats-server {}: everything fits",
            connection.client.server_info().version
        );
        return Ok(OK);
    }
    for problem in &problems {
        println!("error: {problem}");
    }
    Ok(REFUSED)
}

/// Says of each handler what it has and needs.
fn handlers(plan: &Plan, files: &OfFiles) {
    for handler in &plan.handlers {
        let module = handler
            .module
            .file()
            .map(|file| &files[&file.display().to_string()].digest);
        match module {
            Some(digest) => println!("{}: {} is a handler (module {digest})", handler.name, handler.module),
            None => println!("{}: {} is looked at with --connect", handler.name, handler.module),
        }
        let waiting = handler.ack_pending_max.saturating_sub(handler.in_flight);
        println!(
            "  up to {} instances, {} events at work, {waiting} waiting for a retry; ledger: {}",
            handler.concurrency,
            handler.in_flight,
            handler.ledger.as_deref().unwrap_or("none: its events are only acked")
        );
    }
}

/// Says what the registry has for each name that handlers follow; returns what is wrong.
async fn registered(connection: &Connection, plan: &Plan, library: &Library) -> Result<Vec<String>, broker::Error> {
    let mut problems = Vec::new();
    for name in plan.registered() {
        match modules::first(connection, (plan, library), name, Priority::Usual).await {
            Ok(loaded) => {
                println!(
                    "registry:{name}: version {} is promoted, and is a handler",
                    loaded.compiled.digest
                );
                problems.extend(loaded.not_taken);
            }
            Err(broker::Error::NotYet(why) | broker::Error::Refused(why)) => problems.push(why),
            Err(error) => return Err(error),
        }
    }
    Ok(problems)
}

/// When a schedule is due next.
fn due_next(schedule: &Schedule) -> String {
    let calendar = Calendar::of(&schedule.timetable).into_iter();
    let dues = calendar.flat_map(|calendar| calendar.between(now_ms(), u64::MAX).take(3).collect::<Vec<_>>());
    let dues: Vec<String> = dues.map(|due| rfc3339(due).replace(".000Z", "Z")).collect();
    let next = match dues.as_slice() {
        [] => "never any more".to_owned(),
        dues => dues.join(", "),
    };
    format!("{}: a schedule; {}, due next: {next}", schedule.name, when(schedule))
}

/// What each outbox publishes, and whether its database can be read.
async fn outboxes(plan: &Plan) {
    for outbox in &plan.outboxes {
        let (name, told, table) = (&outbox.name, outbox.database.told(), &outbox.table);
        let rows = match outbox.source {
            OutboxSource::Table => format!("rows of table {table} in {told}"),
            OutboxSource::Log { .. } => format!("messages in the log of {told}"),
        };
        println!("outbox {name}: {rows} become events of stream {}", outbox.stream);
        if let Err(error) = outbox::database_fits(outbox).await {
            println!("warning: outbox {name}: {error}");
        }
    }
}

/// What it costs to know message ids again.
fn remembered(plan: &Plan, rate: u64) -> Vec<String> {
    let by_id = plan.handlers.iter().filter(|h| h.identity == Identity::MessageId);
    let cost = |handler: &Handler| {
        let ids = u128::from(rate) * handler.identity_window.as_millis() / 1000;
        let megabytes = |each: u64| (ids * u128::from(each)).div_ceil(1_000_000);
        format!(
            "{}: identity window {}: at {rate} events/s about {ids} entries of its ledger, {} MB of memory on each host \
             and {} MB of disk; a host that starts or connects again reads them",
            handler.name,
            humantime::format_duration(handler.identity_window),
            megabytes(ID_BYTES),
            megabytes(ENTRY_BYTES)
        )
    };
    by_id.map(cost).collect()
}

/// Shorter than this, a stream might not know an event again that a relay repeats after its connection was lost.
const DUPLICATE_WINDOW_MIN: Duration = Duration::from_secs(60);

/// What works, and may surprise.
async fn warnings(connection: &Connection, plan: &Plan) -> Result<Vec<String>, broker::Error> {
    // By stream: how long it knows a message again, and a handler that publishes into it.
    let mut targets: BTreeMap<String, (Duration, &str)> = BTreeMap::new();
    for handler in &plan.handlers {
        for pattern in &handler.publish {
            for name in connection.streams_of(pattern).await? {
                let window = connection.stream(&name).await?.and_then(|info| info.duplicate_window());
                targets.insert(name, (window.unwrap_or(DUPLICATE_WINDOW_MIN), &handler.name));
            }
            let meets = |stream: &&Stream| stream.subjects.iter().any(|s| covers(s, pattern) || covers(pattern, s));
            for stream in plan.streams.iter().filter(meets) {
                let made = (stream.duplicate_window, handler.name.as_str());
                targets.entry(stream.name.clone()).or_insert(made);
            }
        }
    }
    targets.retain(|_, (window, _)| *window < DUPLICATE_WINDOW_MIN);
    let text = |(stream, (window, handler)): (String, (Duration, &str))| {
        format!(
            "handler {handler} publishes into stream {stream}, which recognises duplicates for {window:?} only: \
             after a failure it can contain an event twice; set a duplicate window of {DUPLICATE_WINDOW_MIN:?} or \
             more with `nats stream edit {stream} --dupe-window=2m`"
        )
    };
    let mut warnings: Vec<String> = targets.into_iter().map(text).collect();
    if let Some(dead) = connection.stream(DEAD).await? {
        warnings.extend(retention::warnings(&dead, plan.mesh_bytes_max));
    }
    warnings.extend(limits::near(connection, plan).await?);
    Ok(warnings)
}
