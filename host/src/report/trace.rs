//! A trace as JSON: the types are also its schema.

mod follow;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use self::follow::FollowJson;
use crate::dlq::payload::{Header, Payload, headers};
use crate::event::outcome::Cause;
use crate::event::rfc3339;
use crate::ledger::core::entry::DecisionKind;
use crate::mesh_streams::dead_letter::LetterEdit;
use crate::mesh_streams::pauses::HandlerPause;
use crate::micro::held_back::HindranceJson;
use crate::report::retrying::RetryingJson;
use crate::trace::ledger::{BeforeReset, TracedDecision, WrittenKey};
use crate::trace::reading::Reading;
use crate::trace::search::Searched;
use crate::trace::stand::{Stand, TracedLetter};
use crate::trace::{Part, Traced, TracedMessage};

/// Where events are.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "Where events are, `jetmesh trace --json`", description = "")]
pub struct TraceJson<'a> {
    /// The event that was asked for; of a search those that were found, the newest first.
    events: Vec<EventJson<'a>>,
    /// What was searched; empty: an id was given.
    searched: &'a [Searched],
    /// For the whole trace, whatever came of them.
    messages_read: u64,
    /// Not everything was read: --max-messages and --max-time raise the limit.
    limit_reached: bool,
}

/// An event, and what has become of it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "event")]
struct EventJson<'a> {
    stream: &'a str,
    /// In its stream.
    sequence: u64,
    /// INCARNATION.SEQUENCE; null: no handler of the configuration has ever read its stream.
    event: Option<&'a str>,
    /// Its stream was deleted and created again since.
    former: bool,
    /// null: its stream does not hold it any more.
    message: Option<MessageJson<'a>>,
    /// How each handler that reads it stands to it; of one that is gone, each that reads its stream.
    handlers: Vec<PartJson<'a>>,
    /// Why it was not followed; null: it was.
    note: Option<&'a str>,
}

/// A message as its stream holds it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "message")]
struct MessageJson<'a> {
    subject: &'a str,
    /// When it was stored.
    #[schemars(extend("format" = "date-time"))]
    time: String,
    headers: Vec<Header>,
    payload: Payload,
}

/// One handler's part.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "part")]
struct PartJson<'a> {
    handler: &'a str,
    /// What it has made of the event.
    stand: StandJson<'a>,
    /// What it had decided before it was reset, the oldest first: not looked for where the record of a death tells of the event.
    before_resets: Vec<BeforeResetJson<'a>>,
    /// What it has emitted for the event.
    follows: Vec<FollowJson<'a>>,
    /// The edits of its dead letter's payload, oldest first; a replay gives it the last one. None: the payload is the event's own.
    edits: &'a [LetterEdit],
    /// Why some events of the handler cannot continue, as its hosts report it; empty if this event waits for no host.
    #[schemars(with = "Vec<HindranceJson>")]
    hindered: &'a [Value],
    /// The pause of the handler; null: it is not paused, or this event does not wait for a host.
    paused: Option<&'a HandlerPause>,
    /// What of that could not be found out; null: all was.
    note: Option<&'a str>,
}

