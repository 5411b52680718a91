//! The life of a handler task: connect, bind, pull, begin the work on what comes, and start again when the connection is
//! closed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::{Interval, MissedTickBehavior};

use crate::broker::connection::redial_delay;
use crate::broker::consumer::META_INCARNATION;
use crate::broker::pull::{Inlet, Pulled};
use crate::broker::{Connection, Error};
use crate::event::DeliveryInfo;
use crate::handler_task::advisory::message::Routed;
use crate::handler_task::connect::{connect, gone};
use crate::handler_task::counters::ServingState;
use crate::handler_task::delivery::Inbound;
use crate::handler_task::lane::Lane;
use crate::handler_task::links::Link;
use crate::handler_task::lost::request_expires;
use crate::handler_task::replay::{Heard, Replays};
use crate::handler_task::settle::delays::AFTER_FAULT;
use crate::handler_task::settle::{Acker, Settlement};
use crate::handler_task::{advisory, dispatch, malformed, replay, sweep};
use crate::plan::Handler;
use crate::process::panics::{Panic, caught};
use crate::trouble::{self, Weight};

/// How long the task may be without an open request before it checks the consumer again: deleting and creating one takes
/// longer.
const UNHEARD_MAX: Duration = Duration::from_millis(500);

/// What is taken of one kind before the task looks at all others that may have come: a look costs as much as a part of an event.
const AT_A_TIME: usize = 16;

type Work = FuturesUnordered<BoxFuture<'static, ()>>;

/// How a connection was left that did not break.
enum ConnectionEnd {
    Drained,
    /// There is no reason any more to guard it.
    Trusted,
}

/// Runs a lane until the drain has begun and what runs is finished.
pub async fn run(lane: Arc<Lane>) {
    let mut work = Work::new();
    let mut attempt = 0u32;
    // A connection over which requests were not answered any more.
    let mut unanswered = None;
    while !lane.drain.has_begun() {
        let ended = serve(&lane, unanswered.take(), &mut work).await;
        let served = lane.links.present();
        lane.links.set(None);
        let error = match ended {
            Ok(ConnectionEnd::Drained) => break,
            Ok(ConnectionEnd::Trusted) => continue,
            Err(error) => error,
        };
        if matches!(error, Error::Timeout { .. }) {
            unanswered = served.as_ref().map(|link| link.connection.clone());
        }
        if served.is_some() {
            // It had come so far as to serve.
            attempt = 0;
        }
        let state = if error.passes() {
            ServingState::Connecting
        } else {
            ServingState::Stopped
        };
        lane.status.set(state, Some(&error));
        if error.passes() {
            tracing::debug!(handler = %lane.plan.name, %error, "connects again");
        } else {
            let handler = &lane.plan.name;
            trouble!(Weight::Person, handler, error, { %handler, %error }, "the handler is stopped until this is corrected");
        }
        if served.is_some_and(|link| !link.connection.is_guarded()) && matches!(error, Error::Gone { .. }) {
            // The server may still be there: a message that no client can read breaks a connection like this one.
            lane.suspicion.broken(lane.plan.ack_wait);
            continue;
        }
        attempt += 1;
        let pause = tokio::time::sleep(redial_delay(attempt));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                () = lane.drain.begun() => break,
                Some(()) = work.next() => {}
            }
        }
    }
    // What could not be finished over a live connection: its deliveries come again.
    while work.next().await.is_some() {}
}

/// Connects, binds and serves.
async fn serve(lane: &Arc<Lane>, unanswered: Option<Connection>, work: &mut Work) -> Result<ConnectionEnd, Error> {
    let guarded = lane.suspicion.stands();
    // Events that are at work continue while this connects. The ledger comes first, so that a task that waits for a long one
    // does not keep others from starting.
    if let Some(bucket) = &lane.bucket {
        beside(work, bucket.ready()).await?;
    }
    let opened = lane.connections.of_handler(guarded, unanswered.as_ref());
    let connection = beside(work, opened).await?;
    // The semaphore is never closed.
    let turn = beside(work, lane.connections.starts().acquire()).await.ok();
    let link = Arc::new(beside(work, connect(lane, connection)).await?);
    lane.connected(&link);
    lane.status.set(ServingState::Serving, None);
    trouble::over("the handler is stopped until this is corrected", &lane.plan.name);
    let connection = &link.connection;
    let source = Inlet::open(connection, &lane.plan.stream, &lane.plan.consumer).await?;
    let mut source = source.keeping(request_expires(lane.whole.handlers.len()));
    let replays = Replays::open(
        connection,
        &lane.plan,
        &lane.whole.mesh,
        (&lane.doors.replays, &lane.circuit),
    );
    let mut replays = beside(work, replays).await?;
    drop(turn);
    tracing::info!(handler = %lane.plan.name, stream = %lane.plan.stream, consumer = %lane.plan.consumer, guarded,
        module = %lane.runner.digest(), "serving");
    let end = take_all(lane, &link, &mut source, &mut replays, work).await?;
    source.hand_back(connection).await;
    replays.hand_back().await;
    if matches!(end, ConnectionEnd::Drained) {
        finish(lane, connection, work).await;
    }
    // Else what runs goes on, and answers over the next connection.
    connection.flush(&lane.plan.stream).await;
    Ok(end)
}

