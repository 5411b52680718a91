//! What a relay that begins must not do twice: what was fetched and not confirmed before it may have been carried out,
//! so it looks into the targets first.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use super::CONSUMER;
use super::carry::{Fetched, Relay};
use crate::broker::scan::{CLOCKS_MS, From, survey};
use crate::broker::{Connection, Error};
use crate::ledger::entry::PART;
use crate::message::{DeliveryInfo, header};
use crate::plan::Nats;

/// What a relay that begins must not take for unpublished.
#[derive(Default)]
pub struct Look {
    /// Consequences up to this sequence may have been carried out before.
    pub until: u64,
    /// When the oldest of them was stored.
    from_ms: u64,
    /// By subject, the ids of the events that are in the target since then.
    seen: HashMap<String, HashSet<String>>,
}

impl Relay<'_> {
    /// Carries out everything that has been delivered and not confirmed, by whichever relay, and this message: what comes
    /// again comes in any order. The sequence up to which all is taken up; `None`: an entry is not there yet.
    pub async fn recover(&mut self, here: DeliveryInfo) -> Result<Option<u64>, Error> {
        let Some(info) = self.connection.consumer(&self.stream, CONSUMER).await? else {
            return Err(Error::Missing {
                what: format!("consumer {CONSUMER} on stream {}", self.stream),
            });
        };
        let until = info.delivered.stream_seq.max(here.stream_sequence);
        self.look = Look {
            until,
            from_ms: here.time_ms,
            ..Look::default()
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
            self.look.from_ms = self.look.from_ms.min(stored.time_ms);
            if stored.headers().is_ok_and(|headers| header(&headers, PART).is_some()) {
                continue;
            }
            let fetched = Fetched {
                sequence: stored.sequence,
                payload: &stored.payload,
                reply: None,
                at,
            };
            if !self.carry(fetched).await? {
                return Ok(None);
            }
        }
        Ok(Some(until))
    }

    /// Whether an event that may have been published by a relay that broke off is in its target already: the target
    /// forgets message ids after its duplicate window.
    pub(super) async fn is_there(&mut self, subject: &str, id: &str) -> Result<bool, Error> {
        if !self.look.seen.contains_key(subject) {
            let ids = ids_since(&self.nats, &self.connection, subject, self.look.from_ms).await?;
            self.look.seen.insert(subject.to_owned(), ids);
        }
        Ok(self.look.seen.get(subject).is_some_and(|ids| ids.contains(id)))
    }
}

/// The ids of the events that the target of a subject holds, from a time on by the clock of any server.
pub async fn ids_since(
    nats: &Nats,
    connection: &Connection,
    subject: &str,
    from_ms: u64,
) -> Result<HashSet<String>, Error> {
    let mut ids = HashSet::new();
    let target = connection.stream_of(subject).await?;
    let info = match &target {
        Some(stream) => connection.stream(stream).await?,
        None => None,
    };
    // One that removes what was acked, and lets nobody look on, cannot tell.
    let tells = info.is_some_and(|info| info.retention() == "limits");
    if let (Some(stream), true) = (target, tells) {
        let from = From::Time(from_ms.saturating_sub(CLOCKS_MS));
        let filter = [subject.to_owned()];
        for message in survey(nats, connection, &stream, &filter, from, u64::MAX).await? {
            let headers = message.headers.unwrap_or_default();
            ids.extend(header(&headers, "Nats-Msg-Id").map(str::to_owned));
        }
    }
    Ok(ids)
}
