//! Deliveries that were lost with a broken connection: the server had sent them, and no host has received them. They are handed
//! back by their sequences, so that they come again at once, and not only after their ack wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::broker::Connection;
use crate::broker::consumer::ConsumerInfo;
use crate::event::DeliveryInfo;
use crate::plan;

/// The most sequences that are looked through after one break: no lane asks for more at a time, but its messages may lie
/// far apart. What lies beyond comes again after its ack wait.
const SEQUENCES_MAX: u64 = 100_000;

/// Replays that are worked on at a time, beside `in_flight`; a list of letters is one, and its letters have a limit of their
/// own.
const REPLAYS_IN_FLIGHT: usize = 512;
/// Advisories, the same.
const ADVISORIES_IN_FLIGHT: usize = 64;

/// What lasts over the connections of a lane, for each of its inlets.
pub struct Doors {
    pub source: Door,
    pub replays: Door,
    pub advisories: Door,
}

impl Doors {
    pub fn of(plan: &plan::Handler) -> Doors {
        Doors {
            source: Door::of(plan.in_flight),
            replays: Door::of(REPLAYS_IN_FLIGHT),
            advisories: Door::of(ADVISORIES_IN_FLIGHT),
        }
    }
}

pub struct Door {
    /// How many messages are worked on at most; those that a lost connection has left at work count as well.
    places: usize,
    at_work: AtomicUsize,
    pub taken: Taken,
}

/// Held while a message is worked on.
pub struct DoorPlace<'a>(&'a AtomicUsize);

impl Drop for DoorPlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Door {
    fn of(places: usize) -> Door {
        Door {
            places,
            at_work: AtomicUsize::new(0),
            taken: Taken::default(),
        }
    }

    /// The place of a message that has come: no more were asked for than are [free](Self::free).
    pub fn place(&self) -> DoorPlace<'_> {
        self.at_work.fetch_add(1, Ordering::Relaxed);
        DoorPlace(&self.at_work)
    }

    /// How many messages may still be taken.
    pub fn free(&self) -> usize {
        self.places.saturating_sub(self.at_work.load(Ordering::Relaxed))
    }
}

/// How long the server keeps a request, if there is this number of handlers: together they send at most some hundred requests a
/// second while nothing comes.
pub fn request_expires(handlers: usize) -> Duration {
    let expires = Duration::from_millis(u64::try_from(handlers).unwrap_or(u64::MAX).saturating_mul(25));
    expires.clamp(Duration::from_secs(5), Duration::from_secs(30))
}

/// What this host has had of a consumer's deliveries.
#[derive(Default)]
pub struct Taken(Mutex<Option<Had>>);

struct Had {
    /// The highest sequence of the stream.
    newest: u64,
    /// The consumer's own count when it was bound, and with the last delivery.
    bound: u64,
    last: u64,
    /// Deliveries since it was bound.
    count: u64,
}

impl Taken {
    pub fn take(&self, info: &DeliveryInfo) {
        if let Some(had) = &mut *self.0.lock() {
            had.newest = had.newest.max(info.stream_sequence);
            had.last = info.consumer_sequence;
            had.count += 1;
        }
    }

    /// The consumer was bound again. Returns what was sent to the closed connection before and never arrived; with `shared`
    /// also if other hosts take part in the consumer, whose deliveries may then be among it.
    fn bind(&self, consumer: &ConsumerInfo, shared: bool) -> std::ops::RangeInclusive<u64> {
        let delivered = &consumer.delivered;
        let now = Had {
            newest: delivered.stream_seq,
            bound: delivered.consumer_seq,
            last: delivered.consumer_seq,
            count: 0,
        };
        let before = self.0.lock().replace(now);
        let before = before.filter(|had| shared || had.last == had.bound + had.count);
        let first = before.map_or(u64::MAX, |had| had.newest.saturating_add(1));
        let first = first.max(consumer.ack_floor.stream_seq + 1);
        first..=delivered.stream_seq.min(first.saturating_add(SEQUENCES_MAX - 1))
    }
}

/// Gives back what was lost of a consumer's deliveries, except what is at work here after all.
///
/// Where a repeated run would do harm (`exactly_once` is false: no ledger tells), this is done only if no other host has
/// had a share: nothing says which deliveries were whose.
pub async fn hand_back(
    connection: &Connection,
    stream: &str,
    consumer: &ConsumerInfo,
    door: &Door,
    exactly_once: bool,
    at_work: impl Fn(u64) -> bool,
) {
    for sequence in door
        .taken
        .bind(consumer, exactly_once)
        .filter(|sequence| !at_work(*sequence))
    {
        // This fails only when the connection is closed again.
        let _ = connection.hand_back(stream, consumer, sequence).await;
    }
}