/// Takes what comes and begins the work on it, until the drain begins or the connection is to be left. `Err`: it is broken,
/// or nothing can be decided.
async fn take_all(
    lane: &Arc<Lane>,
    link: &Arc<Link>,
    source: &mut Inlet,
    replays: &mut Replays<'_>,
    work: &mut Work,
) -> Result<ConnectionEnd, Error> {
    let (connection, doors) = (&link.connection, &lane.doors);
    let mut advisories = lane.advisories.receive.lock().await;
    let mut renewal = renewal(lane);
    // The first one is at once.
    let mut sweeps = tokio::time::interval(sweep::EVERY);
    let sweeping = Arc::new(Semaphore::new(1));
    let begun = lane.drain.begun();
    let closed = connection.closed();
    tokio::pin!(begun, closed);
    loop {
        ask(lane, link, source, work).await?;
        replays.ask().await?;
        tokio::select! {
            biased;
            () = &mut begun => return Ok(ConnectionEnd::Drained),
            () = &mut closed => return Err(Error::Gone { what: lane.plan.name.clone() }),
            _ = renewal.tick() => {
                lane.in_flight.renew(connection).await;
                if connection.is_guarded() && !lane.suspicion.stands() {
                    return Ok(ConnectionEnd::Trusted);
                }
                source.forget_if_stale();
                beside(work, replays.tick()).await?;
            }
            _ = sweeps.tick() => {
                sweeps.reset_after(sweep::pause());
                if let Ok(only) = Arc::clone(&sweeping).try_acquire_owned() {
                    work.push(sweep::begin(Arc::clone(lane), Arc::clone(link), only).boxed());
                }
                beside(work, replays.look()).await?;
            }
            Some(()) = work.next() => finished(work),
            () = lane.circuit.probe_due(), if lane.circuit.is_open() => {}
            () = lane.circuit.pause_changed() => beside(work, replays.look()).await?,
            // They are bounded: a backlog of the source must not keep them waiting.
            heard = replays.next() => match heard? {
                Heard::Pulled(pulled) => take(lane, link, pulled, work, Inbound::Replay).await?,
                Heard::Asked => beside(work, replays.bind()).await?,
            },
            Some(advisory) = advisories.recv(), if doors.advisories.free() > 0 => {
                work.push(act(Arc::clone(lane), Arc::clone(link), advisory).boxed());
            }
            pulled = source.next() => {
                take(lane, link, pulled?, work, Inbound::Source).await?;
                for _ in 1..AT_A_TIME {
                    let Some(pulled) = source.next().now_or_never() else { break };
                    take(lane, link, pulled?, work, Inbound::Source).await?;
                }
            }
        }
    }
}

/// Takes what has ended besides, without a look at all else that may come.
fn finished(work: &mut Work) {
    for _ in 1..AT_A_TIME {
        if work.next().now_or_never().flatten().is_none() {
            break;
        }
    }
}

/// When the server is told of what is worked on.
fn renewal(lane: &Lane) -> Interval {
    let mut renewal = tokio::time::interval(lane.plan.ack_wait / 3);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    renewal
}

