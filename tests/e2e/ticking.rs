//! What the tests of schedules stand on: a mesh with a schedule, its due times, and their audit.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::mesh::{Config, Found, Mesh, PATIENT};
use crate::support::eventually;

/// A mesh with one schedule `tick`, with these lines of its table, besides the probe.
pub fn ticking(lines: &str) -> Config {
    with_schedule(Config::probe(), "tick", lines)
}

pub fn with_schedule(config: Config, name: &str, lines: &str) -> Config {
    config.table(&format!("[schedules.{name}]\nsubject = \"events.{name}\"\n{lines}"))
}

pub fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("it is past 1970").as_secs()
}

/// A time this many seconds from now.
pub fn at(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(now_s() + seconds)).to_string()
}

/// The state of a schedule as the mesh's bucket has it.
pub async fn state(mesh: &Mesh, name: &str) -> Value {
    let value = mesh.value("mesh", &format!("schedule.{name}")).await;
    value.map_or(Value::Null, |value| serde_json::from_str(&value).expect("it is JSON"))
}

#[track_caller]
pub fn wait_state(mesh: &Mesh, name: &'static str, wanted: impl Fn(&Value) -> bool) -> impl Future<Output = Value> {
    eventually("a schedule to come to a state", PATIENT, async move || {
        let state = state(mesh, name).await;
        wanted(&state).then_some(state)
    })
}

/// The due times of a schedule's events, in the order of the stream, in seconds since 1970.
pub async fn dues(mesh: &Mesh, subject: &str) -> Vec<u64> {
    let events = mesh.messages("EVENTS", subject).await;
    events.iter().map(due).collect()
}

pub fn due(event: &Found) -> u64 {
    let due = event.header("Mesh-Schedule-Due").expect("it names its due time");
    let due = humantime::parse_rfc3339(due).expect("a time");
    due.duration_since(UNIX_EPOCH).expect("past 1970").as_secs()
}

#[track_caller]
pub fn wait_dues(mesh: &Mesh, subject: &'static str, count: usize) -> impl Future<Output = Vec<u64>> {
    eventually("events of a schedule", PATIENT, async move || {
        let dues = dues(mesh, subject).await;
        (dues.len() >= count).then_some(dues)
    })
}

/// Each due time from the first to the last, this far apart, once and in order.
#[track_caller]
pub fn assert_whole(dues: &[u64], period: u64) {
    assert!(dues.windows(2).all(|pair| pair[1] - pair[0] == period), "{dues:?}");
}

/// What is wrong with the events of a schedule: each due time from the first to the last, this far apart in seconds, must have one,
/// in order, and none before its time.
pub async fn audit(mesh: &Mesh, subject: &str, period: u64) -> Vec<String> {
    let events = mesh.messages("EVENTS", subject).await;
    let mut problems = Vec::new();
    for event in &events {
        let due = due(event);
        if event.time_ms < i128::from(due) * 1000 {
            problems.push(format!(
                "{due} came {} ms early",
                i128::from(due) * 1000 - event.time_ms
            ));
        }
    }
    let dues: Vec<u64> = events.iter().map(due).collect();
    for pair in dues.windows(2) {
        if pair[1] != pair[0] + period {
            problems.push(format!("{} comes after {}", pair[1], pair[0]));
        }
    }
    problems
}
