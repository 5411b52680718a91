//! What would become of dead letters with a module: each is run as its handler runs events, with every effect held back.

pub mod stage;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use tokio::sync::Mutex;

use crate::broker::error::Code;
use crate::broker::{Connection, Error};
use crate::event::effects::State;
use crate::event::effects::{Emit, Version};
use crate::event::outcome::{Cause, Outcome, circles};
use crate::event::{EventId, Message};
use crate::handler_task::transaction;
use crate::ledger::core::append::{BatchTooLarge, fits_alone};
use crate::ledger::core::entry::Head;
use crate::ledger::core::transaction::Transaction;
use crate::ledger::identity;
use crate::ledger::store::keys::fetch;
use crate::mesh_streams::attempts::history;
use crate::mesh_streams::dead_letter::{self, Letter};
use crate::plan::Handler;
use crate::random::Seed;
use crate::text::normalise::normalise;
use crate::wasm::guest::{Facts, Line};
use crate::wasm::module::{Module, Run};

/// How many letters run at a time: guests that wait for reads leave the processor to others.
pub const AT_ONCE: usize = 16;
/// How many subjects are remembered with what takes them.
const TARGETS_MAX: usize = 10_000;

/// A handler's module on trial.
pub struct Rehearsal<'a> {
    connection: Connection,
    handler: &'a Handler,
    pub module: Module,
    facts: Arc<Facts>,
    /// By subject, whether a stream takes it.
    taken: Mutex<HashMap<String, bool>>,
}

/// What would come of one letter.
#[derive(Debug)]
pub struct Rehearsed {
    pub outcome: Outcome,
    /// It would fail with the code and the error that the letter has, but for names and numbers.
    pub as_before: bool,
    pub writes: Vec<Change>,
    pub emits: Vec<HeldEmit>,
    pub log: Vec<Line>,
    pub took: Duration,
}

/// A key as it is now, and as it would be; `None`: it has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    pub old: Option<Bytes>,
    pub new: Option<Bytes>,
}

/// An event that would be emitted.
#[derive(Debug, Clone)]
pub struct HeldEmit {
    pub emit: Emit,
    /// Why it would become a dead letter instead of arriving.
    pub problem: Option<String>,
}

impl Rehearsed {
    /// Whether it would be done, and everything that it emits would arrive.
    pub fn succeeds(&self) -> bool {
        self.outcome == Outcome::Done && self.emits.iter().all(|held| held.problem.is_none())
    }
}

/// Why a letter cannot be rehearsed. `None`: it can be.
pub fn unfit(letter: &Letter) -> Option<&'static str> {
    match Cause::parse(letter.header(dead_letter::CAUSE)) {
        Some(Cause::Lost) => Some("the event was lost with its payload"),
        Some(Cause::Undeliverable) => Some("no handler failed on it: it is an emitted event that no stream took"),
        Some(Cause::Exhausted | Cause::Rejected | Cause::MaxDeliver | Cause::Terminated | Cause::GaveUp) | None => {
            let named = EventId::parse(letter.header(dead_letter::EVENT)).is_some();
            (!named).then_some("it names no event")
        }
    }
}

