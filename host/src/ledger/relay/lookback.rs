//! What a relay that begins must not publish twice. Consequences that were fetched before and not confirmed may have been
//! published, so it looks into the targets first.

use super::seen::{Lookback, Looked};
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::time::Instant;

use super::CONSUMER;
use super::blocked::{Manner, Waiting};
use super::carry::{Fetched, Relay};
use super::consumer::Carried;
use crate::broker::error::Code;
use crate::broker::provision::DEAD;
use crate::broker::scan::{CLOCKS_MS, From, LOOKS, Scanned, survey};
use crate::broker::{By, Connection, Error};
use crate::event::{DeliveryInfo, Headers, MESSAGE_ID, header, headers_of};
use crate::ledger::core::entry::PART;
use crate::ledger::relay::asked::{Asked, TargetAnswer};
use crate::ledger::relay::task::Task;
use crate::mesh_streams::dead_letter;
use crate::plan::Nats;

impl Relay {
    /// Publishes everything that was delivered to any relay and not confirmed, and this message: redeliveries come in any
    /// order. Returns the sequence up to which all is taken up; `None`: an entry is not there yet.
    pub async fn recover(&mut self, here: DeliveryInfo) -> Result<Option<u64>, Error> {
        let Some(info) = self.connection.consumer(&self.stream, CONSUMER).await? else {
            return Err(Error::Missing {
                what: format!("consumer {CONSUMER} on stream {}", self.stream),
            });
        };
        let until = info.delivered.stream_seq.max(here.stream_sequence);
        let carried = Carried::of(&info);
        self.lookback = Lookback {
            until: until.max(carried.until),
            from_ms: carried.lost_since_ms.unwrap_or(u64::MAX).min(here.time_ms),
            by_any_entry: carried.lost_since_ms.is_some(),
            ..Lookback::default()
        };
        let mut next = info.ack_floor.stream_seq + 1;
        let outs = self.subjects.outs();
        while next <= until {
            let at = Instant::now();
            let stored = self.connection.stored_next(&self.stream, next, &outs).await?;
            let Some(stored) = stored.filter(|stored| stored.sequence <= until) else {
                break;
            };
            next = stored.sequence + 1;
            self.lookback.from_ms = self.lookback.from_ms.min(stored.time_ms);
            match stored.headers() {
                Ok(headers) if header(&headers, PART).is_some() => continue,
                Ok(_) => {}
                Err(why) => {
                    self.pass_over(stored.sequence, &why);
                    continue;
                }
            }
            let fetched = Fetched {
                sequence: stored.sequence,
                time_ms: stored.time_ms,
                payload: &stored.payload,
                reply: None,
                at,
            };
            if !self.take_up(fetched).await? {
                return Ok(None);
            }
        }
        Ok(Some(until))
    }

    /// Whether it may have been published by a relay that broke off: then it is looked for first.
    pub(super) fn is_again(&self, task: &Task) -> bool {
        task.before.is_none() && task.place.sequence <= self.lookback.until
    }

    /// Whether an event is to be published now: it is not in its target yet, and no letter of it is stored. What cannot be
    /// told for the moment waits.
    pub(super) async fn is_free(
        &mut self,
        task: &Task,
        (id, subject): (&str, &str),
        target: Option<&str>,
    ) -> Result<bool, Error> {
        let again = self.is_again(task);
        let unsure = again || task.before.as_ref().is_some_and(|before| before.unsure);
        let name = target.map_or_else(|| self.unknown(subject), str::to_owned);
        if task.before.is_none() && self.blocked.is_mute(&name, Instant::now()) {
            self.wait(task, &name, unsure, "nothing is answered there");
            return Ok(false);
        }
        if unsure && self.lookback.ids(subject, target).is_none() {
            if !again {
                self.look_back_aside(subject);
                self.wait(
                    task,
                    &name,
                    true,
                    "what was sent there was not answered, and the stream cannot be read",
                );
                return Ok(false);
            }
            let entry = if self.lookback.by_any_entry {
                0
            } else {
                self.flight.first_entry()
            };
            let from = (self.lookback.from_ms, entry);
            match ids_since(&self.plan.nats, &self.connection, subject, from).await {
                Ok(found) => self.lookback.saw(subject.to_owned(), found),
                Err(error @ Error::Gone { .. }) => return Err(error),
                Err(error) => {
                    self.wait(task, &name, true, &error.to_string());
                    return Ok(false);
                }
            }
        }
        let seen = || self.lookback.ids(subject, target).is_some_and(|ids| ids.contains(id));
        if unsure && seen() {
            self.blocked.took(&name, Instant::now());
            return Ok(false);
        }
        Ok(!(again && self.is_letter(id).await?))
    }

