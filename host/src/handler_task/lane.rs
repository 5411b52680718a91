//! What a handler has on this host. Most code takes one or two of these; a whole lane is taken where a delivery is led from
//! its arrival to its answer. A lane runs on one thread; so do the ledger that it writes to and that ledger's other lanes.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::broker::Connections;
use crate::handler_task::advisory::message::Routed;
use crate::handler_task::circuit::Circuit;
use crate::handler_task::counters::{Counters, StatusCell};
use crate::handler_task::dead_lettering::DeadLetters;
use crate::handler_task::hindered::Hindered;
use crate::handler_task::in_flight::InFlight;
use crate::handler_task::links::{Link, Links};
use crate::handler_task::lost::Doors;
use crate::handler_task::metrics::HandlerMetrics;
use crate::handler_task::record::AttemptRecords;
use crate::handler_task::replay::lists::Lists;
use crate::handler_task::replay::order::RedriveOrders;
use crate::handler_task::runner::Runner;
use crate::handler_task::source::SourceMemory;
use crate::handler_task::suspicion::Suspicion;
use crate::ledger::Bucket;
use crate::plan::{self, Handler};
use crate::process::drain::Drain;
use crate::wasm::module::Module;

/// A handler at work.
pub struct Lane {
    /// Its settings.
    pub plan: Arc<Handler>,
    /// The settings of the host.
    pub whole: Arc<plan::Plan>,
    /// What runs its events.
    pub runner: Arc<Runner>,
    /// Its ledger, if it has one.
    pub bucket: Option<Arc<Bucket>>,
    /// What it has been given of its stream.
    pub source: SourceMemory,
    /// Its connection to NATS.
    pub links: Arc<Links>,
    /// Where connections come from: those of its thread.
    pub connections: Arc<Connections>,
    pub drain: Drain,
    /// What is worked on now.
    pub in_flight: InFlight,
    pub counters: Counters,
    pub metrics: HandlerMetrics,
    /// Whether its events run.
    pub circuit: Circuit,
    /// What keeps its events from going on although it serves.
    pub hindered: Hindered,
    pub status: StatusCell,
    /// What is noted of events that failed.
    pub records: AttemptRecords,
    pub dead_letters: DeadLetters,
    /// What may be taken from its consumer, its replays and its advisories.
    pub(crate) doors: Doors,
    pub(crate) lists: Lists,
    /// What begins a round of its redrive.
    pub(crate) redrives: RedriveOrders,
    pub(crate) advisories: Advisories,
    pub(crate) suspicion: Suspicion,
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

impl Lane {
    /// `host`: which process this is, in records and entries.
    pub fn new(
        plan: Handler,
        whole: Arc<plan::Plan>,
        (host, redrives): (&str, &RedriveOrders),
        module: Module,
        bucket: Option<Arc<Bucket>>,
        connections: Arc<Connections>,
        drain: Drain,
    ) -> Lane {
        let plan = Arc::new(plan);
        let links = Arc::new(Links::new(&plan.name, drain.clone()));
        let (own, all, way) = (|| Arc::clone(&plan), || Arc::clone(&whole), || Arc::clone(&links));
        Lane {
            runner: Arc::new(Runner::new(&plan, module, bucket.as_ref())),
            in_flight: InFlight::of(&plan),
            source: SourceMemory::new(&plan.stream, bucket.clone()),
            counters: Counters::default(),
            metrics: HandlerMetrics::default(),
            circuit: Circuit::of(&plan),
            hindered: Hindered::default(),
            status: StatusCell::default(),
            records: AttemptRecords::new(own(), all(), way(), host),
            dead_letters: DeadLetters::new(own(), all(), way(), bucket.clone()),
            doors: Doors::of(&plan),
            lists: Lists::default(),
            redrives: redrives.clone(),
            advisories: Advisories::new(),
            suspicion: Suspicion::default(),
            plan,
            whole,
            bucket,
            links,
            connections,
            drain,
        }
    }

    /// It is connected from now on.
    pub fn connected(&self, link: &Arc<Link>) {
        self.runner.set_message_bytes_max(link.connection.client.max_payload());
        self.links.set(Some(Arc::clone(link)));
    }
}
