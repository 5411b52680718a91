//! Carries the consequences of a ledger out, in its order, each once. One host of the mesh does it for a bucket at a
//! time: the server pins a consumer to one client and moves the pin when that one goes silent.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::carry::{Fetched, Relay};
use self::consumer::Watch;
use crate::broker::connection::redial_delay;
use crate::broker::consumer::nanos;
use crate::broker::kv::kv_stream;
use crate::broker::provision::{DEAD, DELAYED, restore};
use crate::broker::shared::Shared;
use crate::broker::{By, Connection, Error};
use crate::failpoint;
use crate::failpoint::mistake::Mistake;
use crate::ledger::core::entry::{PART, Subjects};
use crate::ledger::store::bucket::Bucket;
use crate::message::DeliveryInfo;
use crate::plan::{Nats, Plan};
use crate::trouble::Weight;

mod asked;
mod blocked;
mod carry;
pub mod consumer;
pub mod due;
mod flight;
mod look;
mod publish;
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
/// Beyond the time after which events become letters, a host that ends waits so long for what a target does not take.
const PATIENT: Duration = Duration::from_secs(2);
/// How often a host that ends looks whether its last consequences are carried out.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The connections of this host's relays.
pub struct Connections {
    /// What they carry out goes over it; what comes are answers of the server only.
    out: Shared,
    /// What lies in ledgers comes over this guarded one: whatever somebody else has written there breaks nothing.
    reading: Shared,
}

impl Connections {
    pub fn new(nats: &Nats, host: &str) -> Connections {
        Connections {
            out: Shared::new(nats, format!("jetmesh relays {host}")),
            reading: Shared::guarded(nats, format!("jetmesh guarded relays {host}")),
        }
    }
}

