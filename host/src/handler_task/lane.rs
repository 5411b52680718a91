//! One handler on this host: its connection, what comes to it (its own consumer, replays, advisories), what is running
//! for it, and its sweep. A lane runs on one thread; so do the ledger that it writes to and that ledger's other lanes.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_nats::Subject;
use parking_lot::{Mutex, MutexGuard};
use slab::Slab;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::broker::{Connection, Connections, Error};
use crate::handler_task::advisory::message::Routed;
use crate::handler_task::hindered::Hindered;
pub use crate::handler_task::link::Link;
use crate::handler_task::lost::Doors;
use crate::handler_task::replay::lists::Lists;
use crate::handler_task::suspicion::Suspicion;
use crate::ledger::Bucket;
use crate::ledger::core::entry::Incarnation;
use crate::message::EventId;
use crate::message::clock::now_ms;
use crate::plan;
use crate::process::drain::Drain;
use crate::wasm::guest::Facts;
use crate::wasm::module::Module;

/// How long what needs a connection waits for the next one: longer than a lane takes to connect.
const LINK_MAX: Duration = Duration::from_secs(2);

/// A handler at work.
pub struct Lane {
    pub plan: plan::Handler,
    pub whole: Arc<plan::Plan>,
    /// Which process this is, in records and entries.
    pub host: String,
    pub facts: Arc<Facts>,
    pub module: ArcSwap<Module>,
    pub bucket: Option<Arc<Bucket>>,
    pub drain: Drain,
    /// Those of its thread.
    pub connections: Arc<Connections>,
    pub counters: Counters,
    pub hindered: Hindered,
    pub(crate) instances: Semaphore,
    pub(crate) lists: Lists,
    pub(crate) advisories: Advisories,
    pub(crate) doors: Doors,
    link: watch::Sender<Option<Arc<Link>>>,
    pub(crate) suspicion: Suspicion,
    standing: Mutex<Standing>,
    not_taken: Mutex<Option<NotTaken>>,
    leases: Mutex<Slab<Lease>>,
    running: Mutex<Running>,
    /// Of a handler without a ledger: the newest event that it was given.
    newest: Mutex<Option<Incarnation>>,
}

/// Advisories that wait for a handler; those that find no room come again.
pub(crate) struct Advisories {
    pub send: mpsc::Sender<Routed>,
    /// Held by the lane for as long as it runs.
    pub receive: tokio::sync::Mutex<mpsc::Receiver<Routed>>,
}

/// Advisories that a handler keeps before it acts on them.
const ADVISORIES_MAX: usize = 256;

impl Advisories {
    fn new() -> Advisories {
        let (send, receive) = mpsc::channel(ADVISORIES_MAX);
        Advisories {
            send,
            receive: tokio::sync::Mutex::new(receive),
        }
    }
}

/// What this host has done for a handler since it started.
#[derive(Default)]
pub struct Counters {
    pub done: AtomicU64,
    pub retried: AtomicU64,
    pub dead: AtomicU64,
    /// Answered without running: decided before.
    pub repeated: AtomicU64,
    /// Of these: under another sequence, known again by their id.
    pub known_by_id: AtomicU64,
    /// Messages that their stream has removed before this handler was given them, as far as it was seen.
    pub removed: AtomicU64,
    /// Events from outside with headers that the mesh has made for another one.
    pub copied: AtomicU64,
    pub conflicts: AtomicU64,
    pub busy_ns: AtomicU64,
}

/// Whether a handler takes events on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Starting,
    Serving,
    /// It tries again by itself.
    Connecting,
    /// Nothing changes until a person acts.
    Stopped,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Serving => "serving",
            State::Connecting => "connecting",
            State::Stopped => "stopped",
        }
    }
}

/// How a handler stands on this host.
#[derive(Debug, Clone)]
pub struct Standing {
    pub state: State,
    /// Why it does not serve.
    pub why: Option<String>,
    pub since_ms: u64,
}

/// Its module file has something else than the module that serves, and that is not taken up.
#[derive(Debug, Clone)]
pub struct NotTaken {
    pub why: String,
    pub since_ms: u64,
}

/// Events at work. Their sequences are the server's and nearly always of one making, so they need no hash that withstands
/// an adversary.
type Running = HashSet<EventId, BuildHasherDefault<BySequence>>;

/// Spreads a sequence over all bits.
#[derive(Default)]
struct BySequence(u64);

impl Hasher for BySequence {
    fn write(&mut self, _: &[u8]) {
        // The making is left out: events of two makings with one sequence are few.
    }

    fn write_u8(&mut self, _: u8) {}

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

/// Held while an event is worked on; its drop ends the lease.
pub struct Held<'a> {
    lane: &'a Lane,
    key: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.lane.leases().remove(self.key);
    }
}

/// Held while an event runs or waits for its commit: it stands at most once on this host.
pub struct Once<'a> {
    lane: &'a Lane,
    event: &'a EventId,
}

impl Drop for Once<'_> {
    fn drop(&mut self) {
        self.lane.running().remove(self.event);
    }
}

