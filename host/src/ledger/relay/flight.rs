//! What the relay has published and whose confirmation is awaited: many at a time, and a consequence message is
//! confirmed to the ledger's consumer only when it and everything before it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::{HeaderMap, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use slab::Slab;
use tokio::time::Instant;

use super::blocked::{ConsequencePlace, Waiting};
use super::publish_span::PublishSpan;
use crate::broker::connection::pub_ack;
use crate::broker::error::Code;
use crate::broker::{Connection, Error};
use crate::event::clock::now_ms;
use crate::histogram::Histogram;

/// Published and not confirmed at a time. The server drops what comes faster than it stores, from 10,000 messages on.
const AWAITED_MAX: usize = 2_000;
/// The same in bytes.
const AWAITED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A confirmation that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// A consequence on its way to its target.
#[derive(Debug)]
pub struct Cargo {
    /// The consequence message that it is of.
    pub carried: u64,
    pub place: ConsequencePlace,
    pub what: What,
    pub subject: String,
    /// The stream that captures the subject, if the relay knows it.
    pub target: Option<Arc<str>>,
    /// If it has been tried before.
    pub before: Option<Waiting>,
    pub span: Option<Box<PublishSpan>>,
}

#[derive(Debug)]
pub enum What {
    /// An event with this id.
    Event(String),
    /// An event that is handed to the server until it is due.
    Delayed,
    /// A dead letter.
    Letter,
    /// That of an event whose target refuses it.
    Undeliverable,
    /// The settled message of one.
    Settled,
}

pub struct Flight {
    connection: Connection,
    inbox: String,
    answers: Subscriber,
    awaited: Slab<Awaited>,
    bytes: usize,
    /// Counts what was sent: an answer that comes late must not be taken for another's.
    sent: u64,
    /// What takes several requests.
    works: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// What the client has not sent at all.
    unsent: VecDeque<Answered>,
    /// Consequence messages that are not confirmed yet, in order; the first one's number.
    carried: VecDeque<Confirmed>,
    first: u64,
}

struct Awaited {
    cargo: Cargo,
    number: u64,
    since: Instant,
    bytes: usize,
}

/// A consequence message at work.
struct Confirmed {
    sequence: u64,
    /// When it was stored, by the server's clock.
    time_ms: u64,
    /// The entry that it follows from, once it has been read.
    entry: Option<u64>,
    reply: Option<Subject>,
    /// Publishes of it that are not confirmed.
    left: usize,
    /// Everything of it is on its way.
    whole: bool,
}

