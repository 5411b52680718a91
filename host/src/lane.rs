//! One handler on this host: its connection, its three inlets (its own consumer, replays, advisories), what is running
//! for it, and its sweep. A lane runs on one thread; so do the ledger that it writes to and that ledger's other lanes.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_nats::Subject;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use slab::Slab;
use tokio::sync::Semaphore;

use crate::broker::connection::redial_delay;
use crate::broker::consumer::{ConsumerInfo, META_INCARNATION, META_LEDGER, Owner, bind, work_queue};
use crate::broker::provision::{ADVISORIES, REPLAY, provision};
use crate::broker::pull::{Inlet, Pulled};
use crate::broker::{self, Connection, Error};
use crate::drain::Drain;
use crate::guest::Facts;
use crate::handler::Module;
use crate::ledger::{Bucket, incarnation};
use crate::message::{DeliveryInfo, EventId, parse_rfc3339};
use crate::plan;
use crate::{advisory, dispatch, poison, replay, sweep};

/// How often the floor is raised and what was lost is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Replays and advisories that are worked on at a time, beside `in_flight`.
const SIDE_IN_FLIGHT: usize = 64;

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
    pub counters: Counters,
    pub(crate) instances: Semaphore,
    link: Mutex<Option<Arc<Link>>>,
    leases: Mutex<Slab<Lease>>,
    running: Mutex<HashSet<EventId>>,
}

/// What this host has done for a handler since it started.
#[derive(Default)]
pub struct Counters {
    pub done: AtomicU64,
    pub retried: AtomicU64,
    pub dead: AtomicU64,
    /// Answered without running: decided before.
    pub repeated: AtomicU64,
    pub conflicts: AtomicU64,
    pub busy_ns: AtomicU64,
}

/// A connection and the making of the source stream that it leads to.
#[derive(Debug)]
pub struct Link {
    pub connection: Connection,
    pub incarnation: Arc<str>,
    /// When the stream was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// The source removes messages that are acked: work queue or interest.
    pub removes: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("closed", &self.is_closed()).finish()
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
    event: EventId,
}

impl Drop for Once<'_> {
    fn drop(&mut self) {
        self.lane.running().remove(&self.event);
    }
}

impl Lane {
    pub fn new(
        plan: plan::Handler,
        whole: Arc<plan::Plan>,
        host: &str,
        module: Module,
        bucket: Option<Arc<Bucket>>,
        drain: Drain,
    ) -> Lane {
        let state = plan
            .bucket
            .as_ref()
            .and(bucket.clone())
            .map(|b| b as Arc<dyn crate::guest::State>);
        let facts = Arc::new(Facts {
            handler: plan.name.clone(),
            max_attempts: plan.retry.max_attempts,
            settings: plan.settings.clone(),
            publish: plan.publish.clone(),
            memory_bytes_max: plan.memory_bytes_max,
            state,
        });
        Lane {
            instances: Semaphore::new(plan.concurrency),
            plan,
            whole,
            host: host.to_owned(),
            facts,
            module: ArcSwap::from_pointee(module),
            bucket,
            drain,
            counters: Counters::default(),
            link: Mutex::new(None),
            leases: Mutex::default(),
            running: Mutex::default(),
        }
    }

    /// The connection that works now.
    pub fn link(&self) -> Option<Arc<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_link(&self, link: Option<Arc<Link>>) {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, Slab<Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashSet<EventId>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub fn once(&self, event: &EventId) -> Option<Once<'_>> {
        self.running().insert(event.clone()).then(|| Once {
            lane: self,
            event: event.clone(),
        })
    }

    pub fn is_running(&self, event: &EventId) -> bool {
        self.running().contains(event)
    }

    /// Deliveries that are being worked on.
    pub fn in_flight(&self) -> usize {
        self.leases().len()
    }

