//! The composition root: from a plan to a running host, and to its end.

pub mod modules;
mod relays;
mod threads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};

use self::modules::OfRegistry;

use crate::admin::{AdminAddress, HostStage, Stage};
use crate::broker::connection::{redial_delay, token};
use crate::broker::provision::provision;
use crate::broker::shared::Shared;
use crate::broker::{self, Connection, Connections};
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::fit;
use crate::handler_task::lane::Lane;
use crate::handler_task::replay::order::{RedriveOrder, RedriveOrders};
use crate::handler_task::{advisory, pauses};
use crate::http;
use crate::ledger::Bucket;
use crate::ledger::store::known;
use crate::mesh_streams::pauses::Pauses;
use crate::micro;
use crate::outbox::{self, OutboxState};
use crate::plan::{Handler, MEMORY_BYTES_USUAL, Plan};
use crate::process::drain::Drain;
use crate::process::{heartbeat, limits, telemetry};
use crate::redrive;
use crate::spans;
use crate::text::secret::redact;
use crate::trouble;
use crate::trouble::Weight;
use crate::wasm::cache::CompiledCache;
use crate::wasm::compile::Priority;
use crate::wasm::engine;
use crate::wasm::engine::Runtime;
use crate::wasm::library::{self, Library};
use crate::wasm::module::Module;

/// Keys of all buckets that a host keeps at hand, in bytes.
const CACHES_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Instances beyond the configured ones, besides one for each ledger: reused ones that are kept while fresh ones start.
const SPARE_INSTANCES: usize = 8;

/// Rounds of redrive that wait to be begun.
const REDRIVES_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error("{0}")]
    Thread(String),
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE: {0}; name a file with certificates as PEM")]
    Spans(String),
    #[error("{}", list(.0))]
    Modules(Vec<Unfit>),
    #[error(transparent)]
    Broker(#[from] broker::Error),
}

