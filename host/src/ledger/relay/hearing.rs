//! What a relay hears of its consumer: the messages that the server gives to it alone, as long as it has the pin.

use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::Instant;

use super::carry::{Fetched, Relay};
use super::{BATCH, CONSUMER, GROUP, PIN_TTL, RelayState, ack, gone};
use crate::broker::consumer::nanos;
use crate::broker::kv::kv_stream;
use crate::broker::{Connection, Error};
use crate::event::DeliveryInfo;
use crate::failpoint;
use crate::failpoint::mistake::Mistake;
use crate::ledger::core::entry::PART;

/// The consumer of a ledger's relay, over one connection.
pub struct Hearing<'a> {
    state: &'a RelayState,
    reading: &'a Connection,
    /// Where messages are asked for, and where they come.
    next: String,
    inbox: String,
    messages: Subscriber,
    /// By this the server knows the relay that it gives the messages to; `None`: that is not this one.
    pin: Option<String>,
    /// Taken up over this connection: up to here nothing is taken up again.
    taken: u64,
    /// How many messages were asked for and have not come.
    asked: usize,
    /// Nothing of the last request was fetched before.
    fetched: Instant,
    /// When something came last.
    heard: Instant,
}

/// How it goes on after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    GoOn,
    /// The relay begins again: by now, what is under way may be another's work.
    BeginAgain,
}

impl Hearing<'_> {
    pub async fn open<'a>(state: &'a RelayState, reading: &'a Connection) -> Result<Hearing<'a>, Error> {
        let ledger = state.ledger();
        let inbox = reading.client.new_inbox();
        let messages = reading.client.subscribe(inbox.clone()).await;
        Ok(Hearing {
            state,
            reading,
            next: format!(
                "{}.CONSUMER.MSG.NEXT.{}.{CONSUMER}",
                reading.api_prefix(),
                kv_stream(ledger)
            ),
            inbox,
            messages: messages.map_err(|_| gone(ledger))?,
            pin: None,
            taken: 0,
            asked: 0,
            fetched: Instant::now(),
            heard: Instant::now(),
        })
    }

    /// Asks for messages, if none are asked for. `expires`: how long the server keeps the request.
    pub async fn ask(&mut self, expires: Duration) -> Result<(), Error> {
        if self.asked > 0 {
            return Ok(());
        }
        let mut ask = json!({ "batch": BATCH, "expires": nanos(expires), "group": GROUP });
        if let Some(id) = &self.pin {
            ask["id"] = json!(id);
        }
        self.fetched = Instant::now();
        let client = &self.reading.client;
        let sent = client.publish_with_reply(self.next.clone(), self.inbox.clone(), ask.to_string().into());
        sent.await.map_err(|_| self.gone())?;
        self.asked = BATCH;
        Ok(())
    }

    /// The next message.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Message, Error> {
        let message = self.messages.next().await;
        message.ok_or_else(|| self.gone())
    }

    /// Whether something came lately: with a lost request goes the certainty when the messages behind it were fetched.
    pub fn check(&self) -> Result<(), Error> {
        match self.heard.elapsed() > PIN_TTL * 2 {
            true => Err(self.gone()),
            false => Ok(()),
        }
    }

    /// Takes a message up.
    pub async fn take(&mut self, relay: &mut Relay, message: Message) -> Result<Then, Error> {
        self.heard = Instant::now();
        if let Some(status) = message.status.filter(|_| message.reply.is_none()) {
            return self.ended(relay, status);
        }
        self.asked -= 1;
        let reply = message.reply.clone().ok_or_else(|| self.gone())?;
        let here = DeliveryInfo::parse(&reply).ok_or_else(|| self.gone())?;
        let text = |name: &str| message.headers.as_ref()?.get(name).map(|v| v.as_str().to_owned());
        if self.pinned(relay, text("Nats-Pin-Id"), here).await? == Then::BeginAgain {
            return Ok(Then::BeginAgain);
        }
        relay.pinned = self.fetched;
        if failpoint::planted().is(Mistake::RelayAcksEarly) {
            let sent = self.reading.client.publish(reply.clone(), "+ACK".into());
            sent.await.map_err(|_| self.gone())?;
        }
        let (sequence, time_ms) = (here.stream_sequence, here.time_ms);
        if sequence <= self.taken {
            // What has been taken up is confirmed after all that was taken up before.
            if let Some(reply) = relay.flight.again(sequence, reply) {
                ack(self.reading, reply).await?;
            }
        } else if let Some(malformed) = self.reading.malformed(&message) {
            relay.pass_over(sequence, &malformed.why());
            relay.leave_out(sequence, time_ms, Some(reply));
        } else if text(PART).is_some() {
            // A part is read by the consequence that names it.
            relay.leave_out(sequence, time_ms, Some(reply));
        } else {
            let fetched = Fetched {
                sequence,
                time_ms,
                payload: &message.payload,
                reply: Some(reply),
                at: self.fetched,
            };
            if !relay.take_up(fetched).await? {
                // Not yet: what comes after must wait as well.
                return Ok(Then::BeginAgain);
            }
        }
        self.taken = self.taken.max(sequence);
        Ok(Then::GoOn)
    }

    /// A request has ended.
    fn ended(&mut self, relay: &mut Relay, status: StatusCode) -> Result<Then, Error> {
        self.asked = 0;
        match status.as_u16() {
            // None left, or time over.
            404 | 408 => relay.pinned = self.fetched,
            // The pin is another's now, and so is what is under way here.
            423 if relay.is_idle() => {
                self.pin = None;
                self.state.active(false);
            }
            423 => return Ok(Then::BeginAgain),
            // The consumer was deleted, or has no leader: the next start looks for it, and creates it again.
            _ => {
                return Err(Error::Missing {
                    what: format!("consumer {CONSUMER} of bucket {}", self.state.ledger()),
                });
            }
        }
        Ok(Then::GoOn)
    }

    /// A message came under this pin: perhaps this relay has just been given it.
    async fn pinned(&mut self, relay: &mut Relay, id: Option<String>, here: DeliveryInfo) -> Result<Then, Error> {
        if self.pin.is_some() && (id.is_none() || id == self.pin) {
            return Ok(Then::GoOn);
        }
        if !relay.is_idle() {
            // Another relay has had the pin meanwhile: what is under way here may be its work by now.
            return Ok(Then::BeginAgain);
        }
        self.pin = id;
        self.state.active(true);
        // An ack here confirms everything before as well. So what another relay, or an earlier run of this one, has fetched and
        // not confirmed is published first.
        match relay.recover(here).await? {
            Some(until) => self.taken = until,
            None => return Ok(Then::BeginAgain),
        }
        Ok(Then::GoOn)
    }

    fn gone(&self) -> Error {
        gone(self.state.ledger())
    }
}
