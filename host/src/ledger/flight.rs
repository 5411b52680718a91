//! What the relay has published and whose confirmation is awaited: many at a time, and a consequence message is
//! confirmed to the ledger's consumer only when it and everything before it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use slab::Slab;
use tokio::time::Instant;

use super::ingest;
use crate::broker::connection::{PubAck, pub_ack, token, writable};
use crate::broker::{Connection, Error};
use crate::dead_letter;
use crate::fault;
use crate::message::Headers;

/// Published and not confirmed at a time. The server drops what comes faster than it stores, from 10,000 messages on.
const AWAITED_MAX: usize = 2_000;
/// The same in bytes.
const AWAITED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A confirmation that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is on its way.
pub enum Cargo {
    Event(Event),
    /// Several for this stream, confirmed together.
    Batch(Arc<str>, Vec<Event>),
    /// A dead letter, to this subject, of this consequence message.
    Letter(u64, String),
    /// The settled message of one.
    Settled(u64, String),
}

impl Cargo {
    fn subject(&self) -> &str {
        match self {
            Cargo::Event(event) => &event.subject,
            Cargo::Batch(_, events) => events.first().map_or("", |event| &event.subject),
            Cargo::Letter(_, subject) | Cargo::Settled(_, subject) => subject,
        }
    }

    /// Its messages, and the bytes of their payloads.
    fn size(&self, payload: &Bytes) -> (usize, usize) {
        match self {
            Cargo::Batch(_, events) => (events.len(), events.iter().map(|event| event.payload.len()).sum()),
            Cargo::Event(_) | Cargo::Letter(..) | Cargo::Settled(..) => (1, payload.len()),
        }
    }
}

/// An event on its way to its target.
#[derive(Debug, Clone)]
pub struct Event {
    /// The consequence message that it is of.
    pub carried: u64,
    pub id: String,
    /// The id by which the target knows it again.
    pub known_by: String,
    pub subject: String,
    pub headers: Headers,
    pub payload: Bytes,
    /// The entry that it follows from.
    pub entry: u64,
}

pub struct Flight {
    connection: Connection,
    inbox: String,
    answers: Subscriber,
    awaited: Slab<Awaited>,
    /// Messages and bytes of what is awaited.
    messages: usize,
    bytes: usize,
    /// Begins the names of this flight's batches.
    name: String,
    batches: u64,
    /// Consequence messages that are not confirmed yet, in order; the first one's number.
    carried: VecDeque<Carried>,
    first: u64,
}

struct Awaited {
    since: Instant,
    /// Messages and bytes.
    size: (usize, usize),
    cargo: Cargo,
}

/// A consequence message at work.
struct Carried {
    reply: Option<Subject>,
    /// What of it is to be published, and not confirmed.
    left: usize,
    /// Everything of it is on its way.
    whole: bool,
}

/// What the target has answered.
pub struct Answered {
    pub cargo: Cargo,
    pub answer: Result<PubAck, Error>,
}

impl Flight {
    pub async fn new(connection: &Connection) -> Result<Flight, Error> {
        let inbox = connection.client.new_inbox();
        let answers = connection.client.subscribe(format!("{inbox}.>")).await;
        Ok(Flight {
            connection: connection.clone(),
            answers: answers.map_err(|_| gone())?,
            inbox,
            awaited: Slab::new(),
            messages: 0,
            bytes: 0,
            name: token(),
            batches: 0,
            carried: VecDeque::new(),
            first: 0,
        })
    }

    /// `more`: messages and bytes that are about to be published as well.
    pub fn has_room(&self, more: (usize, usize)) -> bool {
        self.messages + more.0 < AWAITED_MAX && self.bytes + more.1 < AWAITED_BYTES_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.awaited.is_empty()
    }

    /// A consequence message is taken up. `reply`: how it is confirmed; `None`: by a later one.
    pub fn begin(&mut self, reply: Option<Subject>) -> u64 {
        self.carried.push_back(Carried {
            reply,
            left: 0,
            whole: false,
        });
        self.first + self.carried.len() as u64 - 1
    }

    /// One more message is to be published for a consequence message: it is done when each is confirmed.
    pub fn owe(&mut self, carried: u64) {
        if let Some(one) = self.one(carried) {
            one.left += 1;
        }
    }

    /// Publishes an event, which is owed, without waiting.
    pub async fn event(&mut self, event: Event) -> Result<(), Error> {
        let (headers, payload) = (headers(&event), event.payload.clone());
        self.send(Cargo::Event(event), headers, payload).await?;
        fault::point_after("relay-published", self.connection.client.flush()).await;
        Ok(())
    }

    /// Publishes events, which are owed, as one batch for the stream that takes all of them, without waiting.
    pub async fn batch(&mut self, stream: Arc<str>, events: Vec<Event>) -> Result<(), Error> {
        let count = events.len();
        self.batches += 1;
        let batch = format!("{}{}", self.name, self.batches);
        let messages: Vec<_> = events
            .iter()
            .map(|event| (event.subject.clone(), headers(event), event.payload.clone()))
            .collect();
        let key = self.await_answer(Cargo::Batch(stream, events), &Bytes::new());
        let prefix = format!("{}.{key}", self.inbox);
        for (sequence, (subject, headers, payload)) in (1..).zip(messages) {
            let reply = ingest::reply(&prefix, &batch, sequence, count);
            self.put(subject, reply, headers, payload).await?;
            fault::point_after("relay-published", self.connection.client.flush()).await;
        }
        Ok(())
    }

