//! What `jetmesh status --json` prints.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::mesh_streams::pauses::HandlerPause;
use crate::micro::held_back::{CircuitJson, HindranceJson};
use crate::micro::rates::RateJson;
use crate::micro::rollout::RolloutJson;
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
    /// null: not known.
    pub delayed: Option<DelayedStatus>,
    /// What the mesh emits by itself at certain times; null: not known.
    pub schedules: Option<Vec<ScheduleJson>>,
    /// Dead letters that the mesh replays by itself, by handler; null: not known.
    pub redrives: Option<Vec<RedriveJson>>,
    /// Consumers of this mesh whose handler is not in the configuration; null: not known.
    pub orphans: Option<Vec<Orphan>>,
    /// Every host that answers, as `nats micro stats` has it; null: not known.
    #[schemars(with = "Option<Vec<Stats>>")]
    pub hosts: Option<Vec<Value>>,
    /// What is not known: it is null above, and not zero.
    pub unknown: Vec<UnknownJson>,
    /// Limits that would remove dead letters, and limits that are nearly reached.
    pub warnings: Vec<String>,
}

/// What could not be asked, and why.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct UnknownJson {
    pub field: UnknownField,
    /// The field in words.
    pub what: &'static str,
    pub why: String,
}

/// A field of the status. `limits`: which limits are nearly reached. `targets`: whether the streams that handlers publish into have room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub enum UnknownField {
    #[serde(rename = "hosts")]
    Hosts,
    #[serde(rename = "handlers.dead")]
    Dead,
    #[serde(rename = "handlers.retrying")]
    Retrying,
    #[serde(rename = "handlers.paused")]
    Paused,
    #[serde(rename = "delayed")]
    Delayed,
    #[serde(rename = "schedules")]
    Schedules,
    #[serde(rename = "redrives")]
    Redrives,
    #[serde(rename = "orphans")]
    Orphans,
    #[serde(rename = "limits")]
    Limits,
    #[serde(rename = "targets")]
    Targets,
}

impl UnknownField {
    fn words(self) -> &'static str {
        match self {
            UnknownField::Hosts => "which hosts there are",
            UnknownField::Dead => "how many dead letters there are",
            UnknownField::Retrying => "how many events are retried",
            UnknownField::Paused => "which handlers are paused",
            UnknownField::Delayed => "how many delayed events there are",
            UnknownField::Schedules => "how schedules stand",
            UnknownField::Redrives => "how redrives stand",
            UnknownField::Orphans => "which consumers have no handler",
            UnknownField::Limits => "which limits are nearly reached",
            UnknownField::Targets => "whether the streams that handlers publish into have room",
        }
    }

    pub fn because(self, why: String) -> UnknownJson {
        let what = self.words();
        UnknownJson { field: self, what, why }
    }
}

/// A handler.
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
    /// The pause by a person; null: it is not paused. A handler that does not serve can be paused too. If the stored pauses
    /// cannot be read, this is what the hosts obey.
    pub paused: Option<HandlerPause>,
    /// Why it does not serve, or why some of its events cannot go on.
    pub why: Option<String>,
    /// What keeps some of its events from going on, by reason.
    #[schemars(with = "Vec<HindranceJson>")]
    pub hindered: Vec<Value>,
    /// Its circuits that are open, one for each host.
    #[schemars(with = "Vec<CircuitJson>")]
    pub circuits: Vec<Value>,
    /// Digest of the module that the hosts run, several with commas; null: no host has told it.
    pub module: Option<String>,
    /// The modules that the hosts run; more than one outside of a rolling update is a mistake.
    pub modules: Vec<ServedModule>,
    /// Why hosts serve another module than their file has now; empty: they do not.
    #[schemars(with = "Vec<NotTakenJson>")]
    pub modules_not_taken: Vec<Value>,
    /// The version that takes over step by step, by the host that knows most of it; null: none does.
    pub rollout: Option<RolloutJson>,
    /// What its hosts do not agree on; null: nothing.
    pub settings_differ: Option<Difference>,
    /// How fast its hosts go, all together, over the last ten seconds; null: not known, or one of them has just begun.
    pub rate: Option<RateJson>,
    /// Not delivered yet; null: not known, because its consumer is not there or NATS does not tell. `why` or `note` says which.
    pub pending: Option<u64>,
    /// Delivered and not answered; null: not known.
    pub in_flight: Option<u64>,
    /// When the oldest event was stored that is pending or in flight; null: none is, or it is not known whether one is.
    #[schemars(extend("format" = "date-time"))]
    pub oldest: Option<String>,
    /// Messages that its stream has removed before they were delivered, as far as the hosts that answer have seen since they
    /// started; null: no host has told it.
    pub removed: Option<u64>,
    /// Events that have failed and are not decided, as `jetmesh retrying` lists them; null: not known.
    pub retrying: Option<usize>,
    /// Done or dead, by the ledger; absent without a ledger, null if the ledger cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided: Option<Option<u64>>,
    /// Dead letters that wait for a person; null: not known.
    pub dead: Option<u64>,
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
    /// It is not known whether a host serves it.
    Unknown,
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
            | HandlerState::Unserved
            | HandlerState::Unknown => false,
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
    /// Why it does not work, or why that is not known.
    pub why: Option<String>,
    /// What carries its consequences out.
    pub relay: RelayStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LedgerState {
    Works,
    Stopped,
    Unknown,
}

/// The relay of a ledger.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RelayStatus {
    pub state: RelayStanding,
    pub why: Option<String>,
    /// Messages of consequences that are not confirmed; null: not known.
    pub waiting: Option<u64>,
    /// When the oldest of them was stored.
    #[schemars(extend("format" = "date-time"))]
    pub oldest: Option<String>,
    /// How long the oldest of them has waited, in milliseconds; 0: none waits; null: not known.
    pub lag_ms: Option<u64>,
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
