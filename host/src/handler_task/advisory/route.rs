//! Brings each advisory to the handler that it speaks of. One consumer on `MESH_ADVISORIES` serves the whole mesh: its hosts
//! share what it delivers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message as Wire, Subject};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::broker::connection::redial_delay;
use crate::broker::consumer::{ConsumerInfo, META_HANDLER, META_MESH, nak, nanos};
use crate::broker::provision::{ADVISORIES, REPLAY, restore};
use crate::broker::pull::{Inlet, Pulled};
use crate::broker::{self, Connection, Error};
use crate::event::DeliveryInfo;
use crate::handler_task::advisory::message::{Advisory, Routed};
use crate::handler_task::lane::Lane;
use crate::handler_task::settle::delays::AFTER_FAULT;
use crate::plan::Plan;
use crate::trouble::Weight;

/// Durable name of the mesh's consumer.
pub const CONSUMER: &str = "mesh-advisories";
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How often it is looked whether `MESH_REPLAY` is there.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Advisories that are asked for at a time.
const BATCH: usize = 256;
/// Delivered and not answered, over all hosts; what waits for a handler with more than it can take is among them.
const ACK_PENDING_MAX: usize = 10_000;
/// After this number of deliveries no host serves the handler. When a host does again, its sweep finds the event.
const DELIVERIES_MAX: u64 = 12;

/// Where the advisories of each handler are taken: by its stream and its consumer.
type Handlers<'a> = HashMap<(&'a str, &'a str), &'a mpsc::Sender<Routed>>;

/// Routes advisories for as long as it is polled.
pub async fn run(plan: Arc<Plan>, lanes: Vec<Arc<Lane>>) {
    let handlers: Handlers<'_> = lanes
        .iter()
        .map(|lane| {
            let consumer = (lane.plan.stream.as_str(), lane.plan.consumer.as_str());
            (consumer, &lane.advisories.send)
        })
        .collect();
    let mut attempt = 0;
    loop {
        let Err(error) = serve(&plan, &handlers, &mut attempt).await;
        if error.passes() && attempt < 5 {
            tracing::debug!(%error, "advisories are not received for the moment");
        } else {
            trouble!(Weight::Aside, "", error, { %error }, "advisories are not received; the sweep finds their events");
        }
        attempt += 1;
        tokio::time::sleep(redial_delay(attempt)).await;
    }
}

async fn serve(plan: &Plan, handlers: &Handlers<'_>, attempt: &mut u32) -> Result<std::convert::Infallible, Error> {
    // Who may publish an advisory may publish one that no client can read.
    let connection = broker::open_guarded(&plan.nats, &format!("jetmesh advisories {}", plan.mesh)).await?;
    restore(&connection, plan, ADVISORIES).await?;
    bind(&connection, plan).await?;
    let mut inlet = Inlet::open(&connection, ADVISORIES, CONSUMER).await?;
    let mut checks = tokio::time::interval(CHECK_EVERY);
    *attempt = 0;
    loop {
        inlet.ask(BATCH).await?;
        let pulled = tokio::select! {
            () = connection.closed() => return Err(Error::Gone { what: "hearing advisories".to_owned() }),
            _ = checks.tick() => {
                inlet.forget_if_stale();
                // A command that asks for replays needs the stream, and no handler task notices by itself that it is missing.
                restore(&connection, plan, REPLAY).await?;
                continue;
            }
            pulled = inlet.next() => pulled?,
        };
        let answer = match pulled {
            Pulled::Message(message) => route(handlers, message),
            Pulled::Malformed(malformed, reply) => {
                let (stream, why) = (ADVISORIES, malformed.why());
                trouble!(Weight::Aside, stream, why, { stream, why }, "a message that no client can read is taken away");
                reply.map(|reply| (reply, "+ACK".to_owned()))
            }
            Pulled::Ended => None,
        };
        if let Some(answer) = answer {
            let sent = connection.client.publish(answer.0, answer.1.into()).await;
            sent.map_err(|_| Error::Gone {
                what: "hearing advisories".to_owned(),
            })?;
        }
    }
}

/// Hands an advisory to its handler; else, where and what is to be answered.
fn route(handlers: &Handlers<'_>, wire: Wire) -> Option<(Subject, String)> {
    let reply = wire.reply?;
    let later = || nak(AFTER_FAULT);
    let advisory: Advisory = match serde_json::from_slice(&wire.payload) {
        Ok(advisory) => advisory,
        Err(error) => {
            let subject = &wire.subject;
            trouble!(Weight::Aside, subject, error, { %subject, %error }, "an advisory that cannot be read is left out");
            return Some((reply, "+ACK".to_owned()));
        }
    };
    match handlers.get(&(advisory.stream.as_str(), advisory.consumer.as_str())) {
        Some(handler) => match handler.try_send((advisory, reply)) {
            Ok(()) => None,
            Err(TrySendError::Full((_, reply)) | TrySendError::Closed((_, reply))) => Some((reply, later())),
        },
        // Perhaps another host has it. Most consumers of an account are none of the mesh's.
        None => {
            let delivered = DeliveryInfo::parse(&reply).map_or(u64::MAX, |info| info.delivered);
            let answer = if delivered < DELIVERIES_MAX {
                later()
            } else {
                "+ACK".to_owned()
            };
            Some((reply, answer))
        }
    }
}

async fn bind(connection: &Connection, plan: &Plan) -> Result<ConsumerInfo, Error> {
    let mut config = json!({
        "durable_name": CONSUMER,
        "description": "brings the server's advisories to the handlers of the mesh",
        "ack_policy": "explicit",
        "ack_wait": nanos(ACK_WAIT),
        "max_deliver": -1,
        "max_ack_pending": ACK_PENDING_MAX,
        "deliver_policy": "all",
        "replay_policy": "instant",
        "metadata": { META_MESH: plan.mesh },
    });
    if let Some(found) = connection.consumer(ADVISORIES, CONSUMER).await? {
        // Where it starts cannot be changed afterwards.
        for key in ["deliver_policy", "opt_start_seq"] {
            config[key] = found.config[key].clone();
        }
    } else if let Some(first) = take_over(connection, plan).await? {
        config["deliver_policy"] = json!("by_start_sequence");
        config["opt_start_seq"] = json!(first);
    }
    connection.put_whole(ADVISORIES, &config).await
}

/// Earlier builds had a consumer for each handler: those go, and what none of them has answered is the first to be heard.
async fn take_over(connection: &Connection, plan: &Plan) -> Result<Option<u64>, Error> {
    let mut first: Option<u64> = None;
    for handler in &plan.handlers {
        let Some(found) = connection.consumer(ADVISORIES, &handler.name).await? else {
            continue;
        };
        if found.metadata(META_HANDLER) != Some(&handler.name) {
            continue;
        }
        let unanswered = found.ack_floor.stream_seq + 1;
        first = Some(first.map_or(unanswered, |first| first.min(unanswered)));
        connection.remove_consumer(ADVISORIES, &handler.name).await?;
    }
    Ok(first)
}
