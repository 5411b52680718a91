//! The log of a PostgreSQL as it comes: a task owns the connection, reads, answers the server's questions, and tells what is heard
//! of an outbox. It ends when the reader is dropped.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::log_buffer::LogNews;
use super::log_row::{NoOutbox, of_insert, of_message};
use super::pgoutput::{LogChange, Relation};
use super::wire::{Wire, WireRefusal};
use crate::event::clock::now_ms;
use crate::plan::{lsn, lsn_text};
use crate::trouble::Weight;

/// How often the server is asked how far it has read, and told how far the log is settled.
const TICK: Duration = Duration::from_secs(1);
/// The same until the log is read up to where it ended when the connection was made.
const FIRST_TICK: Duration = Duration::from_millis(100);
/// Most that is heard and not taken yet.
const HEARD_MAX: usize = 4096;
const HEARD_KIB_MAX: u32 = 16 * 1024;

/// Messages with this prefix are events.
const PREFIX: &str = "jetmesh";

/// What is heard, with the room that it takes up.
type ToldNews = Result<(LogNews, OwnedSemaphorePermit), WireRefusal>;

pub struct Replication {
    heard: mpsc::Receiver<ToldNews>,
    settled: Arc<AtomicU64>,
    task: JoinHandle<()>,
    /// Where the log ended when the connection was made.
    pub end: u64,
    /// Which cluster it is, and which of its histories.
    pub system: String,
    pub timeline: String,
}

impl Drop for Replication {
    fn drop(&mut self) {
        // Its connection ends with it, and another host can have the slot.
        self.task.abort();
    }
}

impl Replication {
    /// Begins to receive what a slot has not confirmed.
    #[expect(
        clippy::disallowed_methods,
        reason = "like the client's own tasks, it ends with its connection"
    )]
    pub async fn begin(
        mut wire: Wire,
        (outbox, slot, publication): (&str, &str, &str),
        changed: Arc<Notify>,
    ) -> Result<Replication, WireRefusal> {
        let row = wire.ask("IDENTIFY_SYSTEM").await?;
        let mut column = row.into_iter().map(Option::unwrap_or_default);
        let (system, timeline, end) = (column.next(), column.next(), column.next());
        wire.begin(&format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 \
             (proto_version '1', publication_names '\"{publication}\"', messages 'true')"
        ))
        .await?;
        let (tell, heard) = mpsc::channel(HEARD_MAX);
        let settled = Arc::new(AtomicU64::new(0));
        let end = end.as_deref().and_then(lsn).unwrap_or(0);
        let listener = Listener {
            outbox: outbox.to_owned(),
            wire,
            publication: publication.to_owned(),
            relations: HashMap::new(),
            time: 0,
            tell,
            room: Arc::new(Semaphore::new(HEARD_KIB_MAX as usize)),
            settled: Arc::clone(&settled),
            changed,
            first: end,
            read: 0,
        };
        Ok(Replication {
            heard,
            settled,
            task: tokio::spawn(listener.run()),
            end,
            system: system.unwrap_or_default(),
            timeline: timeline.unwrap_or_default(),
        })
    }

    /// Tells the server that it needs the log no more up to here.
    pub fn settle(&self, lsn: u64) {
        self.settled.store(lsn, Ordering::Relaxed);
    }

    /// What is heard already. `None`: nothing.
    pub fn try_hear(&mut self) -> Result<Option<LogNews>, WireRefusal> {
        match self.heard.try_recv() {
            Ok(told) => Ok(Some(told?.0)),
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(ended()),
        }
    }

    /// # Cancel safety
    /// Dropped half-way, nothing is lost.
    pub async fn hear(&mut self) -> Result<LogNews, WireRefusal> {
        match self.heard.recv().await {
            Some(told) => Ok(told?.0),
            None => Err(ended()),
        }
    }
}

fn ended() -> WireRefusal {
    WireRefusal {
        code: String::new(),
        text: "its connection has ended".to_owned(),
    }
}

struct Listener {
    outbox: String,
    wire: Wire,
    publication: String,
    relations: HashMap<u32, Relation>,
    /// When the transaction that is read was committed.
    time: i64,
    tell: mpsc::Sender<ToldNews>,
    room: Arc<Semaphore>,
    settled: Arc<AtomicU64>,
    changed: Arc<Notify>,
    /// Until this is read, the server is asked often.
    first: u64,
    read: u64,
}

impl Listener {
    async fn run(mut self) {
        if let Err(refused) = self.listen().await {
            let _ = self.tell.send(Err(refused)).await;
        }
        self.changed.notify_one();
    }

