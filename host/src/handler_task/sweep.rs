//! Looks for what everybody has lost: events that the server believes settled and that nobody has decided. With a ledger
//! this is the advance of its floor; without one, the attempt records tell what was left behind.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::OwnedSemaphorePermit;

use crate::attempts;
use crate::broker::consumer::{ConsumerInfo, META_INCARNATION};
use crate::broker::kv::kv_stream;
use crate::broker::provision::{ATTEMPTS, kept};
use crate::broker::scan::{From, Scanned, one_by_one, survey};
use crate::broker::{Error, StreamInfo};
use crate::failpoint;
use crate::handler_task::behind;
use crate::handler_task::dead_lettering;
use crate::handler_task::hindered::{What, Why};
use crate::handler_task::lane::{Counters, Lane, Link};
use crate::handler_task::replay;
use crate::handler_task::settle::ack_by_sequence;
use crate::ledger::Bucket;
use crate::message::clock::now_ms;
use crate::message::{EventId, parse_rfc3339};
use crate::process::panics::caught;
use crate::replay_queue;
use crate::trouble::Weight;

/// Sequences that are looked at in one go: of those that match, eight bytes each are in memory.
const SEQUENCES: u64 = 25_000;
/// The same where few match.
const SEQUENCES_MAX: u64 = 8 * SEQUENCES;

/// How often the floor is raised and what was lost is looked for, at least.
pub const EVERY: Duration = Duration::from_secs(60);

/// How long until the next sweep of a handler: those of thousands do not come at the same moment.
pub fn pause() -> Duration {
    EVERY.mul_f64(rand::rng().random_range(0.75..1.0))
}

/// One sweep of a handler, until the drain begins. `only`: the handler's right to sweep.
pub async fn begin(lane: Arc<Lane>, link: Arc<Link>, only: OwnedSemaphorePermit) {
    let swept = std::pin::pin!(async {
        tokio::select! {
            () = lane.drain.begun() => {}
            () = run(&lane, &link) => {}
        }
    });
    if let Err(panic) = caught(swept).await {
        let handler = &lane.plan.name;
        let count = lane.drain.panics.note(&format!("sweep of {handler}"), &panic);
        tracing::error!(handler, %panic, count, again_in = ?EVERY, "a sweep has panicked");
    }
    drop(only);
}

async fn run(lane: &Lane, link: &Link) {
    // Nobody closes it.
    let _place = lane.connections.sweeps.acquire().await.ok();
    failpoint::point("sweep");
    let swept = async {
        let stream = link.connection.stream(&lane.plan.stream).await?;
        // First the server's view, then the ledger: what was acked before the first was committed before the second.
        let consumer = link.connection.consumer(&lane.plan.stream, &lane.plan.consumer).await?;
        let (Some(stream), Some(consumer)) = (stream, consumer) else {
            // The lane finds that out as well, and makes what is missing.
            return Ok(());
        };
        removed(lane, link, &stream, &consumer);
        if behind::look(&link.connection, &lane.plan, &consumer, &stream).await? {
            // Its figures said nothing; the lane binds it again.
            return Ok(());
        }
        if let Some(bucket) = &lane.bucket {
            bucket.catch_up().await?;
        }
        // The records first: an event that its stream has removed is seen only by its record.
        let attempts = kv_stream(ATTEMPTS);
        kept(&link.connection, &lane.whole, &attempts, records(lane, link)).await?;
        match &lane.bucket {
            Some(bucket) => {
                raise_floors(lane, link, bucket, (&consumer, &stream)).await?;
                bucket.collect(lane.whole.ledger_keep).await
            }
            None => Ok(()),
        }
    };
    let swept = swept.await;
    if swept.is_ok() {
        lane.hindered.over(&What::Sweep);
    }
    if let Err(error) = swept {
        lane.hindered.met(What::Sweep, Why::from(&error), EVERY);
        let quiet = error.passes();
        if quiet {
            tracing::debug!(handler = %lane.plan.name, %error, "the sweep was interrupted; the next one continues");
        } else {
            let handler = &lane.plan.name;
            trouble!(Weight::of(false), handler, error, { %handler, %error }, "the sweep cannot work");
        }
    }
}

