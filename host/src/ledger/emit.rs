//! How the relay publishes events: those for a stream that takes batches as one batch at a time, and what has come together
//! meanwhile as the next. And what is done with the answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::carry::Relay;
use super::flight::{Answered, Cargo, Event};
use super::targets::refusal;
use crate::broker::Error;
use crate::broker::connection::PubAck;
use crate::dead_letter;
use crate::fault;

/// A batch has at most so many messages, and not many more bytes.
const BATCH_MAX: usize = 500;
const BATCH_BYTES: usize = 1024 * 1024;

/// Events that wait until the batch before them is stored, by stream. The server confirms every single message while a
/// stream has several batches open.
#[derive(Default)]
pub struct Queues {
    streams: BTreeMap<Arc<str>, Queue>,
    /// Messages and bytes.
    size: (usize, usize),
}

#[derive(Default)]
struct Queue {
    is_open: bool,
    /// With the time at which it is too late to publish it.
    waiting: Vec<(Event, Instant)>,
    bytes: usize,
}

impl Relay<'_> {
    /// An event is to be published, at once or with others. `fetched`: its place in the ledger was, at the earliest.
    pub(super) async fn emit(&mut self, event: Event, fetched: Instant) -> Result<(), Error> {
        let terms = self.targets.terms(&self.connection, &event.subject).await?;
        self.flight.owe(event.carried);
        let too_late = fetched + terms.patience;
        let Some(stream) = terms.batches else {
            self.make_room().await?;
            return self.publish(event, too_late).await;
        };
        let bytes = event.payload.len();
        self.queues.size.0 += 1;
        self.queues.size.1 += bytes;
        let queue = self.queues.streams.entry(Arc::clone(&stream)).or_default();
        queue.bytes += bytes;
        queue.waiting.push((event, too_late));
        let full = queue.waiting.len() >= BATCH_MAX || queue.bytes >= BATCH_BYTES;
        if full {
            self.publish_waiting(&stream).await?;
            self.make_room().await?;
        }
        Ok(())
    }

    pub fn has_room(&self) -> bool {
        self.flight.has_room(self.queues.size)
    }

    /// Everything that waits for nothing is on its way when this returns.
    pub(super) async fn publish_all_waiting(&mut self) -> Result<(), Error> {
        let streams: Vec<_> = self.queues.streams.keys().cloned().collect();
        for stream in streams {
            self.publish_waiting(&stream).await?;
        }
        Ok(())
    }

    /// The next batch for a stream, if none is open.
    async fn publish_waiting(&mut self, stream: &Arc<str>) -> Result<(), Error> {
        let Some(queue) = self.queues.streams.get_mut(stream) else {
            return Ok(());
        };
        if queue.is_open || queue.waiting.is_empty() {
            return Ok(());
        }
        let count = queue.waiting.len().min(BATCH_MAX);
        let next: Vec<_> = queue.waiting.drain(..count).collect();
        let bytes: usize = next.iter().map(|(event, _)| event.payload.len()).sum();
        queue.bytes -= bytes;
        self.queues.size.0 -= count;
        self.queues.size.1 -= bytes;
        if let [(event, too_late)] = next.as_slice() {
            return self.publish(event.clone(), *too_late).await;
        }
        queue.is_open = true;
        next.iter().try_for_each(|(_, too_late)| in_time(*too_late))?;
        let events = next.into_iter().map(|(event, _)| event).collect();
        self.flight.batch(Arc::clone(stream), events).await
    }

    async fn publish(&mut self, event: Event, too_late: Instant) -> Result<(), Error> {
        in_time(too_late)?;
        self.flight.event(event).await
    }

    /// Takes in what a target has answered.
    pub async fn answered(&mut self, answered: Answered) -> Result<(), Error> {
        let Answered { cargo, answer } = answered;
        match cargo {
            Cargo::Event(event) => self.event_answered(event, answer).await,
            Cargo::Batch(stream, events) => self.batch_answered(&stream, events, answer).await,
            Cargo::Letter(carried, subject) => {
                dead_letter::inserted(&subject, answer)?;
                fault::point("letter-stored");
                self.flight.confirm(carried);
                Ok(())
            }
            Cargo::Settled(carried, _) => {
                answer?;
                self.flight.confirm(carried);
                Ok(())
            }
        }
    }

    /// A batch that has not been stored as a whole is published event by event: what is there already is known by its id,
    /// and for the one that is refused the stream says why.
    async fn batch_answered(
        &mut self,
        stream: &Arc<str>,
        events: Vec<Event>,
        answer: Result<PubAck, Error>,
    ) -> Result<(), Error> {
        if let Some(queue) = self.queues.streams.get_mut(stream) {
            queue.is_open = false;
        }
        match answer {
            Ok(_) => events.iter().for_each(|event| self.emitted(event)),
            Err(error) => {
                tracing::debug!(%stream, %error, "a batch of events is published one by one");
                self.targets.forget(stream);
                for event in events {
                    self.flight.event(event).await?;
                }
            }
        }
        self.publish_waiting(stream).await
    }

    fn emitted(&mut self, event: &Event) {
        tracing::trace!(subject = event.subject, id = event.id, "event emitted");
        fault::point("relay-confirmed");
        self.refused.remove(&event.subject);
        self.flight.confirm(event.carried);
    }

    /// An event that its target refuses for good becomes a dead letter, and the relay goes on.
    async fn event_answered(&mut self, event: Event, answer: Result<PubAck, Error>) -> Result<(), Error> {
        let subject = &event.subject;
        let why = match answer {
            Ok(_) => {
                self.emitted(&event);
                return Ok(());
            }
            Err(error) => refusal(&self.connection, subject, error).await?,
        };
        if self.refused.insert(subject.clone()) {
            return Err(Error::Timeout {
                what: format!("publishing on {subject}: {why}"),
            });
        }
        tracing::warn!(
            subject,
            id = event.id,
            entry = event.entry,
            why,
            "an emitted event cannot be delivered and becomes a dead letter"
        );
        let (letter, headers) = dead_letter::undeliverable(&self.stream, &event.id, subject, &event.headers, &why);
        dead_letter::store(&self.connection, &letter, &headers, event.payload).await?;
        self.flight.confirm(event.carried);
        Ok(())
    }
}

/// The last thing before publishing: whoever sleeps here wakes up too late, and fetches again.
fn in_time(too_late: Instant) -> Result<(), Error> {
    match Instant::now() > too_late {
        true => Err(Error::Timeout {
            what: "carrying consequences out".to_owned(),
        }),
        false => Ok(()),
    }
}
