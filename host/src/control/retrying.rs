//! Events between two attempts: which there are, and what a person does with them. An event that is to run now is asked for at the
//! server, which delivers it again. One that is given up is marked in its attempt record: the host that is given it next
//! dead-letters it, as after its last attempt.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::broker::consumer::{ConsumerInfo, META_INCARNATION};
use crate::broker::kv::{key_subject, kv_stream};
use crate::broker::provision::{ATTEMPTS, REPLAY};
use crate::broker::scan::{From, Scan};
use crate::broker::{Connection, Error};
use crate::event::EventId;
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::event::subject::subject_matches;
use crate::mesh_streams::attempts::{self, AttemptRecord, GivenUp};
use crate::mesh_streams::audit::{AuditAction, AuditEnd};
use crate::mesh_streams::{pauses, replay_queue};
use crate::micro;
use crate::micro::told::endpoints;
use crate::plan::{Handler, Plan};
use crate::trace::over::Over;

/// Conditions on an event between two attempts; one that is not given does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryingFilter {
    pub handler: Option<String>,
    /// A pattern.
    pub subject: Option<String>,
    /// Of the last failure.
    pub code: Option<String>,
}

/// Which events are meant.
#[derive(Debug, Clone)]
pub enum RetryingChoice {
    /// HANDLER.INCARNATION.SEQUENCE each.
    Ids(Vec<String>),
    Matching(RetryingFilter),
}

/// What a person wants of them.
#[derive(Debug, Clone)]
pub enum RetryingOrder {
    /// The next attempt begins now.
    Now,
    /// No attempt follows: each becomes a dead letter.
    GiveUp { by: String, reason: Option<String> },
}

/// An event that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryingEvent {
    pub handler: String,
    pub event: EventId,
    /// The host whose attempt runs.
    pub running_on: Option<String>,
}

/// What is meant, as far as it is there.
#[derive(Debug, Default)]
pub struct ChosenEvents {
    pub events: Vec<RetryingEvent>,
    /// Ids that name no event between two attempts, or one of a handler that is not in the configuration.
    pub missing: Vec<String>,
    /// Records that cannot be read, and how each is removed.
    pub unreadable: Vec<String>,
}

/// What has become of an order.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(
    title = "What `jetmesh retrying now --json` or `jetmesh retrying give-up --json` has done",
    description = ""
)]
pub struct RetryingActed {
    /// Events whose next attempt was asked for, or that were given up.
    pub acted: u64,
    /// Ids of events whose attempt ran at that moment: `now` leaves them alone, and `give-up` lets this attempt be the last.
    pub running: Vec<String>,
    /// Ids that name no event between two attempts, or one that was decided meanwhile.
    pub missing: Vec<String>,
    /// Handlers that take no events at present: theirs wait.
    pub waits: Vec<RetryingWaits>,
}

/// A handler that takes no events at present.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RetryingWaits {
    pub handler: String,
    pub why: String,
}

impl RetryingOrder {
    pub fn action(&self) -> AuditAction {
        match self {
            RetryingOrder::Now => AuditAction::RetryingNow,
            RetryingOrder::GiveUp { .. } => AuditAction::RetryingGiveUp,
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            RetryingOrder::Now => None,
            RetryingOrder::GiveUp { reason, .. } => reason.as_deref(),
        }
    }
}

impl RetryingActed {
    /// As it is recorded.
    pub fn recorded(&self, order: &RetryingOrder) -> AuditEnd {
        let verb = match order {
            RetryingOrder::Now => "asked for",
            RetryingOrder::GiveUp { .. } => "given up",
        };
        let (running, missing) = (self.running.len() as u64, self.missing.len() as u64);
        AuditEnd::done(&[(verb, self.acted), ("running", running), ("missing", missing)])
    }
}

impl ChosenEvents {
    pub fn handlers(&self) -> Vec<&str> {
        let handlers = self.events.iter().map(|event| event.handler.as_str());
        handlers.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// In a few words.
    pub fn told(&self) -> String {
        match self.events.as_slice() {
            [one] => one.id(),
            events => format!("{} events", events.len()),
        }
    }
}

impl RetryingFilter {
    pub fn is_empty(&self) -> bool {
        *self == RetryingFilter::default()
    }

