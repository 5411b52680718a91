//! Hosts answer the NATS micro protocol (ADR-32), so that `nats micro ls`, `nats micro stats` and `jetmesh status` see
//! them. The numbers are the handlers' own, which is why this does not use the client's service: that one counts its
//! own requests.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::broker::connection::redial_delay;
use crate::broker::{self, Connection, Error, silence};
use crate::failpoint;
use crate::handler_task::lane::Lane;
use crate::ledger::relay::RelayState;
use crate::micro::peers::Apart;
use crate::micro::rates::RecentCounts;
use crate::micro::settings::Unlike;
use crate::micro::stats::{EndpointMetadata, Stats};
use crate::outbox::OutboxState;
use crate::plan::Plan;
use crate::process::panics::Panics;
use crate::text::secret::redact;
use crate::wasm::engine::Runtime;

pub mod held_back;
mod outboxes;
mod peers;
pub mod rates;
pub mod rollout;
mod runs;
pub mod settings;
pub mod stats;
pub mod told;
pub mod trace;

/// The service's name: `jetmesh` and the mesh's.
pub fn service(mesh: &str) -> String {
    if mesh == "jetmesh" {
        mesh.to_owned()
    } else {
        format!("jetmesh-{mesh}")
    }
}

/// How long to wait for a further host to answer.
const HOSTS_WAIT: Duration = Duration::from_millis(300);
/// The same for the first one. If no host runs, the server says so at once; a busy host needs time to report thousands of
/// handlers.
const FIRST_WAIT: Duration = Duration::from_secs(3);

/// What a host tells of itself.
pub struct Host {
    pub plan: Arc<Plan>,
    pub name: String,
    /// RFC 3339.
    pub started: String,
    pub lanes: Vec<Arc<Lane>>,
    pub relays: Vec<Arc<RelayState>>,
    pub outboxes: Vec<Arc<OutboxState>>,
    pub panics: Arc<Panics>,
    pub runtime: Runtime,
}

/// Answers for as long as it is polled.
pub async fn run(host: Arc<Host>) {
    let (url, mut silent) = (redact(&host.plan.nats.url), None);
    let mut attempt = 0;
    let (mut apart, mut unlike, mut recent) = (Apart::default(), Unlike::default(), RecentCounts::default());
    loop {
        let served = async {
            let connection = broker::open_guarded(&host.plan.nats, &format!("jetmesh micro {}", host.name)).await?;
            tokio::select! {
                served = answer(&connection, &host, &mut recent) => served,
                served = trace::answer(&connection, &host) => served,
                () = peers::watch(&connection, &host, &mut apart, &mut unlike) => Ok(()),
                () = silence::watch(&connection, &url, &mut silent) => Ok(()),
            }
        };
        let error = match served.await {
            Ok(()) => "the connection is gone".to_owned(),
            Err(error) => error.to_string(),
        };
        attempt += 1;
        tracing::debug!(error, "not visible to `nats micro` for a moment");
        tokio::time::sleep(redial_delay(attempt)).await;
    }
}

/// What every running host reports of itself. An error: it is not known which hosts there are.
pub async fn hosts(connection: &Connection, mesh: &str) -> Result<Vec<Value>, Error> {
    answers(connection, mesh, "STATS").await
}

/// What every running host answers to a verb of the protocol.
async fn answers(connection: &Connection, mesh: &str, verb: &str) -> Result<Vec<Value>, Error> {
    let gone = || Error::Gone {
        what: "what hosts report of themselves".to_owned(),
    };
    let inbox = connection.client.new_inbox();
    let answers = connection.client.subscribe(inbox.clone()).await;
    let mut answers = answers.map_err(|_| gone())?;
    let subject = format!("$SRV.{verb}.{}", service(mesh));
    let began = std::time::Instant::now();
    let asked = connection.client.publish_with_reply(subject.clone(), inbox, "".into());
    asked.await.map_err(|_| gone())?;
    let mut hosts = Vec::new();
    loop {
        let wait = if hosts.is_empty() { FIRST_WAIT } else { HOSTS_WAIT };
        let answer = tokio::select! {
            answer = tokio::time::timeout(wait, answers.next()) => answer,
            () = connection.denials.publish_refused(&subject, began) => {
                let text = format!("the hosts cannot be asked for their status: this user may not publish to {subject}");
                return Err(Error::Refused(text));
            }
            () = connection.closed() => return Err(gone()),
        };
        let Ok(answer) = answer else { break };
        let answer = answer.ok_or_else(gone)?;
        // The server says that no host listens.
        if answer.status.is_some() {
            return Ok(hosts);
        }
        if let Ok(answer) = serde_json::from_slice(&answer.payload) {
            join(&mut hosts, answer);
        }
    }
    if hosts.is_empty() {
        // Hosts listen and are silent, or the server is silent too.
        let server = connection.api::<Value>("INFO", &json!({})).await;
        if let Err(Error::Timeout { .. } | Error::Gone { .. }) = server {
            let what = "the hosts and NATS".to_owned();
            return Err(Error::Timeout { what });
        }
    }
    Ok(hosts)
}

