//! How database and stream agree on what is published. The stream's marker decides; the database follows it by deleting rows. They
//! differ after a crash between the two, and after one of them was restored from a backup: then the stream is read from where
//! the database stands.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::error::Error;
use super::letter;
use super::marker::{Marker, Pause, RowRef, SkippedRow, row_of};
use super::sides::Sides;
use super::stream::{self, Marked};
use super::table::TablePosition;
use crate::broker::scan::{From, LOOKS, survey};
use crate::event::{MESSAGE_ID, header, rfc3339};
use crate::plan::Outbox;

/// What database and stream agree on.
#[derive(Debug, Clone)]
pub struct Agreement {
    pub position: TablePosition,
    /// The sequence of the newest marker; 0: there is none.
    pub marker: u64,
    pub marked_ms: u64,
    pub paused: Option<Pause>,
    /// Rows that become dead letters when they are read.
    pub skip: Vec<SkippedRow>,
    /// The stream has events of this database only behind this sequence.
    pub since: u64,
    /// What was found, if one of the two was an older copy.
    pub restored: Option<String>,
}

impl Agreement {
    /// The next marker of a host, which settles no row.
    pub fn next_marker(&self, host: &str) -> Marker {
        Marker {
            database: self.position.database.clone(),
            batch: self.position.batch,
            host: host.to_owned(),
            since: self.since,
            paused: self.paused.clone(),
            skip: self.skip.clone(),
            ..Marker::default()
        }
    }

    /// The number of the next batch. A marker that settles no row has the number of the one before it: what an older copy of the
    /// database lacks is counted by these numbers.
    pub fn next_batch(&self, settles: bool) -> u64 {
        self.position.batch + u64::from(settles)
    }

    /// Where the database stands when it has confirmed that marker. `created`: when the stream was created.
    pub fn next_position(&self, (batch, sequence): (u64, u64), created: &str) -> TablePosition {
        TablePosition {
            database: self.position.database.clone(),
            batch,
            sequence,
            created: created.to_owned(),
        }
    }
}

impl Sides<'_> {
    /// Whether both agree, without changing anything. `Err`: how they stand.
    pub async fn agreed(&self) -> Result<Result<Agreement, (TablePosition, Option<Marked>)>, Error> {
        let position = self.database.position().await?;
        let marked = stream::newest(self.connection, self.outbox).await?;
        if let Some(marked) = &marked {
            self.check_database(&position, &marked.marker, marked.time_ms)?;
        }
        let (batch, sequence) = marked.as_ref().map_or((0, 0), |m| (m.marker.batch, m.sequence));
        // After its stream has lost its end, the database is ahead until the next batch.
        let known = position.sequence == sequence && position.created == self.target.created;
        let same = (known && batch <= position.batch) || (position.batch == 0 && marked.is_none());
        Ok(match same {
            true => Ok(standing(position, marked.as_ref(), None)),
            false => Err((position, marked)),
        })
    }

    /// The same; where they differ, the database follows the stream.
    ///
    /// # Cancel safety
    /// Dropped half-way, the next call does the rest.
    pub async fn agree(&self, position: TablePosition, marked: Option<Marked>) -> Result<Agreement, Error> {
        let mut settled = self.published(&position, marked.as_ref()).await?;
        let count = settled.len();
        let missing = self.database.missing(settled.clone()).await?;
        let (batch, sequence) = marked.as_ref().map_or((0, 0), |m| (m.marker.batch, m.sequence));
        if let Some(marked) = &marked {
            settled.extend(&marked.marker.rows);
            for dead in &marked.marker.dead {
                let at = dead.row;
                if let Some(row) = self.database.find(at).await? {
                    letter::store(self, &position.database, &row, &dead.why).await?;
                    settled.push(at);
                }
            }
        }
        let next = TablePosition {
            batch: batch.max(position.batch),
            sequence,
            created: self.target.created.clone(),
            ..position.clone()
        };
        if !self.database.confirm(&position, &next, settled).await? {
            return Err(Error::Moved);
        }
        let former = Some(&position.created).filter(|one| !one.is_empty() && **one != self.target.created);
        let found = Differing {
            outbox: self.outbox,
            created: &self.target.created,
            former: former.map(String::as_str),
            had: position.batch,
            marked: batch,
            events: count,
            missing: &missing,
        };
        let restored = found.told();
        match &restored {
            Some(what) => tracing::warn!(outbox = self.outbox.name, "{what}"),
            None if count > missing.len() => {
                let rows = count - missing.len();
                tracing::info!(
                    outbox = self.outbox.name,
                    rows,
                    "rows that were published before are deleted"
                );
            }
            None => {}
        }
        Ok(standing(next, marked.as_ref(), restored))
    }

    /// The rows that lie in the stream as events, beyond what the database has confirmed.
    async fn published(&self, position: &TablePosition, marked: Option<&Marked>) -> Result<Vec<RowRef>, Error> {
        let (stream, name) = (&self.outbox.stream, &self.outbox.name);
        let info = self.connection.stream(stream).await?;
        let last = info.as_ref().map_or(0, |info| info.state.last_seq);
        let until = marked.map_or(last, |marked| marked.sequence);
        let same = position.created == self.target.created && position.sequence <= last;
        let mut first = if same { position.sequence + 1 } else { 1 };
        if position.sequence == 0 {
            // What is before that was published from the database that this one has replaced.
            first = first.max(marked.map_or(0, |marked| marked.marker.since) + 1);
        }
        let mut found = BTreeSet::new();
        if first > until {
            return Ok(Vec::new());
        }
        if info.is_some_and(|info| info.retention() == "workqueue") {
            // It has no further consumer.
            let mut next = first;
            while let Some(stored) = self.connection.stored_next(stream, next, ">").await? {
                if stored.sequence > until {
                    break;
                }
                next = stored.sequence + 1;
                let headers = stored.headers().unwrap_or_default();
                found.extend(header(&headers, MESSAGE_ID).and_then(|id| row_of(name, id)));
            }
            return Ok(found.into_iter().collect());
        }
        // The semaphore is never closed.
        let _place = LOOKS.acquire().await.ok();
        let range = (From::Sequence(first), until);
        survey(&self.plan.nats, stream, &[], range, |scanned| {
            let id = scanned
                .message
                .headers
                .as_ref()
                .and_then(|headers| headers.get(MESSAGE_ID));
            found.extend(id.and_then(|id| row_of(name, id.as_str())));
            ControlFlow::Continue(())
        })
        .await?;
        Ok(found.into_iter().collect())
    }

    /// A stream holds the rows of one database.
    fn check_database(&self, position: &TablePosition, marker: &Marker, time_ms: u64) -> Result<(), Error> {
        // A marker that was written to pause the outbox before anything was published names none.
        if marker.database.is_empty() || marker.database == position.database {
            return Ok(());
        }
        let (name, stream) = (&self.outbox.name, &self.outbox.stream);
        Err(Error::Person(format!(
            "stream {stream} has events of outbox {name} from another database than {}: host {} published the last at {}. Name the \
             same database on all hosts, or give the outbox another name. If this database takes the place of that one: \
             `jetmesh outbox resume {name} --new-database`",
            self.outbox.database.told(),
            marker.host,
            rfc3339(time_ms)
        )))
    }
}

