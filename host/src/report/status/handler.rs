//! The state of one handler, by its hosts and by NATS.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::Value;

use super::json::{HandlerState, HandlerStatus, LedgerState, LedgerStatus, ServedModule};
use crate::broker::{self, Connection};
use crate::event::{EventId, rfc3339};
use crate::mesh_streams::pauses::HandlerPause;
use crate::micro::rates::RateJson;
use crate::micro::rollout::RolloutJson;
use crate::micro::settings::Difference;
use crate::micro::told;
use crate::plan::Handler;
use crate::trace::over::Over;

/// The hosts that answer.
pub struct Hosts<'a> {
    /// `None`: which hosts there are is not known.
    pub any: Option<bool>,
    /// The handler in the hosts' reports.
    pub endpoints: &'a [&'a Value],
}

/// The state that the hosts report, the best of them first.
struct HandlerTold<'a> {
    state: HandlerState,
    why: Option<&'a str>,
    since: Option<&'a str>,
}

/// What is known of a handler without asking for it alone.
pub struct Known<'a> {
    /// How its ledger stands.
    pub ledger: Option<&'a LedgerStatus>,
    /// Letters of it that wait for a person; `None`: that is not known.
    pub dead: Option<u64>,
    /// What its hosts do not agree on.
    pub differs: Option<Difference>,
    /// The pause by a person.
    pub paused: Option<HandlerPause>,
    /// Events of which there are attempt records; `None`: that is not known.
    pub tried: Option<&'a [EventId]>,
}

/// One handler.
pub async fn stand(connection: &Connection, handler: &Handler, hosts: Hosts<'_>, known: Known<'_>) -> HandlerStatus {
    let modules = modules(hosts.endpoints);
    let digests: Vec<&str> = modules.iter().map(|one| one.module.as_str()).collect();
    let best = best(&hosts);
    let over = Over::of(connection, handler).await;
    let unread = |error: &broker::Error| format!("what is decided of its events is not known: {error}");
    let unread = over.as_ref().err().map(unread);
    let over = over.as_ref().ok();
    let decided = || over.map(|over| over.floor.done + over.floor.dead);
    let mut status = HandlerStatus {
        handler: handler.name.clone(),
        stream: handler.stream.clone(),
        consumer: handler.consumer.clone(),
        state: best.state,
        since: best.since.map(str::to_owned),
        paused: known.paused,
        why: best.why.map(str::to_owned),
        hindered: told::hindered(hosts.endpoints),
        circuits: told::circuits(hosts.endpoints),
        module: (!digests.is_empty()).then(|| digests.join(",")),
        modules_not_taken: told::said(hosts.endpoints, "module_not_taken"),
        rollout: rollout(hosts.endpoints),
        settings_differ: known.differs,
        rate: rate(hosts.endpoints),
        pending: None,
        in_flight: None,
        oldest: None,
        removed: removed(hosts.endpoints),
        retrying: known.tried.zip(over).map(retrying),
        decided: handler.ledger.is_some().then(decided),
        dead: known.dead,
        note: None,
        modules,
    };
    if best.state == HandlerState::Serving {
        degraded(&mut status);
    }
    if let Some(ledger) = known.ledger.filter(|ledger| ledger.state == LedgerState::Stopped) {
        stopped(&mut status, ledger);
    }
    if let Some(pause) = &status.paused
        && matches!(status.state, HandlerState::Serving | HandlerState::Degraded)
    {
        status.state = HandlerState::Paused;
        status.since = Some(pause.since.clone());
    }
    match at_nats(connection, handler, &mut status).await {
        Ok(None) => {}
        Ok(Some(why)) if status.why.is_none() => {
            if best.state == HandlerState::Serving {
                status.state = HandlerState::Connecting;
            }
            status.why = Some(why);
        }
        Ok(Some(why)) => status.note = Some(why),
        Err(error) => status.note = Some(format!("NATS gives no information on its consumer: {error}")),
    }
    if status.note.is_none() {
        status.note = unread;
    }
    status
}

/// How many events wait for another attempt, as `jetmesh retrying` lists them.
fn retrying((tried, over): (&[EventId], &Over)) -> usize {
    let waits = |event: &&EventId| !over.is(&event.to_string());
    tried.iter().filter(waits).count()
}

/// Its events are delivered, and nothing can be decided.
fn stopped(status: &mut HandlerStatus, ledger: &LedgerStatus) {
    if matches!(status.state, HandlerState::Serving | HandlerState::Degraded) {
        // What keeps some of its events matters less.
        status.why = status.why.take().filter(|_| status.state != HandlerState::Degraded);
        status.state = HandlerState::Stopped;
        status.since.clone_from(&ledger.since);
    }
    if status.why.is_none() {
        status.why.clone_from(&ledger.why);
    }
}

