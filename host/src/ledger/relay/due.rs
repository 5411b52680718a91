//! Publishes the delayed events that are due. The server has put each on `$MESH.due.<id>`, with or without a host up; every
//! host with relays takes its share.
//!
//! An event is published under its own id, like one that was never delayed, but not before a note that this is being done. A
//! host that finds such a note looks into the target, because a target forgets ids after its duplicate window.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use crate::broker::connection::redial_delay;
use crate::broker::consumer::{META_MESH, nak, nanos};
use crate::broker::kv::kv_stream;
use crate::broker::provision::{DELAYED, restore};
use crate::broker::pull::{Inlet, Pulled};
use crate::broker::{self, Connection, Error};
use crate::event::{DeliveryInfo, Headers, MESSAGE_ID, header, headers_of, writable};
use crate::failpoint;
use crate::ledger::relay::RelayState;
use crate::ledger::relay::blocked::Manner;
use crate::ledger::relay::lookback::holds;
use crate::ledger::relay::targets::{Refusal, Targets, refusal};
use crate::mesh_streams::dead_letter;
use crate::mesh_streams::delayed::{
    self, Claim, DUE, HANDLER_TIMER_TO, LEDGER, TIMER_KEY, TIMER_SUBJECT, TIMER_TO, TO,
};
use crate::plan::{Nats, Plan};
use crate::trouble::Weight;

/// Durable name of the consumer on `MESH_DELAYED`.
pub const CONSUMER: &str = "mesh-due";
/// After this time the server delivers an event again, to any host.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// Events that are being published at a time.
const AT_WORK_MAX: usize = 64;
/// How long an event waits that was not taken, before each further try; the last is repeated. The first three are the time
/// after which an event that is refused becomes a letter.
const AGAIN: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(6),
    Duration::from_secs(10),
];

