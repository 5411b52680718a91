//! How many events of each handler wait, and for what. It is looked up in the background, at a limited pace, and never for a
//! scrape: that costs the same however many ask, and a figure says how old it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::broker::connection::redial_delay;
use crate::broker::consumer::{ConsumerInfo, META_INCARNATION};
use crate::broker::error::Code;
use crate::broker::provision::DEAD;
use crate::broker::{self, Connection, Error};
use crate::dlq::Filter;
use crate::dlq::select;
use crate::event::EventId;
use crate::event::clock::now_ms;
use crate::handler_task::lane::Lane;
use crate::mesh_streams::dead_letter::{Letter, handler_of};
use crate::mesh_streams::{attempts, delayed};
use crate::micro::Host;

/// From the end of a round to the next one.
const PAUSE: Duration = Duration::from_secs(10);
/// From one handler to the next: a host with thousands of handlers asks the server for 50 of them a second.
const STEP: Duration = Duration::from_millis(20);
/// The dead letters are read again at most so often, and at most for this share of the time.
const DEAD_PAUSE: Duration = Duration::from_secs(5);
const DEAD_SHARE: u32 = 50;

/// What waits of a handler.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HandlerBacklog {
    /// Not delivered yet.
    pub pending: u64,
    /// Delivered to a host, and no attempt has failed yet.
    pub running: u64,
    /// Failed and not decided.
    pub retrying: u64,
    /// Emitted by it, and not due yet.
    pub delayed: u64,
    /// Dead letters that wait for a person.
    pub dead: u64,
    /// When the oldest event that is not decided was stored.
    pub oldest_ms: Option<u64>,
    /// When this was looked up.
    pub at_ms: u64,
}

#[derive(Debug, Default)]
pub struct MeshBacklog {
    /// By handler. One whose consumer is not there is not known.
    handlers: Mutex<BTreeMap<String, HandlerBacklog>>,
    /// When the oldest delayed event was due that is not published.
    due_ms: Mutex<Option<u64>>,
}

impl MeshBacklog {
    pub fn of(&self, handler: &str) -> Option<HandlerBacklog> {
        self.handlers.lock().get(handler).cloned()
    }

    pub fn due_ms(&self) -> Option<u64> {
        *self.due_ms.lock()
    }
}

/// Looks it up for as long as it is polled.
pub async fn watch(backlog: Arc<MeshBacklog>, host: Arc<Host>) {
    let mut letters = Letters::default();
    let mut attempt = 0;
    loop {
        let ended = async {
            let connection = broker::open_guarded(&host.plan.nats, &format!("jetmesh backlog {}", host.name)).await?;
            loop {
                round(&connection, &backlog, &host, &mut letters).await?;
                tokio::time::sleep(PAUSE).await;
            }
        };
        let Err::<std::convert::Infallible, Error>(error) = ended.await;
        attempt += 1;
        tracing::debug!(%error, "the backlog is not known for a moment");
        tokio::time::sleep(redial_delay(attempt)).await;
    }
}

async fn round(
    connection: &Connection,
    backlog: &MeshBacklog,
    host: &Host,
    letters: &mut Letters,
) -> Result<(), Error> {
    let tried = none_without_stream(attempts::by_handler(connection).await)?;
    letters.look(connection).await?;
    *backlog.due_ms.lock() = none_without_stream(delayed::oldest_due(connection).await)?;
    let delayed = none_without_stream(delayed::count(connection, None).await)?;
    for lane in &host.lanes {
        let name = &lane.plan.name;
        let found = connection.consumer(&lane.plan.stream, &lane.plan.consumer).await;
        let Some(consumer) = none_without_stream(found)? else {
            // A figure that is not known is not told.
            backlog.handlers.lock().remove(name);
            continue;
        };
        let waits = consumer.num_pending + consumer.num_ack_pending > 0;
        let retrying = tried.get(name).map_or(0, |tried| undecided(lane, &consumer, tried));
        let figures = HandlerBacklog {
            pending: consumer.num_pending,
            running: consumer.num_ack_pending.saturating_sub(retrying),
            retrying,
            delayed: if delayed > 0 {
                delayed::count(connection, Some(name)).await?
            } else {
                0
            },
            dead: letters.of_handler.get(name).copied().unwrap_or(0),
            oldest_ms: if waits {
                connection.oldest_unsettled(&lane.plan.stream, &consumer).await?
            } else {
                None
            },
            at_ms: now_ms(),
        };
        backlog.handlers.lock().insert(name.clone(), figures);
        tokio::time::sleep(STEP).await;
    }
    Ok(())
}

/// How many of these events the ledger has not decided.
fn undecided(lane: &Lane, consumer: &ConsumerInfo, tried: &[EventId]) -> u64 {
    let is_open = |event: &&EventId| match &lane.bucket {
        Some(bucket) => {
            let above = event.sequence > bucket.floor(&lane.plan.name, &event.incarnation);
            above && bucket.decided(&lane.plan.name, event).is_none()
        }
        None => {
            let same = consumer.metadata(META_INCARNATION) == Some(&*event.incarnation);
            !same || event.sequence > consumer.settled_floor()
        }
    };
    tried.iter().filter(is_open).count() as u64
}

/// The dead letters, as they were read last.
#[derive(Default)]
struct Letters {
    of_handler: BTreeMap<String, u64>,
    /// What the stream held then.
    stream: Option<(u64, u64)>,
    again: Option<Instant>,
}

impl Letters {
    /// Reads them if the stream has changed, and not too often.
    async fn look(&mut self, connection: &Connection) -> Result<(), Error> {
        let stream = connection
            .stream(DEAD)
            .await?
            .map(|info| (info.state.messages, info.state.last_seq));
        let began = Instant::now();
        if stream == self.stream || self.again.is_some_and(|again| began < again) {
            return Ok(());
        }
        let mut counts = BTreeMap::new();
        if stream.is_some() {
            let count = |letter: Letter| {
                *counts.entry(handler_of(&letter.subject).to_owned()).or_insert(0) += 1;
            };
            // `jetmesh status` says what cannot be read.
            drop(select::each(connection, &Filter::default(), false, count).await?);
        }
        (self.of_handler, self.stream) = (counts, stream);
        self.again = Some(Instant::now() + DEAD_PAUSE.max(began.elapsed() * DEAD_SHARE));
        Ok(())
    }
}

/// A stream or a bucket of the mesh is created when it is needed first.
fn none_without_stream<T: Default>(asked: Result<T, Error>) -> Result<T, Error> {
    match asked {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => Ok(T::default()),
        asked => asked,
    }
}
