//! One consequence on its way: what is published for it, and where.

use std::borrow::Cow;
use std::time::Duration;

use super::task::Task;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::carry::Relay;
use super::flight::{Answered, What};
use super::publish_span::PublishSpan;
use crate::broker::connection::{EXPECTED, token};
use crate::broker::error::Code;
use crate::broker::provision::{DEAD, DELAYED};
use crate::broker::{By, Error};
use crate::event::{Headers, MESSAGE_ID, header, writable};
use crate::failpoint;
use crate::failpoint::mistake::Mistake;
use crate::ledger::core::entry::{Consequence, StoredBody, record_of_death};
use crate::mesh_streams::dead_letter::{self, DEATH_RECORD};
use crate::mesh_streams::delayed::{self, Delayed, TIMER_KEY};

impl Relay {
    /// Begins to publish one consequence.
    pub(super) async fn begin(&mut self, task: Task, consequence: Consequence<'static>) -> Result<(), Error> {
        match consequence {
            Consequence::Event {
                id,
                subject,
                headers,
                body,
            } => {
                let event = (id.into_owned(), subject.into_owned(), headers.into_owned());
                self.event(task, event, body).await
            }
            Consequence::Delayed {
                id,
                due,
                subject,
                headers,
                body,
            } => {
                let event = (id.into_owned(), subject.into_owned(), headers.into_owned());
                self.delayed(task, &due, event, body).await
            }
            Consequence::Letter {
                subject,
                headers,
                body,
                death,
            } => {
                let mut headers = headers.into_owned();
                if let Some(place) = death {
                    let record = record_of_death(task.entry_sequence, place);
                    headers.push((DEATH_RECORD.to_owned(), record.to_string()));
                }
                let payload = self.payload(task.entry, body).await?;
                failpoint::point("before-letter");
                self.store(task, What::Letter, subject.into_owned(), headers, payload)
                    .await
            }
            Consequence::Settle {
                subject,
                reason,
                in_parts,
                asked_by,
            } => {
                let told = (reason.into_owned(), asked_by.map(Cow::into_owned));
                self.settle(task, subject.into_owned(), told, in_parts).await
            }
        }
    }

    /// Hands a delayed event to the server as a schedule.
    async fn delayed(
        &mut self,
        task: Task,
        due: &str,
        (id, subject, mut headers): (String, String, Headers),
        body: StoredBody<'static>,
    ) -> Result<(), Error> {
        if self.is_again(&task) && self.is_letter(&id).await? {
            return Ok(());
        }
        let payload = self.payload(task.entry, body).await?;
        headers.push(("Mesh-Cause-Entry".to_owned(), task.entry.to_string()));
        if let Some(why) = task.letter() {
            return self.undeliverable(task, (&id, &subject, &headers), &why, payload).await;
        }
        // The event of a timer is published when the timer has fired.
        let is_timer = header(&headers, TIMER_KEY).is_some();
        let mut span = (!is_timer)
            .then(|| PublishSpan::of(&self.plan, (&id, &subject), &headers))
            .flatten();
        if let Some(span) = &mut span {
            span.due(due);
        }
        let event = Delayed {
            id: &id,
            due,
            subject: &subject,
            headers: &headers,
            ledger: &self.stream,
        };
        let (subject, map) = delayed::scheduled(&event);
        self.make_room().await?;
        let mut cargo = task.cargo(What::Delayed, subject, Some(DELAYED.into()));
        cargo.span = span;
        if self.room.takes(&self.connection, payload.len() as u64).await? {
            return self.flight.send(cargo, map, payload).await;
        }
        // As any other full stream answers.
        let full = Error::Api {
            what: format!("stream {DELAYED}"),
            code: Code::STREAM_STORE_FAILED,
            text: "maximum bytes exceeded".to_owned(),
        };
        self.flight.work(cargo, async { Err(full) });
        Ok(())
    }