    async fn listen(&mut self) -> Result<(), WireRefusal> {
        let mut tick = interval(FIRST_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let piece = tokio::select! {
                piece = self.wire.received() => piece?,
                _ = tick.tick() => {
                    if self.read >= self.first && tick.period() == FIRST_TICK {
                        tick = interval(TICK);
                        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
                        tick.tick().await;
                    }
                    self.report().await?;
                    continue;
                }
            };
            let size = u32::try_from(piece.len() / 1024 + 1).unwrap_or(HEARD_KIB_MAX);
            let Some(heard) = self.hear(piece)? else { continue };
            let room = Arc::clone(&self.room).acquire_many_owned(size.min(HEARD_KIB_MAX));
            tokio::pin!(room);
            // The server ends a connection that is silent.
            let room = loop {
                tokio::select! {
                    room = &mut room => break room,
                    _ = tick.tick() => self.report().await?,
                }
            };
            let Ok(room) = room else { return Ok(()) };
            loop {
                tokio::select! {
                    place = self.tell.reserve() => match place {
                        Ok(place) => { place.send(Ok((heard, room))); break }
                        Err(_) => return Ok(()),
                    },
                    _ = tick.tick() => report(&mut self.wire, &self.settled).await?,
                }
            }
            self.changed.notify_one();
        }
    }

    async fn report(&mut self) -> Result<(), WireRefusal> {
        report(&mut self.wire, &self.settled).await
    }

    fn hear(&mut self, mut piece: Bytes) -> Result<Option<LogNews>, WireRefusal> {
        let short = || WireRefusal {
            code: String::new(),
            text: "a message of the log ends too early".to_owned(),
        };
        match piece.try_get_u8().map_err(|_| short())? {
            b'k' => {
                let until = piece.try_get_u64().map_err(|_| short())?;
                // Only news is told, so that a log in which nothing happens wakes no task.
                let news = until > self.read;
                self.read = until;
                Ok(news.then_some(LogNews::Read { until }))
            }
            b'w' if piece.len() >= 24 => {
                let place = piece.get_u64();
                // Where the log ends, and the time.
                piece.advance(16);
                let change = LogChange::parse(piece).map_err(|text| WireRefusal {
                    code: String::new(),
                    text,
                })?;
                self.change(change, place)
            }
            _ => Ok(None),
        }
    }

    fn change(&mut self, change: LogChange, place: u64) -> Result<Option<LogNews>, WireRefusal> {
        Ok(match change {
            LogChange::Begin { commit, time } => {
                self.time = time;
                Some(LogNews::Begin { commit })
            }
            LogChange::Commit { end } => Some(LogNews::Commit { end }),
            LogChange::Message {
                transactional: true,
                at,
                prefix,
                content,
            } if prefix == PREFIX => Some(LogNews::Row(of_message(at, self.time, &content))),
            LogChange::Message {
                transactional,
                at,
                prefix,
                ..
            } => {
                if prefix == PREFIX && !transactional {
                    let (outbox, at) = (&self.outbox, lsn_text(at));
                    tracing::warn!(
                        outbox,
                        at,
                        "a message of a log is not transactional, and therefore no event"
                    );
                }
                None
            }
            LogChange::Relation(relation) => {
                self.relations.insert(relation.id, relation);
                None
            }
            LogChange::Insert { relation, values } => {
                // The server describes a table before its first row.
                let relation = self.relations.get(&relation).ok_or_else(|| WireRefusal {
                    code: String::new(),
                    text: "a row of the log has an unknown table".to_owned(),
                })?;
                match of_insert(relation, &values, (place, self.time)) {
                    Ok(row) => Some(LogNews::Row(row)),
                    Err(lacks) => {
                        self.skipped(relation, &lacks);
                        None
                    }
                }
            }
            LogChange::Other => None,
        })
    }

    /// Tells of a row that is no event.
    fn skipped(&self, relation: &Relation, NoOutbox(lacks): &NoOutbox) {
        let (outbox, table) = (&self.outbox, &relation.table);
        let about = format!("{outbox}, table {table}");
        let fix = format!(
            "`ALTER PUBLICATION {} DROP TABLE {table}`, or add the columns: rows that are inserted after that are events",
            self.publication
        );
        trouble!(Weight::Aside, about, lacks, { outbox, table, lacks, fix },
            "a table of the publication is not an outbox; its rows are no events");
    }
}

/// Tells the server how far the log is settled, and asks how far it has read.
async fn report(wire: &mut Wire, settled: &AtomicU64) -> Result<(), WireRefusal> {
    let lsn = settled.load(Ordering::Relaxed);
    let mut piece = vec![b'r'];
    for _ in 0..3 {
        piece.extend(lsn.to_be_bytes());
    }
    // Microseconds since the year 2000.
    let time = now_ms().saturating_sub(946_684_800_000) * 1000;
    piece.extend(time.to_be_bytes());
    piece.push(1);
    wire.send(&piece).await
}
