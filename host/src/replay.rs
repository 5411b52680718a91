//! Events that are to be run once more, by one handler: a dead letter that somebody replays, or an event that the server
//! lost. A message of `MESH_REPLAY` only names the event; its bytes are read from where they lie.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Message as Wire, Subject};
use serde_json::json;

use crate::broker::consumer::{ConsumerInfo, META_HANDLER, META_MESH, nanos};
use crate::broker::error::WRONG_LAST;
use crate::broker::provision::REPLAY;
use crate::broker::{Connection, Error};
use crate::burial::{self, Dead};
use crate::dead_letter;
use crate::delivery::{Delivery, Replay};
use crate::dispatch;
use crate::lane::{Lane, Link};
use crate::message::{DeliveryInfo, EventId, Message, parse_rfc3339};
use crate::outcome::{Cause, Failure};
use crate::settle::{Acker, Settlement};

/// Header of a replay: the subject of the dead letter that it replays.
const LETTER: &str = "Mesh-Letter";

/// The durable name of a lane's consumer on `MESH_REPLAY`.
pub fn consumer(lane: &Lane) -> String {
    lane.plan.name.clone()
}

pub async fn bind(connection: &Connection, lane: &Lane) -> Result<ConsumerInfo, Error> {
    let config = json!({
        "durable_name": consumer(lane),
        "ack_policy": "explicit",
        "ack_wait": nanos(lane.plan.ack_wait),
        "max_deliver": -1,
        "max_ack_pending": 1000,
        "filter_subject": format!("$MESH.replay.{}.>", lane.plan.name),
        "deliver_policy": "all",
        "replay_policy": "instant",
        "metadata": { META_MESH: lane.whole.mesh, META_HANDLER: lane.plan.name },
    });
    connection.put_consumer(REPLAY, &config, "").await
}

/// Asks for an event to be run once more. Asking twice while the first is waiting does nothing.
pub async fn ask(connection: &Connection, handler: &str, event: &EventId, letter: Option<&str>) -> Result<(), Error> {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
    if let Some(letter) = letter {
        headers.insert(LETTER, letter);
    }
    match connection
        .publish(&format!("$MESH.replay.{handler}.{event}"), headers, bytes::Bytes::new())
        .await
    {
        Ok(_) | Err(Error::Api { code: WRONG_LAST, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Handles one replay.
pub async fn take(lane: &Arc<Lane>, link: Arc<Link>, wire: Wire, reply: Subject, info: DeliveryInfo) {
    let acker = Acker {
        reply,
        link: Arc::clone(&link),
    };
    let prefix = format!("$MESH.replay.{}.", lane.plan.name);
    let Some(event) = wire.subject.strip_prefix(prefix.as_str()).and_then(EventId::parse) else {
        tracing::warn!(handler = %lane.plan.name, subject = %wire.subject, "a replay that names no event is dropped");
        return acker.settle(lane, &Settlement::Ack).await;
    };
    let letter = wire
        .headers
        .as_ref()
        .and_then(|h| h.get(LETTER))
        .map(|v| v.as_str().to_owned());
    let found = match &letter {
        Some(subject) => of_letter(lane, &link, &event, subject).await,
        None => of_stream(lane, &link, &event).await,
    };
    match found {
        Ok(Some((message, replay))) => {
            dispatch::handle(
                lane,
                Delivery {
                    message,
                    acker,
                    delivered: info.delivered,
                    replay: Some(replay),
                },
            )
            .await;
        }
        Ok(None) => acker.settle(lane, &Settlement::Ack).await,
        Err(error) => {
            tracing::info!(handler = %lane.plan.name, %event, %error, "a replay is put off");
            acker.settle(lane, &Settlement::Nak(Duration::from_secs(5))).await;
        }
    }
}

/// A dead letter's event. `None`: it is settled, or decided otherwise.
async fn of_letter(
    lane: &Lane,
    link: &Link,
    event: &EventId,
    subject: &str,
) -> Result<Option<(Message, Replay)>, Error> {
    let Some(letter) = dead_letter::read(&link.connection, subject).await? else {
        return Ok(None);
    };
    let death = match &lane.bucket {
        None => None,
        Some(bucket) => {
            // The death may be another host's, and newer than what this one has read.
            bucket.catch_up().await?;
            let named: u64 = letter.header(dead_letter::DEATH).parse().unwrap_or(0);
            match bucket.death(&lane.plan.name, event).await? {
                Some((entry, sequence)) if entry == named => Some((entry, sequence)),
                _ => return Ok(None),
            }
        }
    };
    let message = Message {
        event: event.clone(),
        subject: letter.header(dead_letter::SUBJECT).to_owned(),
        headers: dead_letter::originals(&letter.headers),
        time_ms: parse_rfc3339(letter.header(dead_letter::TIME)).unwrap_or(0),
        payload: letter.payload,
    };
    Ok(Some((message, Replay { death, letter: true })))
}

/// An event that is still in its stream. `None`: it is not, and has been buried.
async fn of_stream(lane: &Lane, link: &Link, event: &EventId) -> Result<Option<(Message, Replay)>, Error> {
    if event.incarnation != link.incarnation {
        return Ok(None);
    }
    let Some(body) = burial::body_in_stream(lane, event).await? else {
        lost(lane, event).await?;
        return Ok(None);
    };
    let message = Message {
        event: event.clone(),
        subject: body.subject,
        headers: body.headers.unwrap_or_default(),
        payload: body.payload,
        time_ms: body.time_ms,
    };
    Ok(Some((
        message,
        Replay {
            death: None,
            letter: false,
        },
    )))
}

/// Buries an undecided event that its stream has removed.
pub async fn lost(lane: &Lane, event: &EventId) -> Result<(), Error> {
    let failure = Failure {
        code: "lost".to_owned(),
        message: format!("stream {} removed it before it was decided", lane.plan.stream),
    };
    let dead = Dead {
        cause: Cause::Lost,
        failure: std::borrow::Cow::Owned(failure),
        record: burial::Attempts::default(),
    };
    if burial::bury(lane, event, &dead, None).await? == burial::Buried::Now {
        tracing::warn!(handler = %lane.plan.name, %event, cause = %Cause::Lost, "dead");
    }
    Ok(())
}