/// How an event stands with a handler.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
#[schemars(rename = "stand")]
enum StandJson<'a> {
    /// It is done.
    Done { decided: DecidedJson<'a> },
    /// It is dead.
    Dead {
        /// null: its ledger does not know it, or there is none.
        decided: Option<DecidedJson<'a>>,
        /// null: it is not stored yet, or was removed.
        letter: Option<&'a TracedLetter>,
        /// A replay of it is asked for and not over.
        replay: bool,
    },
    /// It is done by a replay of its dead letter, at this time; no ledger keeps more of it.
    Replayed { at: &'a str },
    /// It failed and is tried again, or is being tried again now.
    Retrying { attempts: RetryingJson<'a> },
    /// A host has it, and it is not decided.
    Delivered {
        /// The handler has a ledger; without one it is not known whether it is answered already.
        ledger: bool,
    },
    /// It was given to no host yet.
    Waiting {
        /// The sequence that the handler's consumer has come to.
        delivered: u64,
        /// Why the consumer gives nothing more for now; null: it does.
        why: Option<&'a str>,
    },
    /// It is not this handler's, which began behind it.
    BeforeStart {
        /// The sequence at which it began.
        start: u64,
    },
    /// The handler's consumer is not there; a running host makes it.
    NoConsumer {},
    /// It is decided, and the ledger has forgotten when and how.
    Forgotten {
        /// It is known to be done, by a replay.
        done: bool,
        /// It is known to have been this handler's.
        was_its: bool,
    },
    /// The server is through with it; a handler without a ledger leaves nothing else behind.
    Answered {},
    /// The server is through with it, and the ledger does not have it: a host's sweep has it run again.
    Lost {},
    /// Its stream does not hold it, and nothing of this handler tells of it.
    Unknown {},
    /// Its decision was not found: the limit of what is read was reached.
    NotFound {
        /// That it is decided is known.
        is_decided: bool,
    },
}

/// How an event stands with a handler, in one word.
pub fn state(stand: &Stand) -> String {
    let json = serde_json::to_value(StandJson::from(stand)).unwrap_or_default();
    json["state"].as_str().unwrap_or_default().to_owned()
}

/// A decision that does not count any more.
#[derive(Debug, Serialize, JsonSchema)]
struct BeforeResetJson<'a> {
    /// When the handler was reset.
    #[schemars(extend("format" = "date-time"))]
    reset: String,
    decided: DecidedJson<'a>,
}

/// A decision in the handler's ledger.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "decided")]
struct DecidedJson<'a> {
    #[schemars(extend("enum" = ["done", "dead"]), with = "String")]
    verdict: DecisionKind,
    /// When the decision was stored.
    #[schemars(extend("format" = "date-time"))]
    at: String,
    /// The ledger's.
    #[schemars(range(min = 1))]
    entry: u64,
    host: &'a str,
    attempt: u32,
    /// Digest of the module; empty if none was run.
    module: &'a str,
    /// Why it is dead.
    cause: Option<Cause>,
    code: Option<&'a str>,
    error: Option<&'a str>,
    /// The event that it repeats: nothing was run.
    same_as: Option<&'a str>,
    /// The entry of the death that this replay has overcome.
    #[schemars(range(min = 1))]
    follows_death: Option<u64>,
    /// What it wrote.
    writes: Vec<WriteJson<'a>>,
}

/// A key that a decision wrote.
#[derive(Debug, Serialize, JsonSchema)]
struct WriteJson<'a> {
    key: &'a str,
    /// null: deleted, or too large for the ledger.
    value: Option<Payload>,
    /// How many the value has; null: deleted.
    bytes: Option<usize>,
    /// The key's revision before; 0: it had none.
    base: u64,
    /// So many events that were committed together wrote this key; the value is the last one's.
    #[schemars(range(min = 1))]
    writers: usize,
}

