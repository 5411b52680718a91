//! `jetmesh dlq replay`: dead letters go back to where they failed, and what becomes of them.

mod account;
mod progress;

use std::time::{Duration, Instant};

use crate::broker::Connection;
use crate::broker::connection::token;
use crate::cli::audit::{actor, intent};
use crate::cli::dlq::selection::Selection;
use crate::cli::pause::since;
use crate::cli::stop::Stop;
use crate::cli::text::{json_line, letters};
use crate::cli::{Error, OK, ask, table};
use crate::config::rate;
use crate::control::audit::ended;
use crate::dlq::course::Course;
use crate::dlq::meant::{self, Selected};
use crate::dlq::pace::PaceLimits;
use crate::dlq::replay;
use crate::dlq::telling::{Telling, recorded};
use crate::dlq::unserved::{self, Unserved, WhyUnserved};
use crate::dlq::watch::Watch;
use crate::event::clock::now_ms;
use crate::mesh_streams::audit::AuditAction;
use crate::mesh_streams::pauses;
use crate::plan::Plan;
use crate::report::replay::{AccountJson, DryRunJson, Ended};

/// More groups than a person reads before a yes.
const KINDS_MAX: usize = 20;

#[derive(Debug, clap::Args)]
pub struct ReplayCommand {
    /// Replay at most this many per second or minute, such as 200/s or 30/min [default: as fast as the handlers are]
    #[arg(long, value_name = "NUMBER/s", value_parser = rate)]
    rate: Option<f64>,
    /// At most NUMBER undecided replays at a time. The command begins with one, and doubles the number each time that as many
    /// are decided within half a minute
    #[arg(long, value_name = "NUMBER", default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Stop if more than this percentage of the decided events failed again; fewer than ten decided events count as ten
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = percent)]
    max_failures: f64,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Only print what would be replayed; with --json, how many and of which groups
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON; requires --yes or --dry-run
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub selection: Selection,
}

pub async fn run(plan: &Plan, connection: &Connection, args: &ReplayCommand, stop: &Stop) -> Result<u8, Error> {
    let selected = args.selection.selected()?;
    if args.json && !args.yes && !args.dry_run {
        return Err(Error::Usage(
            "--json does not ask for confirmation: add --yes".to_owned(),
        ));
    }
    let name = token();
    // Before the letters are read, so that nothing that is written to them is missed.
    let watch = Watch::start(connection, &name).await?;
    let mut course = meant(connection, &selected).await?;
    if args.dry_run && args.json {
        println!("{}", json_line(&DryRunJson::from(&course)));
        return Ok(OK);
    }
    if course.is_empty() {
        return Ok(nothing(&course, args.json));
    }
    if args.dry_run {
        println!("would be replayed:\n");
        print_kinds(&course);
        return Ok(OK);
    }
    let pauses = pauses::load(connection, now_ms()).await?;
    ask(&course, &unserved::of(connection, plan, &course, &pauses).await, args)?;
    let limits = PaceLimits {
        batch_max: args.batch as usize,
        per_second: args.rate,
        failures_max: args.max_failures,
    };
    stop.heed();
    let on: Vec<&str> = course.handlers().into_iter().collect();
    let what = format!("{}: {}", letters(course.len() as u64), selected.told());
    let intent = intent(AuditAction::DlqReplay, &on, what, None);
    let actor = actor(connection, plan);
    let open = actor.begins(intent).await?;
    let served = async |handler: &str| unserved::takes_replays(connection, plan, handler).await;
    let mut progress = progress::Progress::default();
    // Those who look on at a console see it as well.
    let telling = Telling::new(connection, &name, (actor.by.clone(), selected.told()), None);
    telling.saw(&course);
    let seen = |course: &Course, standing| {
        telling.saw(course);
        progress.show(course.len(), course.counts(), standing);
    };
    let began = Instant::now();
    let run = (name.as_str(), watch);
    let run = replay::run(connection, run, &mut course, limits, stop.asked(), served, seen);
    let end = tokio::select! {
        end = run => end,
        () = telling.go_on() => unreachable!("it tells for as long as it is polled"),
    };
    telling.end(&course, &end).await;
    ended(open, recorded(course.counts(), &end), actor.warn).await;
    progress.clear();
    Ok(account::tell(&course, &end, began.elapsed(), args, (stop, &pauses)))
}

