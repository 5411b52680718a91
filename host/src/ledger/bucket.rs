//! The one that appends to a bucket's ledger on this host, and reads the bucket's keys. Every reconnect is a restart:
//! head and index are read again, and what was begun before is run again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::append::{self, Answer, Applied, Next, Transaction, after_refusal, batch, moot};
use super::entry::{Death, Entry, Incarnation, READER, Subjects};
use super::index::{Decided, Index};
use super::session::{Link, Session};
use super::{read, send};
use crate::broker::connection::token;
use crate::broker::provision::kv_stream;
use crate::broker::{By, Error};
use crate::effects::Read;
use crate::fault;
use crate::message::{EventId, now_ms, rfc3339};
use crate::plan::Nats;

/// How long a commit goes on trying before the event is handed back to the server.
const COMMIT_LIMIT: Duration = Duration::from_secs(20);
/// How long to wait for another copy of a refused batch.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// After so many looks without any movement it is no other copy that is in the way.
const LOOKS_BEFORE_TORN: u32 = 100;
/// Keys whose revisions are remembered.
const REVISIONS_MAX: usize = 10_000;

/// A decision that stands in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// By this append.
    Here { entry: u64 },
    /// Earlier, or by another host.
    Before(Decided),
}

/// Why nothing could be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// What it rests on has changed: run it again.
    Conflict,
    /// It can never be committed.
    TooLarge(String),
    /// NATS is out of reach, or the bucket needs a person.
    Host(String),
}

/// The ledger of one bucket.
pub struct Bucket {
    pub name: String,
    pub(super) stream: String,
    pub(super) subjects: Subjects,
    host: String,
    pub(super) nats: Nats,
    pub(super) session: Mutex<Option<Session>>,
    turn: Mutex<()>,
    /// What readers need of the session; `None` while there is none.
    pub(super) link: StdMutex<Option<Link>>,
    index: StdMutex<Index>,
    pub(super) sessions: AtomicU64,
    /// Which making of the bucket this host has seen first; another one has forgotten what was decided.
    pub(super) making: StdMutex<Option<String>>,
    /// What every head from now on says of source streams.
    pub(super) incarnations: StdMutex<BTreeMap<String, Incarnation>>,
    /// Refused batches since the start, for `status`.
    refusals: AtomicU64,
    /// The last error of opening, so that it is logged once and not with each event.
    pub(super) trouble: StdMutex<Option<String>>,
}

impl Bucket {
    pub fn new(name: &str, host: &str, nats: Nats) -> Bucket {
        Bucket {
            name: name.to_owned(),
            stream: kv_stream(name),
            subjects: Subjects::new(name),
            host: host.to_owned(),
            nats,
            session: Mutex::new(None),
            turn: Mutex::new(()),
            link: StdMutex::new(None),
            index: StdMutex::default(),
            sessions: AtomicU64::new(0),
            making: StdMutex::new(None),
            incarnations: StdMutex::default(),
            refusals: AtomicU64::new(0),
            trouble: StdMutex::new(None),
        }
    }

    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// How an event stands, as far as this host has read.
    pub fn decided(&self, handler: &str, event: &EventId) -> Option<Decided> {
        self.index().decided(handler, event)
    }

    pub fn floor(&self, handler: &str, incarnation: &str) -> u64 {
        self.index().floor(handler, incarnation)
    }

    /// Everything of a handler at or below `sequence` is decided: to be said by the next append.
    pub fn raise_floor(&self, handler: &str, incarnation: &str, sequence: u64) {
        self.index().raise(handler, incarnation, sequence);
    }

    /// Which session reads belong to now; a transaction that began in an earlier one is run again.
    pub fn session_number(&self) -> u64 {
        self.link().map_or(0, |link| link.number)
    }

    /// The bucket's name for this making of itself, and what its head remembers of a source stream. Opens the ledger if
    /// it is not open.
    pub async fn identity(&self, stream: &str) -> Result<(String, Option<Incarnation>), Error> {
        let mut session = self.session.lock().await;
        let session = self.ensure(&mut session).await?;
        Ok((
            session.head.bucket.clone(),
            session.head.incarnations.get(stream).cloned(),
        ))
    }

    /// From now on appends carry this of a source stream.
    pub fn remember(&self, stream: &str, incarnation: &Incarnation) {
        let mut known = self.incarnations.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(stream.to_owned(), incarnation.clone());
    }

