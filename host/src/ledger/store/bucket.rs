//! The ledger of one bucket on this host: what lanes ask of it. What is known stands in the [`Book`]; the committer sends
//! what has joined.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock, RwLockWriteGuard, oneshot};
use tokio::time::timeout;

use crate::broker::kv::kv_stream;
use crate::broker::{Connection, Connections, Error};
use crate::event::EventId;
use crate::failpoint;
use crate::failpoint::mistake::Mistake;
use crate::histogram::Histogram;
use crate::ledger::core::append::Batch;
use crate::ledger::core::book::{Appended, Book, Read};
use crate::ledger::core::entry::{Entry, Id, Incarnation, Subjects};
use crate::ledger::core::fate::{CommitError, CommitResult, Committed, Fates};
use crate::ledger::core::index::Decided;
use crate::ledger::core::join::Join;
use crate::ledger::core::transaction::Transaction;

/// Keys of one bucket that are kept at hand, in bytes at most: some hundred thousand small ones.
const CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Who waits for a transaction.
pub type Waiter = oneshot::Sender<CommitResult>;

/// The ledger of one bucket.
pub struct Bucket {
    pub name: String,
    pub(super) stream: String,
    pub(super) subjects: Subjects,
    pub(super) host: String,
    /// Those of its thread.
    pub(super) connections: Arc<Connections>,
    /// A connection over which nothing was answered any more: the next session has another one.
    pub(super) unanswered: Mutex<Option<Connection>>,
    /// The same of one that it was read over.
    pub(super) deaf: Mutex<Option<Connection>>,
    /// Held by the one that opens a connection.
    pub(super) opening: tokio::sync::Mutex<()>,
    /// The connection of the present session.
    pub(super) link: Mutex<Option<Connection>>,
    book: std::sync::Mutex<Book<Waiter>>,
    /// Something has joined.
    pub(super) joined: Notify,
    /// An entry has been read, or stored.
    applied: Notify,
    turn: RwLock<()>,
    /// Another host has appended.
    pub(super) others: Notify,
    /// The same, for the committer that gives way.
    pub(super) their_turn: Notify,
    heard: Mutex<Option<Instant>>,
    /// The incarnation of the bucket that this host has seen first; another one does not contain what was decided.
    pub(super) incarnation: Mutex<Option<String>>,
    /// The last batch that was sent, as long as it is not certain that the server has kept all of it, or nothing.
    pub(super) doubtful: Mutex<Option<Batch>>,
    /// The sequence of the last message of the last confirmed commit; the stream had at least this last sequence then.
    pub(super) end: Mutex<u64>,
    /// When its beginning was last looked at, and its newest entry then.
    pub(super) collected: Mutex<Option<(Instant, u64)>>,
    /// Refused batches since the start, for `status`.
    pub(super) refusals: AtomicU64,
    /// How long appends of groups took, in nanoseconds, and how many decisions they had.
    pub appends: Histogram,
    pub groups: Histogram,
    /// Keys that handlers have asked for since the start, and how many of them were not at hand.
    pub(super) reads: AtomicU64,
    pub(super) fetched: AtomicU64,
    /// The last error of opening, so that it is logged once and not with each event.
    pub(super) trouble: Mutex<Option<Trouble>>,
    /// It cannot be opened before a person acts.
    pub(super) refused: AtomicBool,
}

/// Why nothing can be appended.
#[derive(Debug, Clone)]
pub struct Trouble {
    pub why: String,
    pub since_ms: u64,
    /// How often it was met.
    pub count: u64,
    /// What shows that it is over.
    pub ends: Ends,
}

/// What shows that a trouble is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// The ledger is opened.
    Opened,
    /// Something is stored: a server that can store nothing lets everything be read.
    Stored,
}

/// The right to join alone: no other transaction joins meanwhile, so that what its holder reads is not overtaken by other
/// events on this host, however often the key is written.
pub type Alone<'a> = RwLockWriteGuard<'a, ()>;

