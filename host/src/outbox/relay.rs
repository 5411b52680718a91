//! The relay of an outbox: rows of the table become events of the stream, in the order of their ids, each once. Any number of hosts
//! run one for the same outbox: each batch follows the marker that its relay has seen, so of two one is refused, and stands by.

use std::sync::Arc;
use std::time::Duration;

use super::STOPPED;
use super::agree::Agreement;
use super::database::Database;
use super::error::Error;
use super::group::{OutboxGroup, bytes_max, rows_max};
use super::letter;
use super::marker::{Marker, Pause, RowRef, SkippedRow, message_id};
use super::row::OutboxRow;
use super::sides::Sides;
use super::state::{OutboxStanding, OutboxState};
use super::stream::{self, BatchRefusal, OutboxStream, refusal};
use super::table::{Backlog, TablePosition};
use crate::broker::Connection;
use crate::broker::batch::BatchMessage;
use crate::broker::connection::EXPECTED;
use crate::event::clock::now_ms;
use crate::event::{MESSAGE_ID, header_map, parse_rfc3339};
use crate::failpoint::{self, mistake::Mistake};
use crate::plan::{Outbox, Plan};
use crate::process::drain::Drain;
use crate::trouble::{self, Weight};

/// How often a relay looks that has nothing to do, that stands by, or that is paused.
pub const IDLE: Duration = Duration::from_secs(1);
/// Markers that may lie in the stream before those that nothing reads are removed.
const SWEEP_AFTER: u32 = 64;

pub struct OutboxRelay {
    pub plan: Arc<Plan>,
    pub outbox: Outbox,
    pub host: String,
    pub state: Arc<OutboxState>,
    pub database: Database,
    pub drain: Drain,
    pub connection: Connection,
    pub target: OutboxStream,
    /// How many rows the next batch has at most: fewer while one is looked for that the stream refuses.
    pub rows_max: usize,
    /// Batches since the markers were swept.
    pub unswept: u32,
    /// Another relay publishes; the first row that was there at the last look.
    pub standby: Option<Option<RowRef>>,
}

/// What a relay does next.
enum NextStep {
    /// The drain has begun.
    End,
    /// Look at the table again.
    Look,
    /// See how database and stream stand.
    Agree,
}

