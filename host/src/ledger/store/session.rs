//! A bucket's session: one connection, over which head and index were read. When it is closed, everything is read again over
//! the next one.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::bucket::{Bucket, Ends, Trouble, tell};
use super::known::gone_bucket;
use super::read;
use crate::broker::bucket::check_ledger_bucket;
use crate::broker::error::Code;
use crate::broker::{By, Connection, Error};
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::ledger::core::book::Read;
use crate::ledger::core::entry::{Entry, Head, READER};
use crate::ledger::core::opening::Opening;
use crate::ledger::relay;
use crate::trouble::{self, Weight};

/// From this number of entries on, the time that reading them took is logged: it is some seconds.
const TOLD: u64 = 100_000;

impl Bucket {
    /// The present session's connection; opens one if there is none.
    pub(super) async fn connection(&self) -> Result<Connection, Error> {
        if let Some(connection) = self.present() {
            return Ok(connection);
        }
        let _opening = self.opening.lock().await;
        if let Some(connection) = self.present() {
            return Ok(connection);
        }
        // Boxed: a task that waits for an event would contain its many kilobytes, and it runs once a connection.
        match Box::pin(self.open()).await {
            Ok(connection) => {
                self.works_again(Ends::Opened);
                self.refused.store(false, Ordering::Relaxed);
                *self.link.lock() = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                if !error.passes() {
                    self.report(&error.to_string(), Ends::Opened);
                    self.refused.store(true, Ordering::Relaxed);
                }
                Err(error)
            }
        }
    }

    pub(super) fn present(&self) -> Option<Connection> {
        self.with_present(Connection::clone)
    }

    /// What is to be known of the present connection, if there is one.
    pub(super) fn with_present<T>(&self, of: impl FnOnce(&Connection) -> T) -> Option<T> {
        let link = self.link.lock();
        link.as_ref().filter(|connection| !connection.is_closed()).map(of)
    }

    /// Ends the present session. `why`: if requests were not answered any more, its connection is not used again.
    pub(super) fn drop_session(&self, why: &Error) {
        let link = self.link.lock().take();
        if matches!(why, Error::Timeout { .. }) {
            *self.unanswered.lock() = link;
        }
    }

    /// Nothing that was read is believed: the next one who needs it reads it again.
    pub(super) fn forget_session(&self) {
        *self.link.lock() = None;
    }

    /// An error of a read may mean that the bucket was deleted: then the next caller who needs the bucket finds that out.
    pub(super) fn look_again_upon(&self, error: &Error) {
        if error.code() == Some(Code::STREAM_NOT_FOUND) {
            self.forget_session();
            self.joined.notify_one();
        }
    }

    /// Reads the head and every entry up to it.
    pub(super) async fn sync(&self, connection: &Connection) -> Result<(), Error> {
        let Some((head, sequence)) = read::head(connection, &self.stream, &self.subjects).await? else {
            return Err(Error::Missing {
                what: format!("the head of bucket {}", self.name),
            });
        };
        let (known, known_sequence) = {
            let book = self.book();
            if head.bucket != book.head.bucket {
                return Err(Error::Missing {
                    what: format!("the ledger of bucket {}", self.name),
                });
            }
            (book.head.n, book.head_sequence)
        };
        if head.n > known {
            let (from, after) = (known + 1, known_sequence);
            let see = |entry: &Entry, sequence| match self.apply(entry, sequence) {
                Read::Applied(fates) => {
                    tell(fates);
                    if entry.host != self.host {
                        self.heard();
                    }
                }
                // Another task of this host has read it meanwhile.
                Read::Known | Read::Gap => {}
            };
            self.each(connection, (from, head.n), after, see).await?;
        }
        let mut book = self.book();
        if head.n < known {
            return Err(Error::Missing {
                what: format!("the end of the ledger of bucket {}", self.name),
            });
        }
        book.confirm_head(head, sequence);
        Ok(())
    }

