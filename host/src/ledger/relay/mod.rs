//! Carries the consequences of a ledger out, in its order, each once. One host of the mesh does it for a bucket at a
//! time: the server pins a consumer to one client and moves the pin when that one goes silent.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::carry::Relay;
use self::consumer::ConsumerWatch;
use self::hearing::{Hearing, Then};
use crate::broker::connection::redial_delay;
use crate::broker::kv::kv_stream;
use crate::broker::provision::{AUDIT, DEAD, DELAYED, restore};
use crate::broker::shared::Shared;
use crate::broker::{By, Connection, Error};
use crate::failpoint;
use crate::ledger::core::entry::Subjects;
use crate::ledger::store::bucket::Bucket;
use crate::plan::{Nats, Plan};
use crate::trouble::Weight;

mod asked;
mod blocked;
mod carry;
pub mod consumer;
pub mod due;
mod flight;
mod hearing;
mod lookback;
mod publish;
mod publish_span;
mod refused;
mod seen;
pub mod state;
mod targets;
mod task;

pub use state::RelayState;

/// Durable name of the relay's consumer on a bucket's stream.
pub const CONSUMER: &str = "mesh-relay";
const GROUP: &str = "relay";
/// How long the server waits for a silent relay before it takes another.
pub(super) const PIN_TTL: Duration = Duration::from_secs(5);
/// After that long the server delivers again what is not confirmed; a relay leaves out what it has taken up already.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// Messages that are fetched at a time, each of up to a few hundred kilobytes.
const BATCH: usize = 32;
/// So far the relay goes on past what is not confirmed, in messages: besides what is on its way that is what waits for blocked
/// targets, and the server delivers all of it again every [`ACK_WAIT`].
const UNCONFIRMED_MAX: usize = 2_000;
/// How long a request for messages is open: the pin outlasts it.
const ASK: Duration = Duration::from_secs(3);
/// The same while something waits for a blocked target.
const ASK_OFTEN: Duration = Duration::from_secs(1);
/// How much longer than until events become letters a host that ends waits for a target that takes nothing.
const PATIENT: Duration = Duration::from_secs(2);
/// How often a host that ends checks whether its last consequences are published.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The connections of this host's relays.
pub struct RelayConnections {
    /// For publishing; only answers of the server are received over it.
    out: Shared,
    /// Guarded, for reading ledgers: a malformed message that another client has stored there does not break it.
    reading: Shared,
}

impl RelayConnections {
    pub fn new(nats: &Nats, host: &str) -> RelayConnections {
        RelayConnections {
            out: Shared::new(nats, format!("jetmesh relays {host}")),
            reading: Shared::guarded(nats, format!("jetmesh guarded relays {host}")),
        }
    }
}

/// The relay of one ledger, until the drain. `bucket`: what this host knows of the ledger, if it appends to it.
pub async fn run(
    state: Arc<RelayState>,
    bucket: Option<Arc<Bucket>>,
    plan: Arc<Plan>,
    connections: Arc<RelayConnections>,
) {
    let ledger = state.ledger();
    let mut attempt = 0;
    // Connections over which nothing was answered any more.
    let mut unanswered = None;
    loop {
        let served = async {
            let (out, reading) = unanswered.take().unzip();
            let out = connections.out.connection(out.as_ref()).await?;
            let reading = connections.reading.connection(reading.as_ref()).await?;
            let starts = &connections.out.starts;
            let served = serve(&state, (&out, &reading, starts), bucket.as_ref(), &plan).await;
            if matches!(served, Err(Error::Timeout { .. })) {
                unanswered = Some((out, reading));
            }
            served
        };
        match served.await {
            Ok(()) => attempt = 0,
            Err(error) => {
                attempt += 1;
                state.broke_off(error.to_string());
                if !error.passes() || attempt >= 5 {
                    trouble!(Weight::Person, ledger, error, { bucket = ledger, %error }, "the relay cannot work");
                }
            }
        }
        tokio::time::sleep(redial_delay(attempt)).await;
    }
}

