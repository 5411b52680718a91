//! The threads of a host: which handler, ledger and schedule runs on which.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use super::cache_bytes;
use crate::admin::{AdminAddress, HostStage};
use crate::broker::provision::MESH_BUCKET;
use crate::handler_task::lane::Lane;
use crate::handler_task::{pauses, serve, timers};
use crate::ledger::Bucket;
use crate::ledger::relay::due::{HandlerTimerDue, TimerDue, TimerRoutes};
use crate::ledger::store::{committer, follow};
use crate::plan::Plan;
use crate::process::drain::Drain;
use crate::process::heartbeat;
use crate::schedule::keeper::Keeper;

/// Timers that wait to be taken in; what finds no room waits at the server.
pub const TIMERS_MAX: usize = 64;

/// What keeps the schedules of the mesh, with the ledger that their steps go to.
pub struct Schedules {
    keeper: Arc<Keeper>,
    /// The thread of that ledger.
    place: usize,
}

impl Schedules {
    /// `None`: this host has no relays, and so is given no timers.
    pub fn new(
        plan: &Arc<Plan>,
        host: &str,
        lanes: &[Arc<Lane>],
        places: &[usize],
        timers: mpsc::Receiver<TimerDue>,
    ) -> Option<Schedules> {
        let of_mesh = |lane: &Lane| lane.bucket.clone().filter(|bucket| bucket.name == MESH_BUCKET);
        let mut shared = lanes.iter().zip(places);
        let shared = shared.find_map(|(lane, place)| Some((lane, of_mesh(lane)?, *place)));
        // A ledger lives on one thread, with all that write to it.
        let (lane, bucket, place) = match shared {
            Some((lane, bucket, place)) => (lane, (bucket, false), place),
            None => {
                let (lane, place) = lanes.iter().zip(places).next()?;
                let connections = Arc::clone(&lane.connections);
                let bucket = Bucket::new(MESH_BUCKET, host, connections, cache_bytes(plan));
                (lane, (Arc::new(bucket), true), *place)
            }
        };
        let connections = Arc::clone(&lane.connections);
        let keeper = Keeper::new(Arc::clone(plan), host, bucket, connections, timers);
        plan.relay.then(|| Schedules {
            keeper: Arc::new(keeper),
            place,
        })
    }
}

/// On which thread each handler runs. All handlers of a ledger are on one, so nothing of an event crosses threads.
pub fn places(plan: &Plan) -> Vec<usize> {
    let mut of_ledger: BTreeMap<&str, usize> = BTreeMap::new();
    let mut threads = (0..plan.threads.max(1)).cycle();
    let mut next = || threads.next().unwrap_or_default();
    let mut places = Vec::with_capacity(plan.handlers.len());
    for handler in &plan.handlers {
        places.push(match &handler.ledger {
            Some(ledger) => *of_ledger.entry(ledger).or_insert_with(&mut next),
            None => next(),
        });
    }
    places
}

/// Timers of handlers that wait to be taken in, by bucket.
pub type TimerInlets = BTreeMap<String, Arc<Mutex<mpsc::Receiver<HandlerTimerDue>>>>;

/// The ways by which timers come to what takes them in.
pub fn routes(schedules: mpsc::Sender<TimerDue>, lanes: &[Arc<Lane>]) -> (TimerRoutes, TimerInlets) {
    let (mut handlers, mut inlets) = (BTreeMap::new(), TimerInlets::new());
    for bucket in lanes.iter().filter_map(|lane| lane.bucket.as_ref()) {
        if !inlets.contains_key(&bucket.name) {
            let (route, inlet) = mpsc::channel(TIMERS_MAX);
            handlers.insert(bucket.name.clone(), route);
            inlets.insert(bucket.name.clone(), Arc::new(Mutex::new(inlet)));
        }
    }
    let handlers = Arc::new(handlers);
    (TimerRoutes { schedules, handlers }, inlets)
}

/// Starts the threads that handlers run on, and schedules.
pub fn start(
    plan: &Plan,
    lanes: &[Arc<Lane>],
    places: &[usize],
    (schedules, timers): (Option<Schedules>, &TimerInlets),
    drain: &Drain,
) -> io::Result<Vec<JoinHandle<()>>> {
    let mut schedules = schedules;
    // One thread looks for all, over the connection of its handlers.
    let mut all = Some(lanes.to_vec());
    let mut shares: BTreeMap<usize, Vec<Arc<Lane>>> = BTreeMap::new();
    for (lane, place) in lanes.iter().zip(places) {
        shares.entry(*place).or_default().push(Arc::clone(lane));
    }
    shares
        .into_iter()
        .map(|(i, share)| {
            let own = schedules.take_if(|schedules| schedules.place == i);
            let beside = (own, timers.clone(), all.take());
            thread(i, share, beside, drain.clone(), plan.drain_timeout)
        })
        .collect()
}

/// Starts the thread that answers at the admin address, if there is something to answer or to tell.
pub fn admin(stage: &HostStage, plan: &Arc<Plan>, address: Option<AdminAddress>) -> io::Result<Option<JoinHandle<()>>> {
    let Some(answers) = stage.answers(plan, address) else {
        return Ok(None);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new().name("admin".to_owned());
    thread.spawn(move || runtime.block_on(answers)).map(Some)
}

fn thread(
    number: usize,
    lanes: Vec<Arc<Lane>>,
    (schedules, timers, all): (Option<Schedules>, TimerInlets, Option<Vec<Arc<Lane>>>),
    drain: Drain,
    grace: Duration,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        runtime.block_on(async {
            drain.spawn_beside("heartbeat", move || heartbeat::keep(format!("lanes-{number}")));
            let buckets: BTreeMap<&str, &Arc<Bucket>> = lanes
                .iter()
                .filter_map(|l| l.bucket.as_ref())
                .map(|b| (b.name.as_str(), b))
                .collect();
            for (name, bucket) in buckets {
                let own = Arc::clone(bucket);
                drain.spawn_beside(format!("committer of {name}"), move || committer::run(Arc::clone(&own)));
                let own = Arc::clone(bucket);
                drain.spawn_beside(format!("follower of {name}"), move || follow::run(Arc::clone(&own)));
                if let Some(inlet) = timers.get(name) {
                    let (own, inlet) = (Arc::clone(bucket), Arc::clone(inlet));
                    drain.spawn_until(format!("timers of {name}"), move || {
                        timers::keep(Arc::clone(&own), Arc::clone(&inlet))
                    });
                }
            }
            for lane in &lanes {
                let own = Arc::clone(lane);
                drain.spawn_lane(format!("lane of {}", lane.plan.name), move || {
                    serve::run(Arc::clone(&own))
                });
            }
            if let Some(all) = &all {
                let all = all.clone();
                drain.spawn_until("pauses", move || pauses::follow(all.clone()));
            }
            if let Some(Schedules { keeper, .. }) = &schedules {
                let own = Arc::clone(keeper);
                drain.spawn_until("schedules", move || {
                    let own = Arc::clone(&own);
                    async move { own.run().await }
                });
            }
            drain.begun().await;
            drain.finished(grace).await;
        });
    };
    thread::Builder::new().name(format!("lanes-{number}")).spawn(work)
}