fn list(errors: &[Unfit]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A module that cannot serve, and the keys of the handlers that name it.
#[derive(Debug, thiserror::Error)]
#[error("{}{error}", keys.iter().map(|key| format!("{key}: ")).collect::<String>())]
pub struct Unfit {
    keys: Vec<String>,
    error: library::Error,
}

impl Error {
    /// What is wrong with modules, by the handlers that name them.
    pub fn modules(errors: Vec<library::Error>, plan: &Plan) -> Error {
        let unfit = |error: library::Error| {
            let named = plan.handlers.iter().filter(|h| h.module.file() == Some(&error.path));
            let keys = named.map(|h| format!("handlers.{}.module", h.name)).collect();
            Unfit { keys, error }
        };
        Error::Modules(errors.into_iter().map(unfit).collect())
    }
}

/// The engine for a plan.
pub fn runtime(plan: &Plan) -> Result<Runtime, Error> {
    let instances: usize = plan.handlers.iter().map(|h| h.concurrency).sum();
    let memory = plan.handlers.iter().map(|h| h.memory_bytes_max).max();
    // Without a handler, a module may still be checked.
    let memory = memory.unwrap_or(MEMORY_BYTES_USUAL);
    Ok(Runtime::new(
        instances + plan.ledgers().len() + SPARE_INSTANCES,
        memory,
    )?)
}

/// How many files a host has open at most.
pub fn open_files(plan: &Plan) -> usize {
    let clients = if plan.admin.listen.is_some() {
        http::CONNECTIONS_MAX
    } else {
        0
    };
    limits::open_files_wanted(plan.threads, plan.nats.connections.most) + clients
}

/// Connects, waiting for NATS as long as the plan says. `None`: the drain has begun.
pub async fn reach(plan: &Plan, drain: &Drain) -> Result<Option<Connection>, broker::Error> {
    patiently(plan, drain, async || broker::open(&plan.nats, "jetmesh start").await).await
}

/// Makes what the mesh needs in NATS and is not there; not a ledger that has known something.
pub async fn make(connection: &Connection, plan: &Plan) -> Result<(), broker::Error> {
    let lost = known::lost(connection, plan).await?;
    provision(connection, plan, &lost).await
}

/// Makes what the mesh needs in NATS, waiting as long. Returns which handlers are paused, and what the registry has for them.
async fn prepare(plan: &Plan, library: &Library, drain: &Drain) -> Result<Option<(Pauses, OfRegistry)>, broker::Error> {
    let prepare = async || {
        let connection = broker::open(&plan.nats, "jetmesh start").await?;
        make(&connection, plan).await?;
        if let Some(why) = fit::apart(&connection, plan).await? {
            return Err(broker::Error::Refused(why));
        }
        let paused = pauses::first(&connection).await?;
        let registry = modules::of_registry(&connection, (plan, library), Priority::Usual).await?;
        Ok((paused, registry))
    };
    patiently(plan, drain, prepare).await
}

/// How long a server that is connected may take until its JetStream answers, before a person is called.
const UNHEARD: Duration = Duration::from_secs(3);

/// Does something again until it succeeds, fails for a reason that does not pass, or has taken too long.
async fn patiently<T>(
    plan: &Plan,
    drain: &Drain,
    mut step: impl AsyncFnMut() -> Result<T, broker::Error>,
) -> Result<Option<T>, broker::Error> {
    let began = Instant::now();
    let (mut attempt, mut unheard_since) = (0, None);
    loop {
        let done = tokio::select! {
            done = step() => done,
            () = drain.begun() => return Ok(None),
        };
        let error = match done {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        let over = plan.nats.wait.is_some_and(|wait| began.elapsed() >= wait);
        if over || !error.passes() {
            return Err(error);
        }
        let unheard = matches!(error, broker::Error::NoApi { .. });
        // A server answers, but JetStream does not: after a moment this is more likely a mistake than a server that is
        // starting.
        if unheard && unheard_since.get_or_insert_with(Instant::now).elapsed() >= UNHEARD {
            trouble!(Weight::Person, "", error, { url = %redact(&plan.nats.url), %error }, "waiting for jetstream, in vain so far");
        } else if attempt == 0 {
            tracing::warn!(url = %redact(&plan.nats.url), %error, "waiting for nats");
        }
        trouble::tell();
        attempt += 1;
        tokio::select! {
            () = tokio::time::sleep(redial_delay(attempt)) => {}
            () = drain.begun() => return Ok(None),
        }
    }
}

/// Runs a host until the drain has begun and what runs is finished. `false`: something had to be left unfinished.
pub async fn run(plan: Plan, admin: Option<AdminAddress>, drain: Drain) -> Result<bool, Error> {
    let plan = Arc::new(plan);
    let host = token();
    let open_files = open_files(&plan);
    warn_of_limits(open_files);
    export_spans(&plan, &host, &drain)?;
    let stage = HostStage::new(&drain);
    let no_thread = |error| Error::Thread(limits::no_thread(&error));
    let has_address = admin.is_some();
    let admin = threads::admin(&stage, &plan, admin).map_err(no_thread)?;
    drain.spawn_beside("heartbeat", || heartbeat::keep("main".to_owned()));
    let runtime = runtime(&plan)?;
    let library = Arc::new(Library::with_cache(runtime.clone(), cache(&plan, &runtime)));
    let files = tokio::select! {
        files = modules::of_files(&library, &plan) => files?,
        () = drain.begun() => return Ok(true),
    };
    stage.is(Stage::Connecting);
    let Some((paused, registry)) = prepare(&plan, &library, &drain).await? else {
        return Ok(true);
    };
    let modules = modules::of_handlers(&plan, &files, &registry);
    let places = threads::places(&plan);
    let (redrives, orders) = mpsc::channel(REDRIVES_MAX);
    let lanes = lanes(&plan, (&host, &redrives), modules, &places, &drain);
    pauses::take_in(&lanes, &paused);
    modules::not_taken(&lanes, &registry);
    let (fired, due) = mpsc::channel(threads::TIMERS_MAX);
    let schedules = threads::Schedules::new(&plan, &host, &lanes, &places, due);
    let (routes, timers) = threads::routes(fired, &lanes);
    let threads = threads::start(&plan, &lanes, &places, (schedules, &timers), &drain);
    let mut threads = threads.map_err(no_thread)?;
    threads.extend(admin);
    let relays = relays::start(&plan, &host, &lanes, routes, &drain);
    let outboxes = outboxes(&plan, &host, &lanes, &drain);
    serve_all(&plan, &lanes, orders, &drain);
    modules::follow(&plan, (library, registry), &host, &lanes, &drain);
    let told = Arc::new(micro::Host {
        plan: Arc::clone(&plan),
        name: host.clone(),
        started: rfc3339(now_ms()),
        lanes,
        relays,
        outboxes,
        panics: Arc::clone(&drain.panics),
        runtime,
    });
    stage.runs(&told, has_address);
    drain.spawn_until("micro service", move || micro::run(Arc::clone(&told)));
    drain.spawn_until("log watcher", telemetry::watch);
    let connections = plan.nats.connections;
    tracing::info!(mesh = %plan.mesh, %host, handlers = plan.handlers.len(), connections = connections.usual,
        connections_max = connections.most, open_files_max = open_files, "host started");
    drain.begun().await;
    tracing::info!(grace = ?plan.drain_timeout, "draining");
    let clean = drain.finished(plan.drain_timeout).await;
    drop(stage);
    // A thread whose work is not finished in time is left behind; the process ends.
    let ended = tokio::task::spawn_blocking(move || threads.into_iter().all(|t| t.join().is_ok()));
    let joined = tokio::time::timeout(Duration::from_secs(2), ended).await;
    let clean = clean && matches!(joined, Ok(Ok(true)));
    spans::flush().await;
    trouble::tell_all();
    tracing::info!(clean, "host ended");
    Ok(clean)
}

/// The folder of compiled modules, if one is configured and can be used.
fn cache(plan: &Plan, runtime: &Runtime) -> Option<CompiledCache> {
    let folder = plan.modules.cache.as_ref()?;
    match runtime.cache(folder) {
        Ok(cache) => Some(cache),
        Err(error) => {
            tracing::warn!(
                error,
                "modules are compiled at each start, because their folder cannot be used"
            );
            None
        }
    }
}

/// Warns of limits of the operating system that a host will feel.
fn warn_of_limits(open_files: usize) {
    if let Some(limit) = limits::computing() {
        tracing::warn!(limit, "this host will be ended by the operating system");
    }
    if let Some(short) = limits::open_files_short(open_files) {
        tracing::warn!("{short}");
    }
}

/// Starts the task that exports spans, if they are asked for. It is not waited for: the end of the host flushes what it has.
fn export_spans(plan: &Plan, host: &str, drain: &Drain) -> Result<(), Error> {
    let Some(otlp) = &plan.spans.otlp else { return Ok(()) };
    let export = spans::start(&plan.spans, host).map_err(|error| Error::Spans(error.to_string()))?;
    let Some(export) = export.map(Arc::new) else {
        return Ok(());
    };
    let (to, protocol) = (&otlp.endpoint, otlp.protocol.word());
    tracing::info!(host = to.host, port = to.port, protocol, "spans are exported");
    drain.spawn_beside("spans", move || {
        let export = Arc::clone(&export);
        async move { export.run().await }
    });
    Ok(())
}

/// Starts the tasks that serve all handlers of the host.
fn serve_all(plan: &Arc<Plan>, lanes: &[Arc<Lane>], orders: mpsc::Receiver<RedriveOrder>, drain: &Drain) {
    let (whole, orders) = (Arc::clone(plan), Arc::new(Mutex::new(orders)));
    // A round that this host leaves is ordered again.
    drain.spawn_until("redrives", move || {
        redrive::run(Arc::clone(&whole), Arc::clone(&orders))
    });
    // What it leaves is delivered again.
    let (whole, heard) = (Arc::clone(plan), lanes.to_vec());
    drain.spawn_until("advisories", move || {
        advisory::route::run(Arc::clone(&whole), heard.clone())
    });
}

/// How long an outbox waits at most for the handlers of its stream. They would have to say where they begin if the stream had
/// events before their consumers are there.
const FIRST_HANDLERS: Duration = Duration::from_secs(10);

/// Starts the relays of the outboxes, if this host has relays. What they leave is published by the next one.
fn outboxes(plan: &Arc<Plan>, host: &str, lanes: &[Arc<Lane>], drain: &Drain) -> Vec<Arc<OutboxState>> {
    let connections = Arc::new(Shared::new(&plan.nats, format!("jetmesh outboxes {host}")));
    let mut states = Vec::new();
    for outbox in plan.outboxes.iter().filter(|_| plan.relay) {
        let state = Arc::new(OutboxState::new(&outbox.name));
        states.push(Arc::clone(&state));
        let (outbox, whole, host) = (outbox.clone(), Arc::clone(plan), host.to_owned());
        let (connections, end) = (Arc::clone(&connections), drain.clone());
        let of_stream = lanes.iter().filter(|lane| lane.plan.stream == outbox.stream);
        let lanes: Vec<Arc<Lane>> = of_stream.cloned().collect();
        drain.spawn(format!("outbox {}", outbox.name), move || {
            let (outbox, plan, host) = (outbox.clone(), Arc::clone(&whole), host.clone());
            let (connections, state, end) = (Arc::clone(&connections), Arc::clone(&state), end.clone());
            let first = handlers_began(lanes.clone(), end.clone());
            async move {
                // In vain is no reason not to publish.
                let _ = tokio::time::timeout(FIRST_HANDLERS, first).await;
                outbox::run(outbox, plan, host, connections, state, end).await;
            }
        });
    }
    states
}

/// Completes when all of these handlers have begun, or the drain has.
async fn handlers_began(lanes: Vec<Arc<Lane>>, drain: Drain) {
    let all = async {
        for lane in &lanes {
            lane.status.began().await;
        }
    };
    tokio::select! {
        () = all => {}
        () = drain.begun() => {}
    }
}

/// How much of its keys each ledger keeps at hand.
fn cache_bytes(plan: &Plan) -> usize {
    CACHES_BYTES_MAX / plan.ledgers().len().max(1)
}

fn lanes(
    plan: &Arc<Plan>,
    (host, redrives): (&str, &RedriveOrders),
    modules: Vec<Module>,
    places: &[usize],
    drain: &Drain,
) -> Vec<Arc<Lane>> {
    let connections: Vec<Arc<Connections>> = (0..plan.threads.max(1))
        .map(|thread| Arc::new(Connections::new(&plan.nats, &format!("{host} {thread}"))))
        .collect();
    let cache_bytes = cache_bytes(plan);
    let mut buckets: BTreeMap<String, Arc<Bucket>> = BTreeMap::new();
    let lane = |((handler, module), place): ((&Handler, Module), &usize)| {
        let connections = &connections[*place];
        let bucket = handler.ledger.as_ref().map(|name| {
            let new = || Arc::new(Bucket::new(name, host, Arc::clone(connections), cache_bytes));
            Arc::clone(buckets.entry(name.clone()).or_insert_with(new))
        });
        Arc::new(Lane::new(
            handler.clone(),
            Arc::clone(plan),
            (host, redrives),
            module,
            bucket,
            Arc::clone(connections),
            drain.clone(),
        ))
    };
    plan.handlers.iter().zip(modules).zip(places).map(lane).collect()
}