    fn takes(&self, record: &AttemptRecord) -> bool {
        let subject = self.subject.as_ref();
        let code = self.code.as_ref();
        subject.is_none_or(|pattern| subject_matches(pattern, &record.subject))
            && code.is_none_or(|code| record.last_ended().is_some_and(|last| last.code == *code))
    }
}

impl RetryingEvent {
    fn of(record: &AttemptRecord) -> Option<RetryingEvent> {
        Some(RetryingEvent {
            handler: record.handler.clone(),
            event: EventId::parse(&record.event)?,
            running_on: record.running_on().map(str::to_owned),
        })
    }

    pub fn id(&self) -> String {
        format!("{}.{}", self.handler, self.event)
    }
}

/// Calls `seen` for each record whose event is not known to be decided, once through the bucket. Returns those that cannot be read,
/// and how each is removed.
pub async fn each(
    connection: &Connection,
    plan: &Plan,
    handler: Option<&str>,
    mut seen: impl FnMut(AttemptRecord),
) -> Result<Vec<String>, Error> {
    let over = over(connection, plan, handler).await?;
    let subjects = [key_subject(ATTEMPTS, &format!("{}.*.*", handler.unwrap_or("*")))];
    let from = From::Sequence(1);
    let mut scan = Scan::start(connection, &kv_stream(ATTEMPTS), &subjects, from, u64::MAX, false).await?;
    let mut unreadable = Vec::new();
    while let Some(scanned) = scan.next().await? {
        let (subject, read) = match &scanned.malformed {
            Some(malformed) => (String::from_utf8_lossy(&malformed.subject), Err(malformed.why())),
            None => (
                scanned.message.subject.as_str().into(),
                AttemptRecord::read(&scanned.message.payload),
            ),
        };
        match read {
            Err(why) => unreadable.push(format!(
                "{subject} in bucket {ATTEMPTS} cannot be read: {why}; remove it with \
                 `nats stream purge {} --subject '{subject}'`",
                kv_stream(ATTEMPTS)
            )),
            Ok(record) => {
                let over = over.get(record.handler.as_str());
                if !over.is_some_and(|over| over.is(&record.event)) {
                    seen(record);
                }
            }
        }
    }
    scan.end().await?;
    Ok(unreadable)
}

/// By handler, what is over.
async fn over<'a>(
    connection: &Connection,
    plan: &'a Plan,
    handler: Option<&str>,
) -> Result<BTreeMap<&'a str, Over>, Error> {
    let mut over = BTreeMap::new();
    let wanted = |plan: &&Handler| handler.is_none_or(|name| plan.name == name);
    for plan in plan.handlers.iter().filter(wanted) {
        over.insert(plan.name.as_str(), Over::of(connection, plan).await?);
    }
    Ok(over)
}

/// The events that are meant.
pub async fn choose(connection: &Connection, plan: &Plan, choice: &RetryingChoice) -> Result<ChosenEvents, Error> {
    let mut chosen = ChosenEvents::default();
    let is_known = |name: &str| plan.handlers.iter().any(|handler| handler.name == name);
    match choice {
        RetryingChoice::Ids(ids) => {
            for id in ids {
                let named = id
                    .split_once('.')
                    .and_then(|(name, id)| Some((name, EventId::parse(id)?)));
                let found = match named.filter(|(name, _)| is_known(name)) {
                    Some((name, event)) => attempts::load(connection, name, &event).await?.record,
                    None => AttemptRecord::default(),
                };
                match RetryingEvent::of(&found) {
                    Some(event) => chosen.events.push(event),
                    None => chosen.missing.push(id.clone()),
                }
            }
        }
        RetryingChoice::Matching(filter) => {
            let events = &mut chosen.events;
            let see = |record: AttemptRecord| {
                if is_known(&record.handler) && filter.takes(&record) {
                    events.extend(RetryingEvent::of(&record));
                }
            };
            chosen.unreadable = each(connection, plan, filter.handler.as_deref(), see).await?;
        }
    }
    Ok(chosen)
}