    async fn open(&self) -> Result<Connection, Error> {
        let unanswered = self.unanswered.lock().clone();
        let connection = self.connections.ledgers.connection(unanswered.as_ref()).await?;
        *self.unanswered.lock() = None;
        // The semaphore is never closed.
        let _turn = self.connections.ledgers.starts.acquire().await.ok();
        let info = connection.stream(&self.stream).await?;
        let info = info.ok_or_else(|| gone_bucket(&self.name))?;
        check_ledger_bucket(&self.name, &info)?;
        relay::consumer::reconcile(&connection, &self.name, &info).await?;
        self.complete_own(&connection).await?;
        let known = self.incarnation.lock().clone();
        let (head, sequence) = match read::head(&connection, &self.stream, &self.subjects).await? {
            Some(found) => found,
            None if known.is_some() => return Err(self.forgotten()),
            None => read::begin(&connection, &self.stream, &self.subjects).await?,
        };
        if known.is_some_and(|known| known != head.bucket) {
            return Err(self.forgotten());
        }
        if head.min_reader > READER {
            return Err(Error::Refused(format!(
                "bucket {}: its ledger was written by a newer jetmesh (format {}, this host reads {READER}): upgrade",
                self.name, head.min_reader
            )));
        }
        let (head, sequence) = self.repair(&connection, head, sequence).await?;
        *self.end.lock() = sequence;
        let payload_max = connection.client.max_payload();
        let bucket = head.bucket.clone();
        let began = Instant::now();
        let opening = self.read_anew(&connection, &head, sequence).await?;
        let entries = opening.entries();
        if entries > TOLD {
            let took = began.elapsed();
            tracing::info!(bucket = %self.name, entries, ?took, "the ledger has been read");
        }
        *self.incarnation.lock() = Some(bucket);
        let fates = self.book().finish(opening, payload_max);
        tell(fates);
        Ok(connection)
    }

    /// Reads the entries that a new connection needs; if some are collected, those that the floors do not cover.
    async fn read_anew(&self, connection: &Connection, head: &Head, sequence: u64) -> Result<Opening, Error> {
        let read = async |from: u64| {
            let mut opening = self.book().begin(head.clone(), sequence, from);
            if head.n >= from {
                let feed = |entry: &Entry, sequence| opening.feed(entry, sequence);
                self.each(connection, (from, head.n), 0, feed).await?;
            }
            Ok(opening)
        };
        let from = self.book().reads_from(head);
        match read(from).await {
            Err(Error::Missing { .. } | Error::Answer { .. }) if from < head.index_from => {
                read(head.index_from.max(1)).await
            }
            read => read,
        }
    }

    /// See [`read::each`].
    async fn each(
        &self,
        connection: &Connection,
        range: (u64, u64),
        after_sequence: u64,
        mut see: impl FnMut(&Entry, u64),
    ) -> Result<(), Error> {
        if read::few(connection, &self.stream, &self.subjects, range, &mut see).await? {
            return Ok(());
        }
        let reader = self.reader().await?;
        let each = read::each(&reader, &self.stream, &self.subjects, range, after_sequence, see);
        each.await.inspect_err(|error| self.look_elsewhere_upon(error, &reader))
    }

    /// A connection on which what others have written into the ledger's stream breaks nothing.
    pub(super) async fn reader(&self) -> Result<Connection, Error> {
        let deaf = self.deaf.lock().take();
        self.connections.reader(deaf.as_ref()).await
    }

    /// Over a connection on which requests are not answered any more nothing is read again.
    pub(super) fn look_elsewhere_upon(&self, error: &Error, reader: &Connection) {
        if matches!(error, Error::Timeout { .. }) {
            *self.deaf.lock() = Some(reader.clone());
        }
    }

    fn forgotten(&self) -> Error {
        Error::Refused(format!(
            "bucket {} was purged, or deleted and created again, while this host ran, and its decisions are lost: \
             restore it, or restart the host, which names the handlers concerned",
            self.name
        ))
    }

    /// Why nothing can be appended although nothing has moved.
    pub(super) async fn stuck(&self, connection: &Connection, n: u64) -> String {
        let subject = self.subjects.entry(n);
        match connection.stored(&self.stream, By::Last(&subject)).await {
            Ok(Some(stored)) if let Some(error) = read::in_the_way(&stored, &self.stream) => {
                format!("bucket {}: {error}", self.name)
            }
            Ok(Some(_)) => format!(
                "bucket {}: entry {n} is newer than the head: the server kept only a part of a batch",
                self.name
            ),
            Ok(None) | Err(_) => format!("bucket {}: a commit is refused and nothing has moved", self.name),
        }
    }

    /// Says what keeps it from working, once. `ends`: what shows that it is over.
    pub(super) fn report(&self, text: &str, ends: Ends) {
        let mut trouble = self.trouble.lock();
        let (since_ms, count) = trouble.as_ref().map_or((now_ms(), 0), |t| (t.since_ms, t.count));
        let bucket = &self.name;
        trouble!(Weight::Person, bucket, text, { %bucket, error = text }, "the ledger is stopped");
        *trouble = Some(Trouble {
            why: text.to_owned(),
            since_ms,
            count: count + 1,
            ends,
        });
    }

    /// It works, as far as this shows.
    pub(super) fn works_again(&self, shown: Ends) {
        let mut trouble = self.trouble.lock();
        let trouble = trouble.take_if(|trouble| shown == Ends::Stored || trouble.ends == shown);
        if let Some(Trouble { since_ms, count, .. }) = trouble
            && trouble::over("the ledger is stopped", &self.name).is_some()
        {
            tracing::warn!(bucket = %self.name, since = rfc3339(since_ms), times = count, "the ledger works again");
        }
    }
}
