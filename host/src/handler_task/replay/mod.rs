//! Events that one handler is to run once more: the event of a dead letter that a person replays, or an event that the server
//! lost. A message of `MESH_REPLAY` only names the event, or several; their bytes are read from where they are stored.

use std::sync::Arc;
use std::time::Instant;

use async_nats::{Message as Wire, Subject};
use serde_json::json;

use crate::broker::consumer::{ConsumerInfo, META_HANDLER, META_MESH, nanos};
use crate::broker::provision::REPLAY;
use crate::broker::{Connection, Error};
use crate::event::{DeliveryInfo, EventId, Message};
use crate::handler_task::counters::Counters;
use crate::handler_task::dead_lettering::{Attempts, DeadLetters};
use crate::handler_task::delivery::{Delivery, Replay};
use crate::handler_task::dispatch;
use crate::handler_task::hindered::{HinderedWork, Why};
use crate::handler_task::lane::Lane;
use crate::handler_task::links::Link;
use crate::handler_task::malformed;
use crate::handler_task::settle::delays::{AFTER_FAULT, LETTER_LEFT};
use crate::handler_task::settle::{Acker, Settlement};
use crate::ledger::Bucket;
use crate::mesh_streams::dead_letter::{self, ASKED_BY, Envelope, Letter};
use crate::plan::Handler;
use crate::trouble::Weight;

mod inlet;
pub mod letter;
mod list;
pub mod lists;
pub mod order;
mod redrive;

use crate::mesh_streams::replay_queue::{self, LETTER, LETTER_SEQUENCE, LetterRef, REDRIVE, subject};
pub use inlet::{Heard, Replays};

/// The durable name of a handler's consumer on `MESH_REPLAY`.
fn consumer(plan: &Handler) -> &str {
    &plan.name
}

async fn bind(connection: &Connection, plan: &Handler, mesh: &str) -> Result<ConsumerInfo, Error> {
    let config = json!({
        "durable_name": consumer(plan),
        "ack_policy": "explicit",
        "ack_wait": nanos(plan.ack_wait),
        "max_deliver": -1,
        "max_ack_pending": 1000,
        "inactive_threshold": nanos(inlet::INACTIVE),
        "filter_subject": format!("$MESH.replay.{}.>", plan.name),
        "deliver_policy": "all",
        "replay_policy": "instant",
        "metadata": { META_MESH: mesh, META_HANDLER: plan.name },
    });
    connection.put_whole(REPLAY, &config).await
}

/// Handles one message: the replay of an event, or of a list of letters.
pub async fn take(lane: &Arc<Lane>, link: &Arc<Link>, wire: Wire, reply: Subject, info: DeliveryInfo) {
    let acker = Acker::of(reply, link);
    let named = wire.subject.strip_prefix(subject(&lane.plan.name).as_str());
    let named = named.and_then(|rest| rest.strip_prefix('.')).unwrap_or_default();
    let header = |name| Some(wire.headers.as_ref()?.get(name)?.as_str().to_owned());
    let asked_by = header(ASKED_BY).filter(|run| replay_queue::is_run(run));
    if let Some(list) = replay_queue::list_of(named) {
        return list::take(lane, link, (list, &wire.payload), asked_by, acker, info.delivered).await;
    }
    if named == REDRIVE {
        return redrive::take(lane, acker).await;
    }
    let Some(event) = EventId::parse(named) else {
        let (handler, subject) = (&lane.plan.name, &wire.subject);
        trouble!(Weight::Aside, handler, "", { %handler, %subject }, "a replay that names no event is dropped");
        return acker.settle(&lane.links, &Settlement::Ack).await;
    };
    let letter: Option<String> = header(LETTER);
    let found = match &letter {
        Some(subject) => {
            // What a replica has, at first: if that is wrong, the commit is refused and the replay delivered again.
            let sequence = header(LETTER_SEQUENCE).and_then(|sequence| sequence.parse().ok());
            let glanced = match info.delivered {
                1 if lane.bucket.is_some() && sequence.is_none() => {
                    dead_letter::glance(&link.connection, subject, &event).await
                }
                _ => None,
            };
            let asked = LetterAsked {
                handler: &lane.plan.name,
                event: &event,
                letter: LetterRef { subject, sequence },
                by: asked_by,
                delivered: info.delivered,
            };
            of_letter(lane.bucket.as_ref(), link, asked, glanced).await
        }
        None => of_stream(&lane.dead_letters, &lane.counters, link, &event).await,
    };
    run(lane, &event, found, acker, info.delivered).await;
}