/// Does what a person wants with the events that are meant.
pub async fn act(
    connection: &Connection,
    plan: &Plan,
    chosen: ChosenEvents,
    order: &RetryingOrder,
) -> Result<RetryingActed, Error> {
    let mut acted = RetryingActed {
        missing: chosen.missing,
        ..RetryingActed::default()
    };
    let mut by_handler: BTreeMap<String, Vec<RetryingEvent>> = BTreeMap::new();
    for event in chosen.events {
        by_handler.entry(event.handler.clone()).or_default().push(event);
    }
    for (name, events) in &by_handler {
        let Some(handler) = plan.handlers.iter().find(|handler| handler.name == *name) else {
            continue;
        };
        let places = RetryingPlaces::of(connection, handler).await?;
        for event in events {
            one(connection, &places, event, order, &mut acted).await?;
        }
    }
    connection.flush("the server").await;
    acted.waits = waits(connection, plan, by_handler.keys().cloned().collect()).await?;
    Ok(acted)
}

async fn one(
    connection: &Connection,
    places: &RetryingPlaces<'_>,
    event: &RetryingEvent,
    order: &RetryingOrder,
    acted: &mut RetryingActed,
) -> Result<(), Error> {
    if event.running_on.is_some() {
        acted.running.push(event.id());
    }
    match order {
        RetryingOrder::Now if event.running_on.is_some() => return Ok(()),
        RetryingOrder::Now => {}
        RetryingOrder::GiveUp { by, reason } => {
            let given_up = GivenUp {
                by: by.clone(),
                at: rfc3339(now_ms()),
                reason: reason.clone(),
            };
            if !attempts::give_up(connection, &event.handler, &event.event, &given_up).await? {
                acted.running.retain(|id| *id != event.id());
                acted.missing.push(event.id());
                return Ok(());
            }
        }
    }
    acted.acted += 1;
    if event.running_on.is_none() {
        places.deliver_now(connection, &event.event).await?;
    }
    Ok(())
}

/// Where the server waits for the next attempts at a handler's events.
struct RetryingPlaces<'a> {
    handler: &'a Handler,
    source: Option<ConsumerInfo>,
    /// Events that the sweep has found wait here.
    replays: Option<ConsumerInfo>,
}

impl RetryingPlaces<'_> {
    async fn of<'a>(connection: &Connection, handler: &'a Handler) -> Result<RetryingPlaces<'a>, Error> {
        Ok(RetryingPlaces {
            handler,
            source: connection.consumer(&handler.stream, &handler.consumer).await?,
            replays: connection.consumer(REPLAY, &handler.name).await?,
        })
    }

    /// Ends the delay of a nak: the server has the event delivered again at once. It does nothing for an event that it does not
    /// wait for.
    async fn deliver_now(&self, connection: &Connection, event: &EventId) -> Result<(), Error> {
        let is_of = |info: &&ConsumerInfo| info.metadata(META_INCARNATION) == Some(&*event.incarnation);
        if let Some(info) = self.source.as_ref().filter(is_of) {
            connection.hand_back(&self.handler.stream, info, event.sequence).await?;
        }
        if let Some(info) = &self.replays
            && let Some(sequence) = replay_queue::place(connection, &self.handler.name, event).await?
        {
            connection.hand_back(REPLAY, info, sequence).await?;
        }
        Ok(())
    }
}

/// Which of these handlers take no events at present.
async fn waits(
    connection: &Connection,
    plan: &Plan,
    mut handlers: BTreeSet<String>,
) -> Result<Vec<RetryingWaits>, Error> {
    let mut waits = Vec::new();
    for (handler, pause) in pauses::load(connection, now_ms()).await? {
        if handlers.remove(&handler) {
            let why = format!("it is paused since {} {}", pause.since, pause.told());
            waits.push(RetryingWaits { handler, why });
        }
    }
    if handlers.is_empty() {
        return Ok(waits);
    }
    let asked = micro::hosts(connection, &plan.mesh).await;
    let why = match &asked {
        Ok(_) => "no host that answers serves it".to_owned(),
        Err(error) => format!("it is not known whether a host serves it: {error}"),
    };
    let hosts = asked.unwrap_or_default();
    let serves = |one: &Value, handler: &str| one["name"] == handler && one["data"]["state"] == "serving";
    handlers.retain(|handler| !endpoints(&hosts).any(|one| serves(one, handler)));
    waits.extend(handlers.into_iter().map(|handler| {
        let why = why.clone();
        RetryingWaits { handler, why }
    }));
    Ok(waits)
}
