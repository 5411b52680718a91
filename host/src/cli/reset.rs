//! `jetmesh reset`: a handler starts again from its `start`. Everything that the mesh knows of its events is deleted; the
//! command shows this and asks first.

mod moved;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::Reset;
use super::audit::{actor, intent};
use super::{Args, Error, OK, ask, handler_named};
use crate::broker::connection::token;
use crate::broker::consumer::{ConsumerInfo, Owner, check_owner};
use crate::broker::kv::key_subject;
use crate::broker::kv::kv_stream;
use crate::broker::provision::{ADVISORIES, ATTEMPTS, DEAD, REPLAY};
use crate::broker::{self, By, Connection, Connections};
use crate::event::timer::FIRINGS;
use crate::ledger::Bucket;
use crate::ledger::core::entry::{Head, Subjects};
use crate::ledger::relay::CONSUMER;
use crate::mesh_streams::audit::{AuditAction, AuditEnd};
use crate::micro;
use crate::plan::{Handler, Plan, Start};

/// How long to wait for consequences that a relay is publishing.
const RELAY_WAIT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub async fn run(args: &Args, reset: &Reset) -> Result<u8, Error> {
    let loaded = args.load()?;
    let plan = &loaded.plan;
    let handler = handler_named(plan, &reset.handler)?;
    if reset.state && handler.bucket.is_none() {
        return Err(Error::Usage(format!(
            "handler {} has no bucket: leave --state out",
            handler.name
        )));
    }
    let connection = broker::open_guarded(&plan.nats, "jetmesh reset").await?;
    if reset.keep_decided {
        return moved::run(&connection, plan, handler, reset.yes).await;
    }
    let found = look(&connection, plan, handler).await?;
    if reset.state {
        alone(plan, handler, &found)?;
    }
    if found.is_nothing(handler, reset.state) {
        return found.nothing(handler);
    }
    found.print(handler, reset.state);
    if !reset.yes {
        ask::confirmed("Delete all of this?", "nothing is deleted")?;
    }
    // A host may have been started while this waited.
    let consumer = connection.consumer(&handler.stream, &handler.consumer).await?;
    served(&connection, plan, handler, consumer.as_ref()).await?;
    recorded(&connection, plan, handler, &found, reset.state).await?;
    println!("handler {} begins again at its next start", handler.name);
    Ok(OK)
}

/// The same for a mesh that only this process uses, before it serves.
pub async fn before_start(connection: &Connection, plan: &Plan, handler: &str) -> Result<(), Error> {
    let handler = handler_named(plan, handler)?;
    let found = look(connection, plan, handler).await?;
    if found.is_nothing(handler, false) {
        println!(
            "handler {}: nothing is known of it, so there is nothing to reset",
            handler.name
        );
        return Ok(());
    }
    found.print(handler, false);
    recorded(connection, plan, handler, &found, false).await
}

/// One kind of what goes: how many messages of a stream are on a subject.
struct Heap {
    stream: String,
    filter: String,
    what: &'static str,
    count: u64,
}

/// What the mesh knows of a handler.
struct Found {
    consumer: Option<ConsumerInfo>,
    /// Its ledger's head, if there is one.
    head: Option<Head>,
    /// In the order in which they go. The deaths go before the ledger forgets them: an event that dies again expects
    /// none.
    heaps: Vec<Heap>,
    keys: Option<Heap>,
}

async fn look(connection: &Connection, plan: &Plan, handler: &Handler) -> Result<Found, Error> {
    let name = &handler.name;
    let consumer = connection.consumer(&handler.stream, &handler.consumer).await?;
    if let Some(consumer) = &consumer {
        let owner = Owner {
            mesh: &plan.mesh,
            incarnation: "",
            ledger: None,
        };
        check_owner(handler, consumer, &owner)?;
    }
    served(connection, plan, handler, consumer.as_ref()).await?;
    let mut heaps = Vec::new();
    let events = &plan.nats.js_event_prefix;
    let of = format!("{}.{}", handler.stream, handler.consumer);
    let everywhere = [
        (ADVISORIES, format!("{events}.ADVISORY.CONSUMER.*.{of}"), "advisories"),
        (REPLAY, format!("$MESH.replay.{name}.>"), "waiting replays"),
        (
            DEAD,
            format!("$MESH.dead.{}.{name}.>", handler.stream),
            "dead letters, resolved ones and versions of payloads included,",
        ),
    ];
    for (stream, filter, what) in everywhere {
        heaps.push(heap(connection, stream, filter, what).await?);
    }
    if let Some(ledger) = &handler.ledger {
        let filter = format!("$MESH.dead.{}.{name}.>", kv_stream(ledger));
        let what = "dead letters of events that it emitted and no stream took";
        heaps.push(heap(connection, DEAD, filter, what).await?);
    }
    let attempts = key_subject(ATTEMPTS, &format!("{name}.>"));
    heaps.push(heap(connection, &kv_stream(ATTEMPTS), attempts, "attempt records").await?);
    let mut head = None;
    if let Some(ledger) = &handler.ledger {
        let stream = kv_stream(ledger);
        let subject = Subjects::new(ledger).head();
        if connection.stream(&stream).await?.is_some()
            && let Some(stored) = connection.stored(&stream, By::Last(&subject)).await?
        {
            head = Some(crate::ledger::store::read::parse(&subject, &stored.payload)?);
            carried_out(connection, ledger).await?;
        }
        let deaths = Subjects::new(ledger).death(name, ">");
        heaps.push(heap(connection, &stream, deaths, "death records").await?);
    }
    let keys = match &handler.bucket {
        Some(bucket) => {
            let filter = key_subject(bucket, ">");
            Some(heap(connection, &kv_stream(bucket), filter, "keys, deleted ones included").await?)
        }
        None => None,
    };
    heaps.retain(|heap| heap.count > 0);
    Ok(Found {
        consumer,
        head,
        heaps,
        keys,
    })
}