/// What the target has answered.
pub struct Answered {
    pub cargo: Cargo,
    pub answer: Result<(), Error>,
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
            sent: 0,
            works: FuturesUnordered::new(),
            unsent: VecDeque::new(),
            carried: VecDeque::new(),
            first: 0,
        })
    }

    pub fn has_room(&self) -> bool {
        self.awaited.len() + self.works.len() + self.unsent.len() < AWAITED_MAX && self.bytes < AWAITED_BYTES_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.awaited.is_empty() && self.works.is_empty() && self.unsent.is_empty()
    }

    /// Consequence messages that are not confirmed, and when the oldest of them was stored.
    pub fn unconfirmed(&self) -> (usize, Option<u64>) {
        (self.carried.len(), self.carried.front().map(|one| one.time_ms))
    }

    /// A consequence message is taken up. `reply`: how it is confirmed; `None`: by a later one, or when it comes again.
    pub fn begin(&mut self, sequence: u64, time_ms: u64, reply: Option<Subject>) -> u64 {
        self.carried.push_back(Confirmed {
            sequence,
            time_ms,
            entry: None,
            reply,
            left: 0,
            whole: false,
        });
        self.first + self.carried.len() as u64 - 1
    }

    /// It follows from this entry.
    pub fn follows(&mut self, carried: u64, entry: u64) {
        if let Some(one) = self.one(carried) {
            one.entry = Some(entry);
        }
    }

    /// The oldest entry of which something has been published, or tried, and is not confirmed.
    pub fn first_entry(&self) -> u64 {
        self.carried.iter().find_map(|one| one.entry).unwrap_or(0)
    }

    /// One that is taken up already has come again. The subject to confirm it on, if that is left to do.
    pub fn again(&mut self, sequence: u64, reply: Subject) -> Option<Subject> {
        if self.carried.is_empty() {
            return Some(reply);
        }
        if let Ok(at) = self.carried.binary_search_by_key(&sequence, |one| one.sequence) {
            self.carried[at].reply.get_or_insert(reply);
        }
        None
    }

    /// Publishes without waiting.
    pub async fn send(&mut self, cargo: Cargo, headers: HeaderMap, payload: Bytes) -> Result<(), Error> {
        self.counts(cargo.carried);
        let subject = cargo.subject.clone();
        self.sent += 1;
        let bytes = payload.len();
        let key = self.awaited.insert(Awaited {
            cargo,
            number: self.sent,
            since: Instant::now(),
            bytes,
        });
        self.bytes += bytes;
        let reply = format!("{}.{key}-{}", self.inbox, self.sent);
        let client = &self.connection.client;
        let sent = client
            .publish_with_reply_and_headers(subject, reply, headers, payload)
            .await;
        let Err(error) = sent else { return Ok(()) };
        let what = || self.awaited[key].cargo.subject.clone();
        let error = match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Error::Api {
                what: what(),
                code: Code::STREAM_MESSAGE_EXCEEDS_MAXIMUM,
                text: "larger than the server's max_payload with the headers of the mesh".to_owned(),
            },
            PublishErrorKind::InvalidSubject => Error::Refused(format!("`{}` is no subject", what())),
            PublishErrorKind::Send => return Err(gone()),
        };
        let answered = self.take(key, Err(error));
        self.unsent.push_back(answered);
        Ok(())
    }

    /// Something that takes several requests, without waiting for it.
    pub fn work(&mut self, cargo: Cargo, work: impl Future<Output = Result<(), Error>> + Send + 'static) {
        self.counts(cargo.carried);
        self.works.push(Box::pin(async move {
            let answer = work.await;
            Answered { cargo, answer }
        }));
    }

    /// One more of a consequence message is waited for.
    pub fn counts(&mut self, carried: u64) {
        if let Some(one) = self.one(carried) {
            one.left += 1;
        }
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
        if let Some(unsent) = self.unsent.pop_front() {
            return Ok(unsent);
        }
        loop {
            let message = tokio::select! {
                Some(answered) = self.works.next() => return Ok(answered),
                message = self.answers.next() => message.ok_or_else(gone)?,
            };
            let place = message
                .subject
                .rsplit('.')
                .next()
                .and_then(|place| place.split_once('-'));
            let parsed = place.and_then(|(key, number)| Some((key.parse().ok()?, number.parse::<u64>().ok()?)));
            let Some((key, number)) = parsed else { continue };
            let awaited: Option<&Awaited> = self.awaited.get(key);
            let Some(awaited) = awaited.filter(|awaited| awaited.number == number) else {
                continue;
            };
            let subject = &awaited.cargo.subject;
            let answer = match message.status {
                Some(status) if status.as_u16() == 503 => Err(Error::NoResponders { what: subject.clone() }),
                _ => pub_ack(subject, &message.payload).map(drop),
            };
            return Ok(self.take(key, answer));
        }
    }

    fn take(&mut self, key: usize, answer: Result<(), Error>) -> Answered {
        let Awaited { cargo, bytes, .. } = self.awaited.remove(key);
        self.bytes -= bytes;
        Answered { cargo, answer }
    }

    /// What will not be answered any more: the server does not allow it, or its answer was lost.
    pub fn unanswered(&mut self) -> Vec<Answered> {
        let denials = &self.connection.denials;
        let found = self.awaited.iter().filter_map(|(key, awaited)| {
            let subject = || awaited.cargo.subject.clone();
            if denials.publish_since(&awaited.cargo.subject, awaited.since.into_std()) {
                let (what, right) = (subject(), "publish to");
                let subject = subject();
                return Some((key, Error::Denied { what, right, subject }));
            }
            let lost = awaited.since.elapsed() > PATIENCE;
            lost.then(|| (key, Error::Timeout { what: subject() }))
        });
        let found: Vec<_> = found.collect();
        found
            .into_iter()
            .map(|(key, error)| self.take(key, Err(error)))
            .collect()
    }

    /// One publish of it is in its target, or its letter is stored.
    pub fn confirm(&mut self, carried: u64) {
        if let Some(one) = self.one(carried) {
            one.left -= 1;
        }
    }

    /// How the consequence messages are confirmed that are done, together with all before them.
    /// `published` counts how long they took.
    pub fn done(&mut self, published: &Histogram) -> Option<Subject> {
        let mut reply = None;
        while let Some(one) = self.carried.pop_front_if(|one| one.whole && one.left == 0) {
            self.first += 1;
            let took_ms = now_ms().saturating_sub(one.time_ms);
            published.count(took_ms.saturating_mul(1_000_000));
            reply = one.reply.or(reply);
        }
        reply
    }

    fn one(&mut self, carried: u64) -> Option<&mut Confirmed> {
        let at = usize::try_from(carried.checked_sub(self.first)?).ok()?;
        self.carried.get_mut(at)
    }
}

fn gone() -> Error {
    Error::Gone {
        what: "publishing consequences".to_owned(),
    }
}
