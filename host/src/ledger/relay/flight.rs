//! What the relay has published and whose confirmation is awaited: many at a time, and a consequence message is
//! confirmed to the ledger's consumer only when it and everything before it is.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::{HeaderMap, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use slab::Slab;
use tokio::time::Instant;

use crate::broker::connection::{EXPECTED, PubAck, pub_ack};
use crate::broker::{Connection, Error};
use crate::dead_letter;
use crate::message::{Headers, writable};

/// Published and not confirmed at a time. The server drops what comes faster than it stores, from 10,000 messages on.
const AWAITED_MAX: usize = 2_000;
/// The same in bytes.
const AWAITED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A confirmation that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is on its way.
pub enum Cargo {
    Event(Event),
    /// A dead letter, to this subject.
    Letter(String),
    /// The settled message of one.
    Settled(String),
}

impl Cargo {
    fn subject(&self) -> &str {
        match self {
            Cargo::Event(event) => &event.subject,
            Cargo::Letter(subject) | Cargo::Settled(subject) => subject,
        }
    }
}

/// An event on its way to its target.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: String,
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
    bytes: usize,
    /// Consequence messages that are not confirmed yet, in order; the first one's number.
    carried: VecDeque<Carried>,
    first: u64,
}

struct Awaited {
    carried: u64,
    since: Instant,
    bytes: usize,
    cargo: Cargo,
}

/// A consequence message at work.
struct Carried {
    reply: Option<Subject>,
    /// Publishes of it that are not confirmed.
    left: usize,
    /// Everything of it is on its way.
    whole: bool,
}

/// What the target has answered.
pub struct Answered {
    pub carried: u64,
    pub cargo: Cargo,
    pub answer: Result<PubAck, Error>,
}

impl Flight {
    pub async fn new(connection: &Connection) -> Result<Flight, Error> {
        let inbox = connection.client.new_inbox();
        let answers = connection.client.subscribe(format!("{inbox}.*")).await;
        Ok(Flight {
            connection: connection.clone(),
            answers: answers.map_err(|_| gone())?,
            inbox,
            awaited: Slab::new(),
            bytes: 0,
            carried: VecDeque::new(),
            first: 0,
        })
    }

    pub fn has_room(&self) -> bool {
        self.awaited.len() < AWAITED_MAX && self.bytes < AWAITED_BYTES_MAX
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

    /// Publishes an event of a consequence message, without waiting. `id`: the one by which the target knows it again.
    pub async fn publish(&mut self, carried: u64, event: Event, id: &str) -> Result<(), Error> {
        let mut headers = writable(&event.headers);
        headers.insert("Nats-Msg-Id", id);
        headers.insert("Mesh-Cause-Entry", event.entry.to_string());
        let payload = event.payload.clone();
        self.send(carried, Cargo::Event(event), headers, payload).await
    }

    /// Publishes without waiting.
    async fn send(&mut self, carried: u64, cargo: Cargo, headers: HeaderMap, payload: Bytes) -> Result<(), Error> {
        let subject = cargo.subject().to_owned();
        let bytes = payload.len();
        if let Some(one) = self.one(carried) {
            one.left += 1;
        }
        self.bytes += bytes;
        let since = Instant::now();
        let key = self.awaited.insert(Awaited {
            carried,
            since,
            bytes,
            cargo,
        });
        let reply = format!("{}.{key}", self.inbox);
        let client = &self.connection.client;
        let sent = client
            .publish_with_reply_and_headers(subject, reply, headers, payload)
            .await;
        sent.map_err(|_| gone())
    }

    /// Publishes a dead letter that fits one message, without waiting: nothing happens if its subject is taken.
    pub async fn letter(&mut self, carried: u64, subject: String, headers: &Headers, body: Bytes) -> Result<(), Error> {
        let mut headers = writable(headers);
        headers.insert(EXPECTED, "0");
        self.send(carried, Cargo::Letter(subject), headers, body).await
    }

    /// Settles a dead letter, without waiting.
    pub async fn settled(&mut self, carried: u64, subject: String, reason: &str) -> Result<(), Error> {
        let headers = writable(&dead_letter::settled(reason));
        self.send(carried, Cargo::Settled(subject), headers, Bytes::new()).await
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
            let key = message.subject.rsplit('.').next().and_then(|key| key.parse().ok());
            let Some(awaited) = key.and_then(|key| self.awaited.try_remove(key)) else {
                continue;
            };
            self.bytes -= awaited.bytes;
            let answer = match message.status {
                Some(status) if status.as_u16() == 503 => Err(Error::NoResponders {
                    what: awaited.cargo.subject().to_owned(),
                }),
                _ => pub_ack(awaited.cargo.subject(), &message.payload),
            };
            return Ok(Answered {
                carried: awaited.carried,
                cargo: awaited.cargo,
                answer,
            });
        }
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

fn gone() -> Error {
    Error::Gone {
        what: "carrying consequences out".to_owned(),
    }
}
