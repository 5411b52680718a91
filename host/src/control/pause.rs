//! Pausing handlers, and resuming them. The pause is stored in the mesh's bucket, which all hosts read; then the server is told to
//! deliver nothing to the handler's consumer. `decisions/0028-pause.md` says why both.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::broker::consumer::META_HANDLER;
use crate::broker::error::Code;
use crate::broker::{Connection, Error};
use crate::config::duration;
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::mesh_streams::audit::AuditEnd;
use crate::mesh_streams::pauses::{self, HandlerPause};
use crate::micro;
use crate::micro::told::endpoints;
use crate::plan::{Handler, Plan};

/// How long hosts are given to report that they obey. They look every two seconds.
const OBEYED_WITHIN: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_millis(200);

/// A pause that is asked for.
#[derive(Debug, Clone)]
pub struct PauseOrder {
    pub by: String,
    pub reason: Option<String>,
    /// How long it lasts; `None`: until it is resumed.
    pub lasts: Option<Duration>,
}

/// What has become of the order to pause a handler.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "A line of `jetmesh pause --json`", description = "")]
pub struct Paused {
    pub handler: String,
    pub outcome: PauseOutcome,
    /// As it holds now.
    pub pause: HandlerPause,
    /// Why the server does not hold the consumer as well; null: it does. The hosts obey either way.
    pub consumer_not_paused: Option<String>,
    /// Hosts that have not reported yet that they obey; null: the hosts cannot be asked.
    pub hosts_behind: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PauseOutcome {
    Paused,
    /// It was paused before, and has another end or reason now.
    Changed,
    /// It was paused before, and nothing else was asked for.
    Unchanged,
}

/// What has become of the order to resume a handler.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "A line of `jetmesh resume --json`", description = "")]
pub struct Resumed {
    pub handler: String,
    /// false: it was not paused.
    pub resumed: bool,
    /// The pause that has ended; null: there was none, or only one of the consumer.
    pub pause: Option<HandlerPause>,
    /// Hosts that have not reported yet that they obey; null: the hosts cannot be asked.
    pub hosts_behind: Option<Vec<String>>,
}

/// Handlers that were paused, as it is recorded.
pub fn recorded_paused(all: &[Paused]) -> AuditEnd {
    let count = |outcome| all.iter().filter(|one| one.outcome == outcome).count() as u64;
    AuditEnd::done(&[
        ("paused", count(PauseOutcome::Paused)),
        ("changed", count(PauseOutcome::Changed)),
        ("unchanged", count(PauseOutcome::Unchanged)),
    ])
}

/// The same of handlers that were resumed.
pub fn recorded_resumed(all: &[Resumed]) -> AuditEnd {
    let resumed = all.iter().filter(|one| one.resumed).count() as u64;
    AuditEnd::done(&[("resumed", resumed), ("unchanged", all.len() as u64 - resumed)])
}

/// The longest pause with an end.
const LASTS_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long a pause lasts, as people write it.
pub fn lasting(text: &str) -> Result<Duration, String> {
    let lasts = duration(text).map_err(|hint| format!("not a duration, which is {hint}"))?;
    match lasts {
        lasts if lasts < Duration::from_secs(1) => Err("a pause lasts one second or longer".to_owned()),
        lasts if lasts > LASTS_MAX => Err("too long: without --for the pause lasts until `jetmesh resume`".to_owned()),
        lasts => Ok(lasts),
    }
}

/// Pauses handlers on all hosts.
pub async fn pause(
    connection: &Connection,
    plan: &Plan,
    handlers: &[&Handler],
    order: &PauseOrder,
) -> Result<Vec<Paused>, Error> {
    let now = now_ms();
    let until = order
        .lasts
        .map(|lasts| rfc3339(now + u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX)));
    let asked = |before: Option<&HandlerPause>| match before {
        Some(before) if until.is_none() && order.reason.is_none() => (PauseOutcome::Unchanged, before.clone()),
        before => {
            let pause = HandlerPause {
                by: order.by.clone(),
                since: before.map_or_else(|| rfc3339(now), |before| before.since.clone()),
                until: until.clone().or_else(|| before?.until.clone()),
                reason: order.reason.clone().or_else(|| before?.reason.clone()),
            };
            let was_paused = before.is_some();
            (
                if was_paused {
                    PauseOutcome::Changed
                } else {
                    PauseOutcome::Paused
                },
                pause,
            )
        }
    };
    let mut all = Vec::new();
    pauses::change(connection, now, |stored| {
        all.clear();
        for handler in handlers {
            let (outcome, pause) = asked(stored.get(&handler.name));
            stored.insert(handler.name.clone(), pause.clone());
            all.push((*handler, outcome, pause));
        }
        all.iter().any(|(_, outcome, _)| *outcome != PauseOutcome::Unchanged)
    })
    .await?;
    let mut told = Vec::new();
    for (handler, outcome, pause) in all {
        // Also if nothing has changed: a command may have ended in between.
        let held = hold(connection, handler, Some(pause.deadline())).await;
        told.push(Paused {
            handler: handler.name.clone(),
            outcome,
            pause,
            consumer_not_paused: held.err().map(|error| error.to_string()),
            hosts_behind: None,
        });
    }
    let behind = behind(connection, plan, handlers, true).await;
    for (one, behind) in told.iter_mut().zip(behind) {
        one.hosts_behind = behind;
    }
    Ok(told)
}