impl OutboxRelay {
    /// Publishes until the drain begins.
    pub async fn serve(&mut self) -> Result<(), Error> {
        loop {
            let mut standing = match self.agree().await {
                Ok(Some(standing)) => standing,
                Ok(None) => return Ok(()),
                Err(Error::Busy) => {
                    self.stand_by().await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            loop {
                match self.step(&mut standing).await {
                    Ok(NextStep::Look) => {}
                    Ok(NextStep::Agree) | Err(Error::Moved) => break,
                    Ok(NextStep::End) => return Ok(()),
                    Err(Error::Busy) => {
                        self.stand_by().await;
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Another host reads the log: it publishes.
    async fn stand_by(&mut self) {
        self.works(OutboxStanding::Standby, None);
        self.pause(IDLE).await;
    }

    /// All is well, as far as this host can see: it has published or looked, or has no need to.
    fn works(&self, standing: OutboxStanding, why: Option<String>) {
        if !self.state.stands(standing, why).is_kept() {
            return;
        }
        let outbox = &self.outbox.name;
        let Some(times) = trouble::over(STOPPED, outbox) else {
            return;
        };
        match standing {
            OutboxStanding::Publishing => tracing::warn!(outbox, times, "an outbox publishes again"),
            _ => tracing::warn!(
                outbox,
                times,
                state = standing.word(),
                "nothing keeps an outbox from publishing any more"
            ),
        }
    }

    fn sides(&self) -> Sides<'_> {
        Sides {
            plan: &self.plan,
            outbox: &self.outbox,
            connection: &self.connection,
            database: &self.database,
            target: &self.target,
        }
    }

    /// What database and stream agree on, after what is needed for that. `None`: the drain has begun.
    async fn agree(&mut self) -> Result<Option<Agreement>, Error> {
        let mut before = None;
        loop {
            if self.drain.has_begun() {
                return Ok(None);
            }
            let (position, marked) = match self.sides().agreed().await? {
                Ok(standing) => {
                    self.state.feeds(&self.target.created);
                    return Ok(Some(standing));
                }
                Err(differing) => differing,
            };
            if self.feeds_another(&position) {
                // Its own may have been made again since this relay began.
                self.target = stream::target(&self.connection, &self.outbox).await?;
                if self.feeds_another(&position) {
                    return Err(self.two_streams(&position));
                }
            }
            // While another relay publishes, they differ for a moment at each batch.
            let marker = marked.as_ref().map(|marked| marked.sequence);
            if self.standby.is_some() && before != Some(marker) {
                before = Some(marker);
                self.pause(IDLE).await;
                continue;
            }
            match self.sides().agree(position, marked).await {
                Ok(standing) => {
                    self.state.feeds(&self.target.created);
                    if let Some(what) = &standing.restored {
                        self.state.restored(what.clone());
                    }
                    return Ok(Some(standing));
                }
                Err(Error::Moved) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether another stream than this host's has rows of the database: a newer one, since this host has published.
    fn feeds_another(&self, position: &TablePosition) -> bool {
        let newer = parse_rfc3339(&position.created) > parse_rfc3339(&self.target.created);
        newer && self.state.has_fed(&self.target.created)
    }

    fn two_streams(&self, position: &TablePosition) -> Error {
        let (name, stream) = (&self.outbox.name, &self.outbox.stream);
        Error::Person(format!(
            "rows of {} go into two streams: into {stream} of this mesh, which was created at {}, and into another one, which was created \
             at {}. Each row goes into one of them: let one mesh have the database as an outbox. If the other stream is gone, start \
             this host again, and {stream} gets the rows of outbox {name}",
            self.outbox.database.told(),
            self.target.created,
            position.created
        ))
    }

    async fn step(&mut self, standing: &mut Agreement) -> Result<NextStep, Error> {
        if self.drain.has_begun() {
            return Ok(NextStep::End);
        }
        if let Some(pause) = &standing.paused {
            self.paused(pause).await?;
            return Ok(NextStep::Agree);
        }
        let looked = self.database.look(self.rows_max, bytes_max()).await?;
        if looked.position != standing.position {
            return Ok(NextStep::Agree);
        }
        let first = looked.rows.first().map(|row| row.at);
        if let Some(before) = self.standby {
            if first.is_none() || before != first {
                self.tell_backlog().await?;
                if looked.whole {
                    self.works(OutboxStanding::Standby, None);
                }
                self.standby = Some(first);
                self.pause(IDLE).await;
                return Ok(NextStep::Agree);
            }
            tracing::info!(outbox = self.outbox.name, "this host takes over the outbox");
            self.standby = None;
        }
        if first.is_none() {
            return self.idle(standing, looked.whole).await;
        }
        let mut group = OutboxGroup::of(skipped(looked.rows, &standing.skip), &self.target.limits);
        group.point = looked.point;
        self.settle(standing, group).await
    }

    /// Publishes a group, and deletes its rows when it is stored.
    async fn settle(&mut self, standing: &mut Agreement, mut group: OutboxGroup) -> Result<NextStep, Error> {
        failpoint::point("outbox-before");
        loop {
            let refused = match self.send(standing, &group).await? {
                Ok(sequence) => {
                    self.stored(standing, &group, sequence).await?;
                    return Ok(NextStep::Look);
                }
                Err(refused) => refused,
            };
            match refused {
                BatchRefusal::Broken(error) => return Err(error),
                BatchRefusal::Fenced => {
                    tracing::debug!(outbox = self.outbox.name, "another relay was faster");
                    self.standby = Some(None);
                    self.tell_backlog().await?;
                    self.works(OutboxStanding::Standby, None);
                    self.pause(IDLE).await;
                    return Ok(NextStep::Agree);
                }
                // Which of several it is, smaller batches show.
                BatchRefusal::Event(_) | BatchRefusal::Known if group.events.len() > 1 => {
                    self.rows_max = (group.rows().len() / 2).max(1);
                    return Ok(NextStep::Look);
                }
                BatchRefusal::Event(why) if !group.events.is_empty() => group.dead_letter_the_event(&why),
                BatchRefusal::Known if !group.events.is_empty() => group.know_the_event(),
                BatchRefusal::Event(why) => return Err(Error::Person(format!("the marker is refused: {why}"))),
                BatchRefusal::Known => return Err(Error::Person("the marker is refused as a duplicate".to_owned())),
            }
        }
    }

    async fn stored(&mut self, standing: &mut Agreement, group: &OutboxGroup, sequence: u64) -> Result<(), Error> {
        failpoint::point("outbox-stored");
        for (row, dead) in &group.dead {
            letter::store(&self.sides(), &standing.position.database, row, &dead.why).await?;
            failpoint::point("outbox-lettered");
        }
        let batch = standing.next_batch(!group.rows().is_empty());
        let next = standing.next_position((batch, sequence), &self.target.created);
        if !self.database.confirm(&standing.position, &next, group.rows()).await? {
            return Err(Error::Moved);
        }
        failpoint::point("outbox-confirmed");
        self.works(OutboxStanding::Publishing, None);
        self.state.settled(group.events.len(), group.dead.len());
        standing.position = next;
        standing.skip = group.unskipped(&standing.skip);
        (standing.marker, standing.marked_ms) = (sequence, now_ms());
        self.rows_max = (self.rows_max * 2).min(rows_max(&self.target.limits));
        self.unswept += 1;
        if self.unswept >= SWEEP_AFTER {
            self.unswept = 0;
            if let Err(error) = stream::sweep(&self.connection, &self.outbox).await {
                let outbox = &self.outbox.name;
                trouble!(Weight::Aside, outbox, error, { outbox, %error },
                    "old markers of an outbox cannot be removed; they take up room in its stream");
            }
            self.tell_backlog().await?;
        }
        Ok(())
    }

    /// Sends a group as a batch that follows the newest marker. `Ok(Err)`: it is not stored.
    async fn send(&self, standing: &Agreement, group: &OutboxGroup) -> Result<Result<u64, BatchRefusal>, Error> {
        let refused = |why: String| Error::Person(format!("an event cannot be written: {why}"));
        let mut messages = Vec::with_capacity(group.events.len() + 1);
        for (row, headers) in &group.events {
            let mut headers = headers.clone();
            headers.push((MESSAGE_ID.to_owned(), message_id(&self.outbox.name, row.at)));
            messages.push(BatchMessage {
                subject: row.subject.clone(),
                headers: header_map(&headers).map_err(refused)?,
                body: row.payload.clone(),
            });
        }
        let events = group.events.iter().map(|(row, _)| row.at);
        let marker = Marker {
            rows: events.chain(group.known.iter().copied()).collect(),
            dead: group.dead.iter().map(|(_, dead)| dead.clone()).collect(),
            skip: group.unskipped(&standing.skip),
            log: group.point.clone(),
            batch: standing.next_batch(!group.rows().is_empty()),
            ..standing.next_marker(&self.host)
        };
        messages.push(marker_message(&self.outbox, &marker, standing.marker));
        Ok(match self.connection.publish_batch(messages).await {
            Ok(ack) => Ok(ack.seq),
            Err(error) => Err(refusal(&self.outbox, error)),
        })
    }

    /// Nothing waits. `whole`: that is sure.
    async fn idle(&mut self, standing: &mut Agreement, whole: bool) -> Result<NextStep, Error> {
        if let Some(log) = self.tell_backlog().await?.log {
            // What the log does not have any more will not be read.
            standing.skip.retain(|one| one.id.cast_unsigned() >= log.from);
        }
        if whole {
            self.works(OutboxStanding::Publishing, None);
        }
        let old = Duration::from_millis(now_ms().saturating_sub(standing.marked_ms));
        if standing.marker > 0 && self.target.renew.is_some_and(|renew| old > renew) {
            return self.settle(standing, OutboxGroup::default()).await;
        }
        tokio::select! {
            () = self.database.changed() => {}
            () = tokio::time::sleep(IDLE) => {}
            () = self.drain.begun() => {}
        }
        Ok(NextStep::Look)
    }

    async fn paused(&self, pause: &Pause) -> Result<(), Error> {
        self.tell_backlog().await?;
        self.works(OutboxStanding::Paused, Some(pause.reason.clone()));
        self.pause(IDLE).await;
        Ok(())
    }

    async fn tell_backlog(&self) -> Result<Backlog, Error> {
        let backlog = self.database.backlog().await?;
        self.state.waits(Some(backlog));
        Ok(backlog)
    }

    /// Waits, unless the drain begins.
    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.drain.begun() => {}
        }
    }
}

/// Rows, with what a person has said of some.
fn skipped(mut rows: Vec<OutboxRow>, skip: &[SkippedRow]) -> Vec<OutboxRow> {
    for row in &mut rows {
        if let Some(one) = skip.iter().find(|one| row.is(one)) {
            row.odd = Some(one.why.clone());
        }
    }
    rows
}

/// The message of a marker that follows another one.
pub fn marker_message(outbox: &Outbox, marker: &Marker, follows: u64) -> BatchMessage {
    let mut headers = vec![(EXPECTED.to_owned(), follows.to_string())];
    if failpoint::planted().is(Mistake::OutboxUnfenced) {
        headers.clear();
    }
    BatchMessage {
        subject: outbox.marker(),
        headers: header_map(&headers).expect("a number can be written"),
        body: marker.body().into(),
    }
}