impl Bucket {
    /// `cache_bytes_max`: how much of its keys is kept at hand; at most 64 MiB.
    pub fn new(name: &str, host: &str, connections: Arc<Connections>, cache_bytes_max: usize) -> Bucket {
        Bucket {
            name: name.to_owned(),
            stream: kv_stream(name),
            subjects: Subjects::new(name),
            host: host.to_owned(),
            connections,
            unanswered: Mutex::new(None),
            deaf: Mutex::new(None),
            opening: tokio::sync::Mutex::new(()),
            link: Mutex::new(None),
            book: std::sync::Mutex::new(Book::new(
                name,
                cache_bytes_max.min(CACHE_BYTES_MAX),
                failpoint::planted(),
            )),
            joined: Notify::new(),
            applied: Notify::new(),
            turn: RwLock::new(()),
            others: Notify::new(),
            their_turn: Notify::new(),
            heard: Mutex::new(None),
            incarnation: Mutex::new(None),
            doubtful: Mutex::new(None),
            end: Mutex::new(0),
            collected: Mutex::new(None),
            refusals: AtomicU64::new(0),
            appends: Histogram::times(),
            groups: Histogram::sizes(),
            reads: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            trouble: Mutex::new(None),
            refused: AtomicBool::new(false),
        }
    }

