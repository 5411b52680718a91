//! What the relay does with one message of consequences: publish, store, settle, each once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::flight::{Answered, Cargo, Event, Flight};
use super::look::Look;
use super::targets::{Targets, refusal};
use crate::broker::connection::{PubAck, token};
use crate::broker::error::Code;
use crate::broker::{By, Connection, Error};
use crate::dead_letter::{self, DEATH_RECORD};
use crate::delayed::{self, Delayed};
use crate::fault;
use crate::ledger::book::Appended;
use crate::ledger::bucket::Bucket;
use crate::ledger::entry::{Body, Consequence, Entry, Head, Out, Subjects, record_of_death};
use crate::ledger::mistake::Mistake;
use crate::ledger::read;
use crate::plan::Nats;

/// A batch is stored message by message: its head comes a moment after its consequences.
const MOMENT: Duration = Duration::from_millis(2);
const MOMENTS: u32 = 100;
/// How long it is waited for what this host knows itself.
const OUR_OWN: Duration = Duration::from_millis(10);

/// A relay at work, over one connection.
pub struct Relay<'a> {
    pub(super) nats: Nats,
    pub(super) connection: Connection,
    pub(super) stream: String,
    pub(super) subjects: Subjects,
    /// This host's own knowledge of the ledger, if it has any.
    bucket: Option<Arc<Bucket>>,
    pub flight: Flight,
    /// The newest entry that is known to be committed.
    head: u64,
    refused: &'a mut BTreeSet<String>,
    targets: Targets,
    pub(super) look: Look,
}

/// A message of consequences.
pub struct Fetched<'a> {
    pub sequence: u64,
    pub payload: &'a [u8],
    /// How it is confirmed; `None`: by a later one.
    pub reply: Option<Subject>,
    /// Not before this.
    pub at: Instant,
}

/// What stands behind consequences.
enum Backing {
    /// Their entry is in the ledger, with this sequence.
    Committed {
        entry_sequence: u64,
    },
    NotYet,
    /// Another append became that entry.
    Torn,
}