    /// Overwrites a letter that is resolved.
    async fn settle(
        &mut self,
        task: Task,
        subject: String,
        (reason, asked_by): (String, Option<String>),
        in_parts: bool,
    ) -> Result<(), Error> {
        self.make_room().await?;
        let cargo = task.cargo(What::Settled, subject.clone(), Some(DEAD.into()));
        if in_parts {
            let connection = self.connection.clone();
            let work =
                async move { dead_letter::settle(&connection, &subject, &reason, asked_by.as_deref(), in_parts).await };
            self.flight.work(cargo, work);
            return Ok(());
        }
        let headers = writable(&dead_letter::settled(&reason, asked_by.as_deref()));
        self.flight.send(cargo, headers, Bytes::new()).await
    }

    async fn event(
        &mut self,
        task: Task,
        (id, subject, headers): (String, String, Headers),
        body: StoredBody<'static>,
    ) -> Result<(), Error> {
        if let Some(why) = task.letter() {
            let payload = self.payload(task.entry, body).await?;
            return self.undeliverable(task, (&id, &subject, &headers), &why, payload).await;
        }
        let (target, patience) = self.targets.of(&self.connection, &subject).await?;
        if !self.is_free(&task, (&id, &subject), target.as_deref()).await? {
            return Ok(());
        }
        let payload = self.payload(task.entry, body).await?;
        self.make_room().await?;
        // Checked immediately before publishing: a process that was suspended here wakes up too late, and fetches again.
        if task.at.elapsed() > patience {
            if let Some(before) = task.before {
                // Whether the pin is still ours is known in a moment.
                self.flight.counts(task.carried);
                self.blocked.not_now(task.place, before, Instant::now());
                return Ok(());
            }
            let what = "publishing consequences".to_owned();
            return Err(Error::Timeout { what });
        }
        let known_by = match failpoint::planted().is(Mistake::EmitWithoutId) {
            true => token(),
            false => id.clone(),
        };
        let mut map = writable(&headers);
        map.insert(MESSAGE_ID, known_by);
        map.insert("Mesh-Cause-Entry", task.entry.to_string());
        let span = PublishSpan::of(&self.plan, (&id, &subject), &headers);
        let mut cargo = task.cargo(What::Event(id), subject, target);
        cargo.span = span;
        self.flight.send(cargo, map, payload).await?;
        failpoint::point_after("relay-published", self.connection.client.flush()).await;
        Ok(())
    }

    /// The letter of an event that its target does not take.
    async fn undeliverable(
        &mut self,
        task: Task,
        (id, to, headers): (&str, &str, &Headers),
        why: &str,
        payload: Bytes,
    ) -> Result<(), Error> {
        let (subject, headers) = dead_letter::undeliverable(&self.stream, id, to, headers, why);
        self.store(task, What::Undeliverable, subject, headers, payload).await
    }

    /// Stores a letter, without waiting: nothing happens if its subject is taken.
    async fn store(
        &mut self,
        task: Task,
        what: What,
        subject: String,
        headers: Headers,
        payload: Bytes,
    ) -> Result<(), Error> {
        self.make_room().await?;
        let cargo = task.cargo(what, subject.clone(), Some(DEAD.into()));
        let headers = dead_letter::storable(&headers, &self.connection);
        if dead_letter::fits(&self.connection, &headers, &payload) {
            let mut map = writable(&headers);
            map.insert(EXPECTED, "0");
            return self.flight.send(cargo, map, payload).await;
        }
        let connection = self.connection.clone();
        let work = async move {
            dead_letter::store(&connection, &subject, &headers, payload)
                .await
                .map(drop)
        };
        self.flight.work(cargo, work);
        Ok(())
    }

    async fn make_room(&mut self) -> Result<(), Error> {
        while !self.flight.has_room() {
            let mut checks = tokio::time::interval(Duration::from_secs(1));
            let answered: Answered = loop {
                tokio::select! {
                    answered = self.flight.next() => break answered?,
                    () = self.connection.closed() => return Err(Error::Gone { what: "the relay".to_owned() }),
                    _ = checks.tick() => self.lost()?,
                }
                if self.flight.has_room() {
                    return Ok(());
                }
            };
            self.answered(answered)?;
        }
        Ok(())
    }

    async fn payload(&mut self, entry: u64, body: StoredBody<'static>) -> Result<Bytes, Error> {
        let parts = match body {
            StoredBody::Here(text) => {
                return text.into_bytes().map_err(|why| Error::Answer {
                    what: self.subjects.out(entry, 0),
                    why,
                });
            }
            StoredBody::Parts(parts) => parts,
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