/// A handler that serves is degraded if some of its events cannot go on.
fn degraded(status: &mut HandlerStatus) {
    let reasons = status.circuits.iter().chain(&status.hindered);
    let Some(since) = reasons.filter_map(|one| one["since"].as_str()).min() else {
        return;
    };
    let circuit = (!status.circuits.is_empty()).then(|| "its circuit is open".to_owned());
    let all: Vec<String> = circuit
        .into_iter()
        .chain(status.hindered.iter().map(told::hindrance))
        .collect();
    status.since = Some(since.to_owned());
    status.state = HandlerState::Degraded;
    status.why = Some(all.join("; "));
}

fn best<'a>(hosts: &Hosts<'a>) -> HandlerTold<'a> {
    let of = |(word, state): (&str, HandlerState)| {
        let mut endpoints = hosts.endpoints.iter();
        endpoints.find(|e| e["data"]["state"] == word).map(|e| (state, *e))
    };
    // One host that serves is enough; of the others the one that a person must act for.
    let told = [
        ("serving", HandlerState::Serving),
        ("stopped", HandlerState::Stopped),
        ("connecting", HandlerState::Connecting),
        ("starting", HandlerState::Starting),
    ]
    .into_iter()
    .find_map(of);
    let (state, why, since) = match told {
        Some((state, endpoint)) => {
            let data = &endpoint["data"];
            (state, data["why"].as_str(), data["since"].as_str())
        }
        None => match hosts.any {
            None => (
                HandlerState::Unknown,
                Some("it is not known which hosts there are"),
                None,
            ),
            Some(false) => (HandlerState::Unserved, Some("no host answers"), None),
            Some(true) => {
                let why = "no host that answers has it in its configuration";
                (HandlerState::Unserved, Some(why), None)
            }
        },
    };
    HandlerTold { state, why, since }
}

/// What the stream has removed before it was delivered. Each host sees all of it, but only since it started.
fn removed(endpoints: &[&Value]) -> Option<u64> {
    let counts = endpoints
        .iter()
        .filter_map(|endpoint| endpoint["data"]["removed"].as_u64());
    counts.max()
}

/// How fast all its hosts go together. `None`: one of them does not tell.
fn rate(endpoints: &[&Value]) -> Option<RateJson> {
    let rates = endpoints
        .iter()
        .map(|endpoint| RateJson::deserialize(&endpoint["data"]["rate"]).ok());
    rates.reduce(|one, other| Some(one?.and(other?))).flatten()
}

fn rollout(endpoints: &[&Value]) -> Option<RolloutJson> {
    let told = endpoints.iter().map(|endpoint| &endpoint["data"]["rollout"]);
    RolloutJson::newest(told.filter_map(|rollout| RolloutJson::deserialize(rollout).ok()))
}

/// The pause that its hosts obey.
pub fn obeyed(endpoints: &[&Value]) -> Option<HandlerPause> {
    let mut told = endpoints.iter().map(|endpoint| &endpoint["data"]["paused"]);
    told.find_map(|pause| HandlerPause::deserialize(pause).ok())
}

/// The modules that hosts serve it with: how many do, and since when all of these.
fn modules(endpoints: &[&Value]) -> Vec<ServedModule> {
    let mut modules: BTreeMap<&str, (u64, Option<&str>)> = BTreeMap::new();
    for endpoint in endpoints {
        if let Some(digest) = endpoint["data"]["module"].as_str() {
            let (hosts, since) = modules.entry(digest).or_default();
            *hosts += 1;
            *since = (*since).max(endpoint["data"]["module_since"].as_str());
        }
    }
    let told = |(digest, (hosts, since)): (&str, (u64, Option<&str>))| ServedModule {
        module: digest.to_owned(),
        hosts,
        since: since.map(str::to_owned),
    };
    modules.into_iter().map(told).collect()
}

/// The counts of its consumer, and what is wrong there.
async fn at_nats(
    connection: &Connection,
    handler: &Handler,
    status: &mut HandlerStatus,
) -> Result<Option<String>, broker::Error> {
    let (stream, consumer) = (&handler.stream, &handler.consumer);
    let Some(there) = connection.stream(stream).await? else {
        return Ok(Some(format!("there is no stream {stream}")));
    };
    let Some(info) = connection.consumer(stream, consumer).await? else {
        return Ok(Some(format!(
            "its consumer {consumer} is not there; a host that serves makes it"
        )));
    };
    status.pending = Some(info.num_pending);
    status.in_flight = Some(info.num_ack_pending);
    // What was stored after the first look makes no difference.
    let ahead = info.is_ahead_of(&there) && connection.left_behind(stream, &info).await?.is_some();
    if ahead {
        return Ok(Some(format!(
            "stream {stream} has lost its last messages: consumer {consumer} is ahead of it, and receives nothing \
             until a host creates it again, at its next start or sweep"
        )));
    }
    if info.num_pending > 0 || info.num_ack_pending > 0 {
        let oldest = connection.oldest_unsettled(stream, &info).await?;
        status.oldest = oldest.map(rfc3339);
    }
    // The server holds the consumer of a paused handler for that.
    if let Some(why) = info.held_up(stream).filter(|_| status.paused.is_none()) {
        status.note = Some(why);
    }
    Ok(None)
}
