//! What the relay does with one message of consequences: publish, store, settle, each once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::entry::{Body, Consequence, Entry, Out, PART, Subjects};
use super::relay::CONSUMER;
use crate::broker::connection::{PubAck, writable};
use crate::broker::error::NO_STREAM;
use crate::broker::scan::{From, survey};
use crate::broker::{By, Connection, Error};
use crate::dead_letter;
use crate::fault;
use crate::message::{DeliveryInfo, Headers, header};
use crate::plan::Nats;

/// How far the clocks of two servers may lie apart.
const CLOCKS_MS: u64 = 60_000;
/// Fetched and not published for so long, a batch is fetched again: a publish that late might miss its target's
/// duplicate window, two minutes unless the stream says otherwise.
const STALE: Duration = Duration::from_secs(30);

/// A relay at work, over one connection.
pub struct Relay<'a> {
    nats: Nats,
    connection: Connection,
    stream: String,
    subjects: Subjects,
    /// The newest entry that is known to be committed.
    head: u64,
    refused: &'a mut BTreeSet<String>,
    look: Look,
}

/// What a relay that begins must not take for unpublished.
#[derive(Default)]
struct Look {
    /// Consequences up to this sequence may have been carried out before.
    until: u64,
    /// When the oldest of them was stored.
    from_ms: u64,
    /// By subject, the ids of the events that are in the target since then.
    seen: HashMap<String, HashSet<String>>,
}

impl<'a> Relay<'a> {
    /// `refused`: subjects that nobody took at the last try.
    pub fn new(
        nats: &Nats,
        connection: Connection,
        stream: String,
        subjects: Subjects,
        refused: &'a mut BTreeSet<String>,
    ) -> Relay<'a> {
        Relay {
            nats: nats.clone(),
            connection,
            stream,
            subjects,
            head: 0,
            refused,
            look: Look::default(),
        }
    }

    /// Carries out what lies between the confirmed part and this message. `false`: an entry is not there yet.
    pub async fn recover(&mut self, message: &async_nats::Message) -> Result<bool, Error> {
        let Some(here) = message.reply.as_deref().and_then(DeliveryInfo::parse) else {
            return Ok(true);
        };
        let until = here.stream_sequence;
        let Some(info) = self.connection.consumer(&self.stream, CONSUMER).await? else {
            return Err(Error::Missing {
                what: format!("consumer {CONSUMER} on stream {}", self.stream),
            });
        };
        self.look = Look {
            until: info.delivered.stream_seq.max(until),
            from_ms: here.time_ms,
            ..Look::default()
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
            self.look.from_ms = self.look.from_ms.min(stored.time_ms);
            let part = stored.headers().is_ok_and(|headers| header(&headers, PART).is_some());
            if !self
                .carry(
                    &stored.subject,
                    stored.sequence,
                    part,
                    &stored.payload,
                    tokio::time::Instant::now(),
                )
                .await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Carries out one consequence message. `false`: its entry is not there yet.
    pub async fn carry(
        &mut self,
        subject: &str,
        sequence: u64,
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
            self.carry_one(out.n, sequence, consequence, fetched).await?;
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

    async fn carry_one(
        &mut self,
        n: u64,
        sequence: u64,
        consequence: &Consequence,
        fetched: tokio::time::Instant,
    ) -> Result<(), Error> {
        match consequence {
            Consequence::Event {
                id,
                subject,
                headers,
                body,
            } => {
                if sequence <= self.look.until && self.is_there(subject, id).await? {
                    return Ok(());
                }
                let payload = self.payload(n, body).await?;
                let mut map = writable(headers);
                map.insert("Nats-Msg-Id", id.as_str());
                // The last thing before: whoever sleeps here wakes up too late.
                if fetched.elapsed() > STALE {
                    let what = "carrying consequences out".to_owned();
                    return Err(Error::Timeout { what });
                }
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

    /// Whether an event that may have been published by a relay that broke off is in its target already: the target
    /// forgets message ids after its duplicate window.
    async fn is_there(&mut self, subject: &str, id: &str) -> Result<bool, Error> {
        if !self.look.seen.contains_key(subject) {
            let mut ids = HashSet::new();
            let target = self.connection.stream_of(subject).await?;
            let info = match &target {
                Some(stream) => self.connection.stream(stream).await?,
                None => None,
            };
            // One that removes what was acked, and lets nobody look on, cannot tell.
            let tells = info.is_some_and(|info| info.retention() == "limits");
            if let (Some(stream), true) = (target, tells) {
                // The target's clock may be another's than the ledger's.
                let from = From::Time(self.look.from_ms.saturating_sub(CLOCKS_MS));
                let filter = [subject.to_owned()];
                for message in survey(&self.nats, &self.connection, &stream, &filter, from, u64::MAX).await? {
                    let headers = message.headers.unwrap_or_default();
                    ids.extend(header(&headers, "Nats-Msg-Id").map(str::to_owned));
                }
            }
            self.look.seen.insert(subject.to_owned(), ids);
        }
        Ok(self.look.seen.get(subject).is_some_and(|ids| ids.contains(id)))
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
                self.refused.remove(subject);
                return Ok(());
            }
            // Nobody answers: the stream is without a leader for the moment, or there is none.
            Err(Error::Api { code: 0, .. }) => match self.connection.stream_of(subject).await? {
                Some(stream) => {
                    let what = format!("publishing on {subject} into {stream}");
                    return Err(Error::Timeout { what });
                }
                None => format!("no stream captures {subject}"),
            },
            // The stream is full, or takes no such message: a person must act.
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