    /// Tells the server of every delivery that has been here for a third of its ack wait.
    async fn renew(&self, connection: &Connection) {
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

type Work = FuturesUnordered<BoxFuture<'static, ()>>;

/// Runs a lane until the drain has begun and what runs is finished.
pub async fn run(lane: Arc<Lane>) {
    let mut work = Work::new();
    let mut attempt = 0u32;
    let mut said: Option<String> = None;
    while !lane.drain.has_begun() {
        let ended = serve(&lane, &mut work).await;
        if lane.link().is_some() {
            // It had come so far as to serve.
            attempt = 0;
            said = None;
        }
        lane.set_link(None);
        let Err(error) = ended else { break };
        if error.passes() {
            tracing::info!(handler = %lane.plan.name, %error, "connection lost, connecting again");
        } else if said.as_deref() != Some(&error.to_string()) {
            tracing::error!(handler = %lane.plan.name, %error, "the handler is stopped until this is mended");
            said = Some(error.to_string());
        }
        attempt += 1;
        let pause = tokio::time::sleep(redial_delay(attempt));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                () = lane.drain.begun() => break,
                Some(()) = work.next() => {}
            }
        }
    }
    // What could not be finished over a live connection: its deliveries come again.
    while work.next().await.is_some() {}
}

/// Connects, binds and serves. `Ok`: drained.
async fn serve(lane: &Arc<Lane>, work: &mut Work) -> Result<(), Error> {
    let name = format!("jetmesh {} {}", lane.whole.mesh, lane.plan.name);
    // What runs goes on while this connects.
    let connection = beside(work, broker::open(&lane.whole.nats, &name)).await?;
    let (link, own) = beside(work, connect(lane, connection)).await?;
    let connection = &link.connection;
    lane.set_link(Some(Arc::clone(&link)));
    if own.num_ack_pending > 0 {
        beside(work, poison::isolate(lane, &link, &own)).await?;
    }
    let mut source = Inlet::open(connection, &lane.plan.stream, &lane.plan.consumer).await?;
    let mut replays = Inlet::open(connection, REPLAY, &replay::consumer(lane)).await?;
    let mut advisories = Inlet::open(connection, ADVISORIES, &advisory::consumer(lane)).await?;
    let mut renewal = tokio::time::interval(lane.plan.ack_wait / 3);
    let mut sweeps = tokio::time::interval(SWEEP_EVERY);
    renewal.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let sweeping = Arc::new(Semaphore::new(1));
    tracing::info!(handler = %lane.plan.name, stream = %lane.plan.stream, consumer = %lane.plan.consumer,
        module = %lane.module.load().digest, "serving");
    loop {
        source.ask(lane.plan.in_flight.saturating_sub(lane.in_flight())).await?;
        replays.ask(SIDE_IN_FLIGHT).await?;
        advisories.ask(SIDE_IN_FLIGHT).await?;
        tokio::select! {
            biased;
            () = lane.drain.begun() => break,
            () = connection.closed() => return Err(Error::Gone { what: lane.plan.name.clone() }),
            _ = renewal.tick() => {
                lane.renew(connection).await;
                source.forget_if_stale();
                replays.forget_if_stale();
                advisories.forget_if_stale();
            }
            _ = sweeps.tick() => {
                if let Ok(permit) = Arc::clone(&sweeping).try_acquire_owned() {
                    let (lane, link) = (Arc::clone(lane), Arc::clone(&link));
                    work.push(async move { sweep::run(&lane, &link).await; drop(permit); }.boxed());
                }
            }
            Some(()) = work.next() => {}
            pulled = source.next() => {
                take(lane, &link, pulled?, work, Inbound::Source).await;
            }
            pulled = replays.next() => take(lane, &link, pulled?, work, Inbound::Replay).await,
            pulled = advisories.next() => take(lane, &link, pulled?, work, Inbound::Advisory).await,
        }
    }
    for inlet in [source, replays, advisories] {
        inlet.hand_back(connection).await;
    }
    // What has begun may take longer than its ack wait.
    loop {
        tokio::select! {
            worked = work.next() => if worked.is_none() { break },
            _ = renewal.tick() => lane.renew(connection).await,
        }
    }
    // Fails only when the connection is gone: then the server delivers again what is not answered.
    let _ = connection.client.flush().await;
    Ok(())
}