async fn answer(connection: &Connection, host: &Host, recent: &mut RecentCounts) -> Result<(), Error> {
    let name = service(&host.plan.mesh);
    let mut requests = futures_util::stream::SelectAll::new();
    for verb in ["PING", "INFO", "STATS"] {
        for subject in [
            format!("$SRV.{verb}"),
            format!("$SRV.{verb}.{name}"),
            format!("$SRV.{verb}.{name}.{}", host.name),
        ] {
            let subscriber = connection.client.subscribe(subject).await;
            requests.push(subscriber.map_err(|_| Error::Gone {
                what: "the micro service".to_owned(),
            })?);
        }
    }
    let mut ticks = tokio::time::interval(rates::EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let request = tokio::select! {
            request = requests.next() => request,
            _ = ticks.tick() => {
                recent.take(host);
                continue;
            }
            () = connection.closed() => return Ok(()),
        };
        failpoint::point("micro");
        let Some(request) = request else { return Ok(()) };
        // What no client can read asks for nothing.
        if connection.malformed(&request).is_some() {
            continue;
        }
        let Some(reply) = request.reply else { continue };
        let verb = request.subject.split('.').nth(1).unwrap_or_default();
        let body = match verb {
            "PING" => named(host, "ping_response"),
            "INFO" => info(host),
            _ => json!(Stats::of(host, recent)),
        };
        for part in parts(body, connection.client.max_payload().saturating_sub(ENVELOPE_BYTES)) {
            // This fails only when the connection is closed.
            let _ = connection.client.publish(reply.clone(), part.into()).await;
        }
    }
}

/// Of an answer's largest message, left for its protocol line.
const ENVELOPE_BYTES: usize = 1024;
/// Where an answer has lists that grow with the number of handlers.
const LISTS: [&str; 4] = ["/endpoints", "/relays", "/outboxes", "/data/ledgers"];

/// An answer in as many messages as the server's limit makes of it: each has the host's name and a share of the lists.
fn parts(mut body: Value, bytes_max: usize) -> Vec<String> {
    let whole = body.to_string();
    if whole.len() <= bytes_max {
        return vec![whole];
    }
    let lists = LISTS.map(|list| {
        let items = body.pointer_mut(list).and_then(Value::as_array_mut);
        (list, items.map(std::mem::take).unwrap_or_default())
    });
    let bare = body.to_string().len();
    let (mut parts, mut part, mut bytes) = (Vec::new(), body.clone(), bare);
    for (list, items) in lists {
        for item in items {
            let size = item.to_string().len() + 1;
            if bytes + size > bytes_max && bytes > bare {
                parts.push(std::mem::replace(&mut part, body.clone()).to_string());
                bytes = bare;
            }
            bytes += size;
            if let Some(Value::Array(items)) = part.pointer_mut(list) {
                items.push(item);
            }
        }
    }
    parts.push(part.to_string());
    parts
}

/// Takes in an answer: of one host it may be a further part.
fn join(hosts: &mut Vec<Value>, mut answer: Value) {
    let Some(host) = hosts.iter_mut().find(|host| host["id"] == answer["id"]) else {
        return hosts.push(answer);
    };
    for list in LISTS {
        if let (Some(Value::Array(all)), Some(Value::Array(more))) = (host.pointer_mut(list), answer.pointer_mut(list))
        {
            all.append(more);
        }
    }
}

/// What each answer begins with.
fn named(host: &Host, kind: &str) -> Value {
    json!({
        "type": format!("io.nats.micro.v1.{kind}"),
        "name": service(&host.plan.mesh),
        "id": host.name,
        "version": env!("CARGO_PKG_VERSION"),
        "metadata": { "mesh": host.plan.mesh },
    })
}

fn info(host: &Host) -> Value {
    let mut body = named(host, "info_response");
    body["description"] = json!("jetmesh host");
    body["endpoints"] = host.lanes.iter().map(|lane| endpoint(lane)).collect();
    body
}

/// A handler, without its figures.
fn endpoint(lane: &Lane) -> Value {
    json!({
        "name": lane.plan.name,
        "subject": subject(lane),
        "queue_group": lane.plan.consumer,
        "metadata": EndpointMetadata::of(lane),
    })
}

/// The first that a handler reads.
fn subject(lane: &Lane) -> &str {
    lane.plan.subjects.first().map_or(">", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_too_large_for_one_message_comes_in_parts_and_is_joined_again() {
        let list = |name: &str, count: usize| (0..count).map(|n| json!({ "name": format!("{name}{n}") })).collect();
        let (endpoints, relays): (Vec<Value>, Vec<Value>) = (list("handler", 100), list("relay", 30));
        let body =
            json!({ "id": "host", "endpoints": endpoints, "relays": relays, "data": { "ledgers": [], "lost": 0 } });
        assert_eq!(parts(body.clone(), 1_000_000), [body.to_string()]);
        let parts = parts(body.clone(), 500);
        assert!(
            parts.len() > 4 && parts.iter().all(|part| part.len() <= 500),
            "{parts:?}"
        );
        let mut hosts = vec![json!({ "id": "other", "endpoints": [] })];
        for part in parts {
            join(&mut hosts, serde_json::from_str(&part).expect("JSON"));
        }
        assert_eq!(hosts[1..], [body]);
    }
}