impl Lane {
    pub fn new(
        plan: plan::Handler,
        whole: Arc<plan::Plan>,
        host: &str,
        module: Module,
        bucket: Option<Arc<Bucket>>,
        connections: Arc<Connections>,
        drain: Drain,
    ) -> Lane {
        let state = plan
            .bucket
            .as_ref()
            .and(bucket.clone())
            .map(|b| b as Arc<dyn crate::wasm::guest::State>);
        let facts = Arc::new(Facts::of(&plan, state));
        Lane {
            instances: Semaphore::new(plan.concurrency),
            lists: Lists::default(),
            doors: Doors::of(&plan),
            advisories: Advisories::new(),
            plan,
            whole,
            host: host.to_owned(),
            facts,
            module: ArcSwap::from_pointee(module),
            bucket,
            connections,
            drain,
            counters: Counters::default(),
            hindered: Hindered::default(),
            link: watch::Sender::default(),
            suspicion: Suspicion::default(),
            standing: Mutex::new(Standing {
                state: State::Starting,
                why: None,
                since_ms: now_ms(),
            }),
            not_taken: Mutex::default(),
            leases: Mutex::default(),
            running: Mutex::default(),
            newest: Mutex::default(),
        }
    }

    /// The connection that works now.
    pub fn link(&self) -> Option<Arc<Link>> {
        self.link.borrow().clone()
    }

    /// The same; one that has just gone is waited for, a little: its successor is seldom far.
    pub async fn linked(&self) -> Option<Arc<Link>> {
        let is_open = |link: &Option<Arc<Link>>| link.as_ref().is_some_and(|link| !link.connection.is_closed());
        let now = self.link();
        if is_open(&now) {
            return now;
        }
        let mut links = self.link.subscribe();
        tokio::select! {
            biased;
            found = links.wait_for(is_open) => found.ok()?.clone(),
            () = tokio::time::sleep(LINK_MAX) => None,
            () = self.drain.begun() => None,
        }
    }

    pub fn set_link(&self, link: Option<Arc<Link>>) {
        if let Some(link) = &link {
            let max = link.connection.client.max_payload();
            self.facts.message_bytes_max.store(max, Ordering::Relaxed);
        }
        self.link.send_replace(link);
    }

    /// From now on it stands so.
    pub fn stands(&self, state: State, why: Option<&Error>) {
        let mut standing = self.standing.lock();
        if standing.state != state {
            (standing.state, standing.since_ms) = (state, now_ms());
        }
        standing.why = why.map(ToString::to_string);
    }

    pub fn standing(&self) -> Standing {
        self.standing.lock().clone()
    }

    /// Why its module file is not taken up; `None`: it is what serves.
    pub fn not_taken(&self, why: Option<String>) {
        let mut now = self.not_taken.lock();
        *now = why.map(|why| NotTaken {
            why,
            since_ms: now_ms(),
        });
    }

    pub fn module_not_taken(&self) -> Option<NotTaken> {
        self.not_taken.lock().clone()
    }

    fn leases(&self) -> MutexGuard<'_, Slab<Lease>> {
        self.leases.lock()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock()
    }

    /// From now on the server is told that this delivery is being worked on, for as long as it may take.
    pub fn hold(&self, reply: &Subject) -> Held<'_> {
        let now = Instant::now();
        // Besides running, an event waits for its turn and for its commit.
        let until = now + self.plan.timeout * 2 + Duration::from_secs(60);
        let key = self.leases().insert(Lease {
            reply: reply.clone(),
            since: now,
            until,
        });
        Held { lane: self, key }
    }

    /// `None`: it is being worked on already.
    pub fn once<'a>(&'a self, event: &'a EventId) -> Option<Once<'a>> {
        self.running().insert(event.clone()).then(|| Once { lane: self, event })
    }

    pub fn is_running(&self, event: &EventId) -> bool {
        self.running().contains(event)
    }

    /// An event has come that is to be decided: by it, its stream is known again.
    pub fn saw(&self, event: &EventId, time_ms: u64) {
        if let Some(bucket) = &self.bucket {
            return bucket.saw(&self.plan.stream, event, time_ms);
        }
        if let Some(newest) = &mut *self.newest.lock() {
            newest.saw(&event.incarnation, event.sequence, time_ms);
        }
    }

    /// What of its stream it was given before, of a handler without a ledger.
    pub fn newest(&self) -> Option<Incarnation> {
        self.newest.lock().clone()
    }

    /// It is bound to this making of its stream.
    pub fn remember(&self, present: &Incarnation) {
        if let Some(bucket) = &self.bucket {
            return bucket.remember(&self.plan.stream, present);
        }
        *self.newest.lock() = Some(present.clone());
    }

    /// The lowest sequence of a making of the stream that is being worked on.
    pub fn lowest_running(&self, incarnation: &str) -> Option<u64> {
        let running = self.running();
        let of = running.iter().filter(|event| *event.incarnation == *incarnation);
        of.map(|event| event.sequence).min()
    }

    /// Events that are being worked on.
    pub fn in_flight(&self) -> usize {
        self.running().len()
    }

    /// Tells the server of every delivery that has been here for a third of its ack wait.
    pub async fn renew(&self, connection: &Connection) {
        let now = Instant::now();
        let old = self.plan.ack_wait / 3;
        let due: Vec<Subject> = self
            .leases()
            .iter()
            .filter(|(_, lease)| now - lease.since >= old && now < lease.until)
            .map(|(_, lease)| lease.reply.clone())
            .collect();
        for reply in due {
            // Fails only when the connection is gone.
            let _ = connection.client.publish(reply, "+WPI".into()).await;
        }
    }
}

impl Counters {
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
