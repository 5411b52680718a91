//! The pull loop's inlet: as many messages as there is room for, from one durable consumer. Not the client's own stream
//! of messages, which fetches more than is asked for and keeps it when dropped.

use std::time::{Duration, Instant};

use async_nats::{Message, Subject, Subscriber};
use futures_util::StreamExt;
use rand::RngExt as _;
use serde_json::json;

use super::connection::Connection;
use super::consumer::{ConsumerInfo, nanos};
use super::error::Error;
use super::screen::Malformed;

/// How long the server keeps a request, unless the inlet says otherwise; also how soon a lost one is noticed.
const EXPIRES: Duration = Duration::from_secs(5);

/// What an inlet yields.
pub enum Pulled {
    Message(Message),
    /// A message that the client could not read, and its reply subject.
    Malformed(Malformed, Option<Subject>),
    /// A request has ended.
    Ended,
}

/// One durable consumer, being pulled from.
pub struct Inlet {
    connection: Connection,
    messages: Subscriber,
    inbox: String,
    next: String,
    /// For errors: which consumer this is.
    what: String,
    expires: Duration,
    /// Asked for and neither received nor given up by the server.
    outstanding: usize,
    asked: Instant,
    /// Since when nothing is outstanding.
    idle: Instant,
}

impl Inlet {
    pub async fn open(connection: &Connection, stream: &str, consumer: &str) -> Result<Inlet, Error> {
        let inbox = connection.client.new_inbox();
        let messages = connection
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|_| Error::Gone {
                what: format!("pulling from {consumer}"),
            })?;
        let next = format!("{}.CONSUMER.MSG.NEXT.{stream}.{consumer}", connection.api_prefix());
        let asked = Instant::now();
        let what = format!("consumer {consumer} on stream {stream}");
        Ok(Inlet {
            connection: connection.clone(),
            messages,
            inbox,
            next,
            what,
            expires: EXPIRES,
            outstanding: 0,
            asked,
            idle: asked,
        })
    }

    /// The same with requests that the server keeps for this time, or a little less: each idle consumer costs one request in
    /// this time, and the requests of thousands do not expire at the same moment.
    pub fn keeping(self, expires: Duration) -> Inlet {
        let expires = expires.mul_f64(rand::rng().random_range(0.75..1.0));
        Inlet { expires, ..self }
    }

    /// Asks for what there is room for, if that is worth a request. `true`: it has asked.
    pub async fn ask(&mut self, room: usize) -> Result<bool, Error> {
        let more = room.saturating_sub(self.outstanding);
        if more == 0 || (self.outstanding > 0 && more * 2 < room) {
            return Ok(false);
        }
        let body = json!({ "batch": more, "expires": nanos(self.expires) });
        self.connection
            .client
            .publish_with_reply(self.next.clone(), self.inbox.clone(), body.to_string().into())
            .await
            .map_err(|_| Error::Gone {
                what: "pulling".to_owned(),
            })?;
        self.outstanding += more;
        self.asked = Instant::now();
        Ok(true)
    }

    /// For how long there was no request by which the server could have reported that the consumer was deleted.
    pub fn unheard(&self) -> Duration {
        match self.outstanding {
            0 => self.idle.elapsed(),
            _ => Duration::ZERO,
        }
    }

    /// A request whose end never came was lost, for instance with the consumer's leader.
    pub fn forget_if_stale(&mut self) {
        if self.outstanding > 0 && self.asked.elapsed() > self.expires + Duration::from_secs(5) {
            self.outstanding = 0;
            self.idle = self.asked;
        }
    }

    /// The next message.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Pulled, Error> {
        let Some(message) = self.messages.next().await else {
            return Err(Error::Gone {
                what: "pulling".to_owned(),
            });
        };
        // A stored message may have a status line of its own: it is one of ours if it wants no answer.
        let Some(status) = message.status.filter(|_| message.reply.is_none()) else {
            self.outstanding = self.outstanding.saturating_sub(1);
            if self.outstanding == 0 {
                self.idle = Instant::now();
            }
            return Ok(match self.connection.malformed(&message) {
                Some(malformed) => Pulled::Malformed(malformed, message.reply),
                None => Pulled::Message(message),
            });
        };
        let pending = message
            .headers
            .as_ref()
            .and_then(|h| h.get("Nats-Pending-Messages"))
            .and_then(|v| v.as_str().parse::<usize>().ok());
        self.outstanding = pending.map_or(0, |pending| self.outstanding.saturating_sub(pending));
        self.idle = Instant::now();
        let text = message.description.as_deref().unwrap_or_default().to_ascii_lowercase();
        if status.as_u16() == 503 || (status.as_u16() == 409 && text.contains("deleted")) {
            return Err(Error::Missing {
                what: self.what.clone(),
            });
        }
        Ok(Pulled::Ended)
    }

    /// Stops pulling and gives back what has been received and not begun.
    pub async fn hand_back(mut self, connection: &Connection) {
        // Unsubscribes, and ends the subscription behind everything that the server had sent until then.
        if self.messages.drain().await.is_err() {
            return;
        }
        while let Some(message) = self.messages.next().await {
            if let Some(reply) = message.reply {
                // This fails only when the connection is closed: then the server redelivers by itself.
                let _ = connection.client.publish(reply, "-NAK".into()).await;
            }
        }
    }
}

impl Connection {
    /// Has the server deliver a message again at once that it waits for, by its sequence. The server ignores this for what it does not
    /// wait for, and for a delivery whose count the consumer has not reached.
    pub async fn hand_back(&self, stream: &str, consumer: &ConsumerInfo, sequence: u64) -> Result<(), Error> {
        let (name, count) = (&consumer.name, consumer.delivered.consumer_seq);
        let reply = format!("$JS.ACK.{stream}.{name}.1.{sequence}.{count}.0.0");
        let sent = self.client.publish(reply, "-NAK".into()).await;
        sent.map_err(|_| Error::Gone {
            what: "giving a message back".to_owned(),
        })
    }
}
