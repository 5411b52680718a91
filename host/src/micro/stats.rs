//! What a host answers to `STATS`. `jetmesh status --json` prints it as it comes, so these types are also its schema.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use schemars::JsonSchema;
use serde::Serialize;

use super::held_back::{CircuitJson, HindranceJson};
use super::outboxes::OutboxStats;
use super::rates::{RateJson, RecentCounts};
use super::rollout::RolloutJson;
use super::runs::RunsJson;
use super::{Host, service, settings, subject};
use crate::event::clock;
use crate::event::rfc3339;
use crate::handler_task::lane::Lane;
use crate::ledger;
use crate::ledger::relay::{RelayState, state};
use crate::mesh_streams::pauses::HandlerPause;
use crate::process::telemetry;

const TYPE: &str = "io.nats.micro.v1.stats_response";

/// A host that answers, as `nats micro stats` has it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Stats<'a> {
    #[serde(rename = "type")]
    #[schemars(extend("const" = TYPE))]
    kind: &'static str,
    /// The service's.
    name: String,
    /// The host's.
    id: &'a str,
    /// Of the host's program.
    version: &'static str,
    metadata: Metadata<'a>,
    /// When the host began.
    #[schemars(extend("format" = "date-time"))]
    started: &'a str,
    /// What is no handler's own.
    data: HostData<'a>,
    /// The relays that run on this host.
    relays: Vec<RelayStats<'a>>,
    /// The outboxes that this host relays.
    outboxes: Vec<OutboxStats<'a>>,
    endpoints: Vec<Endpoint<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Metadata<'a> {
    mesh: &'a str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct HostData<'a> {
    /// How far its clock is ahead of the server's, in milliseconds; negative: behind; 0 as long as no answer says otherwise.
    clock_ahead_ms: i64,
    /// Log lines that could not be written since the start.
    log_lines_lost: u64,
    /// Defects of the host that it has met since its start, by task.
    panics: Vec<Panicked>,
    /// The ledgers of its handlers.
    ledgers: Vec<LedgerStats<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Panicked {
    /// Such as `relay of inventory`; it is begun again. `event of points`: that event is put off.
    task: String,
    #[schemars(range(min = 1))]
    count: u64,
    /// What the newest one said, and where in the source.
    last: String,
    #[schemars(extend("format" = "date-time"))]
    at: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LedgerStats<'a> {
    ledger: &'a str,
    /// What keeps it from working; null: nothing.
    error: Option<TroubleJson>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TroubleJson {
    why: String,
    /// When it came first.
    #[schemars(extend("format" = "date-time"))]
    since: String,
    /// How often it came in a row.
    #[schemars(range(min = 1))]
    count: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RelayStats<'a> {
    /// The bucket.
    ledger: &'a str,
    /// Of all hosts that relay, one is active for a ledger.
    active: bool,
    /// Since when it has been active, or has not been.
    #[schemars(extend("format" = "date-time"))]
    since: String,
    /// Consequence messages that are taken up and not confirmed.
    unconfirmed: usize,
    /// When the oldest of them was stored.
    #[schemars(extend("format" = "date-time"))]
    oldest: Option<String>,
    /// So much waits for blocked targets that it takes up nothing more for now.
    full: bool,
    /// How often its consumer was created again since the host began, because the server left consequences lying.
    recreated: u64,
    /// Messages among its consequences that cannot be parsed, since the host began; null: none.
    left_out: Option<LeftOutJson>,
    /// What broke it off; null: it works.
    error: Option<TroubleJson>,
    /// Targets that take nothing for now.
    blocked: Vec<BlockedJson>,
}

/// Messages among a relay's consequences that cannot be parsed and that the mesh has not written.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LeftOutJson {
    /// Of the last one, in the bucket's stream.
    #[schemars(range(min = 1))]
    sequence: u64,
    why: String,
    /// How many a host has left out since it began.
    #[schemars(range(min = 1))]
    count: u64,
}

/// A target that takes nothing for now.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BlockedJson {
    /// The stream; where no stream captures it, the subject.
    target: String,
    why: String,
    #[schemars(extend("format" = "date-time"))]
    since: String,
    /// Events, letters and delayed events that wait for it; 0: whether it takes something again shows when something comes.
    waiting: usize,
    /// Events that have become dead letters since it takes nothing.
    letters: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Endpoint<'a> {
    /// The handler's.
    name: &'a str,
    /// The first that it reads.
    subject: &'a str,
    /// Its consumer.
    queue_group: &'a str,
    metadata: EndpointMetadata<'a>,
    /// Attempts that ended.
    num_requests: u64,
    /// Those that failed.
    num_errors: u64,
    /// Always empty: errors are in the log and in the dead letters.
    last_error: &'static str,
    /// Of all attempts, in nanoseconds.
    processing_time: u64,
    /// In nanoseconds.
    average_processing_time: u64,
    data: EndpointData,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct EndpointMetadata<'a> {
    module: String,
    stream: &'a str,
    /// Empty: it has none.
    ledger: &'a str,
    /// `key=digest` for each key of its configuration that hosts must agree on.
    settings: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct EndpointData {
    #[schemars(extend("enum" = ["starting", "serving", "connecting", "stopped"]))]
    state: &'static str,
    #[schemars(extend("format" = "date-time"))]
    since: String,
    /// Why it does not serve.
    why: Option<String>,
    /// Digest of the module.
    module: String,
    /// Its file, or `registry:NAME`.
    module_origin: String,
    /// When this host took it up.
    #[schemars(extend("format" = "date-time"))]
    module_since: String,
    /// Why it serves another module than its file or the registry has now; null: it does not.
    module_not_taken: Option<NotTakenJson>,
    /// The version that takes over step by step; null: none does.
    rollout: Option<RolloutJson>,
    /// What keeps some of its events from going on, by reason.
    hindered: Vec<HindranceJson>,
    /// Its circuit, while that is open.
    circuit: Option<CircuitJson>,
    /// The pause of the handler that this host obeys; null: none.
    paused: Option<HandlerPause>,
    /// Events at work on this host.
    in_flight: usize,
    /// How fast it goes on this host, over the last ten seconds; null: the host has just begun.
    rate: Option<RateJson>,
    done: u64,
    retried: u64,
    dead: u64,
    /// Events that were decided already.
    repeated: u64,
    /// Of those, the ones that were known by an id.
    known_by_id: u64,
    /// Messages that the stream has removed before this handler was given them, as far as this host has seen.
    removed: u64,
    /// Runs of its guest on this host by how long they took, without empty buckets.
    runs: Vec<RunsJson>,
    /// Runs whose reads had changed before their commit.
    conflicts: u64,
    /// Of its ledger.
    refused_commits: u64,
    /// Of its bucket, by all handlers that share it.
    keys_read: u64,
    /// Of those, the ones that the server was asked for.
    keys_fetched: u64,
}

/// Why a host serves another module than its file or the registry has now.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NotTakenJson {
    why: String,
    /// Since when.
    #[schemars(extend("format" = "date-time"))]
    since: String,
}

