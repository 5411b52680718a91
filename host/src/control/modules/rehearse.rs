//! What a version would have done with the newest events, beside the version that serves; every effect is held back.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt as _;
use schemars::JsonSchema;
use serde::Serialize;

use super::Error;
use crate::broker::provision::MESH_BUCKET;
use crate::broker::scan::{From, Scan};
use crate::broker::{self, Connection};
use crate::dlq::rehearse::{AT_ONCE, Rehearsal};
use crate::event::outcome::Outcome;
use crate::event::{DeliveryInfo, EventId, Message, headers_of};
use crate::handler_task::rollout::compare::difference;
use crate::ledger::store::{incarnation, keys};
use crate::mesh_streams::modules::{self, LoadError, named, versions_of};
use crate::plan::{Handler, Plan};
use crate::wasm::compile::Priority;
use crate::wasm::engine::Runtime;
use crate::wasm::library::Library;
use crate::wasm::module::Module;

/// Instances that end while others start.
const SPARE_INSTANCES: usize = 8;
/// Differences that are told one by one.
const TOLD_MAX: usize = 100;

/// What a version would have done with the newest events.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "`jetmesh modules rehearse --json`", description = "")]
pub struct ModuleRehearsed {
    pub name: String,
    /// Digest of the version that is rehearsed.
    pub digest: String,
    /// Digest of the version that serves.
    pub serving: String,
    /// Events that were run on both.
    pub events: usize,
    /// Of those, the ones that fail on the rehearsed version only, on the serving one only, and on both.
    pub failed: usize,
    pub serving_failed: usize,
    pub both_failed: usize,
    /// Events that are done by both, with different effects.
    pub differ: usize,
    /// What differs, 100 at most.
    pub differences: Vec<LiveDifference>,
}

/// An event with which the two versions do not do the same.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct LiveDifference {
    pub handler: String,
    /// `<incarnation>.<sequence>`.
    pub event: String,
    pub subject: String,
    /// How it ends on the rehearsed version, and on the serving one.
    pub outcome: String,
    pub serving_outcome: String,
    /// In words.
    pub difference: String,
}

/// Runs the newest events of each handler of a name on a version and on the one that serves. `last`: how many of each handler.
pub async fn rehearse(
    connection: &Connection,
    plan: &Plan,
    (name, text): (&str, &str),
    last: usize,
) -> Result<ModuleRehearsed, Error> {
    let versions = versions_of(connection, name).await?;
    let digest = named(&versions, name, text).map_err(Error::Person)?.digest.clone();
    let (Some(now), _) = modules::promoted(connection, name).await? else {
        return Err(Error::Person(format!(
            "nothing is promoted as {name}: there is no version to compare with"
        )));
    };
    let follows = |handler: &&Handler| handler.module.registered() == Some(name);
    let handlers: Vec<&Handler> = plan.handlers.iter().filter(follows).collect();
    if handlers.is_empty() {
        return Err(Error::Person(format!(
            "no handler of this configuration has `module = \"registry:{name}\"`: give the configuration of the hosts"
        )));
    }
    let memory = handlers
        .iter()
        .map(|handler| handler.memory_bytes_max)
        .max()
        .unwrap_or(0);
    let runtime =
        Runtime::new(2 * AT_ONCE + SPARE_INSTANCES, memory).map_err(|error| Error::Person(error.to_string()))?;
    let library = Library::new(runtime);
    let load =
        async |digest: &str| match modules::load(connection, (plan, &library), (name, digest), Priority::Usual).await {
            Ok(compiled) => Ok(compiled),
            Err(LoadError::Broker(error)) => Err(Error::Broker(error)),
            Err(LoadError::Unfit(why) | LoadError::Refused(why)) => Err(Error::Person(why)),
        };
    let (new, serving) = (load(&digest).await?, load(&now.digest).await?);
    let mut rehearsed = ModuleRehearsed {
        name: name.to_owned(),
        digest,
        serving: now.digest,
        events: 0,
        failed: 0,
        serving_failed: 0,
        both_failed: 0,
        differ: 0,
        differences: Vec::new(),
    };
    for handler in handlers {
        let stages =
            [&new, &serving].map(|compiled| Rehearsal::new(connection, handler, Module::new(Arc::clone(compiled))));
        let events = newest(connection, handler, last).await?;
        let runs = events.iter().map(|message| compared(&stages, handler, message));
        let mut runs = futures_util::stream::iter(runs).buffered(AT_ONCE);
        while let Some(one) = runs.next().await {
            rehearsed.take(one);
        }
    }
    Ok(rehearsed)
}