    /// Why it does not work, if it does not.
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().clone()
    }

    /// Why its handlers must take nothing: it cannot be opened before a person acts.
    pub fn refused(&self) -> Option<String> {
        let refused = self.refused.load(Ordering::Relaxed);
        refused.then(|| self.trouble().map_or_else(String::new, |trouble| trouble.why))
    }

    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Keys that handlers have asked for since the start, and how many of them had to be fetched.
    pub fn reads(&self) -> (u64, u64) {
        (self.reads.load(Ordering::Relaxed), self.fetched.load(Ordering::Relaxed))
    }

    /// How an event stands, as far as this host has read.
    pub fn decided(&self, handler: &str, event: &EventId) -> Option<Decided> {
        self.book().index.decided(handler, event)
    }

    /// The event that was the first of this id, if it is another one and decided.
    pub fn first_of(&self, handler: &str, id: &Id, event: &EventId) -> Option<EventId> {
        self.book().index.first_of(handler, id, event).map(|(first, _)| first)
    }

    pub fn floor(&self, handler: &str, incarnation: &str) -> u64 {
        self.book().index.floor(handler, incarnation)
    }

    /// Everything of a handler at or below `sequence` is decided: to be said by the next append.
    pub fn raise_floor(&self, handler: &str, incarnation: &str, sequence: u64) {
        self.book().index.raise(handler, incarnation, sequence);
    }

    /// The newest event of a source stream that [`Bucket::saw`] was told of, or that the ledger knows.
    pub fn seen(&self, stream: &str) -> u64 {
        self.book().incarnations.get(stream).map_or(0, |known| known.sequence)
    }

    /// Which session reads belong to now; a transaction that began in an earlier one is run again.
    pub fn session_number(&self) -> u64 {
        self.book().session
    }

    /// Opens the ledger if it is not open.
    pub async fn ready(&self) -> Result<(), Error> {
        self.connection().await.map(|_| ())
    }

    /// The token of this incarnation of the bucket, and what its head contains about a source stream. Opens the ledger if it is
    /// not open.
    pub async fn identity(&self, stream: &str) -> Result<(String, Option<Incarnation>), Error> {
        self.connection().await?;
        let book = self.book();
        let mut known = book.head.incarnations.get(stream).cloned();
        if let (Some(known), Some(own)) = (&mut known, book.incarnations.get(stream)) {
            known.merge(own);
        }
        Ok((book.head.bucket.clone(), known))
    }

    /// From now on appends carry this of a source stream.
    pub fn remember(&self, stream: &str, incarnation: &Incarnation) {
        let mut book = self.book();
        let mut incarnation = incarnation.clone();
        if let Some(known) = book.incarnations.get(stream) {
            incarnation.merge(known);
        }
        book.incarnations.insert(stream.to_owned(), incarnation);
    }

    /// An event of a source stream is about to be decided. The next host that binds a consumer sees by it whether the stream
    /// still has all decided events.
    pub fn saw(&self, stream: &str, event: &EventId, time_ms: u64) {
        if let Some(known) = self.book().incarnations.get_mut(stream) {
            known.saw(&event.incarnation, event.sequence, time_ms);
        }
    }

    /// Reads everything that other hosts have appended.
    pub async fn catch_up(&self) -> Result<(), Error> {
        let connection = self.connection().await?;
        self.sync(&connection)
            .await
            .inspect_err(|error| self.look_again_upon(error))
    }

    /// The newest entry that this host knows.
    pub fn newest(&self) -> u64 {
        self.book().head.n
    }

    /// Takes in an entry as the bucket holds it.
    pub(super) fn apply(&self, entry: &Entry, sequence: u64) -> Read<Waiter> {
        let mut book = self.book();
        failpoint::point("book-held");
        let read = book.apply(entry, sequence);
        drop(book);
        self.applied.notify_waiters();
        read
    }

    /// An entry as the bucket holds it, as far as this host knows.
    pub fn appended(&self, n: u64) -> Option<Appended> {
        self.book().appended(n).cloned()
    }

    /// The same when this host has read that far, or when this time is over.
    pub async fn appended_within(&self, n: u64, limit: Duration) -> Option<Appended> {
        let read = async {
            loop {
                let applied = self.applied.notified();
                if self.newest() >= n {
                    return;
                }
                applied.await;
            }
        };
        let _ = timeout(limit, read).await;
        self.appended(n)
    }

    /// Another host has appended just now.
    pub(super) fn heard(&self) {
        *self.heard.lock() = Some(Instant::now());
        self.others.notify_one();
        self.their_turn.notify_one();
    }

    /// How long no other host has appended, as far as is known here.
    pub(super) fn quiet_for(&self) -> Duration {
        let heard = *self.heard.lock();
        heard.map_or(Duration::MAX, |at| at.elapsed())
    }

    /// A run that failed rested on these keys; the next one reads them from the leader.
    pub fn doubt<'a>(&self, keys: impl Iterator<Item = &'a String>) {
        self.book().doubt(keys);
    }

    /// Waits until no transaction is joining, and holds others off.
    pub async fn alone(&self) -> Alone<'_> {
        self.turn.write().await
    }

    /// Appends a decision with its writes and consequences, once; returns when it is known what has become of it. The
    /// transaction joins a group here; the ledger's own task, [`committer`](super::committer), sends the group and tells.
    ///
    /// # Cancel safety
    /// Dropped half-way, the transaction may be committed anyway.
    pub async fn commit(&self, tx: Transaction) -> CommitResult {
        let shared = self.turn.read().await;
        let joined = self.join(tx).await;
        drop(shared);
        self.told(joined).await
    }

    /// The same for the one that is alone.
    pub async fn commit_alone(&self, tx: Transaction, alone: Alone<'_>) -> CommitResult {
        let joined = self.join(tx).await;
        drop(alone);
        self.told(joined).await
    }

    async fn join(&self, mut tx: Transaction) -> Result<oneshot::Receiver<CommitResult>, CommitResult> {
        let (mut waiter, told) = oneshot::channel();
        loop {
            let (joined, planted) = {
                let mut book = self.book();
                (book.join(tx, waiter), book.planted)
            };
            match joined {
                Join::Joined => {
                    self.joined.notify_one();
                    if planted.is(Mistake::AckBeforeCommit) {
                        return Err(Ok(Committed::Here { entry: 0 }));
                    }
                    return Ok(told);
                }
                Join::Over(_, fate) => return Err(fate),
                Join::Missing(keys, back, waits) => {
                    (tx, waiter) = (*back, waits);
                    let learnt = async {
                        let connection = self.connection().await?;
                        self.fetch(&connection, keys).await
                    };
                    match Box::pin(learnt).await {
                        Ok(keys) => {
                            let mut book = self.book();
                            keys.into_iter()
                                .for_each(|(key, revision, value)| book.learn(&key, revision, value));
                        }
                        Err(error) => return Err(Err(CommitError::Host(error.to_string()))),
                    }
                }
            }
        }
    }

    async fn told(&self, joined: Result<oneshot::Receiver<CommitResult>, CommitResult>) -> CommitResult {
        match joined {
            Ok(told) => told.await.unwrap_or_else(|_| {
                Err(CommitError::Host(
                    "the ledger is read again, or the host is ending".to_owned(),
                ))
            }),
            Err(fate) => fate,
        }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book<Waiter>> {
        self.book.lock().unwrap_or_else(|half_way| self.begin_again(half_way))
    }

    /// A step has panicked and may have left the book half-way: nothing of it is believed. Those who wait are told
    /// nothing, and what has become of their transactions is read from the ledger.
    fn begin_again<'a>(&self, half_way: PoisonError<MutexGuard<'a, Book<Waiter>>>) -> MutexGuard<'a, Book<Waiter>> {
        self.book.clear_poison();
        let mut book = half_way.into_inner();
        let (session, incarnations) = (book.session + 1, std::mem::take(&mut book.incarnations));
        *book = Book::new(&self.name, CACHE_BYTES_MAX, failpoint::planted());
        (book.session, book.incarnations) = (session, incarnations);
        self.forget_session();
        self.joined.notify_one();
        tracing::warn!(bucket = %self.name, "a step of the ledger has panicked: the ledger is read again");
        book
    }
}

/// Tells those who wait.
pub(super) fn tell(fates: Fates<Waiter>) {
    for (waiter, fate) in fates {
        // The task that waited may have ended; the decision stands anyway.
        let _ = waiter.send(fate);
    }
}