fn standing(position: TablePosition, marked: Option<&Marked>, restored: Option<String>) -> Agreement {
    Agreement {
        position,
        marker: marked.map_or(0, |marked| marked.sequence),
        marked_ms: marked.map_or(0, |marked| marked.time_ms),
        paused: marked.and_then(|marked| marked.marker.paused.clone()),
        skip: marked.map_or_else(Vec::new, |marked| marked.marker.skip.clone()),
        since: marked.map_or(0, |marked| marked.marker.since),
        restored,
    }
}

/// How far database and stream were apart.
struct Differing<'a> {
    outbox: &'a Outbox,
    /// When the stream was created, and when another one was into which the database was published before.
    created: &'a str,
    former: Option<&'a str>,
    /// The number of the marker that the database had confirmed, and of the newest in the stream.
    had: u64,
    marked: u64,
    /// Events of the outbox that the stream holds beyond what the database had confirmed.
    events: usize,
    /// Those without a row.
    missing: &'a [RowRef],
}

impl Differing<'_> {
    /// What a person should know. `None`: nothing but a relay that ended between publishing and deleting.
    fn told(&self) -> Option<String> {
        let Differing {
            outbox,
            created,
            former,
            had,
            marked,
            events,
            missing,
        } = self;
        let name = &outbox.name;
        let ahead = marked.saturating_sub(*had);
        if let Some(former) = former.filter(|_| marked < had) {
            let stream = &outbox.stream;
            return Some(format!(
                "the stream of outbox {name} is older than its database, or another one: {had} batches were published into a stream that \
                 was created at {former}, and {stream}, created at {created}, ends at batch {marked}. If the other stream is gone, what \
                 it held is gone from both; if it is there, two meshes have this database, and one must not"
            ));
        }
        if marked < had {
            return Some(format!(
                "the stream of outbox {name} is older than its database: it ends at batch {marked}, and {had} batches were \
                 published; what those held is gone from both"
            ));
        }
        let (Some(first), Some(last)) = (missing.first(), missing.last()) else {
            return (ahead > 1).then(|| match events {
                0 => format!(
                    "the database of outbox {name} is older than its stream, by {ahead} batches, and the stream has no events of \
                     these: rows of them that the database still has are published again"
                ),
                _ => format!(
                    "the database of outbox {name} is older than its stream, by {ahead} batches; none of their {events} events is \
                     published again"
                ),
            });
        };
        let by = match ahead {
            0 => String::new(),
            ahead => format!(", by {ahead} batches"),
        };
        Some(format!(
            "the database of outbox {name} is older than its stream{by}: {} events of the stream, ids {} to {}, have no \
             row any more, so their transactions are undone in the database and not in the stream; no event is published again",
            missing.len(),
            outbox.row_name(first.0),
            outbox.row_name(last.0)
        ))
    }
}
