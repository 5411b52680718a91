//! `jetmesh schedule ls` and `next`: nothing is changed.

use std::time::Duration;

use super::{ScheduleLs, ScheduleNext, unknown};
use crate::broker::Connection;
use crate::calendar::{Calendar, delay_of};
use crate::cli::table::{self, Narrow};
use crate::cli::text::{in_time, json_line};
use crate::cli::{Error, OK};
use crate::event::clock::now_ms;
use crate::event::{parse_rfc3339, rfc3339};
use crate::plan::Plan;
use crate::report::schedule::{ScheduleDue, ScheduleJson, all, of_plan};
use crate::schedule::store;

const NARROW: Narrow<'_> = Narrow {
    leave_out: &[2],
    cut: &[0, 2],
};

pub async fn ls(connection: &Connection, plan: &Plan, ls: &ScheduleLs) -> Result<u8, Error> {
    let (all, unread) = all(connection, plan).await?;
    unread.iter().for_each(|why| note!("warning: {why}"));
    if ls.json {
        all.iter().for_each(|one| println!("{}", json_line(one)));
        return Ok(OK);
    }
    if all.is_empty() {
        println!("there is no schedule: [schedules.NAME] in the configuration describes one");
        return Ok(OK);
    }
    let now = now_ms();
    let told = |time: &Option<String>| {
        let ms = time.as_deref().and_then(parse_rfc3339);
        ms.map_or_else(
            || "-".to_owned(),
            |ms| format!("{} ({})", rfc3339(ms).replace(".000Z", "Z"), in_time(ms, now)),
        )
    };
    let row = |one: &ScheduleJson| {
        vec![
            one.schedule.clone(),
            one.state.word().to_owned(),
            one.when.clone(),
            told(&one.next),
            told(&one.last),
            one.runs.to_string(),
            one.missed.to_string(),
            one.skipped.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let header = ["SCHEDULE", "STATE", "WHEN", "NEXT", "LAST", "RUNS", "MISSED", "SKIPPED"];
    table::print_narrow(&header, &rows, &NARROW);
    for one in &all {
        if let Some(why) = &one.why {
            println!("{} is {}: {why}", one.schedule, one.state.word());
        }
    }
    Ok(OK)
}

pub async fn next(connection: &Connection, plan: &Plan, next: &ScheduleNext) -> Result<u8, Error> {
    let name = &next.name;
    let state = store::fetch(connection, name).await?;
    let spec = state.as_ref().map(|state| &state.spec).or_else(|| of_plan(plan, name));
    let spec = spec.ok_or_else(|| unknown(plan, name))?;
    let calendar = Calendar::of(&spec.timetable);
    let calendar = calendar.map_err(|_| Error::Failed(format!("schedule {name}: its times cannot be read")))?;
    let delay = delay_of(name, Duration::from_millis(spec.jitter_ms));
    let delay = u64::try_from(delay.as_millis()).unwrap_or(0);
    let now = now_ms();
    let mut dues = calendar
        .between(now, u64::MAX)
        .take(usize::from(next.number))
        .peekable();
    if dues.peek().is_none() && !next.json {
        println!("schedule {name} is not due any more");
    }
    for due in dues {
        let line = ScheduleDue {
            schedule: name.clone(),
            due: rfc3339(due),
            fires: rfc3339(due + delay),
        };
        match next.json {
            true => println!("{}", json_line(&line)),
            false => println!("{} ({})", line.due.replace(".000Z", "Z"), in_time(due, now)),
        }
    }
    if let (false, Some(why)) = (
        next.json,
        state.and_then(|state| ScheduleJson::of(&state, plan, now).why),
    ) {
        println!("note: {why}");
    }
    Ok(OK)
}