    /// It is not tried now.
    fn wait(&mut self, task: &Task, target: &str, unsure: bool, why: &str) {
        let now = Instant::now();
        let mut waiting = task.before.clone().unwrap_or_else(|| Waiting::new(task.carried, now));
        waiting.unsure |= unsure;
        self.flight.counts(task.carried);
        let place = (task.place, waiting);
        self.blocked.refused((target, Manner::Mute, why), place, false, now);
    }

    /// Looks into the target of a subject, without waiting for it.
    fn look_back_aside(&mut self, subject: &str) {
        if !self.may_ask(subject, Instant::now()) {
            return;
        }
        let (connection, plan) = (self.connection.clone(), Arc::clone(&self.plan));
        let since = self.flight.unconfirmed().1.unwrap_or(0);
        let (subject, from) = (subject.to_owned(), (since, self.flight.first_entry()));
        self.asks.push(Box::pin(async move {
            let found = ids_since(&plan.nats, &connection, &subject, from).await;
            let answer = TargetAnswer::Seen(found);
            Asked { subject, answer }
        }));
    }

    /// Whether an event that was to be delivered has become a letter, which may be settled by now.
    pub(super) async fn is_letter(&mut self, id: &str) -> Result<bool, Error> {
        let subject = dead_letter::undeliverable_subject(&self.stream, id);
        match self.connection.stored(DEAD, By::Last(&subject)).await {
            Ok(found) => Ok(found.is_some()),
            Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The ids of the events that the target of a subject holds, from a time on, and that follow from entries as new as
/// `from_entry`: whatever a relay may have published itself and not confirmed is among them, and hardly anything else,
/// however much lies there.
async fn ids_since(
    nats: &Nats,
    connection: &Connection,
    subject: &str,
    (from_ms, from_entry): (u64, u64),
) -> Result<Looked, Error> {
    let mut found = Looked::default();
    let see = |id: &str, event: &Headers| {
        let entry = header(event, "Mesh-Cause-Entry").and_then(|entry| entry.parse::<u64>().ok());
        if entry.is_some_and(|entry| entry >= from_entry) {
            found.ids.insert(id.to_owned());
        }
        ControlFlow::Continue(())
    };
    found.whole = each_since(nats, connection, subject, from_ms, see).await?;
    Ok(found)
}

/// Whether the target of a subject holds the event with this id, from a time on.
pub async fn holds(
    nats: &Nats,
    connection: &Connection,
    (subject, id): (&str, &str),
    from_ms: u64,
) -> Result<bool, Error> {
    let mut found = false;
    let see = |other: &str, _: &Headers| {
        found |= other == id;
        if found {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    each_since(nats, connection, subject, from_ms, see).await?;
    Ok(found)
}

/// Calls `see` for each event that the target of a subject holds, from a time on by the clock of any server, with its id.
/// A target that stores events under other subjects than they are published on is read whole, and named.
async fn each_since(
    nats: &Nats,
    connection: &Connection,
    subject: &str,
    from_ms: u64,
    mut see: impl FnMut(&str, &Headers) -> ControlFlow<()>,
) -> Result<Option<String>, Error> {
    let Some(target) = connection.captured(subject).await? else {
        return Ok(None);
    };
    let stream = target.stream;
    let Some(info) = connection.stream(&stream).await? else {
        return Ok(None);
    };
    // A stream that removes what was acked, and allows no further consumer, cannot be searched.
    if info.retention() != "limits" {
        return Ok(None);
    }
    let filters = match info.transforms() {
        true => Vec::new(),
        false => vec![target.subject],
    };
    let from = From::Time(from_ms.saturating_sub(CLOCKS_MS));
    let see = |scanned: Scanned| {
        let headers = headers_of(scanned.message.headers.as_ref());
        match header(&headers, MESSAGE_ID) {
            Some(id) => see(id, &headers),
            None => ControlFlow::Continue(()),
        }
    };
    // The semaphore is never closed.
    let _place = LOOKS.acquire().await.ok();
    survey(nats, &stream, &filters, (from, u64::MAX), see).await?;
    Ok(filters.is_empty().then_some(stream))
}