/// Asks the server for as many events as there is room for.
async fn ask(lane: &Lane, link: &Link, source: &mut Inlet, work: &mut Work) -> Result<(), Error> {
    if let Some(why) = lane.bucket.as_ref().and_then(|bucket| bucket.refused()) {
        // Nothing can be decided: its events stay with the server.
        return Err(Error::Refused(why));
    }
    let free = lane.circuit.room(lane.doors.source.free());
    // A task whose handler is paused asks for nothing, and would not be told of a consumer that is gone.
    if (free > 0 || lane.circuit.is_paused()) && source.unheard() > UNHEARD_MAX {
        beside(work, still_bound(&lane.plan, link)).await?;
    }
    if source.ask(free).await? {
        // The request, and the acks before it, leave now: the server works on it while this works on what is here.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Ends what has begun. That may take longer than its ack wait.
async fn finish(lane: &Lane, connection: &Connection, work: &mut Work) {
    let mut renewal = renewal(lane);
    loop {
        tokio::select! {
            worked = work.next() => if worked.is_none() { break },
            _ = renewal.tick() => lane.in_flight.renew(connection).await,
        }
    }
}

/// Acts on an advisory.
async fn act(lane: Arc<Lane>, link: Arc<Link>, advisory: Routed) {
    let _place = lane.doors.advisories.place();
    let acker = Acker::of(advisory.1.clone(), &link);
    if let Err(panic) = caught(std::pin::pin!(advisory::take(&lane, link, advisory))).await {
        put_off_panicked(&lane, acker, &panic).await;
    }
}

async fn beside<T>(work: &mut Work, future: impl Future<Output = T>) -> T {
    tokio::pin!(future);
    loop {
        tokio::select! {
            value = &mut future => return value,
            Some(()) = work.next() => {}
        }
    }
}

/// Begins the work on one delivery: at once, and only if it has to wait does it go among what is waiting.
async fn take(
    lane: &Arc<Lane>,
    link: &Arc<Link>,
    pulled: Pulled,
    work: &mut Work,
    inbound: Inbound,
) -> Result<(), Error> {
    let (message, reply) = match pulled {
        Pulled::Ended => return Ok(()),
        Pulled::Malformed(malformed, reply) => (Err(malformed), reply),
        Pulled::Message(mut message) => {
            let reply = message.reply.take();
            (Ok(message), reply)
        }
    };
    let Some(reply) = reply else {
        return Ok(());
    };
    let Some(info) = DeliveryInfo::parse(&reply) else {
        return Ok(());
    };
    if matches!(inbound, Inbound::Source) && !link.continues(info.consumer_sequence) {
        // Not begun, it is delivered again.
        return Err(gone(&lane.plan));
    }
    let (lane, link) = (Arc::clone(lane), Arc::clone(link));
    // What is not the source's is boxed: the future of each event stays small.
    let mut task = async move {
        let door = match inbound {
            Inbound::Source => &lane.doors.source,
            Inbound::Replay => &lane.doors.replays,
        };
        door.taken.take(&info);
        let _place = door.place();
        let again = reply.clone();
        let work = std::pin::pin!(async {
            match (inbound, message) {
                (Inbound::Source, Ok(message)) => dispatch::source(&lane, &link, message, reply, info).await,
                (Inbound::Replay, Ok(message)) => Box::pin(replay::take(&lane, &link, message, reply, info)).await,
                (inbound, Err(malformed)) => {
                    Box::pin(malformed::take(&lane, &link, malformed, reply, info, inbound)).await;
                }
            }
        });
        if let Err(panic) = caught(work).await {
            Box::pin(put_off_panicked(&lane, Acker::of(again, &link), &panic)).await;
        }
    }
    .boxed();
    if futures_util::poll!(&mut task).is_pending() {
        work.push(task);
    }
    Ok(())
}

/// What a panic has broken off is delivered again.
async fn put_off_panicked(lane: &Lane, acker: Acker, panic: &Panic) {
    let handler = &lane.plan.name;
    let count = lane.drain.panics.note(&format!("event of {handler}"), panic);
    trouble!(Weight::Person, handler, panic, { handler, reply = %acker.reply, %panic, count, again_in = ?AFTER_FAULT },
        "the work on an event has panicked: it is put off");
    acker.settle(&lane.links, &Settlement::Nak(AFTER_FAULT)).await;
}

/// Whether the consumer is still the one that was bound. One that was deleted and created again with its stream counts other
/// events, and a task that had no open request at that time was not told.
async fn still_bound(plan: &Handler, link: &Link) -> Result<(), Error> {
    let found = link.connection.consumer(&plan.stream, &plan.consumer).await?;
    let same = found.is_some_and(|c| c.metadata(META_INCARNATION) == Some(&*link.incarnation));
    if same { Ok(()) } else { Err(gone(plan)) }
}
