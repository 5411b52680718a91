//! Carries the consequences of a ledger out, in its order, each once. One host of the mesh does it for a bucket at a
//! time: the server pins a consumer to one client and moves the pin when that one goes silent.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde_json::json;

use super::entry::{Body, Consequence, Entry, Out, PART, Subjects};
use crate::broker::connection::{PubAck, header_map, redial_delay};
use crate::broker::consumer::nanos;
use crate::broker::error::NO_STREAM;
use crate::broker::provision::kv_stream;
use crate::broker::{self, By, Connection, Error};
use crate::dead_letter;
use crate::fault;
use crate::message::{DeliveryInfo, Headers, header};
use crate::plan::Nats;

/// Durable name of the relay's consumer on a bucket's stream.
pub const CONSUMER: &str = "mesh-relay";
const GROUP: &str = "relay";
/// How long the server waits for a silent relay before it takes another.
const PIN_TTL: Duration = Duration::from_secs(5);
/// Fetched and not published for so long, a batch is fetched again: a publish that late might miss its target's
/// duplicate window, two minutes unless the stream says otherwise.
const STALE: Duration = Duration::from_secs(30);
const BATCH: usize = 100;

/// The relay of one bucket, until the drain.
pub async fn run(bucket: String, nats: Nats) {
    let mut attempt = 0;
    // Subjects that nobody took at the last try: a stream may be missing for a moment only.
    let mut refused = BTreeSet::new();
    loop {
        match serve(&bucket, &nats, &mut refused).await {
            Ok(()) => attempt = 0,
            Err(error) => {
                attempt += 1;
                if !error.passes() || attempt == 5 {
                    tracing::error!(bucket, %error, "the relay cannot work");
                }
            }
        }
        tokio::time::sleep(redial_delay(attempt)).await;
    }
}

async fn serve(bucket: &str, nats: &Nats, refused: &mut BTreeSet<String>) -> Result<(), Error> {
    let connection = broker::open(nats, &format!("jetmesh relay {bucket}")).await?;
    let stream = kv_stream(bucket);
    let subjects = Subjects::new(bucket);
    let config = json!({
        "durable_name": CONSUMER,
        "description": "carries the consequences of the ledger out",
        "ack_policy": "all",
        "ack_wait": nanos(Duration::from_secs(5)),
        "max_ack_pending": 10_000,
        "filter_subject": subjects.outs(),
        "deliver_policy": "all",
        "replay_policy": "instant",
        "priority_policy": "pinned_client",
        "priority_groups": [GROUP],
        "priority_timeout": nanos(PIN_TTL),
    });
    connection.put_consumer(&stream, &config, "").await?;
    let gone = || Error::Gone {
        what: format!("the relay of {bucket}"),
    };
    let inbox = connection.client.new_inbox();
    let mut messages = connection.client.subscribe(inbox.clone()).await.map_err(|_| gone())?;
    let next = format!("{}.CONSUMER.MSG.NEXT.{stream}.{CONSUMER}", connection.api_prefix());
    let mut relay = Relay {
        connection: connection.clone(),
        stream,
        subjects,
        head: 0,
        refused,
    };
    let mut pin: Option<String> = None;
    loop {
        let mut ask = json!({ "batch": BATCH, "expires": nanos(PIN_TTL - Duration::from_secs(2)), "group": GROUP });
        if let Some(id) = &pin {
            ask["id"] = json!(id);
        }
        connection
            .client
            .publish_with_reply(next.clone(), inbox.clone(), ask.to_string().into())
            .await
            .map_err(|_| gone())?;
        let mut received = 0;
        while received < BATCH {
            let message = tokio::select! {
                message = tokio::time::timeout(PIN_TTL * 2, messages.next()) => match message {
                    Ok(Some(message)) => message,
                    Ok(None) => return Err(gone()),
                    Err(_) => break,
                },
                () = connection.closed() => return Err(gone()),
            };
            if let Some(status) = message.status {
                // 423: the pin is another's now. Everything else ends the request: none left, time over.
                if status.as_u16() == 423 {
                    pin = None;
                }
                break;
            }
            received += 1;
            let fetched = tokio::time::Instant::now();
            let id = message
                .headers
                .as_ref()
                .and_then(|h| h.get("Nats-Pin-Id"))
                .map(|v| v.as_str().to_owned());
            if pin.is_none() || (id.is_some() && id != pin) {
                pin = id;
                // An ack here speaks for everything before as well, so what another relay, or an earlier life of this
                // one, has fetched and not confirmed is carried out first.
                if !relay.recover(&message).await? {
                    return Ok(());
                }
            }
            let part = message.headers.as_ref().is_some_and(|h| h.get(PART).is_some());
            if !relay.carry(&message.subject, part, &message.payload, fetched).await? {
                // Not yet: what comes after must wait as well.
                return Ok(());
            }
            let reply = message.reply.clone().ok_or_else(gone)?;
            connection
                .client
                .publish(reply, "+ACK".into())
                .await
                .map_err(|_| gone())?;
        }
    }
}

struct Relay<'a> {
    connection: Connection,
    stream: String,
    subjects: Subjects,
    /// The newest entry that is known to be committed.
    head: u64,
    refused: &'a mut BTreeSet<String>,
}