impl<'a> TraceJson<'a> {
    pub fn of(events: &'a [Traced], searched: &'a [Searched], reading: &Reading<'_>) -> TraceJson<'a> {
        TraceJson {
            events: events.iter().map(EventJson::from).collect(),
            searched,
            messages_read: reading.read,
            limit_reached: reading.stopped,
        }
    }
}

impl<'a> From<&'a Traced> for EventJson<'a> {
    fn from(traced: &'a Traced) -> EventJson<'a> {
        EventJson {
            stream: &traced.stream,
            sequence: traced.sequence,
            event: traced.event.as_deref(),
            former: traced.former,
            message: traced.message.as_ref().map(MessageJson::from),
            handlers: traced.handlers.iter().map(PartJson::from).collect(),
            note: traced.note,
        }
    }
}

impl<'a> From<&'a TracedMessage> for MessageJson<'a> {
    fn from(message: &'a TracedMessage) -> MessageJson<'a> {
        MessageJson {
            subject: &message.subject,
            time: rfc3339(message.time_ms),
            headers: headers(&message.headers),
            payload: Payload::of(&message.payload),
        }
    }
}

impl<'a> From<&'a Part> for PartJson<'a> {
    fn from(part: &'a Part) -> PartJson<'a> {
        let mut stand = StandJson::from(&part.stand);
        if let StandJson::Retrying { attempts } = &mut stand {
            attempts.paused = part.paused.is_some();
        }
        PartJson {
            handler: &part.handler,
            stand,
            before_resets: part.before_resets.iter().map(BeforeResetJson::from).collect(),
            follows: part.follows.iter().map(FollowJson::from).collect(),
            edits: &part.edits,
            hindered: &part.hindered,
            paused: part.paused.as_ref(),
            note: part.note,
        }
    }
}

impl<'a> From<&'a Stand> for StandJson<'a> {
    fn from(stand: &'a Stand) -> StandJson<'a> {
        match stand {
            Stand::Done { decided } => StandJson::Done {
                decided: DecidedJson::from(&**decided),
            },
            Stand::Dead {
                decided,
                letter,
                replay,
            } => StandJson::Dead {
                decided: decided.as_deref().map(DecidedJson::from),
                letter: letter.as_ref(),
                replay: *replay,
            },
            Stand::Replayed { at } => StandJson::Replayed { at },
            Stand::Retrying { record, max_attempts } => StandJson::Retrying {
                attempts: RetryingJson::of(record, Some(*max_attempts)),
            },
            Stand::Delivered { ledger } => StandJson::Delivered { ledger: *ledger },
            Stand::Waiting { delivered, held_up } => StandJson::Waiting {
                delivered: *delivered,
                why: held_up.as_deref(),
            },
            Stand::BeforeStart { start } => StandJson::BeforeStart { start: *start },
            Stand::NoConsumer => StandJson::NoConsumer {},
            Stand::Forgotten { done, was_its } => StandJson::Forgotten {
                done: *done,
                was_its: *was_its,
            },
            Stand::Answered => StandJson::Answered {},
            Stand::Lost => StandJson::Lost {},
            Stand::Unknown => StandJson::Unknown {},
            Stand::NotFound { decided } => StandJson::NotFound { is_decided: *decided },
        }
    }
}

impl<'a> From<&'a BeforeReset> for BeforeResetJson<'a> {
    fn from(before: &'a BeforeReset) -> BeforeResetJson<'a> {
        BeforeResetJson {
            reset: rfc3339(before.reset_ms),
            decided: DecidedJson::from(&before.decided),
        }
    }
}

impl<'a> From<&'a TracedDecision> for DecidedJson<'a> {
    fn from(decided: &'a TracedDecision) -> DecidedJson<'a> {
        let decision = &decided.decision;
        DecidedJson {
            verdict: decision.verdict,
            at: rfc3339(decided.at_ms),
            entry: decided.entry,
            host: &decided.host,
            attempt: decision.attempt,
            module: &decision.module,
            cause: decision.cause,
            code: decision.code.as_deref(),
            error: decision.message.as_deref(),
            same_as: decision.same_as.as_deref(),
            follows_death: decision.follows_death,
            writes: decided.writes.iter().map(WriteJson::from).collect(),
        }
    }
}

impl<'a> From<&'a WrittenKey> for WriteJson<'a> {
    fn from(written: &'a WrittenKey) -> WriteJson<'a> {
        let write = &written.write;
        let value = write.value.as_ref().and_then(|value| value.bytes().ok());
        WriteJson {
            key: &write.key,
            value: value.map(|value| Payload::of(&value)),
            bytes: write.bytes,
            base: write.base,
            writers: written.writers,
        }
    }
}
