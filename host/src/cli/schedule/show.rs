//! `jetmesh schedule show`: nothing is changed.

use std::time::Duration;

use super::{ScheduleShow, of_plan, unknown};
use crate::broker::Connection;
use crate::cli::stop::Stop;
use crate::cli::text::{in_time, json_page};
use crate::cli::{Error, OK};
use crate::event::clock::now_ms;
use crate::event::{parse_rfc3339, rfc3339};
use crate::plan::Plan;
use crate::report::schedule::{HandlersPart, ScheduleJson};
use crate::report::trace::state;
use crate::schedule::open::place;
use crate::schedule::store;
use crate::trace::reading::Reading;
use crate::trace::{ALONE, Tracer};

/// How long, and over how many messages, it is looked for what the handlers have made of the last event.
const READ_TIME: Duration = Duration::from_secs(10);
const READ_MESSAGES: u64 = 200_000;

pub async fn show(connection: &Connection, plan: &Plan, show: &ScheduleShow, stop: &Stop) -> Result<u8, Error> {
    let name = &show.name;
    let one = match (store::fetch(connection, name).await?, of_plan(plan, name)) {
        (Some(state), _) => {
            let place = match &state.last {
                Some(last) => place(connection, &state.spec.subject, last).await?,
                None => None,
            };
            let last_handlers = match &place {
                Some((stream, sequence)) => handlers(connection, plan, (stream, *sequence), stop).await?,
                None => Vec::new(),
            };
            ScheduleJson {
                last_place: place.map(|(stream, sequence)| format!("{stream}:{sequence}")),
                last_handlers,
                ..ScheduleJson::of(&state, plan, now_ms())
            }
        }
        (None, Some(spec)) => ScheduleJson::unarmed(spec),
        (None, None) => return Err(unknown(plan, name)),
    };
    if show.json {
        println!("{}", json_page(&one));
        return Ok(OK);
    }
    let now = now_ms();
    let told = |time: &Option<String>| {
        let ms = time.as_deref().and_then(parse_rfc3339);
        ms.map(|ms| format!("{} ({})", rfc3339(ms), in_time(ms, now)))
    };
    let state = match &one.why {
        Some(why) => format!("{}: {why}", one.state.word()),
        None => one.state.word().to_owned(),
    };
    let armed = one
        .armed_by
        .as_ref()
        .map(|by| format!("by host {by}, {}", told(&one.armed_at).unwrap_or_default()));
    let made: Vec<String> = one
        .last_handlers
        .iter()
        .map(|HandlersPart { handler, state }| format!("{handler} {state}"))
        .collect();
    for (what, value) in [
        ("schedule", Some(one.schedule.clone())),
        ("state", Some(state)),
        ("when", Some(one.when.clone())),
        ("subject", Some(one.subject.clone())),
        ("next", told(&one.next)),
        ("last", told(&one.last)),
        ("emitted", told(&one.last_emitted)),
        ("event", one.last_event.clone()),
        (
            "trace",
            one.last_place.as_ref().map(|place| format!("jetmesh trace {place}")),
        ),
        ("handlers", (!made.is_empty()).then(|| made.join(", "))),
        ("runs", Some(one.runs.to_string())),
        ("missed", Some(one.missed.to_string())),
        ("skipped", Some(one.skipped.to_string())),
        ("armed", armed),
    ] {
        if let Some(value) = value {
            println!("{what:10}{value}");
        }
    }
    Ok(OK)
}

/// What each handler of the configuration has made of an event.
async fn handlers(
    connection: &Connection,
    plan: &Plan,
    (stream, sequence): (&str, u64),
    stop: &Stop,
) -> Result<Vec<HandlersPart>, Error> {
    let reading = Reading::new(&plan.nats, connection, READ_TIME, READ_MESSAGES, stop.token());
    let mut tracer = Tracer::new(plan, reading);
    let place = tracer.place(stream, sequence).await?;
    // What has followed from it is left out.
    let traced = tracer.trace(place, ALONE).await?;
    let state = |part: &crate::trace::Part| HandlersPart {
        handler: part.handler.clone(),
        state: state(&part.stand),
    };
    Ok(traced.handlers.iter().map(state).collect())
}