impl Relay<'_> {
    /// Carries out what lies between the confirmed part and this message. `false`: an entry is not there yet.
    async fn recover(&mut self, message: &async_nats::Message) -> Result<bool, Error> {
        let until = message
            .reply
            .as_deref()
            .and_then(DeliveryInfo::parse)
            .map_or(0, |info| info.stream_sequence);
        let Some(info) = self.connection.consumer(&self.stream, CONSUMER).await? else {
            return Err(Error::Missing {
                what: format!("consumer {CONSUMER} on stream {}", self.stream),
            });
        };
        let mut next = info.ack_floor.stream_seq + 1;
        while next < until {
            let Some(stored) = self
                .connection
                .stored_next(&self.stream, next, &self.subjects.outs())
                .await?
            else {
                break;
            };
            if stored.sequence >= until {
                break;
            }
            next = stored.sequence + 1;
            let part = stored.headers().is_ok_and(|headers| header(&headers, PART).is_some());
            if !self
                .carry(&stored.subject, part, &stored.payload, tokio::time::Instant::now())
                .await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Carries out one consequence message. `false`: its entry is not there yet.
    async fn carry(
        &mut self,
        subject: &str,
        part: bool,
        payload: &[u8],
        fetched: tokio::time::Instant,
    ) -> Result<bool, Error> {
        if part {
            // Whoever names it reads it.
            return Ok(true);
        }
        let out: Out = match serde_json::from_slice(payload) {
            Ok(out) => out,
            Err(error) => {
                tracing::error!(subject, %error, "a consequence that cannot be read is left out");
                return Ok(true);
            }
        };
        if !self.is_committed(&out).await? {
            return Ok(false);
        }
        if !self.is_of_its_entry(&out).await? {
            tracing::warn!(entry = out.n, "consequences of an append that was torn are left out");
            return Ok(true);
        }
        for consequence in &out.consequences {
            if fetched.elapsed() > STALE {
                return Err(Error::Timeout {
                    what: "carrying consequences out".to_owned(),
                });
            }
            self.carry_one(out.n, consequence).await?;
        }
        Ok(true)
    }

    /// A batch is stored message by message: its head comes after its consequences.
    async fn is_committed(&mut self, out: &Out) -> Result<bool, Error> {
        if self.head < out.n {
            let subject = self.subjects.head();
            let Some(stored) = self.connection.stored(&self.stream, By::Last(&subject)).await? else {
                return Ok(false);
            };
            let head: super::entry::Head = serde_json::from_slice(&stored.payload).map_err(|e| Error::Answer {
                what: subject,
                why: e.to_string(),
            })?;
            self.head = head.n;
        }
        Ok(self.head >= out.n)
    }

    async fn is_of_its_entry(&self, out: &Out) -> Result<bool, Error> {
        let subject = self.subjects.entry(out.n);
        // A collected entry was carried out long ago.
        let Some(stored) = self.connection.stored(&self.stream, By::Last(&subject)).await? else {
            return Ok(false);
        };
        let entry: Entry = serde_json::from_slice(&stored.payload).map_err(|e| Error::Answer {
            what: subject,
            why: e.to_string(),
        })?;
        Ok(entry.append == out.append)
    }

    async fn carry_one(&mut self, n: u64, consequence: &Consequence) -> Result<(), Error> {
        match consequence {
            Consequence::Event {
                id,
                subject,
                headers,
                body,
            } => {
                let payload = self.payload(n, body).await?;
                let mut map = header_map(headers).unwrap_or_default();
                map.insert("Nats-Msg-Id", id.as_str());
                let answer = self.connection.publish(subject, map, payload.clone()).await;
                self.settle_event(n, id, subject, headers, payload, answer).await
            }
            Consequence::Letter { subject, headers, body } => {
                let payload = self.payload(n, body).await?;
                fault::point("before-letter");
                dead_letter::store(&self.connection, subject, headers, payload).await?;
                fault::point("letter-stored");
                Ok(())
            }
            Consequence::Settle { subject, reason } => dead_letter::settle(&self.connection, subject, reason).await,
        }
    }

    /// An event that its target refuses for good becomes a dead letter, and the relay goes on.
    async fn settle_event(
        &mut self,
        n: u64,
        id: &str,
        subject: &str,
        headers: &Headers,
        payload: Bytes,
        answer: Result<PubAck, Error>,
    ) -> Result<(), Error> {
        let why = match answer {
            Ok(ack) => {
                tracing::trace!(subject, id, seq = ack.seq, duplicate = ack.duplicate, "event emitted");
                fault::point("relay-published");
                return Ok(());
            }
            // Nobody listens, or the stream is full or takes no such message: a person must act.
            Err(Error::Api { code: 0, .. }) => format!("no stream captures {subject}"),
            Err(Error::Api { code, text, .. }) if !matches!(code, 10008 | 10009 | 10023 | 10077 | NO_STREAM) => {
                format!("{text} ({code})")
            }
            Err(error) => return Err(error),
        };
        if self.refused.insert(subject.to_owned()) {
            return Err(Error::Timeout {
                what: format!("publishing on {subject}: {why}"),
            });
        }
        tracing::warn!(
            subject,
            id,
            entry = n,
            why,
            "an emitted event cannot be delivered and becomes a dead letter"
        );
        let (letter, headers) = dead_letter::undeliverable(&self.stream, id, subject, headers, &why);
        dead_letter::store(&self.connection, &letter, &headers, payload).await
    }

    async fn payload(&self, n: u64, body: &Body) -> Result<Bytes, Error> {
        match body {
            Body::Here(text) => text.bytes().map_err(|why| Error::Answer {
                what: self.subjects.out(n, 0),
                why,
            }),
            Body::Parts(parts) => {
                let mut payload = BytesMut::new();
                for part in parts {
                    let subject = self.subjects.out(n, *part);
                    let stored = self.connection.stored(&self.stream, By::Last(&subject)).await?;
                    let stored = stored.ok_or_else(|| Error::Refused(format!("{subject} is missing")))?;
                    payload.extend_from_slice(&stored.payload);
                }
                Ok(payload.freeze())
            }
        }
    }
}