/// Tells of what the stream has removed before the handler was given it: nobody can say any more what it was.
pub fn removed(lane: &Lane, link: &Link, stream: &StreamInfo, consumer: &ConsumerInfo) {
    // Where acks remove messages, the beginning says nothing.
    if link.removes {
        return;
    }
    let given = consumer.delivered.stream_seq;
    let known = link.known_first.fetch_max(stream.state.first_seq, Ordering::Relaxed);
    let gone = stream.state.first_seq.saturating_sub(known.max(given + 1));
    if gone == 0 {
        return;
    }
    Counters::add(&lane.counters.removed, gone);
    tracing::warn!(handler = %lane.plan.name, stream = %lane.plan.stream, messages = gone,
        first = stream.state.first_seq, delivered = given, limits = stream.removes_by().join(", "),
        "the stream has removed messages before they were delivered: by its limits, or by a person");
}

/// Moves the floors up to the first message that is not decided, and has undecided ones run or buried.
/// `info`: how its consumer stood before the ledger was read, and `stream` before that.
async fn raise_floors(
    lane: &Lane,
    link: &Link,
    bucket: &Bucket,
    (info, stream): (&ConsumerInfo, &StreamInfo),
) -> Result<(), Error> {
    if info.metadata(META_INCARNATION) != Some(&*link.incarnation) {
        // Another making's, with other sequences: the lane finds that out before it takes anything from it.
        return Ok(());
    }
    let end = stream.state.last_seq;
    let settled = info.settled_floor().min(end);
    for (token, first, last) in link.ranges() {
        let reach = raise_floor(lane, link, (bucket, info), (token, first, last.min(settled))).await?;
        let Some(mut reach) = reach else { continue };
        if *token == link.incarnation {
            // No floor passes the message by which it is seen that the stream has lost its last messages: what comes in the place of what
            // was lost would be below it.
            let time = stream.state.last_ts.as_deref().and_then(parse_rfc3339);
            if let Some(time_ms) = time.filter(|_| reach == end) {
                bucket.saw(&lane.plan.stream, &link.event(end), time_ms);
            }
            reach = reach.min(bucket.seen(&lane.plan.stream));
        }
        bucket.raise_floor(&lane.plan.name, token, reach);
    }
    Ok(())
}

/// How far the events of one incarnation are decided, up to where the server has settled them. `None`: no further than known.
async fn raise_floor(
    lane: &Lane,
    link: &Link,
    (bucket, info): (&Bucket, &ConsumerInfo),
    (token, begin, settled): (&Arc<str>, u64, u64),
) -> Result<Option<u64>, Error> {
    let plan = &lane.plan;
    let floor = bucket.floor(&plan.name, token).max(begin - 1);
    if settled <= floor {
        return Ok(None);
    }
    // What lies before the consumer's start was never its.
    let start = info.start()?.unwrap_or(floor + 1);
    let mut reach = settled;
    // What its stream has removed is not among the matching messages, and yet it may be undecided.
    for event in attempts::events(&link.connection, &plan.name).await? {
        let above = event.incarnation == *token && event.sequence > floor;
        if above && bucket.decided(&plan.name, &event).is_none() {
            reach = reach.min(event.sequence - 1);
        }
    }
    reach = reach.min(lane.lowest_running(token).map_or(u64::MAX, |lowest| lowest - 1));
    let (mut first, mut width) = ((floor + 1).max(start), SEQUENCES);
    // What is not there any more needs no looking at.
    while let Some(next) = link.connection.stored_next(&plan.stream, first, ">").await? {
        first = next.sequence;
        if first > settled {
            break;
        }
        let last = settled.min(first + width - 1);
        let found = matching(lane, link, first, last).await?;
        width = match found.len() as u64 > SEQUENCES / 2 {
            true => SEQUENCES,
            // Where few match, more is looked at in one go.
            false => (width * 2).min(SEQUENCES_MAX),
        };
        for sequence in found {
            let event = link.event(sequence);
            if bucket.decided(&plan.name, &event).is_some() {
                if link.removes {
                    ack_by_sequence(&link.connection, &plan.stream, &plan.consumer, sequence).await?;
                }
                continue;
            }
            reach = reach.min(sequence - 1);
            if !lane.is_running(&event) {
                unless_unreadable(lane, &event, recover(lane, link, &event).await)?;
            }
        }
        first = last + 1;
        tokio::task::yield_now().await;
    }
    Ok(Some(reach).filter(|reach| *reach > floor))
}