/// A timer of a schedule that the server has fired. It is no event yet: what comes of it is a transaction.
#[derive(Debug)]
pub struct TimerDue {
    pub schedule: String,
    pub timer: String,
    /// To be told when it is taken in. An error: it comes again.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// A timer of a handler that the server has fired. It is an event if its bucket still names it.
#[derive(Debug)]
pub struct HandlerTimerDue {
    /// Its key.
    pub key: String,
    pub id: String,
    pub subject: String,
    pub headers: Headers,
    pub payload: Bytes,
    /// To be told when it is taken in. An error: it comes again.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// What takes timers in: those of schedules, and those of handlers by their bucket.
#[derive(Clone)]
pub struct TimerRoutes {
    pub schedules: mpsc::Sender<TimerDue>,
    pub handlers: Arc<BTreeMap<String, mpsc::Sender<HandlerTimerDue>>>,
}

/// Publishes what is due, for as long as it is polled.
///
/// # Cancel safety
/// What is dropped half-way is delivered again, here or elsewhere, and published once.
pub async fn run(plan: Arc<Plan>, timers: TimerRoutes, relays: Vec<Arc<RelayState>>) {
    let mut attempt = 0;
    loop {
        let Err(error) = serve(&plan, (&timers, &relays), &mut attempt).await;
        attempt += 1;
        if !error.passes() || attempt == 5 {
            trouble!(Weight::Person, "", error, { %error }, "delayed events that are due cannot be published");
        }
        tokio::time::sleep(redial_delay(attempt)).await;
    }
}

async fn serve(
    plan: &Plan,
    (timers, relays): (&TimerRoutes, &[Arc<RelayState>]),
    attempt: &mut u32,
) -> Result<std::convert::Infallible, Error> {
    let nats = &plan.nats;
    let connection = broker::open_guarded(nats, "jetmesh due").await?;
    restore(&connection, plan, DELAYED).await?;
    let config = json!({
        "durable_name": CONSUMER,
        "description": "publishes delayed events that are due",
        "ack_policy": "explicit",
        "ack_wait": nanos(ACK_WAIT),
        "max_deliver": -1,
        "max_ack_pending": 10_000,
        "filter_subject": format!("{DUE}>"),
        "deliver_policy": "all",
        "replay_policy": "instant",
        "metadata": { META_MESH: plan.mesh },
    });
    connection.put_whole(DELAYED, &config).await?;
    let mut inlet = Inlet::open(&connection, DELAYED, CONSUMER).await?;
    let carrier = Carrier {
        nats: nats.clone(),
        connection: connection.clone(),
        timers: timers.clone(),
        relays: relays.to_vec(),
        targets: Mutex::default(),
        mute: Mutex::default(),
    };
    let mut at_work = FuturesUnordered::new();
    let mut checks = tokio::time::interval(Duration::from_secs(1));
    loop {
        inlet.ask(AT_WORK_MAX.saturating_sub(at_work.len())).await?;
        tokio::select! {
            () = connection.closed() => return Err(Error::Gone { what: "publishing what is due".to_owned() }),
            _ = checks.tick() => inlet.forget_if_stale(),
            Some(done) = at_work.next() => {
                let done: Result<(), Error> = done;
                done?;
                *attempt = 0;
            }
            pulled = inlet.next() => match pulled? {
                Pulled::Message(message) => at_work.push(carrier.carry(message)),
                Pulled::Malformed(malformed, reply) => {
                    let (stream, why) = (DELAYED, malformed.why());
                    trouble!(Weight::Aside, stream, why, { stream, why },
                        "a message that no client can read is taken away");
                    if let Some(reply) = reply {
                        carrier.answer(reply, "+ACK").await?;
                    }
                }
                Pulled::Ended => {}
            },
        }
    }
}

/// For how long nothing is tried at a target that did not answer.
const MUTE: Duration = Duration::from_secs(5);

/// How long an event has waited that is tried for the so manieth time.
fn waited(tries: u64) -> Duration {
    let first: Duration = AGAIN
        .iter()
        .take(usize::try_from(tries - 1).unwrap_or(usize::MAX))
        .sum();
    let more = u32::try_from((tries - 1).saturating_sub(AGAIN.len() as u64)).unwrap_or(u32::MAX);
    first + AGAIN[AGAIN.len() - 1].saturating_mul(more)
}

struct Carrier {
    nats: Nats,
    connection: Connection,
    timers: TimerRoutes,
    /// They count what becomes a dead letter here.
    relays: Vec<Arc<RelayState>>,
    targets: Mutex<Targets>,
    /// Targets that did not answer, and when: nothing else waits there meanwhile, so that what is for others has room.
    mute: Mutex<HashMap<Arc<str>, Instant>>,
}

/// What has come of an event.
enum Come {
    Published,
    /// Its target takes it never, or has refused it for long enough.
    Dead(String),
    /// It is tried again.
    Later(String),
}

impl Carrier {
    /// Publishes one due event, notes it, and takes it out of the stream. What cannot be done for the moment comes again:
    /// only the end of the connection is an error.
    async fn carry(&self, wire: Message) -> Result<(), Error> {
        let (subject, Some(reply)) = (wire.subject, wire.reply) else {
            return Ok(());
        };
        let headers = headers_of(wire.headers.as_ref());
        let (Some(id), Some(to)) = (subject.strip_prefix(DUE), header(&headers, TO)) else {
            trouble!(Weight::Aside, subject, "", { %subject }, "what is due and no event of the mesh is left out");
            return self.answer(reply, "+ACK").await;
        };
        failpoint::point("event-due");
        let tries = DeliveryInfo::parse(&reply).map_or(1, |info| info.delivered.max(1));
        let come = match (to.strip_prefix(TIMER_TO), to.strip_prefix(HANDLER_TIMER_TO)) {
            (Some(schedule), _) => Ok(self.timer(schedule, id).await),
            (None, Some(bucket)) => Ok(self.handler_timer(bucket, id, &headers, wire.payload).await),
            (None, None) => self.bring(id, to, (&headers, wire.payload), tries).await,
        };
        let why = match come {
            Ok(None) => return self.answer(reply, "+ACK").await,
            Ok(Some(why)) => why,
            Err(error @ Error::Gone { .. }) => return Err(error),
            Err(error) => error.to_string(),
        };
        tracing::debug!(
            subject = to,
            id,
            why,
            tries,
            "a delayed event is not taken and tried again"
        );
        let at = usize::try_from(tries - 1).unwrap_or(usize::MAX).min(AGAIN.len() - 1);
        self.answer(reply, &nak(AGAIN[at])).await
    }

    /// A timer needs no note that it is taken in: a schedule knows which one it waits for. `None`: it is. Else why it is to come
    /// again.
    async fn timer(&self, schedule: &str, id: &str) -> Option<String> {
        let (done, told) = oneshot::channel();
        let due = TimerDue {
            schedule: schedule.to_owned(),
            timer: id.to_owned(),
            done,
        };
        taken(self.timers.schedules.send(due).await.is_ok(), told).await
    }

    /// The same of a handler's: the transaction that takes it in takes its key away.
    async fn handler_timer(&self, bucket: &str, id: &str, headers: &Headers, payload: Bytes) -> Option<String> {
        let Some(route) = self.timers.handlers.get(bucket) else {
            return Some(format!("no handler of this host has bucket {bucket}"));
        };
        let of = |name: &str| header(headers, name).unwrap_or_default().to_owned();
        let (done, told) = oneshot::channel();
        let due = HandlerTimerDue {
            key: of(TIMER_KEY),
            id: id.to_owned(),
            subject: of(TIMER_SUBJECT),
            headers: delayed::originals(headers),
            payload,
            done,
        };
        taken(route.send(due).await.is_ok(), told).await
    }