    /// Publishes without waiting.
    async fn send(&mut self, cargo: Cargo, headers: HeaderMap, payload: Bytes) -> Result<(), Error> {
        let subject = cargo.subject().to_owned();
        let key = self.await_answer(cargo, &payload);
        let reply = format!("{}.{key}", self.inbox);
        self.put(subject, reply, headers, payload).await
    }

    /// Where the answer will find what it is for.
    fn await_answer(&mut self, cargo: Cargo, payload: &Bytes) -> usize {
        let size = cargo.size(payload);
        self.messages += size.0;
        self.bytes += size.1;
        let since = Instant::now();
        self.awaited.insert(Awaited { since, size, cargo })
    }

    async fn put(&self, subject: String, reply: String, headers: HeaderMap, payload: Bytes) -> Result<(), Error> {
        let client = &self.connection.client;
        let sent = client
            .publish_with_reply_and_headers(subject, reply, headers, payload)
            .await;
        sent.map_err(|_| gone())
    }

    /// Publishes a dead letter that fits one message, without waiting: nothing happens if its subject is taken.
    pub async fn letter(&mut self, carried: u64, subject: String, headers: &Headers, body: Bytes) -> Result<(), Error> {
        let mut headers = writable(headers);
        headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
        self.owe(carried);
        self.send(Cargo::Letter(carried, subject), headers, body).await
    }

    /// Settles a dead letter, without waiting.
    pub async fn settled(&mut self, carried: u64, subject: String, reason: &str) -> Result<(), Error> {
        let headers = writable(&dead_letter::settled(reason));
        self.owe(carried);
        let cargo = Cargo::Settled(carried, subject);
        self.send(cargo, headers, Bytes::new()).await
    }

    /// Everything of it is on its way.
    pub fn end(&mut self, carried: u64) {
        if let Some(one) = self.one(carried) {
            one.whole = true;
        }
    }

    /// The next answer.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Answered, Error> {
        loop {
            let message = self.answers.next().await.ok_or_else(gone)?;
            let Some(key) = self.key(&message.subject) else {
                continue;
            };
            let Some(awaited) = self.awaited.get(key) else { continue };
            let subject = awaited.cargo.subject();
            let answer = match (&message.status, &awaited.cargo) {
                (Some(status), _) if status.as_u16() == 503 => Err(Error::Api {
                    what: subject.to_owned(),
                    code: 0,
                    text: "no stream listens there".to_owned(),
                }),
                (_, Cargo::Batch(_, events)) => match ingest::answer(subject, events.len(), &message.payload) {
                    Some(answer) => answer,
                    None => continue,
                },
                (_, Cargo::Event(_) | Cargo::Letter(..) | Cargo::Settled(..)) => pub_ack(subject, &message.payload),
            };
            let awaited = self.awaited.remove(key);
            self.messages -= awaited.size.0;
            self.bytes -= awaited.size.1;
            return Ok(Answered {
                cargo: awaited.cargo,
                answer,
            });
        }
    }

    fn key(&self, subject: &str) -> Option<usize> {
        let rest = subject.strip_prefix(self.inbox.as_str())?.strip_prefix('.')?;
        rest.split('.').next()?.parse().ok()
    }

    /// One publish of it is in its target, or buried.
    pub fn confirm(&mut self, carried: u64) {
        if let Some(one) = self.one(carried) {
            one.left -= 1;
        }
    }

    /// How the consequence messages are confirmed that are done, together with all before them.
    pub fn done(&mut self) -> Option<Subject> {
        let mut reply = None;
        while let Some(one) = self.carried.pop_front_if(|one| one.whole && one.left == 0) {
            self.first += 1;
            reply = one.reply.or(reply);
        }
        reply
    }

    /// An answer that does not come was lost.
    pub fn check(&self) -> Result<(), Error> {
        match self.awaited.iter().map(|(_, awaited)| awaited.since).min() {
            Some(since) if since.elapsed() > PATIENCE => Err(Error::Timeout {
                what: "the confirmation of what the relay published".to_owned(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn one(&mut self, carried: u64) -> Option<&mut Carried> {
        let at = usize::try_from(carried.checked_sub(self.first)?).ok()?;
        self.carried.get_mut(at)
    }
}

/// An event's own, and those by which its target and whoever traces it know it.
fn headers(event: &Event) -> HeaderMap {
    let mut headers = writable(&event.headers);
    headers.insert("Nats-Msg-Id", event.known_by.as_str());
    headers.insert("Mesh-Cause-Entry", event.entry.to_string());
    headers
}

fn gone() -> Error {
    Error::Gone {
        what: "carrying consequences out".to_owned(),
    }
}
