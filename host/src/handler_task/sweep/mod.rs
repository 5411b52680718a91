//! The search for lost events: the server believes them settled, and no host has decided them. With a ledger this is the
//! advance of its floor; without one, the attempt records show what was left behind.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::OwnedSemaphorePermit;

use self::decide::{Leftover, SEQUENCES, is_quiet, leftover, never_given, next_width};
use crate::broker::consumer::{ConsumerInfo, META_INCARNATION};
use crate::broker::kv::kv_stream;
use crate::broker::provision::{ATTEMPTS, kept};
use crate::broker::scan::{From, Scanned, one_by_one, survey};
use crate::broker::{Connections, Error, StreamInfo};
use crate::event::clock::now_ms;
use crate::event::{EventId, parse_rfc3339};
use crate::failpoint;
use crate::handler_task::behind;
use crate::handler_task::circuit::Circuit;
use crate::handler_task::counters::Counters;
use crate::handler_task::dead_lettering::{self, DeadLettered, DeadLetters};
use crate::handler_task::hindered::{Hindered, HinderedWork, Why};
use crate::handler_task::in_flight::InFlight;
use crate::handler_task::lane::Lane;
use crate::handler_task::links::Link;
use crate::handler_task::settle::ack_by_sequence;
use crate::ledger::Bucket;
use crate::mesh_streams::attempts;
use crate::mesh_streams::replay_queue;
use crate::plan::{Handler, Plan};
use crate::process::panics::caught;
use crate::trouble::Weight;

mod decide;

/// How often the floor is raised and what was lost is looked for, at least.
pub const EVERY: Duration = Duration::from_secs(60);

/// How long until the next sweep of a handler: those of thousands do not come at the same moment.
pub fn pause() -> Duration {
    let usual = || EVERY.mul_f64(rand::rng().random_range(0.75..1.0));
    failpoint::number("sweep-ms").map_or_else(usual, Duration::from_millis)
}

/// One sweep of a handler, until the drain begins. `only`: the handler's right to sweep.
pub async fn begin(lane: Arc<Lane>, link: Arc<Link>, only: OwnedSemaphorePermit) {
    let sweep = Sweep {
        plan: &lane.plan,
        whole: &lane.whole,
        link: &link,
        bucket: lane.bucket.as_ref(),
        in_flight: &lane.in_flight,
        dead_letters: &lane.dead_letters,
        counters: &lane.counters,
        hindered: &lane.hindered,
        circuit: &lane.circuit,
        connections: &lane.connections,
    };
    let swept = std::pin::pin!(async {
        tokio::select! {
            () = lane.drain.begun() => {}
            () = sweep.run() => {}
        }
    });
    if let Err(panic) = caught(swept).await {
        let handler = &lane.plan.name;
        let count = lane.drain.panics.note(&format!("sweep of {handler}"), &panic);
        tracing::error!(handler, %panic, count, again_in = ?EVERY, "a sweep has panicked");
    }
    drop(only);
}

/// What a sweep looks at.
struct Sweep<'a> {
    plan: &'a Handler,
    whole: &'a Plan,
    link: &'a Link,
    bucket: Option<&'a Arc<Bucket>>,
    in_flight: &'a InFlight,
    dead_letters: &'a DeadLetters,
    counters: &'a Counters,
    hindered: &'a Hindered,
    circuit: &'a Circuit,
    connections: &'a Connections,
}

