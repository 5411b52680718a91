//! The life of a lane: connect, bind, pull, begin the work on what comes, and start again when the connection is gone.

use crate::handler_task::delivery::Inbound;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Semaphore;

use crate::broker::connection::redial_delay;
use crate::broker::consumer::{META_INCARNATION, META_LEDGER, Owner, bind, work_queue};
use crate::broker::kv::kv_stream;
use crate::broker::provision::{MESH_BUCKET, REPLAY, again, kept, restore};
use crate::broker::pull::{Inlet, Pulled};
use crate::broker::{Connection, Error};
use crate::failpoint;
use crate::handler_task::lane::{Lane, Link, State};
use crate::handler_task::lost::{self, Door, request_expires};
use crate::handler_task::replay::{Heard, Replays};
use crate::handler_task::settle::{Acker, Settlement};
use crate::handler_task::{advisory, behind, dispatch, malformed, replay, sweep};
use crate::ledger::store::incarnation;
use crate::ledger::store::known::{check_ledger, gone_bucket};
use crate::message::{DeliveryInfo, parse_rfc3339};
use crate::process::panics::{Panic, caught};
use crate::trouble::{self, Weight};

/// An event whose work has panicked is delivered again after this.
const PANICKED_AGAIN: Duration = Duration::from_secs(5);
/// Without an open request, so long passes before the consumer is looked at again: nobody makes one anew faster.
const UNHEARD_MAX: Duration = Duration::from_millis(500);

type Work = FuturesUnordered<BoxFuture<'static, ()>>;

