//! The events that a handler works on here: each stands once, and the server is told in time that its delivery is being
//! worked on.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use async_nats::Subject;
use parking_lot::{Mutex, MutexGuard};
use slab::Slab;

use crate::broker::Connection;
use crate::event::EventId;
use crate::plan::Handler;

/// How long an event waits for its turn and for its commit at most, besides running.
const WAITING_MAX: Duration = Duration::from_secs(60);

/// What a handler works on.
pub struct InFlight {
    running: Mutex<Running>,
    leases: Mutex<Slab<Lease>>,
    /// A delivery that is older is told of.
    renewed_after: Duration,
    /// For how long the server is told that a delivery is in progress.
    lease_max: Duration,
}

/// Events at work. Their sequences are the server's and nearly always of one incarnation, so they need no hash that
/// withstands an adversary.
type Running = HashSet<EventId, BuildHasherDefault<BySequence>>;

/// Spreads a sequence over all bits.
#[derive(Default)]
struct BySequence(u64);

impl Hasher for BySequence {
    fn write(&mut self, _: &[u8]) {
        unreachable!("an event is hashed by its sequence");
    }

    fn write_u64(&mut self, sequence: u64) {
        // The odd number nearest to 2^64 divided by the golden ratio (Knuth, volume 3, section 6.4).
        self.0 = sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A delivery that is being worked on: the server is told so in time.
struct Lease {
    reply: Subject,
    since: Instant,
    until: Instant,
}

/// Held while a delivery is worked on; its drop ends the lease.
pub struct Leased<'a> {
    of: &'a InFlight,
    key: usize,
}

impl Drop for Leased<'_> {
    fn drop(&mut self) {
        self.of.leases().remove(self.key);
    }
}

/// Held while an event runs or waits for its commit: it stands at most once on this host.
pub struct Once<'a> {
    of: &'a InFlight,
    event: &'a EventId,
}

impl Drop for Once<'_> {
    fn drop(&mut self) {
        self.of.running().remove(self.event);
    }
}

impl InFlight {
    pub fn of(plan: &Handler) -> InFlight {
        InFlight {
            running: Mutex::default(),
            leases: Mutex::default(),
            renewed_after: plan.ack_wait / 3,
            lease_max: plan.timeout * 2 + WAITING_MAX,
        }
    }

    fn leases(&self) -> MutexGuard<'_, Slab<Lease>> {
        self.leases.lock()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock()
    }

    /// From now on the server is told that this delivery is being worked on, for as long as it may take.
    pub fn hold(&self, reply: &Subject) -> Leased<'_> {
        let now = Instant::now();
        let key = self.leases().insert(Lease {
            reply: reply.clone(),
            since: now,
            until: now + self.lease_max,
        });
        Leased { of: self, key }
    }

    /// `None`: it is being worked on already.
    pub fn once<'a>(&'a self, event: &'a EventId) -> Option<Once<'a>> {
        self.running().insert(event.clone()).then(|| Once { of: self, event })
    }

    pub fn contains(&self, event: &EventId) -> bool {
        self.running().contains(event)
    }

    /// The lowest sequence of an incarnation of the stream.
    pub fn lowest(&self, incarnation: &str) -> Option<u64> {
        let running = self.running();
        let of = running.iter().filter(|event| *event.incarnation == *incarnation);
        of.map(|event| event.sequence).min()
    }

    /// How many events are worked on.
    pub fn count(&self) -> usize {
        self.running().len()
    }

    /// Tells the server of every delivery that has been here for a third of its ack wait.
    pub async fn renew(&self, connection: &Connection) {
        for reply in self.due(Instant::now()) {
            // This fails only when the connection is closed.
            let _ = connection.client.publish(reply, "+WPI".into()).await;
        }
    }

    /// The deliveries that the server is to be told of.
    fn due(&self, now: Instant) -> Vec<Subject> {
        self.leases()
            .iter()
            .filter(|(_, lease)| now - lease.since >= self.renewed_after && now < lease.until)
            .map(|(_, lease)| lease.reply.clone())
            .collect()
    }
}
