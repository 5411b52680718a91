//! Handlers that no host serves, and those that are paused: what is sent to them waits.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::broker::provision::REPLAY;
use crate::broker::{self, Connection};
use crate::dlq::course::Course;
use crate::mesh_streams::pauses::{HandlerPause, Pauses};
use crate::micro;
use crate::micro::told;
use crate::plan::Plan;

/// A handler that takes no replays, and how many of the letters that are meant are for it.
pub struct Unserved {
    pub handler: String,
    pub letters: usize,
    pub why: WhyUnserved,
}

/// Why a handler takes no replays.
pub enum WhyUnserved {
    Paused(HandlerPause),
    /// No host serves it; with the reason that a host gives, if one has the handler.
    NoHost(Option<String>),
}

/// Those of a course. An event that no stream took is published, and needs no host.
pub async fn of(connection: &Connection, plan: &Plan, course: &Course, pauses: &Pauses) -> Vec<Unserved> {
    let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
    for kind in course.kinds().into_iter().filter(|kind| !kind.is_undeliverable()) {
        *wanted.entry(&kind.key.handler).or_default() += kind.count;
    }
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut unserved = Vec::new();
    wanted.retain(|handler, letters| {
        let pause = pauses.get(*handler);
        unserved.extend(pause.map(|pause| Unserved {
            handler: (*handler).to_owned(),
            letters: *letters,
            why: WhyUnserved::Paused(pause.clone()),
        }));
        pause.is_none()
    });
    let Ok(hosts) = micro::hosts(connection, &plan.mesh).await else {
        // Who may not ask them, for instance, does not know.
        return unserved;
    };
    let no_host = wanted.into_iter().filter_map(|(handler, letters)| {
        let told: Vec<&Value> = endpoints(&hosts, handler).collect();
        let stopped = told.iter().all(|endpoint| endpoint["data"]["state"] == "stopped");
        stopped.then(|| Unserved {
            handler: handler.to_owned(),
            letters,
            why: WhyUnserved::NoHost(
                told.iter()
                    .find_map(|endpoint| Some(endpoint["data"]["why"].as_str()?.to_owned())),
            ),
        })
    });
    unserved.extend(no_host);
    unserved
}

/// Whether a host serves a handler and takes its replays.
pub async fn takes_replays(connection: &Connection, plan: &Plan, handler: &str) -> Result<bool, broker::Error> {
    let hosts = micro::hosts(connection, &plan.mesh).await?;
    if endpoints(&hosts, handler).next().is_none() {
        return Ok(false);
    }
    let consumer = connection.consumer(REPLAY, handler).await?;
    Ok(consumer.is_some_and(|c| c.num_waiting > 0 || c.num_ack_pending > 0))
}

fn endpoints<'a>(hosts: &'a [Value], handler: &str) -> impl Iterator<Item = &'a Value> {
    told::endpoints(hosts).filter(move |endpoint| endpoint["name"] == handler)
}