/// What is asked for with a dead letter.
struct LetterAsked<'a> {
    handler: &'a str,
    event: &'a EventId,
    letter: LetterRef<'a>,
    by: Option<String>,
    delivered: u64,
}

/// What is found where a replay points.
enum ReplayFound {
    ToRun(Box<(Message, Replay)>),
    /// The event is decided otherwise, or its letter is resolved.
    Over,
    /// The event is done, and its letter is still there: the relay may be about to resolve it.
    Later,
}

/// Runs what was found to be run once more, and answers.
async fn run(lane: &Lane, event: &EventId, found: Result<ReplayFound, Error>, acker: Acker, delivered: u64) {
    match found {
        Ok(ReplayFound::ToRun(found)) => {
            let (message, replay) = *found;
            dispatch::handle(
                lane,
                Delivery {
                    message,
                    acker,
                    delivered,
                    replay: Some(replay),
                    at: Instant::now(),
                },
            )
            .await;
        }
        Ok(ReplayFound::Later) => acker.settle(&lane.links, &Settlement::Nak(LETTER_LEFT)).await,
        Ok(ReplayFound::Over) => {
            lane.hindered.over(&HinderedWork::Event(event.clone()));
            acker.settle(&lane.links, &Settlement::Ack).await;
        }
        Err(error) => {
            let handler = &lane.plan.name;
            trouble!(Weight::Delay, handler, error, { %handler, %event, %error }, "a replay is put off");
            lane.hindered
                .met(HinderedWork::Event(event.clone()), Why::from(&error), AFTER_FAULT);
            acker.settle(&lane.links, &Settlement::Nak(AFTER_FAULT)).await;
        }
    }
}

/// A dead letter's event. `glanced`: the letter as some replica has it.
async fn of_letter(
    bucket: Option<&Arc<Bucket>>,
    link: &Link,
    asked: LetterAsked<'_>,
    glanced: Option<(Envelope, Message)>,
) -> Result<ReplayFound, Error> {
    let LetterAsked {
        handler,
        event,
        letter: LetterRef { subject, sequence },
        ..
    } = asked;
    // One that was written again since was replayed in the meantime.
    let is_meant = |letter: &Letter| sequence.is_none_or(|sequence| sequence == letter.sequence);
    let read = async || {
        let letter = dead_letter::read(&link.connection, subject).await?.filter(is_meant);
        Ok::<_, Error>(letter.map(|letter| letter.open(event.clone())))
    };
    let (found, death) = match bucket {
        None => (read().await?, None),
        Some(bucket) => {
            let named = glanced.as_ref().and_then(|(letter, _)| letter.death_in(&bucket.name));
            let death = match named {
                Some(death) => death,
                None => match bucket.death(handler, event).await? {
                    Some(death) => death,
                    None => return letter::left_over(bucket, link, &asked).await,
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
    Ok(found.map_or(ReplayFound::Over, |(letter, message)| {
        let replay = Replay {
            death,
            letter: Some(letter),
            asked_by: asked.by,
        };
        ReplayFound::ToRun(Box::new((message, replay)))
    }))
}

/// An event that is still in its stream; one that is not is dead-lettered.
async fn of_stream(
    dead_letters: &DeadLetters,
    counters: &Counters,
    link: &Link,
    event: &EventId,
) -> Result<ReplayFound, Error> {
    if !link.has(event) {
        return Ok(ReplayFound::Over);
    }
    let Some(body) = dead_letters.body_in_stream(event).await? else {
        dead_letters.dead_letter_lost(event, Attempts::default()).await?;
        return Ok(ReplayFound::Over);
    };
    if body.headers.is_err() {
        malformed::found(dead_letters, counters, event, body).await?;
        return Ok(ReplayFound::Over);
    }
    let message = Message {
        event: event.clone(),
        subject: body.subject,
        headers: body.headers.unwrap_or_default(),
        payload: body.payload,
        time_ms: body.time_ms,
    };
    let replay = Replay {
        death: None,
        letter: None,
        asked_by: None,
    };
    Ok(ReplayFound::ToRun(Box::new((message, replay))))
}
