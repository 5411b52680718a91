//! The state of one handler, by its hosts and by NATS.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::broker::kv::kv_stream;
use crate::broker::{self, By, Connection};
use crate::ledger::core::entry::{Head, Subjects};
use crate::message::EventId;
use crate::micro::settings::Difference;
use crate::micro::told;
use crate::plan::Handler;
use crate::trace::over::Over;

/// The hosts that answer.
pub struct Hosts<'a> {
    pub any: bool,
    /// The handler in the hosts' reports.
    pub endpoints: &'a [&'a Value],
}

/// The state that the hosts report, the best of them first.
struct HandlerTold<'a> {
    state: &'a str,
    why: Option<&'a str>,
    since: Value,
}

/// What is known of a handler without asking for it alone.
pub struct Known<'a> {
    /// How its ledger stands.
    pub ledger: Option<&'a Value>,
    /// Letters of it that wait for a person.
    pub dead: u64,
    /// What its hosts do not agree on.
    pub differs: Option<&'a Difference>,
    /// Events of which there are attempt records; `None`: that is not known.
    pub tried: Option<&'a [EventId]>,
}

/// One handler.
pub async fn stand(connection: &Connection, handler: &Handler, hosts: &Hosts<'_>, known: Known<'_>) -> Value {
    let Known {
        ledger,
        dead,
        differs,
        tried,
    } = known;
    let modules = modules(hosts.endpoints);
    let digests: Vec<&str> = modules.iter().filter_map(|one| one["module"].as_str()).collect();
    let best = best(hosts);
    let mut body = json!({
        "handler": handler.name,
        "stream": handler.stream,
        "consumer": handler.consumer,
        "state": best.state,
        "since": best.since,
        "why": best.why,
        "module": if digests.is_empty() { Value::Null } else { json!(digests.join(",")) },
        "modules": modules,
        "modules_not_taken": told::said(hosts.endpoints, "module_not_taken"),
        "settings_differ": differs.map(|d| json!({ "keys": d.keys, "hosts": d.hosts, "than": d.than })),
        "dead": dead,
    });
    let hindered = told::hindered(hosts.endpoints);
    if let Some(first) = hindered.first().filter(|_| best.state == "serving") {
        body["state"] = json!("degraded");
        body["since"] = first["since"].clone();
        body["why"] = json!(hindered.iter().map(told::hindrance).collect::<Vec<_>>().join("; "));
    }
    body["hindered"] = json!(hindered);
    if let Some(ledger) = ledger.filter(|ledger| ledger["state"] != "works") {
        // Its events are delivered, and nothing can be decided.
        if matches!(body["state"].as_str(), Some("serving" | "degraded")) {
            body["state"] = json!("stopped");
            body["since"] = ledger["since"].clone();
        }
        if best.why.is_none() {
            body["why"] = ledger["why"].clone();
        }
    }
    let over = Over::of(connection, handler).await.ok();
    if handler.ledger.is_some() {
        body["decided"] = json!(over.as_ref().map(|over| over.floor.done + over.floor.dead));
    }
    // As `jetmesh retrying` lists them.
    let waits = |event: &&EventId| over.as_ref().is_none_or(|over| !over.is(&event.to_string()));
    body["retrying"] = json!(tried.map(|tried| tried.iter().filter(waits).count()));
    match at_nats(connection, handler, &mut body).await {
        Ok(None) => {}
        Ok(Some(why)) if body["why"].is_null() => {
            if best.state == "serving" {
                body["state"] = json!("connecting");
            }
            body["why"] = json!(why);
        }
        Ok(Some(why)) => body["note"] = json!(why),
        Err(error) => body["note"] = json!(format!("NATS gives no information on its consumer: {error}")),
    }
    body
}

fn best<'a>(hosts: &Hosts<'a>) -> HandlerTold<'a> {
    let of = |state: &str| hosts.endpoints.iter().find(|e| e["data"]["state"] == state);
    // One host that serves is enough; of the others the one that a person must act for.
    let told = ["serving", "stopped", "connecting", "starting"]
        .into_iter()
        .find_map(of);
    match told {
        Some(endpoint) => HandlerTold {
            state: endpoint["data"]["state"].as_str().unwrap_or("unknown"),
            why: endpoint["data"]["why"].as_str(),
            since: endpoint["data"]["since"].clone(),
        },
        None if !hosts.any => HandlerTold {
            state: "unserved",
            why: Some("no host answers"),
            since: Value::Null,
        },
        None => HandlerTold {
            state: "unserved",
            why: Some("no host that answers has it in its configuration"),
            since: Value::Null,
        },
    }
}

/// The modules that hosts serve it with: how many do, and since when all of these.
fn modules(endpoints: &[&Value]) -> Vec<Value> {
    let mut modules: BTreeMap<&str, (u64, Option<&str>)> = BTreeMap::new();
    for endpoint in endpoints {
        if let Some(digest) = endpoint["data"]["module"].as_str() {
            let (hosts, since) = modules.entry(digest).or_default();
            *hosts += 1;
            *since = (*since).max(endpoint["data"]["module_since"].as_str());
        }
    }
    let told = |(digest, (hosts, since))| json!({ "module": digest, "hosts": hosts, "since": since });
    modules.into_iter().map(told).collect()
}

/// The ledger's head.
pub(super) async fn head(connection: &Connection, ledger: &str) -> Result<Head, broker::Error> {
    let subject = Subjects::new(ledger).head();
    let stored = connection.stored(&kv_stream(ledger), By::Last(&subject)).await?;
    Ok(stored
        .and_then(|stored| serde_json::from_slice(&stored.payload).ok())
        .unwrap_or_default())
}

/// The counts of its consumer, and what is wrong there.
async fn at_nats(
    connection: &Connection,
    handler: &Handler,
    body: &mut Value,
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
    body["pending"] = json!(info.num_pending);
    body["in_flight"] = json!(info.num_ack_pending);
    // What was stored after the first look makes no difference.
    let ahead = info.is_ahead_of(&there) && connection.left_behind(stream, &info).await?.is_some();
    if ahead {
        return Ok(Some(format!(
            "stream {stream} has lost its last messages: consumer {consumer} is ahead of it, and receives nothing \
             until a host creates it again, at its next start or sweep"
        )));
    }
    if let Some(why) = info.held_up(stream) {
        body["note"] = json!(why);
    }
    Ok(None)
}