impl<'a> Stats<'a> {
    pub fn of(host: &'a Host, recent: &RecentCounts) -> Stats<'a> {
        let endpoint = |(at, lane): (usize, &'a Arc<Lane>)| Endpoint::of(lane, &host.name, recent.rate(at, lane));
        Stats {
            kind: TYPE,
            name: service(&host.plan.mesh),
            id: &host.name,
            version: env!("CARGO_PKG_VERSION"),
            metadata: Metadata { mesh: &host.plan.mesh },
            started: &host.started,
            data: HostData::of(host),
            relays: host.relays.iter().map(|relay| RelayStats::of(relay)).collect(),
            outboxes: host.outboxes.iter().map(|outbox| OutboxStats::of(outbox)).collect(),
            endpoints: host.lanes.iter().enumerate().map(endpoint).collect(),
        }
    }
}

impl<'a> HostData<'a> {
    fn of(host: &'a Host) -> HostData<'a> {
        let buckets = host.lanes.iter().filter_map(|lane| lane.bucket.as_ref());
        let ledger = |b: &'a crate::ledger::Bucket| LedgerStats {
            ledger: b.name.as_str(),
            error: b.trouble().map(TroubleJson::from),
        };
        let mut ledgers: Vec<LedgerStats<'_>> = buckets.map(|b| ledger(b)).collect();
        ledgers.sort_by_key(|one| one.ledger);
        ledgers.dedup_by_key(|one| one.ledger);
        let panicked = host.panics.all().into_iter().map(|(task, told)| Panicked {
            task,
            count: told.count,
            last: told.text,
            at: told.at,
        });
        HostData {
            clock_ahead_ms: clock::ahead_ms(),
            log_lines_lost: telemetry::lost(),
            panics: panicked.collect(),
            ledgers,
        }
    }
}

impl From<ledger::Trouble> for TroubleJson {
    fn from(trouble: ledger::Trouble) -> TroubleJson {
        TroubleJson {
            why: trouble.why,
            since: rfc3339(trouble.since_ms),
            count: trouble.count,
        }
    }
}

impl From<state::RelayTrouble> for TroubleJson {
    fn from(trouble: state::RelayTrouble) -> TroubleJson {
        TroubleJson {
            why: trouble.why,
            since: rfc3339(trouble.since_ms),
            count: trouble.count,
        }
    }
}

impl<'a> RelayStats<'a> {
    fn of(relay: &'a RelayState) -> RelayStats<'a> {
        let now = relay.snapshot();
        RelayStats {
            ledger: relay.ledger(),
            active: now.active,
            since: rfc3339(now.since_ms),
            unconfirmed: now.unconfirmed,
            oldest: now.oldest_ms.map(rfc3339),
            full: now.full,
            recreated: now.recreated,
            left_out: now.left_out.map(|left_out| LeftOutJson {
                sequence: left_out.sequence,
                why: left_out.why,
                count: left_out.count,
            }),
            error: now.error.map(TroubleJson::from),
            blocked: now.blocked.into_iter().map(BlockedJson::from).collect(),
        }
    }
}

impl From<state::BlockedTarget> for BlockedJson {
    fn from(blocked: state::BlockedTarget) -> BlockedJson {
        BlockedJson {
            target: blocked.target,
            why: blocked.why,
            since: rfc3339(blocked.since_ms),
            waiting: blocked.waiting,
            letters: blocked.letters,
        }
    }
}

impl<'a> EndpointMetadata<'a> {
    pub(super) fn of(lane: &'a Lane) -> EndpointMetadata<'a> {
        EndpointMetadata {
            module: lane.runner.digest().to_string(),
            stream: &lane.plan.stream,
            ledger: lane.plan.ledger.as_deref().unwrap_or_default(),
            settings: settings::of(&lane.plan),
        }
    }
}

impl<'a> Endpoint<'a> {
    fn of(lane: &'a Lane, host: &str, rate: Option<RateJson>) -> Endpoint<'a> {
        let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &lane.counters;
        let (done, retried, dead) = (of(&counters.done), of(&counters.retried), counters.dead());
        let attempts = done + retried + dead;
        let busy = of(&counters.busy_ns);
        let (keys_read, keys_fetched) = lane.bucket.as_ref().map_or((0, 0), |b| b.reads());
        let standing = lane.status.get();
        Endpoint {
            name: &lane.plan.name,
            subject: subject(lane),
            queue_group: &lane.plan.consumer,
            metadata: EndpointMetadata::of(lane),
            num_requests: attempts,
            num_errors: retried + dead,
            last_error: "",
            processing_time: busy,
            average_processing_time: busy.checked_div(attempts).unwrap_or(0),
            data: EndpointData {
                state: standing.state.word(),
                since: rfc3339(standing.since_ms),
                why: standing.why,
                module: lane.runner.digest().to_string(),
                module_origin: lane.runner.origin.to_string(),
                module_since: rfc3339(lane.runner.module.load().since_ms()),
                module_not_taken: lane.runner.not_taken().map(|not_taken| NotTakenJson {
                    why: not_taken.why.clone(),
                    since: rfc3339(not_taken.since_ms),
                }),
                rollout: RolloutJson::of(&lane.runner),
                hindered: lane.hindered.now().into_iter().map(HindranceJson::from).collect(),
                circuit: lane.circuit.told().map(|told| CircuitJson::of(host, told)),
                paused: lane.circuit.paused(),
                in_flight: lane.in_flight.count(),
                rate,
                done,
                retried,
                dead,
                repeated: of(&counters.repeated),
                known_by_id: of(&counters.known_by_id),
                removed: of(&counters.removed),
                runs: lane.metrics.run.now().as_ref().map(RunsJson::of).unwrap_or_default(),
                conflicts: of(&counters.conflicts),
                refused_commits: lane.bucket.as_ref().map_or(0, |b| b.refusals()),
                keys_read,
                keys_fetched,
            },
        }
    }
}