/// The relay of one ledger, until the drain. `bucket`: what this host knows of the ledger, if it appends to it.
pub async fn run(state: Arc<RelayState>, bucket: Option<Arc<Bucket>>, plan: Arc<Plan>, connections: Arc<Connections>) {
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

/// Completes when everything has been carried out that is stored by now, by whichever host, but for what only waits for a
/// target that takes nothing.
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

// Long: its consumer is made, and then one loop waits for all that it hears of.
async fn serve(
    state: &Arc<RelayState>,
    (connection, reading, starts): (&Connection, &Connection, &Semaphore),
    bucket: Option<&Arc<Bucket>>,
    plan: &Arc<Plan>,
) -> Result<(), Error> {
    let ledger = state.ledger();
    // Nobody closes it.
    let turn = starts.acquire().await.ok();
    for needed in [DEAD, DELAYED] {
        restore(connection, plan, needed).await?;
    }
    let stream = kv_stream(ledger);
    let subjects = Subjects::new(ledger);
    consumer::bind(connection, ledger).await?;
    let gone = || Error::Gone {
        what: format!("the relay of {ledger}"),
    };
    let inbox = reading.client.new_inbox();
    let mut messages = reading.client.subscribe(inbox.clone()).await.map_err(|_| gone())?;
    let next = format!("{}.CONSUMER.MSG.NEXT.{stream}.{CONSUMER}", reading.api_prefix());
    let place = (stream, subjects);
    let mut relay = Relay::new(state, plan, connection.clone(), place, bucket.cloned()).await?;
    drop(turn);
    state.active(false);
    state.works();
    let mut pin: Option<String> = None;
    // Taken up over this connection: up to here nothing is taken up again.
    let mut taken = 0;
    let (mut asked, mut fetched) = (0, Instant::now());
    let mut heard = Instant::now();
    let mut checks = tokio::time::interval(Duration::from_secs(1));
    let mut watch = Watch::new();
    let mut turn = false;
    let closed = async {
        tokio::select! {
            () = connection.closed() => {}
            () = reading.closed() => {}
        }
    };
    tokio::pin!(closed);
    loop {
        if asked == 0 {
            // What is tried again may be published only while the pin is ours for certain, so that is heard more often.
            let expires = if relay.blocked.is_empty() { ASK } else { ASK_OFTEN };
            let mut ask = json!({ "batch": BATCH, "expires": nanos(expires), "group": GROUP });
            if let Some(id) = &pin {
                ask["id"] = json!(id);
            }
            // Nothing of this request is fetched before.
            fetched = Instant::now();
            let client = &reading.client;
            let sent = client.publish_with_reply(next.clone(), inbox.clone(), ask.to_string().into());
            sent.await.map_err(|_| gone())?;
            asked = BATCH;
        }
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
            () = &mut closed => return Err(gone()),
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
                // With a lost request goes the certainty when the messages behind it were fetched.
                if heard.elapsed() > PIN_TTL * 2 {
                    return Err(gone());
                }
                if relay.is_idle() && watch.finds(connection, ledger).await? {
                    state.made_anew();
                    return Ok(());
                }
                continue;
            }
            message = messages.next(), if has_room => message.ok_or_else(gone)?,
            () = std::future::ready(()), if can_go_on => continue,
        };
        heard = Instant::now();
        if let Some(status) = message.status.filter(|_| message.reply.is_none()) {
            asked = 0;
            match status.as_u16() {
                // None left, or time over.
                404 | 408 => relay.pinned = fetched,
                // The pin is another's now, and so is what is under way here.
                423 if relay.is_idle() => {
                    pin = None;
                    state.active(false);
                }
                423 => return Ok(()),
                // The consumer is gone, or its leader: it is looked for, and made again, at the next start.
                _ => {
                    return Err(Error::Missing {
                        what: format!("consumer {CONSUMER} of bucket {ledger}"),
                    });
                }
            }
            continue;
        }
        asked -= 1;
        let reply = message.reply.clone().ok_or_else(gone)?;
        let here = DeliveryInfo::parse(&reply).ok_or_else(gone)?;
        let text = |name: &str| message.headers.as_ref()?.get(name).map(|v| v.as_str().to_owned());
        let id = text("Nats-Pin-Id");
        if pin.is_none() || (id.is_some() && id != pin) {
            if !relay.is_idle() {
                // Another relay has had the pin meanwhile: what is under way here may be its work by now.
                return Ok(());
            }
            pin = id;
            state.active(true);
            // An ack here speaks for everything before as well, so what another relay, or an earlier life of this one,
            // has fetched and not confirmed is carried out first.
            match relay.recover(here).await? {
                Some(until) => taken = until,
                None => return Ok(()),
            }
        }
        relay.pinned = fetched;
        if failpoint::planted().is(Mistake::RelayAcksEarly) {
            let sent = reading.client.publish(reply.clone(), "+ACK".into());
            sent.await.map_err(|_| gone())?;
        }
        let (sequence, time_ms) = (here.stream_sequence, here.time_ms);
        if sequence <= taken {
            // What has been taken up is confirmed after all that was taken up before.
            if let Some(reply) = relay.flight.again(sequence, reply) {
                ack(reading, reply).await?;
            }
        } else if let Some(malformed) = reading.malformed(&message) {
            relay.pass_over(sequence, &malformed.why());
            relay.leave_out(sequence, time_ms, Some(reply));
        } else if text(PART).is_some() {
            // A part is read by whoever names it.
            relay.leave_out(sequence, time_ms, Some(reply));
        } else {
            let fetched = Fetched {
                sequence,
                time_ms,
                payload: &message.payload,
                reply: Some(reply),
                at: fetched,
            };
            if !relay.take_up(fetched).await? {
                // Not yet: what comes after must wait as well.
                return Ok(());
            }
        }
        taken = taken.max(sequence);
        confirm(reading, &mut relay).await?;
    }
}

/// Tells the server up to where everything is carried out.
async fn confirm(connection: &Connection, relay: &mut Relay) -> Result<(), Error> {
    let Some(reply) = relay.flight.done() else {
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
