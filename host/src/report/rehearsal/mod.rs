//! Rehearsals: each letter as a line, and in the end the summary.

pub mod account;

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

use crate::dlq::payload::{Header, Payload, headers};
use crate::dlq::rehearse::stage::Came;
use crate::dlq::rehearse::{Change, HeldEmit};
use crate::event::outcome::Outcome;
use crate::event::rfc3339;

/// A line.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(title = "A line of `jetmesh dlq rehearse --json`: a letter, or, in the end, the summary")]
#[schemars(description = "")]
pub enum RehearsalLine<'a> {
    /// A letter that was rehearsed.
    Ran(RanJson<'a>),
    /// A letter that cannot be run.
    Skipped(SkippedJson<'a>),
    /// The last line.
    Summary { summary: SummaryJson<'a> },
}

/// A letter that was rehearsed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RanJson<'a> {
    /// The letter's.
    id: &'a str,
    /// What would become of it.
    #[schemars(extend("enum" = Outcome::NAMES))]
    outcome: &'static str,
    /// It would be done, and everything that it emits would arrive.
    succeeds: bool,
    /// It would fail with the code and the error that the letter has, but for names and numbers.
    as_before: bool,
    code: Option<String>,
    error: Option<String>,
    took_ms: u64,
    /// What it would write.
    writes: Vec<ChangeJson<'a>>,
    /// What it would emit.
    emits: Vec<EmitJson<'a>>,
    log: Vec<String>,
    /// Where the guest was when it trapped, innermost first.
    backtrace: &'a [String],
}

/// A letter that cannot be run.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SkippedJson<'a> {
    /// The letter's.
    id: &'a str,
    #[schemars(extend("const" = "skipped"))]
    outcome: &'static str,
    /// Why it was skipped.
    why: &'a str,
}

/// A value that would change.
#[derive(Debug, Serialize, JsonSchema)]
struct ChangeJson<'a> {
    key: &'a str,
    /// null: no value.
    old: Option<Payload>,
    /// null: no value.
    new: Option<Payload>,
}

/// An event that would be emitted.
#[derive(Debug, Serialize, JsonSchema)]
struct EmitJson<'a> {
    subject: &'a str,
    headers: Vec<Header>,
    payload: Payload,
    /// When it would be published, if later.
    #[schemars(extend("format" = "date-time"))]
    due: Option<String>,
    /// Why it would not arrive.
    problem: Option<&'a str>,
}

/// What a rehearsal comes to.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SummaryJson<'a> {
    pub rehearsed: u64,
    pub skipped: u64,
    /// How many would fail as the letter says that they have failed.
    pub as_before: u64,
    /// How many would emit what does not arrive.
    pub undelivered: u64,
    pub all_succeed: bool,
    /// How many of each outcome, in words.
    pub verdicts: &'a BTreeMap<&'static str, u64>,
    pub faults: Vec<FaultJson<'a>>,
    /// By handler, the digest of the module.
    pub modules: BTreeMap<String, String>,
}

/// What is alike among those that would fail.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FaultJson<'a> {
    pub handler: &'a str,
    #[schemars(extend("enum" = Outcome::NAMES))]
    pub outcome: &'static str,
    pub code: &'a str,
    /// What their errors have in common.
    pub message: &'a str,
    pub count: u64,
    /// The id of one of them.
    pub sample: &'a str,
    pub error: &'a str,
}

impl<'a> RehearsalLine<'a> {
    pub fn of(id: &'a str, came: &'a Came) -> RehearsalLine<'a> {
        let run = match came {
            Came::Skipped(why) => {
                let outcome = "skipped";
                return RehearsalLine::Skipped(SkippedJson { id, outcome, why });
            }
            Came::Ran(run) => run,
        };
        let failure = run.outcome.failure();
        let log = run.log.iter().map(|l| format!("{} {}", l.level, l.text));
        RehearsalLine::Ran(RanJson {
            id,
            outcome: run.outcome.name(),
            succeeds: run.succeeds(),
            as_before: run.as_before,
            code: failure.as_ref().map(|failure| failure.code.clone()),
            error: failure.map(|failure| failure.message),
            took_ms: u64::try_from(run.took.as_millis()).unwrap_or(u64::MAX),
            writes: run.writes.iter().map(ChangeJson::from).collect(),
            emits: run.emits.iter().map(EmitJson::from).collect(),
            log: log.collect(),
            backtrace: run.outcome.backtrace(),
        })
    }
}

impl<'a> From<&'a Change> for ChangeJson<'a> {
    fn from(change: &'a Change) -> ChangeJson<'a> {
        let payload = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| Payload::of(bytes));
        ChangeJson {
            key: &change.key,
            old: payload(&change.old),
            new: payload(&change.new),
        }
    }
}

impl<'a> From<&'a HeldEmit> for EmitJson<'a> {
    fn from(held: &'a HeldEmit) -> EmitJson<'a> {
        let HeldEmit { emit, problem } = held;
        EmitJson {
            subject: &emit.subject,
            headers: headers(&emit.headers),
            payload: Payload::of(&emit.payload),
            due: emit.due_ms.map(rfc3339),
            problem: problem.as_deref(),
        }
    }
}
