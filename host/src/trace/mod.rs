//! Where an event is: what each handler has made of it, and what has followed from it. Only reads.

mod field;
pub mod find;
pub mod follow;
pub mod ledger;
pub mod message_id;
pub mod over;
pub mod reading;
pub mod search;
pub mod sought;
pub mod stand;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::broker::{By, Error, StreamInfo};
use crate::event::outcome::HOPS_MAX;
use crate::event::subject::subject_matches;
use crate::event::{EventId, Headers};
use crate::ledger::core::entry::{Head, Incarnation};
use crate::mesh_streams::dead_letter::LetterEdit;
use crate::mesh_streams::pauses::HandlerPause;
use crate::plan::{Handler, Plan};

use self::find::Place;
use self::follow::{Follow, Whereabouts};
use self::ledger::BeforeReset;
use self::reading::{Reading, Seen};
use self::stand::Stand;

/// How many events one trace follows.
const EVENTS_MAX: usize = 200;

/// The depth at which an event is traced without what followed from it.
pub const ALONE: u32 = HOPS_MAX + 1;

/// An event, and how every handler stands to it.
#[derive(Debug)]
pub struct Traced {
    pub stream: String,
    pub sequence: u64,
    /// `<incarnation>.<sequence>`, if some handler of the configuration reads its stream.
    pub event: Option<String>,
    /// Its stream was deleted and created again since.
    pub former: bool,
    /// `None`: its stream does not hold it any more.
    pub message: Option<TracedMessage>,
    pub handlers: Vec<Part>,
    /// Why it was not followed.
    pub note: Option<&'static str>,
}

#[derive(Debug)]
pub struct TracedMessage {
    pub subject: String,
    pub time_ms: u64,
    pub headers: Headers,
    pub payload: Bytes,
}

impl TracedMessage {
    fn of(seen: Seen) -> TracedMessage {
        TracedMessage {
            subject: seen.subject,
            time_ms: seen.time_ms,
            headers: seen.headers,
            payload: seen.payload,
        }
    }
}

/// One handler's part.
#[derive(Debug)]
pub struct Part {
    pub handler: String,
    pub stand: Stand,
    /// What it had decided before it was reset, the oldest first.
    pub before_resets: Vec<BeforeReset>,
    pub follows: Vec<Follow>,
    /// The edits of its dead letter's payload, oldest first; none: the payload is the event's own.
    pub edits: Vec<LetterEdit>,
    /// Why some events of the handler cannot continue, as its hosts report it: `why`, `since` and `events`. Filled by the caller
    /// of the trace, for an event that is not decided.
    pub hindered: Vec<Value>,
    /// The pause of the handler. Filled as well.
    pub paused: Option<HandlerPause>,
    /// What of that could not be found out.
    pub note: Option<&'static str>,
}

impl Traced {
    /// Whether anything is known of it at all.
    pub fn is_known(&self) -> bool {
        self.message.is_some() || self.handlers.iter().any(|part| part.stand.is_known())
    }

    /// Calls `see` for the handlers' parts that wait for a host, of this event and of all that followed from it.
    pub fn each_waiting(&mut self, see: &mut dyn FnMut(&mut Part)) {
        for part in &mut self.handlers {
            if part.stand.waits() {
                see(part);
            }
            for follow in &mut part.follows {
                if let Whereabouts::Published { traced } = &mut follow.whereabouts {
                    traced.each_waiting(see);
                }
            }
        }
    }
}

/// A trace at work.
pub struct Tracer<'a> {
    pub plan: &'a Plan,
    pub reading: Reading<'a>,
    /// By ledger; read once.
    heads: HashMap<String, Option<Head>>,
    /// By name; read once. `None`: there is none.
    streams: HashMap<String, Option<StreamInfo>>,
    /// By source stream, the token of its current incarnation.
    incarnations: HashMap<String, Option<Incarnation>>,
    /// By handler, when its consumer was made.
    made: HashMap<String, Option<u64>>,
    seen: HashSet<(String, u64)>,
}

impl<'a> Tracer<'a> {
    pub fn new(plan: &'a Plan, reading: Reading<'a>) -> Tracer<'a> {
        Tracer {
            plan,
            reading,
            heads: HashMap::new(),
            streams: HashMap::new(),
            incarnations: HashMap::new(),
            made: HashMap::new(),
            seen: HashSet::new(),
        }
    }

    /// Follows one event, and what has followed from it.
    pub fn trace(&mut self, place: Place, depth: u32) -> BoxFuture<'_, Result<Traced, Error>> {
        async move {
            let Place { stream, sequence, .. } = &place;
            let stored = match place.former {
                true => None,
                false => match self.stream(stream).await? {
                    Some(_) => {
                        let by = By::Sequence(*sequence);
                        self.reading.connection.stored(stream, by).await?
                    }
                    None => None,
                },
            };
            let message = stored.map(|stored| TracedMessage::of(Seen::of(stored)));
            let mut traced = Traced {
                stream: stream.clone(),
                sequence: *sequence,
                event: place.event.as_ref().map(EventId::to_string),
                former: place.former,
                message,
                handlers: Vec::new(),
                note: None,
            };
            if self.has_told(&place) {
                traced.note = Some("shown above");
                return Ok(traced);
            }
            if self.seen.len() >= EVENTS_MAX {
                traced.note = Some("not followed: the limit of 200 events is reached");
                return Ok(traced);
            }
            self.seen.insert((stream.clone(), *sequence));
            let Some(event) = &place.event else {
                return Ok(traced);
            };
            let plan = self.plan;
            for handler in plan
                .handlers
                .iter()
                .filter(|h| takes(h, stream, traced.message.as_ref().map(|m| m.subject.as_str())))
            {
                let mut part = self.stand(handler, event, traced.message.as_ref()).await?;
                if depth <= HOPS_MAX {
                    self.follow(handler, event, traced.message.as_ref(), &mut part, depth)
                        .await?;
                }
                traced.handlers.push(part);
            }
            if traced.message.is_none() && self.is_work_queue(stream).await? {
                one_of(&mut traced.handlers);
            }
            Ok(traced)
        }
        .boxed()
    }

    /// Whether an event is in what has been traced so far.
    pub fn has_told(&self, place: &Place) -> bool {
        self.seen.contains(&(place.stream.clone(), place.sequence))
    }

    async fn is_work_queue(&mut self, stream: &str) -> Result<bool, Error> {
        let info = self.stream(stream).await?;
        Ok(info.is_some_and(|info| info.retention() == "workqueue"))
    }

    /// The server's information about a stream.
    pub async fn stream(&mut self, name: &str) -> Result<Option<StreamInfo>, Error> {
        if !self.streams.contains_key(name) {
            let info = self.reading.connection.stream(name).await?;
            self.streams.insert(name.to_owned(), info);
        }
        Ok(self.streams.get(name).cloned().flatten())
    }
}

/// A work queue gives each event to one handler: if one tells of it, it was none of the others'.
fn one_of(handlers: &mut Vec<Part>) {
    let tells = |part: &Part| match part.stand {
        Stand::Forgotten { was_its, .. } => was_its,
        ref stand => stand.is_known(),
    };
    if handlers.iter().any(tells) {
        handlers.retain(tells);
    }
}

/// Whether a handler reads such an event. If the event was removed, perhaps only its stream is known.
fn takes(handler: &Handler, stream: &str, subject: Option<&str>) -> bool {
    let matches = |subject| handler.subjects.iter().any(|s| subject_matches(s, subject));
    handler.stream == stream && (handler.subjects.is_empty() || subject.is_none_or(matches))
}