/// An event of which the record cannot be read waits for a person, and keeps no other.
fn unless_unreadable(lane: &Lane, event: &EventId, swept: Result<(), Error>) -> Result<(), Error> {
    match swept {
        Err(error @ Error::Unreadable { .. }) => {
            let handler = &lane.plan.name;
            trouble!(Weight::Person, event, error, { %handler, %event, %error }, "an event waits until this is \
                                                                                  corrected");
            lane.hindered.met(What::Event(event.clone()), Why::from(&error), EVERY);
            Ok(())
        }
        swept => swept,
    }
}

/// An event that the server will not deliver again, undecided.
async fn recover(lane: &Lane, link: &Link, event: &EventId) -> Result<(), Error> {
    let plan = &lane.plan;
    let held = attempts::load(&link.connection, &plan.name, event).await?;
    if held.record.attempts < plan.retry.max_attempts {
        tracing::info!(handler = %plan.name, %event, "found undecided: it is run once more");
        return replay_queue::ask(&link.connection, &plan.name, event).await;
    }
    exhausted(lane, link, event, &held.record).await
}

async fn exhausted(lane: &Lane, link: &Link, event: &EventId, record: &attempts::Record) -> Result<(), Error> {
    let plan = &lane.plan;
    let dead = dead_lettering::left_behind(record, plan.retry.max_attempts);
    match dead_lettering::body_in_stream(lane, event).await? {
        None => replay::lost(lane, event, dead.record).await?,
        Some(body) => {
            if dead_lettering::bury(lane, event, &dead, Some(body)).await? == dead_lettering::Buried::Now {
                tracing::warn!(handler = %plan.name, %event, attempt = dead.record.attempts, cause = %dead.cause,
                    code = dead.failure.code, error = dead.failure.message, "dead");
            }
        }
    }
    ack_by_sequence(&link.connection, &plan.stream, &plan.consumer, event.sequence).await?;
    attempts::remove(&link.connection, &plan.name, event).await
}

/// Attempt records that nobody will touch any more.
async fn records(lane: &Lane, link: &Link) -> Result<(), Error> {
    for event in attempts::events(&link.connection, &lane.plan.name).await? {
        unless_unreadable(lane, &event, record(lane, link, &event).await)?;
    }
    Ok(())
}

async fn record(lane: &Lane, link: &Link, event: &EventId) -> Result<(), Error> {
    let plan = &lane.plan;
    let decided = |b: &Arc<Bucket>| b.decided(&plan.name, event).is_some();
    if lane.bucket.as_ref().is_some_and(decided) {
        return attempts::remove(&link.connection, &plan.name, event).await;
    }
    // What is at work or of another making of the stream needs no reading.
    if !link.has(event) || lane.is_running(event) {
        return Ok(());
    }
    let held = attempts::load(&link.connection, &plan.name, event).await?;
    let attempts = dead_lettering::of_record(&held.record);
    let patience = u64::try_from((plan.ack_wait + plan.timeout).as_millis()).unwrap_or(u64::MAX);
    let quiet = now_ms() > attempts.last_ms.saturating_add(patience);
    // It may have gone or begun meanwhile.
    if held.revision == 0 || !quiet || lane.is_running(event) {
        return Ok(());
    }
    if dead_lettering::body_in_stream(lane, event).await?.is_none() {
        // Without a ledger nobody can tell a lost event from one that was done.
        if lane.bucket.is_some() {
            replay::lost(lane, event, attempts).await?;
        }
        attempts::remove(&link.connection, &plan.name, event).await?;
    } else if lane.bucket.is_none() && held.record.attempts >= plan.retry.max_attempts {
        exhausted(lane, link, event, &held.record).await?;
    }
    Ok(())
}

/// The sequences of the handler's messages in a range.
async fn matching(lane: &Lane, link: &Link, first: u64, last: u64) -> Result<Vec<u64>, Error> {
    let (stream, filters) = (&lane.plan.stream, &lane.plan.subjects);
    if !link.removes {
        let from = From::Sequence(first);
        // Each of these has a connection of its own.
        let _place = lane.connections.surveys.acquire().await;
        let mut found = Vec::new();
        let see = |scanned: Scanned| {
            found.push(scanned.sequence);
            ControlFlow::Continue(())
        };
        survey(&lane.whole.nats, stream, filters, (from, last), see).await?;
        return Ok(found);
    }
    // It gives messages only to those that ack them; but it holds only what is not acked.
    one_by_one(&link.connection, stream, filters, first, last).await
}