async fn beside<T>(work: &mut Work, future: impl Future<Output = T>) -> T {
    tokio::pin!(future);
    loop {
        tokio::select! {
            value = &mut future => return value,
            Some(()) = work.next() => {}
        }
    }
}

enum Inbound {
    Source,
    Replay,
    Advisory,
}

/// Begins the work on one delivery: at once, and only if it has to wait does it go among what is waiting.
async fn take(lane: &Arc<Lane>, link: &Arc<Link>, pulled: Pulled, work: &mut Work, inbound: Inbound) {
    let Pulled::Message(message) = pulled else { return };
    let Some(reply) = message.reply.clone() else { return };
    let Some(info) = DeliveryInfo::parse(&reply) else {
        return;
    };
    let (lane, link) = (Arc::clone(lane), Arc::clone(link));
    let mut task = match inbound {
        Inbound::Source => async move { dispatch::source(&lane, link, message, reply, info).await }.boxed(),
        Inbound::Replay => async move { replay::take(&lane, link, message, reply, info).await }.boxed(),
        Inbound::Advisory => async move { advisory::take(&lane, link, message, reply).await }.boxed(),
    };
    if futures_util::poll!(&mut task).is_pending() {
        work.push(task);
    }
}

/// Everything that a lane needs of NATS, made or found.
async fn connect(lane: &Arc<Lane>, connection: Connection) -> Result<(Arc<Link>, ConsumerInfo), Error> {
    let plan = &lane.plan;
    let info = match connection.stream(&plan.stream).await? {
        Some(info) => info,
        None => {
            // Perhaps it is one of ours to make, and somebody has removed it.
            provision(&connection, &lane.whole).await?;
            connection.stream(&plan.stream).await?.ok_or_else(|| {
                Error::Refused(format!(
                    "handler {}: there is no stream {}: make it with `nats stream add {} --subjects '{}' --defaults`, \
                     or say it under [streams.{}]",
                    plan.name,
                    plan.stream,
                    plan.stream,
                    plan.subjects.first().map_or("…", String::as_str),
                    plan.stream
                ))
            })?
        }
    };
    if let Some(conflict) = work_queue(&lane.whole, plan, info.retention()) {
        return Err(Error::Refused(conflict));
    }
    let found = connection.consumer(&plan.stream, &plan.consumer).await?;
    let bound = found.as_ref().and_then(|c| c.metadata(META_INCARNATION));
    let (ledger, from_head) = match &lane.bucket {
        None => (None, None),
        Some(bucket) => {
            let (making, known) = bucket.identity(&plan.stream).await?;
            check_ledger(lane, found.as_ref().and_then(|c| c.metadata(META_LEDGER)), &making)?;
            (Some(making), known)
        }
    };
    let present = incarnation::resolve(&connection, &plan.stream, &info, bound, from_head.as_ref()).await?;
    if let Some(bucket) = &lane.bucket {
        bucket.remember(&plan.stream, &present);
    }
    let owner = Owner {
        mesh: &lane.whole.mesh,
        incarnation: &present.token,
        ledger: ledger.as_deref(),
    };
    let own = bind(&connection, plan, &info, &owner).await?;
    replay::bind(&connection, lane).await?;
    advisory::bind(&connection, lane).await?;
    let link = Link {
        connection,
        incarnation: present.token.as_str().into(),
        created_ms: parse_rfc3339(&info.created).unwrap_or(0),
        removes: info.retention() != "limits",
    };
    Ok((Arc::new(link), own))
}

/// A bucket that was made anew has forgotten what this handler did: going on would do it again.
fn check_ledger(lane: &Lane, bound: Option<&str>, making: &str) -> Result<(), Error> {
    match bound {
        Some(bound) if bound != making => Err(Error::Refused(format!(
            "handler {}: the bucket {} was made anew or purged, and with it went the memory of what this handler has \
             decided: restore it, or accept that everything still pending may happen again and remove the consumer with \
             `nats consumer rm {} {}`",
            lane.plan.name,
            lane.bucket.as_ref().map_or("?", |b| b.name.as_str()),
            lane.plan.stream,
            lane.plan.consumer
        ))),
        _ => Ok(()),
    }
}

impl Counters {
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
