//! The checked configuration. Everything here is valid by construction, so that no other code checks it again. `config` reads
//! the text, [`Plan`] is what the rest of the program is built from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

mod admin;
mod agree;
mod circuit;
mod modules;
mod outbox;
mod redrive;
mod spans;
pub mod time_text;
mod timetable;

pub use admin::{AdminPlan, TlsFiles, is_local};
pub use agree::hex;
pub use circuit::CircuitPolicy;
pub use modules::{ModuleOrigin, ModulesPlan};
pub use outbox::{Outbox, OutboxDatabase, OutboxSource, Postgres, PostgresTls, lsn, lsn_text};
pub use redrive::{REDRIVE, Redrive};
pub use spans::{Otlp, OtlpEndpoint, OtlpProtocol, ProducerSpan, Sampler, SpanBatch, Spans};
pub use timetable::{Dst, Timetable, When};

/// What one host does: how it reaches NATS, which streams it provides, which handlers it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The mesh's name; every stream and consumer that the mesh makes carries it in its metadata.
    pub mesh: String,
    pub nats: Nats,
    pub log: Log,
    pub admin: AdminPlan,
    pub modules: ModulesPlan,
    pub spans: Spans,
    /// Replicas of the streams and buckets that the mesh makes for itself.
    pub replicas: usize,
    /// Whether this host has relays (see `ledger::relay`). If not, another host of the mesh must have them.
    pub relay: bool,
    /// OS threads that run handlers; a bucket and its handlers live on one of them.
    pub threads: usize,
    /// How long a shutdown waits for what runs.
    pub drain_timeout: Duration,
    /// How old the entries of a ledger are at least before they are collected.
    pub ledger_keep: Duration,
    /// Most that each of the mesh's own streams may hold. `None`: no limit.
    pub mesh_bytes_max: Option<u64>,
    /// Most that each ledger's bucket may hold, with its keys. `None`: no limit.
    pub ledger_bytes_max: Option<u64>,
    /// Streams to be made at start if they are not there.
    pub streams: Vec<Stream>,
    /// In the order of their names.
    pub handlers: Vec<Handler>,
    /// In the order of their names. `None`: the configuration says nothing of schedules, and this host leaves those alone that
    /// other hosts have armed.
    pub schedules: Option<Vec<Schedule>>,
    /// In the order of their names.
    pub outboxes: Vec<Outbox>,
}

/// How to reach NATS.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Nats {
    /// `nats://host:port`, several joined by commas.
    pub url: String,
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    /// A `.creds` file.
    pub creds: Option<PathBuf>,
    /// A file that holds an nkey seed.
    pub nkey: Option<PathBuf>,
    /// Keys that a viewer of the console has given. Not configured.
    pub given: Option<GivenKeys>,
    pub tls_ca: Option<PathBuf>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub tls_first: bool,
    /// Prefix of reply subjects, `_INBOX` unless the account's permissions want another.
    pub inbox_prefix: Option<String>,
    /// JetStream domain; not together with `js_api_prefix`.
    pub js_domain: Option<String>,
    pub js_api_prefix: Option<String>,
    /// Prefix under which JetStream's advisories arrive: `$JS.EVENT` unless they are imported from another account.
    pub js_event_prefix: String,
    /// How long a request to the server may take.
    pub timeout: Duration,
    /// How long to wait for NATS at start; zero: fail at once; `None`: for ever.
    pub wait: Option<Duration>,
    /// How many connections a host has at a time, for the error that a server has too many. Not configured.
    pub connections: ConnectionsWanted,
}

/// Keys as text, and not as a file.
#[derive(Clone, PartialEq)]
pub enum GivenKeys {
    /// The content of a `.creds` file.
    Creds(String),
    /// An nkey seed.
    Seed(String),
}

impl std::fmt::Debug for GivenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Connections that a host has at a time, however many handlers it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionsWanted {
    /// While nothing is wrong.
    pub usual: usize,
    /// While streams are looked through as well, and some messages are of a kind that no client can read.
    pub most: usize,
}

/// The memory of an instance, in bytes, if the configuration does not say another.
pub const MEMORY_BYTES_USUAL: usize = 64 << 20;

/// Sessions of a console at a time. Each has a connection to NATS.
pub const SESSIONS_MAX: usize = 64;

impl ConnectionsWanted {
    /// Those of a host with an admin address: one by which it looks up what waits, and one for each session of its console.
    pub fn add_admin(&mut self) {
        self.usual += 1;
        self.most += 1 + SESSIONS_MAX;
    }

    /// The one by which a host follows the registry of modules.
    pub fn add_registry(&mut self) {
        self.usual += 1;
        self.most += 1;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A filter such as `info` or `info,jetmesh=debug`.
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    Limits,
    Interest,
    WorkQueue,
}

impl Retention {
    /// As JetStream and the configuration write it.
    pub fn word(self) -> &'static str {
        match self {
            Retention::Limits => "limits",
            Retention::Interest => "interest",
            Retention::WorkQueue => "workqueue",
        }
    }
}

/// A stream to be made at start if it is not there. One that is there is left as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    pub name: String,
    pub subjects: Vec<String>,
    pub retention: Retention,
    pub replicas: usize,
    pub max_age: Option<Duration>,
    /// Most bytes that it holds; a full one refuses what is published, and removes nothing.
    pub max_bytes: Option<u64>,
    pub duplicate_window: Duration,
    /// Subjects of the outboxes that publish into it. It captures them as well.
    pub markers: Vec<String>,
}