/// Completes when everything that is stored by now is published, by any host, except for what only waits for a target that
/// takes nothing.
pub async fn caught_up(state: &RelayState, connection: &Connection) -> Result<(), Error> {
    let ledger = state.ledger();
    let stream = kv_stream(ledger);
    let outs = Subjects::new(ledger).outs();
    let Some(last) = connection.stored(&stream, By::Last(&outs)).await? else {
        return Ok(());
    };
    let mut only_waits: Option<Instant> = None;
    loop {
        let consumer = connection.consumer(&stream, CONSUMER).await?;
        if consumer
            .as_ref()
            .is_some_and(|c| c.ack_floor.stream_seq >= last.sequence)
        {
            return Ok(());
        }
        let nothing_else = state.snapshot().only_waits && consumer.is_some_and(|c| c.num_pending == 0);
        match only_waits {
            _ if !nothing_else => only_waits = None,
            Some(since) if since.elapsed() > blocked::REFUSED + PATIENT => {
                tracing::warn!(
                    ledger,
                    "what waits for a blocked target is published when a host runs again"
                );
                return Ok(());
            }
            Some(_) => {}
            None => only_waits = Some(Instant::now()),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn serve(
    state: &Arc<RelayState>,
    (connection, reading, starts): (&Connection, &Connection, &Semaphore),
    bucket: Option<&Arc<Bucket>>,
    plan: &Arc<Plan>,
) -> Result<(), Error> {
    let ledger = state.ledger();
    // The semaphore is never closed.
    let turn = starts.acquire().await.ok();
    prepare(connection, plan, ledger).await?;
    let mut hearing = Hearing::open(state, reading).await?;
    let place = (kv_stream(ledger), Subjects::new(ledger));
    let mut relay = Relay::new(state, plan, connection.clone(), place, bucket.cloned()).await?;
    drop(turn);
    state.active(false);
    state.works();
    let mut checks = tokio::time::interval(Duration::from_secs(1));
    let mut watch = ConsumerWatch::new();
    let mut turn = false;
    let closed = either_closed(connection, reading);
    tokio::pin!(closed);
    loop {
        // What is tried again may be published only while the pin is ours for certain, so that is heard more often.
        let expires = if relay.blocked.is_empty() { ASK } else { ASK_OFTEN };
        hearing.ask(expires).await?;
        // What waits has its turn with what comes.
        turn = !turn;
        let has_room = relay.flight.has_room();
        let can_go_on = has_room && (relay.blocked.has_due() || relay.can_unpark());
        if turn && can_go_on {
            if !relay.go_on().await? {
                return Ok(());
            }
            confirm(reading, &mut relay).await?;
            continue;
        }
        let message = tokio::select! {
            biased;
            () = &mut closed => return Err(gone(ledger)),
            answered = relay.flight.next(), if !relay.flight.is_empty() => {
                relay.answered(answered?)?;
                confirm(reading, &mut relay).await?;
                continue;
            }
            Some(asked) = relay.asks.next() => {
                relay.found_out(asked);
                continue;
            }
            _ = checks.tick() => {
                // Before something of it is tried again.
                relay.tell();
                relay.tick()?;
                confirm(reading, &mut relay).await?;
                hearing.check()?;
                if relay.is_idle() && watch.finds(connection, ledger).await? {
                    state.recreated();
                    return Ok(());
                }
                continue;
            }
            message = hearing.next(), if has_room => message?,
            () = std::future::ready(()), if can_go_on => continue,
        };
        if hearing.take(&mut relay, message).await? == Then::BeginAgain {
            return Ok(());
        }
        confirm(reading, &mut relay).await?;
    }
}

/// Makes what it needs in NATS and is not there.
async fn prepare(connection: &Connection, plan: &Plan, ledger: &str) -> Result<(), Error> {
    for needed in [DEAD, DELAYED, AUDIT] {
        restore(connection, plan, needed).await?;
    }
    consumer::bind(connection, ledger).await
}

async fn either_closed(one: &Connection, other: &Connection) {
    tokio::select! {
        () = one.closed() => {}
        () = other.closed() => {}
    }
}

fn gone(ledger: &str) -> Error {
    Error::Gone {
        what: format!("the relay of {ledger}"),
    }
}

/// Confirms to the server up to where everything is published.
async fn confirm(connection: &Connection, relay: &mut Relay) -> Result<(), Error> {
    let Some(reply) = relay.flight.done(&relay.state.published) else {
        return Ok(());
    };
    ack(connection, reply).await
}

async fn ack(connection: &Connection, reply: Subject) -> Result<(), Error> {
    let sent = connection.client.publish(reply, "+ACK".into()).await;
    sent.map_err(|_| Error::Gone {
        what: "the relay".to_owned(),
    })?;
    failpoint::point_after("relay-acked", connection.client.flush()).await;
    Ok(())
}