    /// `None`: all is done. Else why it is to come again.
    async fn bring(
        &self,
        id: &str,
        to: &str,
        (headers, payload): (&Headers, Bytes),
        tries: u64,
    ) -> Result<Option<String>, Error> {
        // Taken before the note: a host that finds the note looks into the target no earlier than this.
        let began = Instant::now();
        let published = match delayed::claim(&self.connection, id).await? {
            Claim::Fired => {
                tracing::debug!(id, "what is due is published already");
                return Ok(None);
            }
            Claim::Begun(since) => holds(&self.nats, &self.connection, (to, id), since).await?,
            Claim::Ours => false,
        };
        let event = delayed::originals(headers);
        let come = match published {
            true => Come::Published,
            false => self.publish(began, (id, to, &event), payload.clone(), tries).await?,
        };
        let reason = match come {
            Come::Published => "fired",
            Come::Later(why) => return Ok(Some(why)),
            Come::Dead(why) => {
                self.dead_letter(id, to, (header(headers, LEDGER), &event), &why, payload)
                    .await?;
                "undeliverable"
            }
        };
        failpoint::point("due-published");
        delayed::settle(&self.connection, id, reason).await?;
        Ok(None)
    }

    async fn publish(
        &self,
        began: Instant,
        (id, to, event): (&str, &str, &Headers),
        payload: Bytes,
        tries: u64,
    ) -> Result<Come, Error> {
        let (target, patience) = self.targets.lock().await.of(&self.connection, to).await?;
        if let Some(target) = &target
            && self.mute.lock().await.get(target).is_some_and(|at| at.elapsed() < MUTE)
        {
            return Ok(Come::Later(format!("stream {target} does not answer")));
        }
        let mut map = writable(event);
        map.insert(MESSAGE_ID, id);
        // Checked immediately before publishing: a process that was suspended here wakes up too late, and leaves the event to
        // be delivered again.
        if began.elapsed() > patience {
            return Ok(Come::Later("it has taken too long".to_owned()));
        }
        let error = match self.connection.publish(to, map, payload).await {
            Ok(ack) => {
                let (seq, duplicate) = (ack.seq, ack.duplicate);
                tracing::trace!(subject = to, id, seq, duplicate, "event emitted");
                return Ok(Come::Published);
            }
            Err(error) => error,
        };
        let silence = matches!(error, Error::NoResponders { .. });
        let (manner, why) = match refusal(error) {
            Refusal::Broken(error) => return Err(error),
            Refusal::Never(why) => return Ok(Come::Dead(why)),
            Refusal::This(why) => (Manner::Refuses, why),
            Refusal::Target(manner, why) => (manner, why),
        };
        if let (Manner::Mute, Some(target)) = (manner, target) {
            self.mute.lock().await.insert(target, Instant::now());
        }
        let (manner, why) = match silence && self.connection.captured(to).await?.is_none() {
            true => (Manner::Refuses, format!("no stream captures {to}")),
            false => (manner, why),
        };
        // An answer that was lost may have been a yes: that is looked for first.
        let given_up = manner != Manner::Mute && waited(tries) >= manner.limit();
        Ok(if given_up { Come::Dead(why) } else { Come::Later(why) })
    }

    /// An event that its target refuses for good becomes a dead letter, as one that was never delayed.
    async fn dead_letter(
        &self,
        id: &str,
        to: &str,
        (ledger, event): (Option<&str>, &Headers),
        why: &str,
        payload: Bytes,
    ) -> Result<(), Error> {
        tracing::warn!(
            subject = to,
            id,
            why,
            "a delayed event cannot be delivered and becomes a dead letter"
        );
        let ledger = ledger.unwrap_or(DELAYED);
        let (letter, headers) = dead_letter::undeliverable(ledger, id, to, event, why);
        dead_letter::store(&self.connection, &letter, &headers, payload).await?;
        let of_ledger = self.relays.iter().find(|relay| kv_stream(relay.ledger()) == ledger);
        if let Some(relay) = of_ledger {
            relay.count_undeliverable();
        }
        Ok(())
    }

    async fn answer(&self, reply: Subject, answer: &str) -> Result<(), Error> {
        let sent = self.connection.client.publish(reply, answer.to_owned().into()).await;
        sent.map_err(|_| Error::Gone {
            what: "publishing what is due".to_owned(),
        })
    }
}

/// Why a timer is to come again; `None`: it is taken in.
async fn taken(sent: bool, told: oneshot::Receiver<Result<(), String>>) -> Option<String> {
    if !sent {
        return Some("this host is ending".to_owned());
    }
    match told.await {
        Ok(taken) => taken.err(),
        Err(_) => Some("what takes it in has ended".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_due_event_that_is_refused_is_given_up_at_its_fourth_try_after_ten_seconds() {
        let seconds: Vec<u64> = (1..=6).map(|tries| waited(tries).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 4, 10, 20, 30]);
        assert!(waited(3) < Manner::Refuses.limit() && waited(4) >= Manner::Refuses.limit());
        assert!(waited(u64::MAX) > Manner::Silent.limit());
    }
}
