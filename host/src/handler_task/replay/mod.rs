//! Events that are to be run once more, by one handler: a dead letter that somebody replays, or an event that the server
//! lost. A message of `MESH_REPLAY` only names the event, or some; their bytes are read from where they lie.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message as Wire, Subject};
use serde_json::json;

use crate::broker::consumer::{ConsumerInfo, META_HANDLER, META_MESH, nanos};
use crate::broker::provision::REPLAY;
use crate::broker::{Connection, Error};
use crate::dead_letter::{self, ASKED_BY, Envelope};
use crate::handler_task::dead_lettering::{self, Attempts, Dead};
use crate::handler_task::delivery::{Delivery, Replay};
use crate::handler_task::dispatch;
use crate::handler_task::hindered::{What, Why};
use crate::handler_task::lane::{Lane, Link};
use crate::handler_task::malformed;
use crate::handler_task::settle::{Acker, Settlement};
use crate::message::{DeliveryInfo, EventId, Message};
use crate::outcome::{Cause, Failure};
use crate::trouble::Weight;

mod inlet;
pub mod letter;
mod list;
pub mod lists;

use crate::replay_queue::{self, LETTER, subject};
pub use inlet::{Heard, Replays};

/// When a replay that could not be begun is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// The durable name of a lane's consumer on `MESH_REPLAY`.
fn consumer(lane: &Lane) -> String {
    lane.plan.name.clone()
}

async fn bind(connection: &Connection, lane: &Lane) -> Result<ConsumerInfo, Error> {
    let config = json!({
        "durable_name": consumer(lane),
        "ack_policy": "explicit",
        "ack_wait": nanos(lane.plan.ack_wait),
        "max_deliver": -1,
        "max_ack_pending": 1000,
        "inactive_threshold": nanos(inlet::INACTIVE),
        "filter_subject": format!("$MESH.replay.{}.>", lane.plan.name),
        "deliver_policy": "all",
        "replay_policy": "instant",
        "metadata": { META_MESH: lane.whole.mesh, META_HANDLER: lane.plan.name },
    });
    connection.put_whole(REPLAY, &config).await
}

/// Handles one message: the replay of an event, or of a list of letters.
pub async fn take(lane: &Arc<Lane>, link: Arc<Link>, wire: Wire, reply: Subject, info: DeliveryInfo) {
    let acker = Acker::of(reply, &link);
    let named = wire.subject.strip_prefix(subject(&lane.plan.name).as_str());
    let named = named.and_then(|rest| rest.strip_prefix('.')).unwrap_or_default();
    let header = |name| Some(wire.headers.as_ref()?.get(name)?.as_str().to_owned());
    let asked_by = header(ASKED_BY).filter(|run| replay_queue::is_run(run));
    if let Some(list) = replay_queue::list_of(named) {
        return list::take(lane, &link, (list, &wire.payload), asked_by, acker, info.delivered).await;
    }
    let Some(event) = EventId::parse(named) else {
        let (handler, subject) = (&lane.plan.name, &wire.subject);
        trouble!(Weight::Aside, handler, "", { %handler, %subject }, "a replay that names no event is dropped");
        return acker.settle(lane, &Settlement::Ack).await;
    };
    let letter: Option<String> = header(LETTER);
    let found = match &letter {
        Some(subject) => {
            // What a replica has, at first: if that is wrong, the commit is refused and the replay delivered again.
            let glanced = match info.delivered {
                1 if lane.bucket.is_some() => dead_letter::glance(&link.connection, subject, &event).await,
                _ => None,
            };
            of_letter(lane, &link, &event, subject, glanced, asked_by).await
        }
        None => of_stream(lane, &link, &event).await,
    };
    run(lane, &event, found, acker, info.delivered).await;
}

/// Runs what was found to be run once more, and answers.
async fn run(
    lane: &Lane,
    event: &EventId,
    found: Result<Option<(Message, Replay)>, Error>,
    acker: Acker,
    delivered: u64,
) {
    match found {
        Ok(Some((message, replay))) => {
            dispatch::handle(
                lane,
                Delivery {
                    message,
                    acker,
                    delivered,
                    replay: Some(replay),
                },
            )
            .await;
        }
        Ok(None) => {
            lane.hindered.over(&What::Event(event.clone()));
            acker.settle(lane, &Settlement::Ack).await;
        }
        Err(error) => {
            let handler = &lane.plan.name;
            trouble!(Weight::Delay, handler, error, { %handler, %event, %error }, "a replay is put off");
            lane.hindered.met(What::Event(event.clone()), Why::from(&error), AGAIN);
            acker.settle(lane, &Settlement::Nak(AGAIN)).await;
        }
    }
}

/// A dead letter's event. `None`: it is settled, or decided otherwise. `glanced`: the letter as some replica has it.
async fn of_letter(
    lane: &Lane,
    link: &Link,
    event: &EventId,
    subject: &str,
    glanced: Option<(Envelope, Message)>,
    asked_by: Option<String>,
) -> Result<Option<(Message, Replay)>, Error> {
    let read = async || {
        let letter = dead_letter::read(&link.connection, subject).await?;
        Ok::<_, Error>(letter.map(|letter| letter.open(event.clone())))
    };
    let (found, death) = match &lane.bucket {
        None => (read().await?, None),
        Some(bucket) => {
            let named = glanced.as_ref().and_then(|(letter, _)| letter.death_in(&bucket.name));
            let death = match named {
                Some(death) => death,
                None => match bucket.death(&lane.plan.name, event).await? {
                    Some(death) => death,
                    None => return Ok(None),
                },
            };
            let found = match glanced.filter(|(letter, _)| letter.tells_of(death.entry)) {
                Some(found) => Some(found),
                None => read().await?.filter(|(letter, _)| letter.tells_of(death.entry)),
            };
            // The death may be another host's, and newer than what this one has read.
            if bucket.newest() < death.entry {
                bucket.catch_up().await?;
            }
            (found, Some(death))
        }
    };
    Ok(found.map(|(letter, message)| {
        let letter = Some(letter);
        let replay = Replay {
            death,
            letter,
            asked_by,
        };
        (message, replay)
    }))
}

/// An event that is still in its stream. `None`: it is not, and has been buried.
async fn of_stream(lane: &Lane, link: &Link, event: &EventId) -> Result<Option<(Message, Replay)>, Error> {
    if !link.has(event) {
        return Ok(None);
    }
    let Some(body) = dead_lettering::body_in_stream(lane, event).await? else {
        lost(lane, event, Attempts::default()).await?;
        return Ok(None);
    };
    if body.headers.is_err() {
        malformed::found(lane, event, body).await?;
        return Ok(None);
    }
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
            letter: None,
            asked_by: None,
        },
    )))
}

/// Buries an undecided event that its stream has removed.
pub async fn lost(lane: &Lane, event: &EventId, record: Attempts) -> Result<(), Error> {
    let failure = Failure {
        code: "lost".to_owned(),
        message: format!("stream {} removed it before it was decided", lane.plan.stream),
    };
    let dead = Dead {
        cause: Cause::Lost,
        failure: std::borrow::Cow::Owned(failure),
        record,
    };
    if dead_lettering::bury(lane, event, &dead, None).await? == dead_lettering::Buried::Now {
        tracing::warn!(handler = %lane.plan.name, %event, cause = %Cause::Lost, "dead");
    }
    Ok(())
}
