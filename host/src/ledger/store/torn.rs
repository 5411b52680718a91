//! A batch of which the server has kept only some messages. Servers before 2.15 go on with a batch of which one message could
//! not be stored: on a full disk the large ones are missing (consequences, the entry), and small ones after them are there
//! (the head, keys), which the server may even confirm. The host that has sent it knows all of it, and completes it.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use super::bucket::{Bucket, Ends};
use super::read;
use super::send::{self, BATCH_ID};
use crate::broker::{By, Connection, Error, Stored};
use crate::event::header;
use crate::ledger::core::append::{Batch, BatchAnswer};
use crate::ledger::core::record::{Expect, Record};

/// Between two tries while the server still has no room.
const AGAIN: Duration = Duration::from_secs(1);
/// Messages that are looked for at a time.
const LOOKS: usize = 32;

/// How one message of a batch stands.
enum Lies {
    /// It is there, with this sequence.
    Ours(u64),
    /// It is not, and its place is as the batch expects it.
    Missing,
    /// Something that came later has its place.
    Superseded,
}

impl Bucket {
    /// From now on it is in doubt what the server has kept of this batch.
    pub(super) fn doubts(&self, batch: &Batch) {
        *self.doubtful.lock() = Some(batch.clone());
    }

    /// It is certain that all of it is there, or nothing.
    pub(super) fn is_certain(&self) {
        *self.doubtful.lock() = None;
    }

    /// Whether a confirmed batch of this number of messages can have been stored whole, by the sequence of its last one:
    /// sequences in a bucket only grow.
    pub(super) fn is_whole(&self, last: u64, messages: usize) -> bool {
        let mut end = self.end.lock();
        let whole = last >= *end + messages as u64;
        *end = last;
        whole
    }

    /// Completes the batch that is in doubt, if a part of it is stored and a part is not; waits while the server has no room.
    /// `true`: it did, and the ledger has to be read again.
    pub(super) async fn complete_own(&self, connection: &Connection) -> Result<bool, Error> {
        let Some(batch) = self.doubtful.lock().clone() else {
            return Ok(false);
        };
        let (mut torn, entry) = (false, batch.entry.n);
        // Below this, all was whole, and may be collected.
        let head = read::head(connection, &self.stream, &self.subjects).await?;
        if head.is_some_and(|(head, _)| head.index_from > entry) {
            self.is_certain();
            return Ok(false);
        }
        loop {
            let missing = self.missing_of(connection, &batch).await?;
            if missing.is_empty() {
                self.is_certain();
                if torn {
                    tracing::warn!(bucket = %self.name, entry, "a batch of which the server had kept only a part is completed");
                }
                return Ok(torn);
            }
            torn = true;
            match send::send(connection, (&batch.entry.append, &missing), false).await {
                // It is looked once more whether all is there now.
                BatchAnswer::Committed(_) => continue,
                BatchAnswer::Named(text) => {
                    let messages = missing.len();
                    let why = format!(
                        "bucket {}: the server has kept only a part of entry {entry} and refuses the other {messages} \
                         message(s): {text}",
                        self.name
                    );
                    self.report(&why, Ends::Stored);
                }
                BatchAnswer::Refused | BatchAnswer::Unknown => {}
            }
            if connection.is_closed() {
                return Err(Error::Gone {
                    what: "completing a commit".to_owned(),
                });
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// What is to be stored so that all of a batch is there. Nothing, if nothing of it is.
    async fn missing_of(&self, connection: &Connection, batch: &Batch) -> Result<Vec<Record>, Error> {
        // Expectations of other subjects are held by the server before it stores anything.
        let own = |record: &Record| !matches!(record.expect, Expect::LastOf { .. });
        let looks: Vec<BoxFuture<'_, _>> = (batch.records.iter().enumerate())
            .filter(|(_, record)| own(record))
            .map(|(at, record)| self.look(connection, (at, record), &batch.entry.append).boxed())
            .collect();
        let found: Vec<(usize, &Record, Lies)> = stream::iter(looks).buffered(LOOKS).try_collect().await?;
        let any = found.iter().any(|(.., lies)| matches!(lies, Lies::Ours(_)));
        let entry = found
            .iter()
            .find(|(at, ..)| *at == batch.entry_at)
            .map(|(.., lies)| lies);
        if !any || matches!(entry, Some(Lies::Superseded)) {
            return Ok(Vec::new());
        }
        // The sequences of an entry and of what comes after it are contiguous: if the entry is missing, all are written again.
        let all = matches!(entry, Some(Lies::Missing));
        let missing = found.into_iter().filter_map(|(_, record, lies)| {
            let expect = match lies {
                Lies::Missing => record.expect.clone(),
                Lies::Ours(_) if !all => return None,
                Lies::Ours(_) if record.expect == Expect::Nothing => Expect::Nothing,
                Lies::Ours(sequence) => Expect::Last(sequence),
                Lies::Superseded => return None,
            };
            Some(Record {
                expect,
                ..record.clone()
            })
        });
        Ok(missing.collect())
    }
}

impl Bucket {
    async fn look<'a>(
        &self,
        connection: &Connection,
        (at, record): (usize, &'a Record),
        append: &str,
    ) -> Result<(usize, &'a Record, Lies), Error> {
        let stored = connection.stored(&self.stream, By::Last(&record.subject)).await?;
        Ok((at, record, lies(record, stored.as_ref(), append)))
    }
}

fn lies(record: &Record, stored: Option<&Stored>, append: &str) -> Lies {
    let is_ours = |stored: &&Stored| {
        let headers = stored.headers().unwrap_or_default();
        let id = header(&headers, BATCH_ID).and_then(|id| id.strip_prefix(append));
        id.is_some_and(|rest| rest.starts_with('-'))
    };
    if let Some(ours) = stored.filter(is_ours) {
        return Lies::Ours(ours.sequence);
    }
    match (&record.expect, stored.map_or(0, |stored| stored.sequence)) {
        (Expect::Last(expected), there) if *expected != there => Lies::Superseded,
        _ => Lies::Missing,
    }
}