/// Asks for a yes where it is worth one.
fn ask(course: &Course, unserved: &[Unserved], args: &ReplayCommand) -> Result<(), Error> {
    for one in unserved {
        note!("{}", told(one));
    }
    if args.yes || (course.len() == 1 && unserved.is_empty()) {
        return Ok(());
    }
    if !unserved.is_empty() && !ask::can_ask() {
        let text = "nothing is sent; with --yes the replays are sent, and wait";
        return Err(Error::Unserved(text.to_owned()));
    }
    if course.len() > 1 {
        println!("these dead letters will be given back to the handlers that failed on them:\n");
        print_kinds(course);
        println!();
    }
    let all_the_same = if unserved.is_empty() { "" } else { " anyway" };
    let question = format!("Replay {}{all_the_same}?", letters(course.len() as u64));
    ask::confirmed(&question, "nothing is replayed")
}

fn told(unserved: &Unserved) -> String {
    let (handler, count) = (&unserved.handler, unserved.letters);
    match &unserved.why {
        WhyUnserved::Paused(pause) => format!(
            "handler {handler} is paused {}\n  replays for it wait until `jetmesh resume {handler}`; dead letters of it: {count}",
            since(pause)
        ),
        WhyUnserved::NoHost(why) => {
            let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            format!(
                "no host serves handler {handler}{why}\n  replays for it wait until a host serves it; dead letters of it: {count}. \
                 `jetmesh status` shows more"
            )
        }
    }
}

/// The letters that are meant and still there.
async fn meant(connection: &Connection, selected: &Selected) -> Result<Course, Error> {
    let found = meant::course(connection, selected).await?;
    if let Some(told) = found.unread {
        note!("warning: {told}");
    }
    for (id, reason) in found.resolved {
        // The same command again goes on with the rest.
        note!("{id} is already resolved: {reason}");
    }
    if !found.unknown.is_empty() {
        let ids: Vec<String> = found.unknown.iter().map(|id| format!("`{id}`")).collect();
        return Err(Error::Failed(super::unknown(&ids.join(", "))));
    }
    Ok(found.letters)
}

fn nothing(course: &Course, as_json: bool) -> u8 {
    if as_json {
        let account = AccountJson::of(course, Ended::Over, Duration::ZERO);
        println!("{}", json_line(&account));
    } else if course.lost == 0 {
        println!("no such dead letters: nothing to replay");
    } else {
        print_lost(course);
    }
    match course.lost {
        0 => OK,
        _ => crate::cli::FAILED,
    }
}

fn print_kinds(course: &Course) {
    let kinds = course.kinds();
    let rows: Vec<Vec<String>> = kinds
        .iter()
        .take(KINDS_MAX)
        .map(|kind| {
            vec![
                kind.key.id(),
                kind.count.to_string(),
                kind.key.handler.clone(),
                kind.key.cause.clone(),
                kind.key.code.clone(),
                kind.error.clone(),
            ]
        })
        .collect();
    table::print(&["GROUP", "COUNT", "HANDLER", "CAUSE", "CODE", "NEWEST ERROR"], &rows);
    let rest: usize = kinds.iter().skip(KINDS_MAX).map(|kind| kind.count).sum();
    if rest > 0 {
        println!("and {rest} of {} more groups", kinds.len() - KINDS_MAX);
    }
    if course.lost > 0 {
        println!();
        print_lost(course);
    }
}

fn print_lost(course: &Course) {
    println!(
        "not replayed: {} whose events were lost with their payloads, so there is nothing to run: {}{}",
        course.lost,
        course.lost_samples.join(", "),
        if course.lost > course.lost_samples.len() {
            ", …"
        } else {
            ""
        }
    );
}

/// A share, out of a percentage.
fn percent(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.trim().trim_end_matches('%').trim_end().parse().ok();
    let number = number.filter(|percent| (0.0..=100.0).contains(percent));
    number
        .map(|percent| percent / 100.0)
        .ok_or_else(|| "not a percentage from 0 to 100".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_percentages_are_read_with_and_without_their_units() {
        assert_eq!(rate("200/s"), Ok(200.0));
        assert_eq!(rate("200"), Ok(200.0));
        assert_eq!(rate("30/min"), Ok(0.5));
        for wrong in ["", "0", "-1/s", "x/s", "5/h", "inf"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(percent("10"), Ok(0.1));
        assert_eq!(percent("2.5 %"), Ok(0.025));
        assert_eq!(percent("100%"), Ok(1.0));
        for wrong in ["", "101", "-1", "NaN", "ten"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
