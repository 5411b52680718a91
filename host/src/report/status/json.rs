//! What `jetmesh status --json` prints.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::mesh_streams::pauses::HandlerPause;
use crate::micro::held_back::{CircuitJson, HindranceJson};
use crate::micro::settings::Difference;
use crate::micro::stats::{BlockedJson, LeftOutJson, NotTakenJson, Stats};
use crate::report::outbox::OutboxStatus;
use crate::report::redrive::RedriveJson;
use crate::report::schedule::ScheduleJson;

/// How each handler stands.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "How each handler stands, `jetmesh status --json`", description = "")]
pub struct MeshStatus {
    /// The mesh's name.
    pub mesh: String,
    /// Some host answers, and all handlers, ledgers, relays and outboxes serve, or are paused; if not, the command ends with 6.
    pub serves: bool,
    pub handlers: Vec<HandlerStatus>,
    pub ledgers: Vec<LedgerStatus>,
    pub outboxes: Vec<OutboxStatus>,
    pub delayed: DelayedStatus,
    /// What the mesh emits by itself at certain times.
    pub schedules: Vec<ScheduleJson>,
    /// Dead letters that the mesh replays by itself, by handler.
    pub redrives: Vec<RedriveJson>,
    /// Consumers of this mesh whose handler is not in the configuration.
    pub orphans: Vec<Orphan>,
    /// Every host that answers, as `nats micro stats` has it.
    #[schemars(with = "Vec<Stats>")]
    pub hosts: Vec<Value>,
    /// Limits that would remove dead letters, limits that are nearly reached, and what could not be asked.
    pub warnings: Vec<String>,
}

/// A handler; what counts is absent while its consumer is not there.
#[derive(Debug, Serialize, JsonSchema)]
pub struct HandlerStatus {
    pub handler: String,
    /// Its source stream.
    pub stream: String,
    pub consumer: String,
    /// Of the hosts that answer, the best: one that serves is enough.
    pub state: HandlerState,
    /// Since when it stands so.
    #[schemars(extend("format" = "date-time"))]
    pub since: Option<String>,
    /// The pause by a person; null: it is not paused. A handler that does not serve can be paused too.
    pub paused: Option<HandlerPause>,
    /// Why it does not serve, or why some of its events cannot go on.
    pub why: Option<String>,
    /// What keeps some of its events from going on, by reason.
    #[schemars(with = "Vec<HindranceJson>")]
    pub hindered: Vec<Value>,
    /// Its circuits that are open, one for each host.
    #[schemars(with = "Vec<CircuitJson>")]
    pub circuits: Vec<Value>,
    /// Digest of the module that the hosts run, several with commas; null: no host answers.
    pub module: Option<String>,
    /// The modules that the hosts run; more than one outside of a rolling update is a mistake.
    pub modules: Vec<ServedModule>,
    /// Why hosts serve another module than their file has now; empty: they do not.
    #[schemars(with = "Vec<NotTakenJson>")]
    pub modules_not_taken: Vec<Value>,
    /// What its hosts do not agree on; null: nothing.
    pub settings_differ: Option<Difference>,
    /// Not delivered yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub pending: Option<u64>,
    /// Delivered and not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub in_flight: Option<u64>,
    /// When the oldest event was stored that is pending or in flight; null: none is.
    #[schemars(extend("format" = "date-time"))]
    pub oldest: Option<String>,
    /// Messages that its stream has removed before they were delivered, as far as the hosts that answer have seen since they
    /// started.
    pub removed: u64,
    /// Events that have failed and are not decided, as `jetmesh retrying` lists them; null: it cannot be known.
    pub retrying: Option<usize>,
    /// Done or dead, by the ledger; absent without a ledger, null if the ledger cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided: Option<Option<u64>>,
    /// Dead letters that wait for a person.
    pub dead: u64,
    /// What is out of the ordinary.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HandlerState {
    Serving,
    /// It serves, and some of its events cannot go on.
    Degraded,
    /// A person has paused it; apart from that it serves.
    Paused,
    Connecting,
    Starting,
    Stopped,
    Unserved,
}

impl HandlerState {
    /// A pause by a person is as it should be.
    pub fn serves(self) -> bool {
        match self {
            HandlerState::Serving | HandlerState::Paused => true,
            HandlerState::Degraded
            | HandlerState::Connecting
            | HandlerState::Starting
            | HandlerState::Stopped
            | HandlerState::Unserved => false,
        }
    }
}

/// The hosts that serve a handler with the same module.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ServedModule {
    /// Digest.
    pub module: String,
    /// How many hosts serve with it.
    #[schemars(range(min = 1))]
    pub hosts: u64,
    /// When the last of them took it up.
    #[schemars(extend("format" = "date-time"))]
    pub since: Option<String>,
}

/// A ledger.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LedgerStatus {
    /// Its bucket.
    pub ledger: String,
    pub state: LedgerState,
    #[schemars(extend("format" = "date-time"))]
    pub since: Option<String>,
    /// Why it does not work.
    pub why: Option<String>,
    /// What carries its consequences out.
    pub relay: RelayStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LedgerState {
    Works,
    Stopped,
}

/// The relay of a ledger.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RelayStatus {
    pub state: RelayStanding,
    pub why: Option<String>,
    /// Messages of consequences that are not confirmed; null: it cannot be known.
    pub waiting: Option<u64>,
    /// When the oldest of them was stored.
    #[schemars(extend("format" = "date-time"))]
    pub oldest: Option<String>,
    /// Targets that take nothing for now.
    #[schemars(with = "Vec<BlockedJson>")]
    pub blocked: Vec<Value>,
    /// Messages among its consequences that cannot be parsed; null: none.
    #[schemars(with = "Option<LeftOutJson>")]
    pub left_out: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RelayStanding {
    Works,
    Late,
    Blocked,
    Stopped,
    Unserved,
    Unknown,
}

/// Delayed events.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DelayedStatus {
    /// Delayed events that wait for their time.
    pub waiting: u64,
    /// Those whose time has come and that are not published yet.
    pub due: u64,
    /// Since when the oldest of those is due, if that is too long: something keeps it from being published.
    #[schemars(extend("format" = "date-time"))]
    pub late_since: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Orphan {
    pub stream: String,
    pub consumer: String,
    pub handler: String,
}