/// Resumes handlers on all hosts, and also a consumer that was paused by other means.
pub async fn resume(connection: &Connection, plan: &Plan, handlers: &[&Handler]) -> Result<Vec<Resumed>, Error> {
    let mut ended = Vec::new();
    pauses::change(connection, now_ms(), |stored| {
        ended = handlers.iter().map(|handler| stored.remove(&handler.name)).collect();
        ended.iter().any(Option::is_some)
    })
    .await?;
    let mut held = Vec::new();
    for handler in handlers {
        held.push(hold(connection, handler, None).await?);
    }
    let behind = behind(connection, plan, handlers, false).await;
    let all = handlers.iter().zip(ended).zip(held).zip(behind);
    let told = all.map(|(((handler, pause), held), hosts_behind)| Resumed {
        handler: handler.name.clone(),
        resumed: pause.is_some() || held,
        pause,
        hosts_behind,
    });
    Ok(told.collect())
}

/// Pauses the handler's consumer at the server, or resumes it. Returns whether it was paused. One that is missing is created by
/// a host, as the stored pause says; one that is not the handler's is left alone.
async fn hold(connection: &Connection, handler: &Handler, until: Option<&str>) -> Result<bool, Error> {
    let (stream, consumer) = (&handler.stream, &handler.consumer);
    let found = match connection.consumer(stream, consumer).await {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => None,
        found => found?,
    };
    let Some(found) = found.filter(|found| found.metadata(META_HANDLER) == Some(&handler.name)) else {
        return Ok(false);
    };
    if found.paused || until.is_some() {
        connection.pause_consumer(stream, consumer, until).await?;
    }
    Ok(found.paused)
}

/// For each handler the hosts that have not taken the order in, after they had time for it. `None`: they cannot be asked.
async fn behind(connection: &Connection, plan: &Plan, handlers: &[&Handler], paused: bool) -> Vec<Option<Vec<String>>> {
    let began = Instant::now();
    loop {
        let Ok(hosts) = micro::hosts(connection, &plan.mesh).await else {
            return vec![None; handlers.len()];
        };
        let behind: Vec<Vec<String>> = handlers
            .iter()
            .map(|handler| of_handler(&hosts, &handler.name, paused))
            .collect();
        if behind.iter().all(Vec::is_empty) || began.elapsed() >= OBEYED_WITHIN {
            return behind.into_iter().map(Some).collect();
        }
        sleep(ASK_EVERY).await;
    }
}

fn of_handler(hosts: &[Value], handler: &str, paused: bool) -> Vec<String> {
    let serves = |host: &&Value| {
        let mut endpoints = endpoints(std::slice::from_ref(*host));
        endpoints.any(|one| one["name"] == handler && one["data"]["paused"].is_object() != paused)
    };
    let behind = hosts.iter().filter(serves);
    behind
        .filter_map(|host| Some(host["id"].as_str()?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lasts_a_second_at_least_and_never_a_month_by_mistake() {
        assert_eq!(lasting("90m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "0s", "10ms", "1", "1M", "4000d"] {
            assert!(lasting(wrong).is_err(), "{wrong}");
        }
    }
}
