//! A lane's connection, and what it has found out of the stream that it leads to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::broker::Connection;
use crate::event::EventId;
use crate::ledger::core::entry::Incarnation;

/// A connection and the incarnation of the source stream that it leads to.
#[derive(Debug)]
pub struct Link {
    pub connection: Connection,
    /// Of the events that are stored now.
    pub incarnation: Arc<str>,
    /// Whose the events before are, each up to a sequence: the stream has lost its end and goes on from there.
    former: Vec<(Arc<str>, u64)>,
    /// When the stream was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// The source removes messages that are acked: work queue or interest.
    pub removes: bool,
    /// The newest delivery of the consumer, by its own count.
    newest: AtomicU64,
    /// Up to here it has been looked whether the stream's beginning was delivered.
    pub known_first: AtomicU64,
}

impl Link {
    pub fn new(connection: Connection, present: &Incarnation, created_ms: u64, removes: bool) -> Link {
        let former = present.former.iter();
        Link {
            connection,
            incarnation: present.token.as_str().into(),
            former: former
                .map(|former| (former.token.as_str().into(), former.until))
                .collect(),
            created_ms,
            removes,
            newest: AtomicU64::new(0),
            known_first: AtomicU64::new(0),
        }
    }

    /// The event at a sequence.
    pub fn event(&self, sequence: u64) -> EventId {
        let former = self.former.iter().find(|(_, until)| sequence <= *until);
        EventId {
            incarnation: Arc::clone(former.map_or(&self.incarnation, |(token, _)| token)),
            sequence,
        }
    }

    /// Whether an event is of the stream as it is now.
    pub fn has(&self, event: &EventId) -> bool {
        self.event(event.sequence) == *event
    }

    /// Whose the events of the stream are: token, first and last sequence, in their order.
    pub fn ranges(&self) -> impl Iterator<Item = (&Arc<str>, u64, u64)> {
        let present = (&self.incarnation, u64::MAX);
        let all = self
            .former
            .iter()
            .map(|(token, until)| (token, *until))
            .chain([present]);
        all.scan(1, |first, (token, until)| {
            let from = std::mem::replace(first, until.saturating_add(1));
            Some((token, from, until))
        })
    }

    /// Whether a delivery with this consumer sequence is one of the consumer that this link was bound to: that one's
    /// count only grows.
    pub fn continues(&self, consumer_sequence: u64) -> bool {
        self.newest.fetch_max(consumer_sequence, Ordering::Relaxed) < consumer_sequence
    }
}