impl<'a> Relay<'a> {
    /// `refused`: subjects that nobody took at the last try.
    pub async fn new(
        nats: &Nats,
        connection: Connection,
        (stream, subjects): (String, Subjects),
        bucket: Option<Arc<Bucket>>,
        refused: &'a mut BTreeSet<String>,
    ) -> Result<Relay<'a>, Error> {
        Ok(Relay {
            nats: nats.clone(),
            flight: Flight::new(&connection).await?,
            connection,
            stream,
            subjects,
            bucket,
            head: 0,
            refused,
            targets: Targets::default(),
            look: Look::default(),
        })
    }

    /// Begins to carry out one message; its events are on their way when this returns. `false`: its entry is not there
    /// yet.
    pub async fn carry(&mut self, fetched: Fetched<'_>) -> Result<bool, Error> {
        let out: Out = match serde_json::from_slice(fetched.payload) {
            Ok(out) => out,
            Err(error) => {
                let sequence = fetched.sequence;
                tracing::error!(stream = self.stream, sequence, %error, "a consequence that cannot be read is left out");
                self.leave_out(fetched.reply);
                return Ok(true);
            }
        };
        let entry_sequence = match self.backing(&out).await? {
            Backing::Committed { entry_sequence } => entry_sequence,
            Backing::NotYet => return Ok(false),
            Backing::Torn => {
                tracing::warn!(entry = out.n, "consequences of an append that was torn are left out");
                self.leave_out(fetched.reply);
                return Ok(true);
            }
        };
        let carried = self.flight.begin(fetched.reply);
        for consequence in out.consequences {
            self.carry_one(
                (out.n, entry_sequence),
                (carried, fetched.sequence),
                consequence,
                fetched.at,
            )
            .await?;
        }
        self.flight.end(carried);
        Ok(true)
    }

    /// Nothing of it is carried out: whoever names a part reads it.
    pub fn leave_out(&mut self, reply: Option<Subject>) {
        let carried = self.flight.begin(reply);
        self.flight.end(carried);
    }

    async fn backing(&mut self, out: &Out) -> Result<Backing, Error> {
        let is = |entry: &Appended| match entry.append == out.append {
            true => Backing::Committed {
                entry_sequence: entry.sequence,
            },
            false => Backing::Torn,
        };
        // This host's committer, or what it reads of others, is about to know: that saves reading the entry.
        if let Some(bucket) = self.bucket.as_ref().filter(|_| self.head < out.n)
            && let Some(appended) = bucket.appended_within(out.n, OUR_OWN).await
        {
            return Ok(is(&appended));
        }
        for _ in 0..MOMENTS {
            let known = self.bucket.as_ref().and_then(|bucket| bucket.appended(out.n));
            if let Some(appended) = known {
                return Ok(is(&appended));
            }
            if self.head < out.n {
                let subject = self.subjects.head();
                if let Some(stored) = self.connection.stored(&self.stream, By::Last(&subject)).await? {
                    self.head = read::parse::<Head>(&subject, &stored.payload)?.n;
                }
            }
            if self.head >= out.n {
                let subject = self.subjects.entry(out.n);
                // A collected entry was carried out long ago.
                let Some(stored) = self.connection.stored(&self.stream, By::Last(&subject)).await? else {
                    return Ok(Backing::Torn);
                };
                let Entry { append, .. } = read::parse(&subject, &stored.payload)?;
                let sequence = stored.sequence;
                return Ok(is(&Appended { append, sequence }));
            }
            tokio::time::sleep(MOMENT).await;
        }
        Ok(Backing::NotYet)
    }

    async fn carry_one(
        &mut self,
        (entry, entry_sequence): (u64, u64),
        (carried, sequence): (u64, u64),
        consequence: Consequence,
        fetched: Instant,
    ) -> Result<(), Error> {
        match consequence {
            Consequence::Event {
                id,
                subject,
                headers,
                body,
            } => {
                if sequence <= self.look.until && self.is_there(&subject, &id).await? {
                    return Ok(());
                }
                let payload = self.payload(entry, body).await?;
                self.make_room().await?;
                let patience = self.targets.patience(&self.connection, &subject).await?;
                // The last thing before: whoever sleeps here wakes up too late, and fetches again.
                if fetched.elapsed() > patience {
                    let what = "carrying consequences out".to_owned();
                    return Err(Error::Timeout { what });
                }
                let known_by = match fault::planted().is(Mistake::EmitWithoutId) {
                    true => token(),
                    false => id.clone(),
                };
                let event = Event {
                    id,
                    subject,
                    headers,
                    payload,
                    entry,
                };
                self.flight.publish(carried, event, &known_by).await?;
                fault::point_after("relay-published", self.connection.client.flush()).await;
                Ok(())
            }
            Consequence::Delayed {
                id,
                due,
                subject,
                mut headers,
                body,
            } => {
                let payload = self.payload(entry, body).await?;
                headers.push(("Mesh-Cause-Entry".to_owned(), entry.to_string()));
                let event = Delayed {
                    id: &id,
                    due: &due,
                    subject: &subject,
                    headers: &headers,
                    ledger: &self.stream,
                };
                match delayed::schedule(&self.connection, &event, payload.clone()).await {
                    // What the mesh adds for the time of waiting was too much.
                    Err(Error::Api {
                        code: Code::STREAM_MESSAGE_EXCEEDS_MAXIMUM,
                        text,
                        ..
                    }) => {
                        tracing::warn!(
                            subject,
                            id,
                            entry,
                            text,
                            "a delayed event cannot be kept and becomes a dead letter"
                        );
                        let (letter, headers) =
                            dead_letter::undeliverable(&self.stream, &id, &subject, &headers, &text);
                        dead_letter::store(&self.connection, &letter, &headers, payload).await?;
                    }
                    scheduled => scheduled?,
                }
                fault::point("event-scheduled");
                Ok(())
            }
            Consequence::Letter {
                subject,
                mut headers,
                body,
                death,
            } => {
                if let Some(place) = death {
                    let record = record_of_death(entry_sequence, place);
                    headers.push((DEATH_RECORD.to_owned(), record.to_string()));
                }
                let payload = self.payload(entry, body).await?;
                self.make_room().await?;
                fault::point("before-letter");
                if dead_letter::fits(&self.connection, &headers, &payload) {
                    return self.flight.letter(carried, subject, &headers, payload).await;
                }
                dead_letter::store(&self.connection, &subject, &headers, payload).await?;
                fault::point("letter-stored");
                Ok(())
            }
            Consequence::Settle {
                subject,
                reason,
                in_parts,
            } => {
                self.make_room().await?;
                if in_parts {
                    return dead_letter::settle(&self.connection, &subject, &reason, in_parts).await;
                }
                self.flight.settled(carried, subject, &reason).await
            }
        }
    }

    async fn make_room(&mut self) -> Result<(), Error> {
        while !self.flight.has_room() {
            let mut checks = tokio::time::interval(Duration::from_secs(1));
            let answered = loop {
                tokio::select! {
                    answered = self.flight.next() => break answered?,
                    () = self.connection.closed() => return Err(Error::Gone { what: "the relay".to_owned() }),
                    _ = checks.tick() => self.flight.check()?,
                }
            };
            self.answered(answered).await?;
        }
        Ok(())
    }

    /// Takes in what a target has answered.
    pub async fn answered(&mut self, answered: Answered) -> Result<(), Error> {
        let Answered { carried, cargo, answer } = answered;
        match cargo {
            Cargo::Event(event) => return self.event_answered(carried, event, answer).await,
            Cargo::Letter(subject) => {
                dead_letter::inserted(&subject, answer)?;
                fault::point("letter-stored");
            }
            Cargo::Settled(_) => {
                answer?;
            }
        }
        self.flight.confirm(carried);
        Ok(())
    }

    /// An event that its target refuses for good becomes a dead letter, and the relay goes on.
    async fn event_answered(&mut self, carried: u64, event: Event, answer: Result<PubAck, Error>) -> Result<(), Error> {
        let subject = &event.subject;
        let why = match answer {
            Ok(ack) => {
                tracing::trace!(
                    subject,
                    id = event.id,
                    seq = ack.seq,
                    duplicate = ack.duplicate,
                    "event emitted"
                );
                fault::point("relay-confirmed");
                self.refused.remove(subject);
                self.flight.confirm(carried);
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
        self.flight.confirm(carried);
        Ok(())
    }

    async fn payload(&self, entry: u64, body: Body) -> Result<Bytes, Error> {
        let parts = match body {
            Body::Here(text) => {
                return text.into_bytes().map_err(|why| Error::Answer {
                    what: self.subjects.out(entry, 0),
                    why,
                });
            }
            Body::Parts(parts) => parts,
        };
        let mut payload = BytesMut::new();
        for part in parts {
            let subject = self.subjects.out(entry, part);
            let stored = self.connection.stored(&self.stream, By::Last(&subject)).await?;
            let stored = stored.ok_or_else(|| Error::Refused(format!("{subject} is missing")))?;
            payload.extend_from_slice(&stored.payload);
        }
        Ok(payload.freeze())
    }
}