/// What came of one event on both versions; `difference` is empty if there is none.
async fn compared([new, serving]: &[Rehearsal<'_>; 2], handler: &Handler, message: &Message) -> LiveDifference {
    let served = serving.run_event(message, None).await;
    let other = new.run_event(message, served.seed).await;
    let difference = difference((&served.outcome, &served.effects), (&other.outcome, &other.effects));
    LiveDifference {
        handler: handler.name.clone(),
        event: message.event.to_string(),
        subject: message.subject.clone(),
        outcome: told(&other.outcome),
        serving_outcome: told(&served.outcome),
        difference: difference.unwrap_or_default(),
    }
}

/// An outcome, and why.
fn told(outcome: &Outcome) -> String {
    match outcome.failure() {
        None => outcome.name().to_owned(),
        Some(failure) => format!("{} ({}: {})", outcome.name(), failure.code, failure.message),
    }
}

impl ModuleRehearsed {
    fn take(&mut self, one: LiveDifference) {
        let done = Outcome::Done.name();
        self.events += 1;
        match (one.outcome == done, one.serving_outcome == done) {
            (true, true) if one.difference.is_empty() => return,
            (true, true) => self.differ += 1,
            (false, true) => self.failed += 1,
            (true, false) => self.serving_failed += 1,
            (false, false) => {
                self.both_failed += 1;
                return;
            }
        }
        if self.differences.len() < TOLD_MAX {
            self.differences.push(one);
        }
    }
}

/// The newest events that a handler is given, oldest first.
async fn newest(connection: &Connection, handler: &Handler, last: usize) -> Result<Vec<Message>, broker::Error> {
    let Some(info) = connection.stream(&handler.stream).await? else {
        return Ok(Vec::new());
    };
    let key = incarnation::key(&handler.stream);
    let value = keys::fetch(connection, MESH_BUCKET, &key).await?.1;
    let known = value
        .map(|value| incarnation::parse(&handler.stream, &value))
        .transpose()?;
    let token = |sequence| known.as_ref().map_or("k", |known| known.of(sequence)).to_owned();
    let end = info.state.last_seq;
    let mut span = last as u64;
    loop {
        // Other subjects may lie between them.
        let from = end.saturating_sub(span) + 1;
        let mut found = VecDeque::new();
        let mut scan = Scan::start(
            connection,
            &handler.stream,
            &handler.subjects,
            From::Sequence(from),
            end,
            false,
        )
        .await?;
        while let Some(scanned) = scan.next().await? {
            if scanned.malformed.is_some() {
                continue;
            }
            let time_ms = scanned
                .message
                .reply
                .as_deref()
                .and_then(DeliveryInfo::parse)
                .map_or(0, |info| info.time_ms);
            found.push_back(Message {
                event: EventId {
                    incarnation: token(scanned.sequence).into(),
                    sequence: scanned.sequence,
                },
                subject: scanned.message.subject.into_string(),
                headers: headers_of(scanned.message.headers.as_ref()),
                payload: scanned.message.payload,
                time_ms,
            });
            if found.len() > last {
                found.pop_front();
            }
        }
        scan.end().await?;
        if found.len() >= last || from <= info.state.first_seq.max(1) {
            return Ok(found.into());
        }
        span = span.saturating_mul(8);
    }
}
