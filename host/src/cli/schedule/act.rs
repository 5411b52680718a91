//! `jetmesh schedule pause`, `resume`, `run` and `backfill`: steps of a schedule, as transactions of the mesh's ledger.

use super::{ScheduleBackfill, ScheduleRun, unarmed};
use crate::broker::Connection;
use crate::cli::ask::confirmed;
use crate::cli::audit::{actor, intent};
use crate::cli::{Error, OK};
use crate::control::schedule::{recorded, stepped};
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::mesh_streams::audit::{AuditAction, AuditEnd};
use crate::plan::Plan;
use crate::schedule::state::{ActedBy, EVENTS_MAX, ScheduleState, ScheduleStep};
use crate::schedule::store::{self, Stepped};

/// Most events that one backfill emits.
const BACKFILL_MAX: usize = 10_000;

pub async fn pause(connection: &Connection, plan: &Plan, name: &str) -> Result<u8, Error> {
    let paused = one(connection, plan, (AuditAction::SchedulePause, name), |state, by| {
        state.pause(by)
    });
    match paused.await? {
        Stepped::Taken(_) => println!("schedule {name} is paused; `jetmesh schedule resume {name}` resumes it"),
        Stepped::Nothing => println!("schedule {name} is paused already"),
    }
    Ok(OK)
}

pub async fn resume(connection: &Connection, plan: &Plan, name: &str) -> Result<u8, Error> {
    let resumed = one(connection, plan, (AuditAction::ScheduleResume, name), |state, by| {
        state.resume(by.at)
    });
    match resumed.await? {
        Stepped::Taken(taken) => match &taken.state.next {
            Some(next) => println!("schedule {name} is resumed; it is due next at {}", rfc3339(next.due)),
            None => println!("schedule {name} is resumed; it is not due any more"),
        },
        Stepped::Nothing => println!("schedule {name} is not paused"),
    }
    Ok(OK)
}

pub async fn run(connection: &Connection, plan: &Plan, run: &ScheduleRun) -> Result<u8, Error> {
    let due = [run.at.unwrap_or_else(|| now_ms() / 1000 * 1000)];
    let intent = intent(
        AuditAction::ScheduleRun,
        &[&run.name],
        format!("due {}", rfc3339(due[0])),
        None,
    );
    let act = extra(plan, &run.name, &due);
    actor(connection, plan).acts(intent, act, emitted).await?;
    Ok(OK)
}

pub async fn backfill(connection: &Connection, plan: &Plan, backfill: &ScheduleBackfill) -> Result<u8, Error> {
    let name = &backfill.name;
    if backfill.from > backfill.to {
        let (from, to) = (rfc3339(backfill.from), rfc3339(backfill.to));
        return Err(Error::Usage(format!(
            "--from {from} is later than --to {to}: exchange them"
        )));
    }
    let state = store::fetch(connection, name)
        .await?
        .ok_or_else(|| unarmed(plan, name))?;
    let calendar = state.calendar();
    let calendar = calendar.ok_or_else(|| Error::Failed(format!("schedule {name}: its times cannot be read")))?;
    let dues = calendar.between(backfill.from.saturating_sub(1), backfill.to);
    let dues: Vec<u64> = dues.take(BACKFILL_MAX + 1).collect();
    let (Some(first), Some(last)) = (dues.first(), dues.last()) else {
        println!("schedule {name} is not due in this period");
        return Ok(OK);
    };
    if dues.len() > BACKFILL_MAX {
        return Err(Error::Usage(format!(
            "schedule {name} is due more than {BACKFILL_MAX} times in this period: backfill it in shorter ones"
        )));
    }
    let (count, first, last) = (dues.len(), rfc3339(*first), rfc3339(*last));
    if !backfill.yes {
        let question = format!("emit {count} events of schedule {name}, due from {first} to {last}?");
        confirmed(&question, "nothing is emitted")?;
    }
    let what = format!("{count} events, due from {first} to {last}");
    let intent = intent(AuditAction::ScheduleBackfill, &[name], what, None);
    let act = async {
        let mut emitted = 0;
        for part in dues.chunks(EVENTS_MAX) {
            emitted += extra(plan, name, part).await?;
        }
        Ok::<_, Error>(emitted)
    };
    actor(connection, plan).acts(intent, act, emitted).await?;
    Ok(OK)
}

fn emitted(count: &u64) -> AuditEnd {
    AuditEnd::done(&[("emitted", *count)])
}

/// Emits events that are not of the schedule's own pace; how many.
async fn extra(plan: &Plan, name: &str, dues: &[u64]) -> Result<u64, Error> {
    let Stepped::Taken(taken) = step(plan, name, |state, by| Some(state.extra(dues, by.at))).await? else {
        return Ok(0);
    };
    taken.events.iter().for_each(|event| println!("emitted {}", event.id));
    Ok(taken.events.len() as u64)
}

/// Takes a step, with a record of it.
async fn one(
    connection: &Connection,
    plan: &Plan,
    (action, name): (AuditAction, &str),
    take: impl Fn(&ScheduleState, ActedBy) -> Option<ScheduleStep>,
) -> Result<Stepped, Error> {
    let act = step(plan, name, take);
    let intent = intent(action, &[name], name, None);
    actor(connection, plan)
        .acts(intent, act, |taken| recorded(Some(taken)))
        .await
}

/// Takes a step of a schedule that is armed.
async fn step(
    plan: &Plan,
    name: &str,
    take: impl Fn(&ScheduleState, ActedBy) -> Option<ScheduleStep>,
) -> Result<Stepped, Error> {
    stepped(plan, name, take).await?.ok_or_else(|| unarmed(plan, name))
}