impl Sweep<'_> {
    async fn run(&self) {
        // The semaphore is never closed.
        let _place = self.connections.sweeps.acquire().await.ok();
        failpoint::point("sweep");
        let Err(error) = self.all().await else {
            return self.hindered.over(&HinderedWork::Sweep);
        };
        self.hindered.met(HinderedWork::Sweep, Why::from(&error), EVERY);
        let handler = &self.plan.name;
        if error.passes() {
            tracing::debug!(%handler, %error, "the sweep was interrupted; the next one continues");
        } else {
            trouble!(Weight::of(false), handler, error, { %handler, %error }, "the sweep cannot work");
        }
    }

    async fn all(&self) -> Result<(), Error> {
        let (plan, connection) = (self.plan, &self.link.connection);
        let stream = connection.stream(&plan.stream).await?;
        // First the server's view, then the ledger: what was acked before the first was committed before the second.
        let consumer = connection.consumer(&plan.stream, &plan.consumer).await?;
        let (Some(stream), Some(consumer)) = (stream, consumer) else {
            // The lane finds that out as well, and makes what is missing.
            return Ok(());
        };
        removed(plan, self.counters, self.link, &stream, &consumer);
        if behind::look(connection, plan, &consumer, &stream).await? {
            // Its figures said nothing; the lane binds it again.
            return Ok(());
        }
        if let Some(bucket) = self.bucket {
            bucket.catch_up().await?;
        }
        // The records first: an event that its stream has removed is seen only by its record.
        let records = kv_stream(ATTEMPTS);
        kept(connection, self.whole, &records, self.records()).await?;
        if let Some(bucket) = self.bucket {
            self.raise_floors(bucket, (&consumer, &stream)).await?;
            failpoint::point("floors-raised");
            bucket.collect(self.whole.ledger_keep).await?;
        }
        Ok(())
    }

    /// Attempt records that no host will change any more.
    async fn records(&self) -> Result<(), Error> {
        for event in attempts::events(&self.link.connection, &self.plan.name).await? {
            self.unless_unreadable(&event, self.record(&event).await)?;
        }
        Ok(())
    }

    async fn record(&self, event: &EventId) -> Result<(), Error> {
        let (plan, connection) = (self.plan, &self.link.connection);
        if self.is_decided(event) {
            return attempts::remove(connection, &plan.name, event).await;
        }
        // What is at work or of another incarnation of the stream needs no reading.
        if !self.link.has(event) || self.in_flight.contains(event) {
            return Ok(());
        }
        let held = attempts::load(connection, &plan.name, event).await?;
        let attempts = dead_lettering::of_record(&held.record);
        // It may have been removed or begun meanwhile.
        if held.revision == 0 || !is_quiet(plan, attempts.last_ms, now_ms()) || self.in_flight.contains(event) {
            return Ok(());
        }
        let in_stream = self.dead_letters.body_in_stream(event).await?.is_some();
        match leftover(plan, in_stream, held.record.attempts, held.record.given_up.is_some()) {
            Leftover::Kept => Ok(()),
            Leftover::Forgotten => attempts::remove(connection, &plan.name, event).await,
            Leftover::Lost => {
                self.dead_letters.dead_letter_lost(event, attempts).await?;
                attempts::remove(connection, &plan.name, event).await
            }
            Leftover::Exhausted => self.exhausted(event, &held.record).await,
        }
    }

    /// Moves the floors up to the first message that is not decided, and has undecided ones run or dead-lettered.
    /// `info`: how its consumer stood before the ledger was read, and `stream` before that.
    async fn raise_floors(&self, bucket: &Bucket, (info, stream): (&ConsumerInfo, &StreamInfo)) -> Result<(), Error> {
        let (plan, link) = (self.plan, self.link);
        if info.metadata(META_INCARNATION) != Some(&*link.incarnation) {
            // Another incarnation's, with other sequences: the lane finds that out before it takes anything from it.
            return Ok(());
        }
        let end = stream.state.last_seq;
        let settled = info.settled_floor().min(end);
        for (token, first, last) in link.ranges() {
            let reach = self.reach((bucket, info), (token, first, last.min(settled))).await?;
            let Some(mut reach) = reach else { continue };
            if *token == link.incarnation {
                // No floor passes the message by which it is seen that the stream has lost its last messages: what comes in the place
                // of what was lost would be below it.
                let time = stream.state.last_ts.as_deref().and_then(parse_rfc3339);
                if let Some(time_ms) = time.filter(|_| reach == end) {
                    bucket.saw(&plan.stream, &link.event(end), time_ms);
                }
                reach = reach.min(bucket.seen(&plan.stream));
            }
            bucket.raise_floor(&plan.name, token, reach);
        }
        Ok(())
    }

    /// How far the events of one incarnation are decided, up to where the server has settled them. `None`: no further than
    /// known.
    async fn reach(
        &self,
        (bucket, info): (&Bucket, &ConsumerInfo),
        (token, begin, settled): (&Arc<str>, u64, u64),
    ) -> Result<Option<u64>, Error> {
        let (plan, link) = (self.plan, self.link);
        let floor = bucket.floor(&plan.name, token).max(begin - 1);
        if settled <= floor {
            return Ok(None);
        }
        let mut reach = settled.min(self.recorded_below(token, floor).await?);
        if let Some(lowest) = self.in_flight.lowest(token) {
            reach = reach.min(lowest - 1);
        }
        // What lies before the consumer's start was never its.
        let start = info.start()?.unwrap_or(floor + 1);
        let (mut first, mut width) = ((floor + 1).max(start), SEQUENCES);
        // What is not there any more needs no looking at.
        while let Some(next) = link.connection.stored_next(&plan.stream, first, ">").await? {
            first = next.sequence;
            if first > settled {
                break;
            }
            let last = settled.min(first + width - 1);
            let found = self.matching(first, last).await?;
            width = next_width(width, found.len() as u64);
            for sequence in found {
                if !self.swept(sequence).await? {
                    reach = reach.min(sequence - 1);
                }
            }
            first = last + 1;
            tokio::task::yield_now().await;
        }
        Ok(Some(reach).filter(|reach| *reach > floor))
    }

    /// Up to here no undecided event has a record. What its stream has removed is not among the matching messages, and yet
    /// it may be undecided.
    async fn recorded_below(&self, token: &Arc<str>, floor: u64) -> Result<u64, Error> {
        let records = attempts::events(&self.link.connection, &self.plan.name).await?;
        let above = records
            .iter()
            .filter(|event| event.incarnation == *token && event.sequence > floor);
        let undecided = above.filter(|event| !self.is_decided(event));
        Ok(undecided.map(|event| event.sequence - 1).min().unwrap_or(u64::MAX))
    }

    /// Looks at one message below the server's own floor. `false`: it is undecided, and is on its way to be.
    async fn swept(&self, sequence: u64) -> Result<bool, Error> {
        let (plan, link) = (self.plan, self.link);
        let event = link.event(sequence);
        if self.is_decided(&event) {
            if link.removes {
                ack_by_sequence(&link.connection, &plan.stream, &plan.consumer, sequence).await?;
            }
            return Ok(true);
        }
        if !self.in_flight.contains(&event) {
            self.unless_unreadable(&event, self.recover(&event).await)?;
        }
        Ok(false)
    }

    fn is_decided(&self, event: &EventId) -> bool {
        self.bucket.is_some_and(|b| b.decided(&self.plan.name, event).is_some())
    }

    /// An event of which the record cannot be read waits for a person, and keeps no other.
    fn unless_unreadable(&self, event: &EventId, swept: Result<(), Error>) -> Result<(), Error> {
        match swept {
            Err(error @ Error::Unreadable { .. }) => {
                let handler = &self.plan.name;
                trouble!(Weight::Person, event, error, { %handler, %event, %error }, "an event waits until this is corrected");
                self.hindered
                    .met(HinderedWork::Event(event.clone()), Why::from(&error), EVERY);
                Ok(())
            }
            swept => swept,
        }
    }

    /// An event that the server will not deliver again, undecided.
    async fn recover(&self, event: &EventId) -> Result<(), Error> {
        let (plan, connection) = (self.plan, &self.link.connection);
        let held = attempts::load(connection, &plan.name, event).await?;
        if held.record.attempts < plan.retry.max_attempts && held.record.given_up.is_none() {
            if self.circuit.is_paused() {
                return Ok(());
            }
            tracing::info!(handler = %plan.name, %event, "found undecided: it is run once more");
            return replay_queue::ask(connection, &plan.name, event).await;
        }
        self.exhausted(event, &held.record).await
    }

    /// Dead-letters an event without attempts left.
    async fn exhausted(&self, event: &EventId, record: &attempts::AttemptRecord) -> Result<(), Error> {
        let (plan, connection) = (self.plan, &self.link.connection);
        let dead = dead_lettering::left_behind(record, plan.retry.max_attempts);
        match self.dead_letters.body_in_stream(event).await? {
            None => self.dead_letters.dead_letter_lost(event, dead.record).await?,
            Some(body) => {
                if self.dead_letters.dead_letter(event, &dead, Some(body)).await? == DeadLettered::Now {
                    tracing::warn!(handler = %plan.name, %event, attempt = dead.record.attempts, cause = %dead.cause,
                        code = dead.failure.code, error = dead.failure.message, "dead");
                }
            }
        }
        ack_by_sequence(connection, &plan.stream, &plan.consumer, event.sequence).await?;
        attempts::remove(connection, &plan.name, event).await
    }

    /// The sequences of the handler's messages in a range.
    async fn matching(&self, first: u64, last: u64) -> Result<Vec<u64>, Error> {
        let (stream, filters) = (&self.plan.stream, &self.plan.subjects);
        if !self.link.removes {
            let from = From::Sequence(first);
            // Each of these has a connection of its own.
            let _place = self.connections.surveys.acquire().await;
            let mut found = Vec::new();
            let see = |scanned: Scanned| {
                found.push(scanned.sequence);
                ControlFlow::Continue(())
            };
            survey(&self.whole.nats, stream, filters, (from, last), see).await?;
            return Ok(found);
        }
        // It gives messages only to those that ack them; but it holds only what is not acked.
        one_by_one(&self.link.connection, stream, filters, first, last).await
    }
}

/// Reports what the stream removed before it was delivered to the handler; which events these were is not known.
pub fn removed(plan: &Handler, counters: &Counters, link: &Link, stream: &StreamInfo, consumer: &ConsumerInfo) {
    // Where acks remove messages, the beginning says nothing.
    if link.removes {
        return;
    }
    let given = consumer.delivered.stream_seq;
    let known = link.known_first.fetch_max(stream.state.first_seq, Ordering::Relaxed);
    let gone = never_given(known, given, stream.state.first_seq);
    if gone == 0 {
        return;
    }
    Counters::add(&counters.removed, gone);
    tracing::warn!(handler = %plan.name, stream = %plan.stream, messages = gone,
        first = stream.state.first_seq, delivered = given, limits = stream.removes_by().join(", "),
        "the stream has removed messages before they were delivered: by its limits, or by a person");
}
