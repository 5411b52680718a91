//! The schedule that is due every second, in the rounds whose point is in the code that fires schedules.

use serde_json::Value;

use crate::mesh::{Found, Mesh};

pub const STREAM: &str = "[streams.TICKS]\nsubjects = [\"ticks.>\"]";
pub const SCHEDULE: &str = "[schedules.tick]\nsubject = \"ticks.tick\"\nevery = \"1s\"\ncatch_up = \"all\"";
/// Its key in the mesh's own bucket.
pub const KEY: &str = "schedule.tick";
/// Events that the hosts may have left to the next one when they ended.
const LEFT_MAX: u64 = 3;

/// What is wrong: from its arming on, each second has one event, in order and not before its time.
pub async fn judge(mesh: &Mesh) -> Vec<String> {
    let Some(state) = mesh.value("mesh", KEY).await else {
        return vec!["the schedule was never armed".to_owned()];
    };
    let state: Value = serde_json::from_str(&state).expect("a state is JSON");
    let events = mesh.messages("TICKS", ">").await;
    let mut problems = Vec::new();
    // An edit would arm it again; here it is armed once.
    let mut next = seconds(&state["armed"]["at"]) + 1;
    for event in &events {
        let due = due(event);
        if due != next {
            problems.push(format!(
                "the schedule has an event for {due} where that of {next} is due"
            ));
        }
        if event.time_ms < i128::from(due) * 1000 {
            problems.push(format!(
                "the event of {due} came at {} ms, before its time",
                event.time_ms
            ));
        }
        next = due + 1;
    }
    let (runs, count) = (state["runs"].as_u64().unwrap_or(0), events.len() as u64);
    if count > runs || count + LEFT_MAX < runs {
        problems.push(format!("the schedule has had {runs} events, and {count} are there"));
    }
    if state["missed"] != 0 {
        problems.push(format!("the schedule has missed {} due times", state["missed"]));
    }
    problems
}

fn due(event: &Found) -> u64 {
    seconds(&event.header("Mesh-Schedule-Due").unwrap_or_default().into())
}

/// Of an RFC 3339 time.
fn seconds(time: &Value) -> u64 {
    let time = humantime::parse_rfc3339(time.as_str().unwrap_or_default()).expect("a time");
    time.duration_since(std::time::UNIX_EPOCH).expect("past 1970").as_secs()
}
