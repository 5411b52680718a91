//! Publishes the delayed events that are due. The server has put each on `$MESH.due.<id>`, with or without a host up;
//! every host that carries consequences out takes its share.
//!
//! An event is published under its own id, as one that was never delayed, but not before a note that this is being done.
//! Whoever finds that note looks into the target, because a target forgets ids after its duplicate window.

use std::time::Duration;

use async_nats::{Message, Subject};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::broker::connection::redial_delay;
use crate::broker::consumer::{META_MESH, nanos};
use crate::broker::provision::DELAYED;
use crate::broker::pull::{Inlet, Pulled};
use crate::broker::{self, Connection, Error};
use crate::delayed::{self, Claim, DUE, LEDGER, TO};
use crate::ledger::relay::look::ids_since;
use crate::ledger::relay::targets::{Targets, refusal};
use crate::message::{DeliveryInfo, Headers, header, headers_of, writable};
use crate::plan::Nats;
use crate::{dead_letter, fault, poison};

/// Durable name of the consumer on `MESH_DELAYED`.
pub const CONSUMER: &str = "mesh-due";
/// After that long the server delivers an event again, to whoever is there.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// Events that are being published at a time.
const AT_WORK_MAX: usize = 64;
/// An event that its target refuses is tried once more after this: a stream may be missing for a moment only.
const REFUSED_AGAIN: Duration = Duration::from_secs(1);

/// Publishes what is due, for as long as it is polled.
///
/// # Cancel safety
/// What is dropped half-way is delivered again, here or elsewhere, and published once.
pub async fn run(mesh: String, nats: Nats) {
    let mut attempt = 0;
    loop {
        let Err(error) = serve(&mesh, &nats, &mut attempt).await;
        attempt += 1;
        if !error.passes() || attempt == 5 {
            tracing::error!(%error, "delayed events that are due cannot be published");
        }
        tokio::time::sleep(redial_delay(attempt)).await;
    }
}

async fn serve(mesh: &str, nats: &Nats, attempt: &mut u32) -> Result<std::convert::Infallible, Error> {
    let connection = broker::open(nats, "jetmesh due").await?;
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
        "metadata": { META_MESH: mesh },
    });
    let consumer = connection.put_consumer(DELAYED, &config, "").await?;
    poison::discard(&connection, DELAYED, &consumer).await?;
    let mut inlet = Inlet::open(&connection, DELAYED, CONSUMER).await?;
    let carrier = Carrier {
        nats: nats.clone(),
        connection: connection.clone(),
        targets: Mutex::default(),
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
                Pulled::Ended => {}
            },
        }
    }
}

struct Carrier {
    nats: Nats,
    connection: Connection,
    targets: Mutex<Targets>,
}

impl Carrier {
    /// Publishes one due event, notes it, and takes it out of the stream.
    async fn carry(&self, wire: Message) -> Result<(), Error> {
        let (subject, Some(reply)) = (wire.subject, wire.reply) else {
            return Ok(());
        };
        let headers = headers_of(wire.headers.as_ref());
        let (Some(id), Some(to)) = (subject.strip_prefix(DUE), header(&headers, TO)) else {
            tracing::warn!(%subject, "what is due and no event of the mesh is left out");
            return self.answer(reply, "+ACK").await;
        };
        fault::point("event-due");
        // Before the note: a look of somebody who finds it begins no later.
        let began = Instant::now();
        let published = match delayed::claim(&self.connection, id).await? {
            Claim::Fired => {
                tracing::debug!(id, "what is due is published already");
                return self.answer(reply, "+ACK").await;
            }
            Claim::Begun(since) => ids_since(&self.nats, &self.connection, to, since).await?.contains(id),
            Claim::Ours => false,
        };
        let event = delayed::originals(&headers);
        let mut reason = "fired";
        if !published {
            let patience = self.targets.lock().await.patience(&self.connection, to).await?;
            let mut map = writable(&event);
            map.insert("Nats-Msg-Id", id);
            // The last thing before: whoever sleeps here wakes up too late, and leaves it to be delivered again.
            if began.elapsed() > patience {
                return Err(Error::Timeout {
                    what: format!("publishing {id}, which is due"),
                });
            }
            match self.connection.publish(to, map, wire.payload.clone()).await {
                Ok(ack) => tracing::trace!(
                    subject = to,
                    id,
                    seq = ack.seq,
                    duplicate = ack.duplicate,
                    "event emitted"
                ),
                Err(error) => {
                    let why = refusal(&self.connection, to, error).await?;
                    if DeliveryInfo::parse(&reply).is_some_and(|info| info.delivered == 1) {
                        let nak = format!("-NAK {{\"delay\":{}}}", nanos(REFUSED_AGAIN));
                        return self.answer(reply, &nak).await;
                    }
                    self.bury(id, to, (header(&headers, LEDGER), &event), &why, wire.payload)
                        .await?;
                    reason = "undeliverable";
                }
            }
        }
        fault::point("due-published");
        delayed::settle(&self.connection, id, reason).await?;
        self.answer(reply, "+ACK").await
    }

    /// An event that its target refuses for good becomes a dead letter, as one that was never delayed.
    async fn bury(
        &self,
        id: &str,
        to: &str,
        (ledger, event): (Option<&str>, &Headers),
        why: &str,
        payload: bytes::Bytes,
    ) -> Result<(), Error> {
        tracing::warn!(
            subject = to,
            id,
            why,
            "a delayed event cannot be delivered and becomes a dead letter"
        );
        let ledger = ledger.unwrap_or(DELAYED);
        let (letter, headers) = dead_letter::undeliverable(ledger, id, to, event, why);
        dead_letter::store(&self.connection, &letter, &headers, payload)
            .await
            .map(|_| ())
    }

    async fn answer(&self, reply: Subject, answer: &str) -> Result<(), Error> {
        let sent = self.connection.client.publish(reply, answer.to_owned().into()).await;
        sent.map_err(|_| Error::Gone {
            what: "publishing what is due".to_owned(),
        })
    }
}