    /// Reads everything that other hosts have appended.
    pub async fn catch_up(&self) -> Result<(), Error> {
        let mut guard = self.session.lock().await;
        let session = self.ensure(&mut guard).await?;
        self.sync(session, "").await.map(|_| ())
    }

    /// The death record of an event, if it is dead: the entry that decided it and the record's sequence.
    pub async fn death(&self, handler: &str, event: &EventId) -> Result<Option<(u64, u64)>, Error> {
        let mut guard = self.session.lock().await;
        let session = self.ensure(&mut guard).await?;
        let subject = self.subjects.death(handler, &event.to_string());
        let Some(stored) = session.connection.stored(&self.stream, By::Last(&subject)).await? else {
            return Ok(None);
        };
        let death: Death = read::parse(&subject, &stored.payload)?;
        Ok((death.verdict == super::entry::Verdict::Dead).then_some((death.n, stored.sequence)))
    }

    /// The right to commit next. Whoever has to run again keeps it meanwhile: what it reads then is not overtaken by its
    /// neighbours on this host, however hot the key.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Appends a decision with its writes and consequences, once.
    ///
    /// `began`: the session in which its reads were made. Resolves every refusal and every unknown outcome by reading
    /// the ledger.
    pub async fn commit(&self, mut tx: Transaction, began: u64) -> Result<Committed, Fault> {
        let limit = Instant::now() + COMMIT_LIMIT;
        let append = token();
        let mut guard = self.session.lock().await;
        let mut reads_of = began;
        let mut sent = false;
        let (mut unknown, mut looks) = (0u32, 0u32);
        loop {
            if Instant::now() > limit {
                return Err(Fault::Host("the commit could not be finished in time".to_owned()));
            }
            let session = match self.ensure(&mut guard).await {
                Ok(session) => session,
                Err(error) if error.passes() => {
                    tokio::time::sleep(LOOK_AGAIN * 10).await;
                    continue;
                }
                Err(error) => return Err(Fault::Host(error.to_string())),
            };
            let decided = moot(self.decided(&tx.handler, &tx.event), tx.death);
            if let Some(decided) = decided {
                let own = sent && self.own_entry(session, decided, &append).await;
                return Ok(if own {
                    Committed::Here { entry: session.head.n }
                } else {
                    Committed::Before(decided)
                });
            }
            if session.number != reads_of {
                // Nothing was read: nothing can have changed.
                if !tx.reads.is_empty() || !tx.writes.is_empty() {
                    return Err(Fault::Conflict);
                }
                reads_of = session.number;
            }
            match self.step(session, &mut tx, &append, unknown >= 2).await {
                Ok(Step::Done(entry)) => return Ok(Committed::Here { entry }),
                Ok(Step::Before(decided)) => return Ok(Committed::Before(decided)),
                Ok(Step::RunAgain) => return Err(Fault::Conflict),
                Ok(Step::Again) => sent = true,
                Ok(Step::LookAgain) => {
                    (sent, looks) = (true, looks + 1);
                    if looks == LOOKS_BEFORE_TORN && self.is_torn(session).await {
                        let text = format!(
                            "bucket {}: entry {} lies beyond the head: the server kept only part of a batch",
                            self.name,
                            session.head.n + 1
                        );
                        self.report(&text);
                        return Err(Fault::Host(text));
                    }
                    if looks > LOOKS_BEFORE_TORN {
                        return Err(Fault::Host("a commit is refused and nothing has moved".to_owned()));
                    }
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Ok(Step::Unknown) => {
                    (sent, unknown) = (true, unknown + 1);
                    // "Nobody is there" is answered at once.
                    tokio::time::sleep(LOOK_AGAIN * unknown.min(50)).await;
                }
                Ok(Step::TooLarge(text)) => return Err(Fault::TooLarge(text)),
                Ok(Step::Named(text)) => {
                    let text = format!("bucket {}: the server refuses to store the commit: {text}", self.name);
                    self.report(&text);
                    return Err(Fault::Host(text));
                }
                // The connection is gone: the next round begins with a new session.
                Err(_) => {
                    sent = true;
                    self.drop_session(&mut guard);
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
        }
    }

    /// Sends the append once and resolves the answer.
    async fn step(
        &self,
        session: &mut Session,
        tx: &mut Transaction,
        append: &str,
        careful: bool,
    ) -> Result<Step, Error> {
        for key in tx.writes.keys() {
            // A key that was written and never read: upon whatever is there.
            if !tx.reads.contains_key(key) {
                let revision = self.revision(&session.connection, key).await?;
                tx.reads.insert(key.clone(), Read { revision });
            }
        }
        let stale = |(key, read): (&String, &Read)| session.revisions.get(key).is_some_and(|now| *now > read.revision);
        if tx.reads.iter().any(stale) {
            return Ok(Step::RunAgain);
        }
        let at = rfc3339(now_ms());
        let by = append::By {
            append,
            host: &self.host,
            at: &at,
        };
        let applied = {
            let index = self.index();
            let (floors, reads_from) = (index.floors(), index.reads_from());
            let mut head = session.head.clone();
            head.incarnations
                .extend(self.incarnations.lock().unwrap_or_else(PoisonError::into_inner).clone());
            Applied {
                head,
                head_sequence: session.head_sequence,
                floors,
                reads_from,
            }
        };
        let payload_max = session.connection.client.max_payload();
        let (records, head) = match batch(&self.name, &applied, tx, by, payload_max) {
            Ok(batch) => batch,
            Err(too_large) => return Ok(Step::TooLarge(too_large.to_string())),
        };
        let after_head = records
            .iter()
            .rev()
            .position(|r| r.subject == self.subjects.head())
            .unwrap_or(0);
        fault::point("commit-sent");
        match send::send(&session.connection, &records, careful).await {
            Answer::Committed(last) => {
                fault::point("commit-confirmed");
                session.head_sequence = last - after_head as u64;
                session.head = head;
                if session.revisions.len() > REVISIONS_MAX {
                    session.revisions.clear();
                }
                // The keys are the last messages of the batch, whose sequences are contiguous.
                let first = last + 1 - tx.writes.len() as u64;
                session.revisions.extend(tx.writes.keys().cloned().zip(first..));
                self.take(&tx.decision, session.head.n);
                Ok(Step::Done(session.head.n))
            }
            Answer::Refused => {
                self.refusals.fetch_add(1, Ordering::Relaxed);
                let before = session.head.n;
                let own = self.sync(session, append).await?;
                let decided = moot(self.decided(&tx.handler, &tx.event), tx.death);
                let moved = own.is_none() && self.moved(&session.connection, tx).await?;
                Ok(
                    match after_refusal(own.is_some(), decided, moved, session.head.n > before) {
                        Next::Committed => Step::Done(own.unwrap_or(session.head.n)),
                        Next::Decided(decided) => Step::Before(decided),
                        Next::RunAgain => Step::RunAgain,
                        Next::SendAgain => Step::Again,
                        Next::LookAgain => Step::LookAgain,
                    },
                )
            }
            Answer::Unknown if session.connection.is_closed() => Err(Error::Gone {
                what: "a commit".to_owned(),
            }),
            Answer::Unknown => Ok(Step::Unknown),
            Answer::Named(text) => Ok(Step::Named(text)),
        }
    }

    async fn is_torn(&self, session: &Session) -> bool {
        let subject = self.subjects.entry(session.head.n + 1);
        matches!(
            session.connection.stored(&self.stream, By::Last(&subject)).await,
            Ok(Some(_))
        )
    }

    fn take(&self, decision: &super::entry::Decision, n: u64) {
        let entry = Entry {
            n,
            append: String::new(),
            host: String::new(),
            at: String::new(),
            min_reader: READER,
            decisions: vec![decision.clone()],
            writes: Vec::new(),
        };
        self.index().apply(&entry);
    }

    /// Whether the entry that decided an event is this append's: known after a session that broke.
    async fn own_entry(&self, session: &Session, decided: Decided, append: &str) -> bool {
        let (Decided::Done { entry } | Decided::Dead { entry }) = decided else {
            return false;
        };
        let subject = self.subjects.entry(entry);
        match session.connection.stored(&self.stream, By::Last(&subject)).await {
            Ok(Some(stored)) => {
                serde_json::from_slice::<Entry>(&stored.payload).is_ok_and(|entry| entry.append == append)
            }
            Ok(None) | Err(_) => false,
        }
    }

    pub(super) fn link(&self) -> Option<Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn index(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Step {
    Done(u64),
    Before(Decided),
    RunAgain,
    Again,
    LookAgain,
    Unknown,
    TooLarge(String),
    Named(String),
}