/// How a connection was left that did not break.
enum End {
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
        let served = lane.link();
        lane.set_link(None);
        let error = match ended {
            Ok(End::Drained) => break,
            Ok(End::Trusted) => continue,
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
            State::Connecting
        } else {
            State::Stopped
        };
        lane.stands(state, Some(&error));
        if error.passes() {
            tracing::debug!(handler = %lane.plan.name, %error, "connects again");
        } else {
            let handler = &lane.plan.name;
            trouble!(Weight::Person, handler, error, { %handler, %error }, "the handler is stopped until this is \
                                                                            corrected");
        }
        if served.is_some_and(|link| !link.connection.is_guarded()) && matches!(error, Error::Gone { .. }) {
            // The server need not be gone: a message that no client can read breaks a connection like this one.
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
async fn serve(lane: &Arc<Lane>, unanswered: Option<Connection>, work: &mut Work) -> Result<End, Error> {
    let guarded = lane.suspicion.stands();
    // What runs goes on while this connects. First the ledger: whoever waits for a long one keeps nobody else from beginning.
    if let Some(bucket) = &lane.bucket {
        beside(work, bucket.ready()).await?;
    }
    let opened = lane.connections.of_handler(guarded, unanswered.as_ref());
    let connection = beside(work, opened).await?;
    // Nobody closes it.
    let turn = beside(work, lane.connections.starts().acquire()).await.ok();
    let link = beside(work, connect(lane, connection)).await?;
    let (connection, doors) = (&link.connection, &lane.doors);
    lane.set_link(Some(Arc::clone(&link)));
    lane.stands(State::Serving, None);
    trouble::over("the handler is stopped until this is corrected", &lane.plan.name);
    let source = Inlet::open(connection, &lane.plan.stream, &lane.plan.consumer).await?;
    let mut source = source.keeping(request_expires(lane.whole.handlers.len()));
    let mut replays = beside(work, Replays::open(connection, lane)).await?;
    drop(turn);
    let mut advisories = lane.advisories.receive.lock().await;
    let mut renewal = tokio::time::interval(lane.plan.ack_wait / 3);
    // The first one is at once.
    let mut sweeps = tokio::time::interval(sweep::EVERY);
    renewal.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let sweeping = Arc::new(Semaphore::new(1));
    tracing::info!(handler = %lane.plan.name, stream = %lane.plan.stream, consumer = %lane.plan.consumer, guarded,
        module = %lane.module.load().digest, "serving");
    let begun = lane.drain.begun();
    let closed = connection.closed();
    tokio::pin!(begun, closed);
    let end = loop {
        if let Some(why) = lane.bucket.as_ref().and_then(|bucket| bucket.refused()) {
            // Nothing can be decided: its events stay with the server.
            return Err(Error::Refused(why));
        }
        let free = doors.source.free();
        if free > 0 && source.unheard() > UNHEARD_MAX {
            beside(work, still_bound(lane, &link)).await?;
        }
        if source.ask(free).await? {
            // The request, and the acks before it, leave now: the server works on it while this works on what is here.
            tokio::task::yield_now().await;
        }
        replays.ask(doors.replays.free()).await?;
        tokio::select! {
            biased;
            () = &mut begun => break End::Drained,
            () = &mut closed => return Err(Error::Gone { what: lane.plan.name.clone() }),
            _ = renewal.tick() => {
                lane.renew(connection).await;
                if guarded && !lane.suspicion.stands() {
                    break End::Trusted;
                }
                source.forget_if_stale();
                beside(work, replays.tick(connection, lane)).await?;
            }
            _ = sweeps.tick() => {
                sweeps.reset_after(sweep::pause());
                if let Ok(only) = Arc::clone(&sweeping).try_acquire_owned() {
                    work.push(sweep::begin(Arc::clone(lane), Arc::clone(&link), only).boxed());
                }
                beside(work, replays.look(connection, lane)).await?;
            }
            Some(()) = work.next() => {}
            // They are bounded: a backlog of the source must not keep them waiting.
            heard = replays.next() => match heard? {
                Heard::Pulled(pulled) => take(lane, &link, pulled, work, Inbound::Replay, &doors.replays).await?,
                Heard::Asked => beside(work, replays.bind(connection, lane)).await?,
            },
            Some(advisory) = advisories.recv(), if doors.advisories.free() > 0 => {
                let (lane, link) = (Arc::clone(lane), Arc::clone(&link));
                let place = Arc::clone(&doors.advisories.places).try_acquire_owned().ok();
                work.push(async move {
                    let acker = Acker::of(advisory.1.clone(), &link);
                    if let Err(panic) = caught(std::pin::pin!(advisory::take(&lane, link, advisory))).await {
                        put_off_panicked(&lane, acker, &panic).await;
                    }
                    drop(place);
                }.boxed());
            }
            pulled = source.next() => take(lane, &link, pulled?, work, Inbound::Source, &doors.source).await?,
        }
    };
    source.hand_back(connection).await;
    replays.hand_back(connection).await;
    if matches!(end, End::Trusted) {
        // What runs goes on, and answers over the next connection.
        connection.flush(&lane.plan.stream).await;
        return Ok(end);
    }
    // What has begun may take longer than its ack wait.
    loop {
        tokio::select! {
            worked = work.next() => if worked.is_none() { break },
            _ = renewal.tick() => lane.renew(connection).await,
        }
    }
    connection.flush(&lane.plan.stream).await;
    Ok(end)
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
    door: &Door,
) -> Result<(), Error> {
    let (message, reply) = match pulled {
        Pulled::Ended => return Ok(()),
        Pulled::Malformed(malformed, reply) => (Err(malformed), reply),
        Pulled::Message(message) => {
            let reply = message.reply.clone();
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
        return Err(gone(lane));
    }
    door.taken.take(&info);
    let (lane, link) = (Arc::clone(lane), Arc::clone(link));
    // Asked for no more than there are; travels with the work.
    let place = Arc::clone(&door.places).try_acquire_owned().ok();
    // What is not the source's is boxed: the future of each event stays small.
    let mut task = async move {
        let acker = Acker::of(reply.clone(), &link);
        let work = std::pin::pin!(async {
            match (inbound, message) {
                (Inbound::Source, Ok(message)) => dispatch::source(&lane, link, message, reply, info).await,
                (Inbound::Replay, Ok(message)) => Box::pin(replay::take(&lane, link, message, reply, info)).await,
                (inbound, Err(malformed)) => {
                    Box::pin(malformed::take(&lane, link, malformed, reply, info, inbound)).await;
                }
            }
        });
        if let Err(panic) = caught(work).await {
            Box::pin(put_off_panicked(&lane, acker, &panic)).await;
        }
        drop(place);
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
    trouble!(Weight::Person, handler, panic, { handler, reply = %acker.reply, %panic, count, again_in = ?PANICKED_AGAIN },
        "the work on an event has panicked: it is put off");
    acker.settle(lane, &Settlement::Nak(PANICKED_AGAIN)).await;
}

/// Whether the consumer is still the one that was bound. One that was made anew with its stream counts other events: a
/// lane that had no open request at that time has not been told.
async fn still_bound(lane: &Lane, link: &Link) -> Result<(), Error> {
    let found = link.connection.consumer(&lane.plan.stream, &lane.plan.consumer).await?;
    let same = found.is_some_and(|c| c.metadata(META_INCARNATION) == Some(&*link.incarnation));
    if same { Ok(()) } else { Err(gone(lane)) }
}

fn gone(lane: &Lane) -> Error {
    Error::Missing {
        what: format!("consumer {} on stream {}", lane.plan.consumer, lane.plan.stream),
    }
}

/// Everything that a lane needs of NATS, made or found.
async fn connect(lane: &Arc<Lane>, connection: Connection) -> Result<Arc<Link>, Error> {
    let plan = &lane.plan;
    let info = match connection.stream(&plan.stream).await? {
        Some(info) => info,
        None => {
            // Perhaps it is one of ours to make, and somebody has removed it.
            again(&connection, &lane.whole, &plan.stream).await?;
            connection.stream(&plan.stream).await?.ok_or_else(|| {
                Error::Refused(format!(
                    "handler {}: there is no stream {}: create it with `nats stream add {} --subjects '{}' \
                     --defaults`, or describe it under [streams.{}]",
                    plan.name,
                    plan.stream,
                    plan.stream,
                    plan.subjects.first().map_or("…", String::as_str),
                    plan.stream
                ))
            })?
        }
    };
    if let Some(conflict) = work_queue(&lane.whole, plan, info.retention()) {
        return Err(Error::Refused(conflict));
    }
    let found = connection.consumer(&plan.stream, &plan.consumer).await?;
    let bound = found.as_ref().and_then(|c| c.metadata(META_INCARNATION));
    let (ledger, from_head) = match &lane.bucket {
        None => (None, None),
        Some(bucket) => {
            let (making, known) = bucket.identity(&plan.stream).await?;
            let bound = found.as_ref().and_then(|c| c.metadata(META_LEDGER));
            check_ledger(&connection, plan, bound, Some(&making)).await?;
            (Some(making), known)
        }
    };
    let newest = lane.newest();
    let seen = (from_head.as_ref(), newest.as_ref());
    let resolve = incarnation::resolve(&connection, &plan.stream, &info, bound, seen);
    let present = match kept(&connection, &lane.whole, &kv_stream(MESH_BUCKET), resolve).await {
        Err(_) if connection.stream(&kv_stream(MESH_BUCKET)).await?.is_none() => return Err(gone_bucket(MESH_BUCKET)),
        present => present?,
    };
    lane.remember(&present);
    let owner = Owner {
        mesh: &lane.whole.mesh,
        incarnation: &present.token,
        ledger: ledger.as_deref(),
    };
    failpoint::point("before-bind");
    if let Some(found) = &found {
        behind::reconcile(&connection, plan, (found, &owner), (&info, &present)).await?;
    }
    let own = bind(&connection, plan, &info, &owner).await?;
    let now = connection.stream(&plan.stream).await?;
    if now.is_none_or(|now| now.created != info.created) {
        // The stream was made anew in between, and this consumer names the old making: nobody may believe it.
        connection.remove_consumer(&plan.stream, &plan.consumer).await?;
        return Err(gone(lane));
    }
    // What it has told of, or would have, the sweep finds.
    restore(&connection, &lane.whole, REPLAY).await?;
    let created_ms = parse_rfc3339(&info.created).ok_or_else(|| Error::Answer {
        what: format!("when stream {} was made", plan.stream),
        why: format!("`{}` is no time", info.created),
    })?;
    let link = Link::new(connection, &present, created_ms, info.retention() != "limits");
    let at_work = |sequence| lane.is_running(&link.event(sequence));
    lost::hand_back(
        &link.connection,
        &plan.stream,
        &own,
        &lane.doors.source,
        lane.bucket.is_some(),
        at_work,
    )
    .await;
    sweep::removed(lane, &link, &info, &own);
    Ok(Arc::new(link))
}