/// A host that serves the handler would go on with what it knows.
async fn served(
    connection: &Connection,
    plan: &Plan,
    handler: &Handler,
    consumer: Option<&ConsumerInfo>,
) -> Result<(), Error> {
    let serves = |host: &&Value| {
        let endpoints = host["endpoints"].as_array();
        endpoints
            .into_iter()
            .flatten()
            .any(|e| e["name"] == json!(handler.name))
    };
    let hosts = micro::hosts(connection, &plan.mesh).await?;
    let names: Vec<&str> = hosts.iter().filter(serves).filter_map(|h| h["id"].as_str()).collect();
    if !names.is_empty() {
        let text = format!(
            "handler {} is served by {}: stop these hosts first",
            handler.name,
            names.join(", ")
        );
        return Err(broker::Error::Refused(text).into());
    }
    if consumer.is_some_and(|c| c.num_waiting > 0) {
        let text = format!(
            "a client waits for events of consumer {} on stream {}: stop it first",
            handler.consumer, handler.stream
        );
        return Err(broker::Error::Refused(text).into());
    }
    Ok(())
}

/// A letter that is still to be stored would be taken for one of the time after.
async fn carried_out(connection: &Connection, ledger: &str) -> Result<(), Error> {
    let stream = kv_stream(ledger);
    let Some(last) = connection.stream(&stream).await?.map(|info| info.state.last_seq) else {
        return Ok(());
    };
    let began = std::time::Instant::now();
    loop {
        let waits = match connection.consumer(&stream, CONSUMER).await? {
            Some(relay) if relay.ack_floor.stream_seq >= last => 0,
            Some(relay) => relay.num_pending + relay.num_ack_pending,
            None => count(connection, &stream, &Subjects::new(ledger).outs()).await?,
        };
        if waits == 0 {
            return Ok(());
        }
        if began.elapsed() > RELAY_WAIT {
            let text = format!(
                "{waits} message(s) of ledger {ledger} are not published yet: start a host and stop it again; it \
                 publishes them before it ends"
            );
            return Err(broker::Error::Refused(text).into());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Refuses if another handler uses the keys of its bucket.
fn alone(plan: &Plan, handler: &Handler, found: &Found) -> Result<(), Error> {
    let configured = plan
        .handlers
        .iter()
        .filter(|h| h.bucket == handler.bucket)
        .map(|h| &h.name);
    let decided = found.head.iter().flat_map(|head| head.floors.keys());
    // The firings of timers are decided under a name of their own.
    let decided = decided.filter(|name| *name != FIRINGS);
    let mut others: Vec<&str> = configured.chain(decided).map(String::as_str).collect();
    others.retain(|name| *name != handler.name);
    others.sort_unstable();
    others.dedup();
    if others.is_empty() {
        return Ok(());
    }
    let text = format!(
        "bucket {} is also used by {}, which has decided events or keeps keys there; leave --state out",
        handler.bucket.as_deref().unwrap_or_default(),
        others.join(", ")
    );
    Err(broker::Error::Refused(text).into())
}

impl Found {
    /// Whether there is nothing that a reset could remove.
    fn is_nothing(&self, handler: &Handler, state: bool) -> bool {
        let floor = self.head.as_ref().and_then(|head| head.floors.get(&handler.name));
        let keys = self.keys.as_ref().is_some_and(|keys| keys.count > 0);
        self.consumer.is_none() && floor.is_none() && self.heaps.is_empty() && !(state && keys)
    }

    /// Says so. It is no error after another reset, and one where no host has ever decided anything in its ledger.
    fn nothing(&self, handler: &Handler) -> Result<u8, Error> {
        let name = &handler.name;
        if self.head.is_none() {
            return Err(Error::Failed(format!(
                "handler {name} has never run here, so there is nothing to reset: it has no consumer on stream {}, no \
                 decisions, attempts or dead letters; is this the right server and configuration?",
                handler.stream
            )));
        }
        println!(
            "handler {name}: nothing is known of it, so there is nothing to reset; it was reset before, or never ran"
        );
        Ok(OK)
    }

    fn print(&self, handler: &Handler, state: bool) {
        println!("handler {}: this will be deleted", handler.name);
        match &self.consumer {
            Some(c) => println!(
                "  consumer {} on stream {} ({} delivered and not answered, {} to be delivered)",
                handler.consumer, handler.stream, c.num_ack_pending, c.num_pending
            ),
            None => println!("  no consumer"),
        }
        if let Some(ledger) = &handler.ledger {
            let floor = self.head.as_ref().and_then(|head| head.floors.get(&handler.name));
            let (done, dead) = floor.map_or((0, 0), |floor| (floor.done, floor.dead));
            println!("  decisions in ledger {ledger}: {done} done, {dead} dead");
        }
        for heap in self.heaps.iter().chain(self.keys.iter().filter(|_| state)) {
            println!("  {} in {}: {}", heap.what, heap.stream, heap.count);
        }
        match &self.keys {
            Some(keys) if !state && keys.count > 0 => println!(
                "its bucket keeps its {} key(s), and the effects are applied to them a second time; --state deletes \
                 the keys",
                keys.count
            ),
            _ => {}
        }
        match handler.start {
            None => println!("the configuration has no `start`: a host needs one if the stream contains messages"),
            Some(Start::New) => println!("it begins with the events that are published after its next start"),
            Some(_) => println!(
                "it processes all events from its `start` on again, those that were done and those \
                                 that are dead"
            ),
        }
    }
}

/// Resets the handler, with a record of it.
async fn recorded(
    connection: &Connection,
    plan: &Plan,
    handler: &Handler,
    found: &Found,
    state: bool,
) -> Result<(), Error> {
    let what = if state { "with its state" } else { "without its state" };
    let intent = intent(AuditAction::Reset, &[&handler.name], what, None);
    let deleted = found.heaps.iter().chain(found.keys.iter().filter(|_| state));
    let deleted = deleted.map(|heap| heap.count).sum();
    let act = carry_out(connection, plan, handler, found, state);
    let told = |(): &()| AuditEnd::done(&[("deleted messages", deleted)]);
    actor(connection, plan).acts(intent, act, told).await
}

/// Broken off anywhere, it can be done again: the consumer goes first, so that nothing is delivered meanwhile, and the
/// ledger forgets last.
async fn carry_out(
    connection: &Connection,
    plan: &Plan,
    handler: &Handler,
    found: &Found,
    state: bool,
) -> Result<(), Error> {
    connection.remove_consumer(&handler.stream, &handler.consumer).await?;
    let bucket = match (&handler.ledger, &found.head) {
        (Some(ledger), Some(_)) => {
            let connections = Arc::new(Connections::new(&plan.nats, "reset"));
            let host = format!("reset-{}", token());
            Some(Bucket::new(ledger, &host, connections, usize::MAX))
        }
        _ => None,
    };
    if let Some(bucket) = &bucket {
        bucket.fence().await?;
    }
    for heap in found.heaps.iter().chain(found.keys.iter().filter(|_| state)) {
        if heap.count > 0 {
            let body = json!({ "filter": heap.filter });
            let _: Value = connection.api(&format!("STREAM.PURGE.{}", heap.stream), &body).await?;
        }
    }
    if let Some(bucket) = &bucket {
        bucket.forget(&handler.name).await?;
    }
    Ok(())
}

async fn heap(connection: &Connection, stream: &str, filter: String, what: &'static str) -> Result<Heap, Error> {
    let count = match connection.stream(stream).await? {
        Some(_) => count(connection, stream, &filter).await?,
        None => 0,
    };
    Ok(Heap {
        stream: stream.to_owned(),
        filter,
        what,
        count,
    })
}

/// How many messages of a stream match. The server lists subjects page by page.
async fn count(connection: &Connection, stream: &str, filter: &str) -> Result<u64, broker::Error> {
    let (mut messages, mut subjects) = (0, 0);
    loop {
        let body = json!({ "subjects_filter": filter, "offset": subjects });
        let info: Value = connection.api(&format!("STREAM.INFO.{stream}"), &body).await?;
        let page = info["state"]["subjects"].as_object();
        let read = page.map_or(0, serde_json::Map::len);
        messages += page.into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum::<u64>();
        subjects += read;
        if read == 0 || info["total"].as_u64().is_none_or(|total| subjects as u64 >= total) {
            return Ok(messages);
        }
    }
}