/// Where a new consumer starts reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    All,
    New,
    Sequence(u64),
    Time(SystemTime),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instance {
    /// A fresh instance for each event.
    Fresh,
    /// One instance serves up to this many events; it is dropped after a trap or a timeout.
    Reused { recycle_after: u32 },
}

/// How duplicates are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// By its place in its stream.
    Sequence,
    /// Besides, by its publisher's message id, within a window.
    MessageId,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Handler {
    pub name: String,
    pub module: ModuleOrigin,
    pub stream: String,
    /// Filter subjects; empty: all of the stream's.
    pub subjects: Vec<String>,
    /// Durable name of the consumer.
    pub consumer: String,
    /// `None`: not said, which is an error if the stream holds messages when the consumer is made.
    pub start: Option<Start>,
    pub instance: Instance,
    /// Most live instances.
    pub concurrency: usize,
    /// Most events that are pulled and not settled; at least `concurrency`.
    pub in_flight: usize,
    /// Wall time that one attempt may take.
    pub timeout: Duration,
    pub memory_bytes_max: usize,
    pub ack_wait: Duration,
    pub retry: RetryPolicy,
    /// `None`: it has no circuit.
    pub circuit: Option<CircuitPolicy>,
    /// `None`: its dead letters wait for a person.
    pub redrive: Option<Redrive>,
    /// The consumer's `max_deliver` is `retry.max_attempts` plus this.
    pub deliver_slack: u32,
    /// The consumer's `max_ack_pending`.
    pub ack_pending_max: usize,
    /// KV bucket of the handler's state.
    pub bucket: Option<String>,
    /// The ledger that the handler's decisions go to: its bucket, else `mesh` if it may publish or asks for a ledger,
    /// else none.
    pub ledger: Option<String>,
    /// `MessageId` only with a ledger.
    pub identity: Identity,
    /// For how long a message id is remembered, by the time of the messages.
    pub identity_window: Duration,
    /// Subjects (with wildcards) that the handler may emit to.
    pub publish: Vec<String>,
    pub settings: BTreeMap<String, String>,
}

/// An event that the mesh emits by itself at certain times. This is also what is stored of it, so that every host of the mesh can
/// fire it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    pub name: String,
    pub timetable: Timetable,
    /// It fires later than it is due by a part of this, which depends on its name only.
    pub jitter_ms: u64,
    pub subject: String,
    /// `{due}` in it stands for the due time.
    pub payload: String,
    pub headers: Vec<(String, String)>,
    pub overlap: Overlap,
    pub catch_up: CatchUp,
    /// What has been due for longer than this has no event any more.
    pub catch_up_window_ms: u64,
    /// After this number of events it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_runs: Option<u64>,
}

/// What becomes of a due time while the event before is not decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It has its event.
    All,
    /// It has none.
    Skip,
    /// Its event waits until the one before is decided.
    One,
}

/// Which of the due times that have passed unheeded, with no host or no server up, still have an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// The last one.
    Last,
    All,
    None,
}

/// When a failed event is tried again, and how often.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all; at least 1.
    pub max_attempts: u32,
    /// Delay after the first failure; it doubles with each further one.
    pub backoff: Duration,
    /// Most that a delay may be.
    pub backoff_max: Duration,
}

#[cfg(test)]
impl Handler {
    /// A handler without a ledger, of stream `S`.
    pub fn of_test(name: &str) -> Handler {
        Handler {
            name: name.to_owned(),
            module: ModuleOrigin::File(PathBuf::new()),
            stream: "S".to_owned(),
            subjects: Vec::new(),
            consumer: name.to_owned(),
            start: None,
            instance: Instance::Fresh,
            concurrency: 1,
            in_flight: 1,
            timeout: Duration::from_secs(1),
            memory_bytes_max: 0,
            ack_wait: Duration::from_secs(1),
            retry: RetryPolicy {
                max_attempts: 3,
                backoff: Duration::from_secs(1),
                backoff_max: Duration::from_secs(10),
            },
            circuit: None,
            redrive: None,
            deliver_slack: 2,
            ack_pending_max: 1,
            bucket: None,
            ledger: None,
            identity: Identity::Sequence,
            identity_window: Duration::ZERO,
            publish: Vec::new(),
            settings: BTreeMap::new(),
        }
    }
}

impl Plan {
    /// The ledgers that this host's handlers, schedules and redrives write to, each once.
    pub fn ledgers(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.handlers.iter().filter_map(|h| h.ledger.as_deref()).collect();
        let redrives = self.handlers.iter().any(|handler| handler.redrive.is_some());
        if redrives || self.schedules.as_ref().is_some_and(|schedules| !schedules.is_empty()) {
            names.push("mesh");
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The names in the registry that its handlers follow, each once.
    pub fn registered(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.handlers.iter().filter_map(|h| h.module.registered()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The names of the handlers, as one short name.
    pub fn handlers_digest(&self) -> String {
        let mut names: Vec<&str> = self.handlers.iter().map(|h| h.name.as_str()).collect();
        names.sort_unstable();
        hex(&names.join(" "), 6)
    }
}