impl<'a> Rehearsal<'a> {
    pub fn new(connection: &Connection, handler: &'a Handler, module: Module) -> Rehearsal<'a> {
        let state = handler.bucket.clone().map(|bucket| {
            let connection = connection.clone();
            Arc::new(Now { connection, bucket }) as Arc<dyn State>
        });
        let facts = Arc::new(Facts::of(handler, state));
        facts
            .message_bytes_max
            .store(connection.client.max_payload(), Ordering::Relaxed);
        Rehearsal {
            connection: connection.clone(),
            handler,
            module,
            facts,
            taken: Mutex::default(),
        }
    }

    /// Runs one letter's event as its replay would be run at first. Nothing of it happens.
    ///
    /// # Cancel safety
    /// Dropped half-way, nothing has happened either.
    pub async fn run(&self, letter: Letter) -> Result<Rehearsed, Error> {
        let of = |name| letter.header(name).to_owned();
        let before = (of(dead_letter::CODE), normalise(letter.header(dead_letter::ERROR)));
        let mut rehearsed = self.run_once(letter).await?;
        let failure = rehearsed.outcome.failure();
        rehearsed.as_before = failure.is_some_and(|now| (now.code, normalise(&now.message)) == before);
        Ok(rehearsed)
    }

    /// Runs an event at its first attempt, and nothing of it happens. `seed`: that of another run that it is compared with.
    pub async fn run_event(&self, message: &Message, seed: Option<Seed>) -> Run {
        match circles(identity::hops(message)) {
            Some(outcome) => Run::without(outcome),
            None => {
                let (instance, timeout) = (self.handler.instance, self.handler.timeout);
                self.module.run(&self.facts, message, 1, instance, timeout, seed).await
            }
        }
    }

    async fn run_once(&self, letter: Letter) -> Result<Rehearsed, Error> {
        let Some(event) = EventId::parse(letter.header(dead_letter::EVENT)) else {
            return Err(Error::Refused(format!("{}: it names no event", letter.id())));
        };
        // What the last attempt has drawn is drawn again: with its module and its state it fails as it failed then.
        let seed = history::of(&letter.headers)
            .iter()
            .rev()
            .find_map(|attempt| attempt.seed);
        let (_, message) = letter.open(event);
        let run = self.run_event(&message, seed).await;
        let mut rehearsed = Rehearsed {
            outcome: run.outcome,
            as_before: false,
            writes: Vec::new(),
            emits: Vec::new(),
            log: run.lines,
            took: run.took,
        };
        if rehearsed.outcome != Outcome::Done {
            return Ok(rehearsed);
        }
        let tx = transaction::of(
            self.handler,
            &message,
            (1, None),
            &self.module.digest,
            run.effects.clone(),
        );
        let (writes, versions) = self.changes(&tx).await?;
        if let Err(BatchTooLarge(why)) = self.commits(&tx, &versions) {
            rehearsed.outcome = Outcome::Reject {
                code: "too-large".to_owned(),
                message: why,
            };
            return Ok(rehearsed);
        }
        rehearsed.writes = writes;
        let timers = run.effects.timers.into_values().flatten();
        for emit in run.effects.emits.into_iter().chain(timers) {
            let problem = self.problem(&emit).await?;
            rehearsed.emits.push(HeldEmit { emit, problem });
        }
        Ok(rehearsed)
    }

    /// What it writes over what is there now, and the versions that its transaction would rest on.
    async fn changes(&self, tx: &Transaction) -> Result<(Vec<Change>, BTreeMap<String, Version>), Error> {
        let mut versions = tx.reads.clone();
        let Some(bucket) = &self.handler.ledger else {
            return Ok((Vec::new(), versions));
        };
        let one = |(key, new): (&String, &Option<Bytes>)| {
            let (key, new) = (key.clone(), new.clone());
            async move {
                let (revision, old) = now(&self.connection, bucket, &key).await?;
                Ok::<_, Error>((revision, Change { key, old, new }))
            }
        };
        let found: Vec<(u64, Change)> = futures_util::stream::iter(tx.writes.iter().map(one))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        for (revision, change) in &found {
            versions.entry(change.key.clone()).or_insert(Version::Stored(*revision));
        }
        Ok((found.into_iter().map(|(_, change)| change).collect(), versions))
    }

    /// Whether its transaction could be appended.
    fn commits(&self, tx: &Transaction, versions: &BTreeMap<String, Version>) -> Result<(), BatchTooLarge> {
        let Some(ledger) = &self.handler.ledger else {
            return Ok(());
        };
        let payload_max = self.connection.client.max_payload();
        fits_alone(ledger, (&Head::default(), 0), tx, versions, payload_max)
    }

    /// Why an emitted event would not arrive.
    async fn problem(&self, emit: &Emit) -> Result<Option<String>, Error> {
        let mut taken = self.taken.lock().await;
        let taken = match taken.get(&emit.subject) {
            Some(taken) => *taken,
            None => {
                let found = self.connection.captured(&emit.subject).await?.is_some();
                if taken.len() >= TARGETS_MAX {
                    taken.clear();
                }
                taken.insert(emit.subject.clone(), found);
                found
            }
        };
        Ok((!taken).then(|| format!("no stream captures {}", emit.subject)))
    }
}

/// A bucket as it is now, read from its leader.
struct Now {
    connection: Connection,
    bucket: String,
}

impl State for Now {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Option<Bytes>, Version), String>> {
        async move {
            let (revision, value) = now(&self.connection, &self.bucket, key)
                .await
                .map_err(|e| e.to_string())?;
            Ok((value, Version::Stored(revision)))
        }
        .boxed()
    }
}

/// A key's revision and value. A host would make a bucket that is not there.
async fn now(connection: &Connection, bucket: &str, key: &str) -> Result<(u64, Option<Bytes>), Error> {
    match fetch(connection, bucket, key).await {
        Err(Error::Api {
            code: Code::STREAM_NOT_FOUND,
            ..
        }) => Ok((0, None)),
        found => found,
    }
}
