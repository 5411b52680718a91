//! A handler whose ledger is in another bucket now: its decisions are kept. Nothing has to be copied for that if every event
//! that it was given is decided and every consequence published, and no dead letter names a death in the former ledger.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{carried_out, served};
use crate::broker::connection::token;
use crate::broker::consumer::{ConsumerInfo, META_INCARNATION, META_LEDGER, Owner, check_owner};
use crate::broker::kv::{key_subject, kv_stream};
use crate::broker::provision::{ATTEMPTS, DEAD, MESH_BUCKET};
use crate::broker::scan::{From, Scan};
use crate::broker::{self, Connection, Connections};
use crate::cli::audit::{actor, intent};
use crate::cli::{Error, OK, ask};
use crate::event::EventId;
use crate::ledger::Bucket;
use crate::ledger::core::entry::Subjects;
use crate::ledger::store::{incarnation, keys, read};
use crate::mesh_streams::audit::{AuditAction, AuditEnd};
use crate::mesh_streams::dead_letter::SETTLED;
use crate::plan::{Handler, Plan};

pub async fn run(connection: &Connection, plan: &Plan, handler: &Handler, yes: bool) -> Result<u8, Error> {
    let Some((former, consumer)) = decided(connection, plan, handler).await? else {
        println!(
            "handler {}: its ledger is in the same bucket as before, so there is nothing to do",
            handler.name
        );
        return Ok(OK);
    };
    let ledger = handler.ledger.as_deref().unwrap_or_default();
    println!(
        "handler {}: its ledger moves from bucket {former} to bucket {ledger}\n  the events that it received, up to \
         {}:{}, stay decided and do not run again\n  the message ids of these events are forgotten: an event that \
         its publisher repeats runs again",
        handler.name, handler.stream, consumer.delivered.stream_seq
    );
    if !yes {
        ask::confirmed("Continue?", "nothing is changed")?;
    }
    // A host may have been started while this waited.
    let Some((former, consumer)) = decided(connection, plan, handler).await? else {
        return Err(Error::Failed(
            "another command has done this since the question".to_owned(),
        ));
    };
    let what = format!("its ledger moves from bucket {former} to bucket {ledger}");
    let intent = intent(AuditAction::Reset, &[&handler.name], what, None);
    let act = async {
        // The next host takes the handler for one whose ledger begins behind what is decided.
        let mut config = consumer.config.clone();
        if let Some(metadata) = config["metadata"].as_object_mut() {
            metadata.remove(META_LEDGER);
        }
        connection.put_consumer(&handler.stream, &config, "update").await?;
        forget(connection, plan, handler, &former).await
    };
    actor(connection, plan)
        .acts(intent, act, |()| AuditEnd::done(&[("moved", 1)]))
        .await?;
    println!("handler {} continues at its next start", handler.name);
    Ok(OK)
}

/// The bucket of the former ledger, if everything that it has to know is decided. `None`: the ledger has not moved.
async fn decided(
    connection: &Connection,
    plan: &Plan,
    handler: &Handler,
) -> Result<Option<(String, ConsumerInfo)>, Error> {
    let (name, stream) = (&handler.name, &handler.stream);
    let refused = |why: String| Err(broker::Error::Refused(format!("handler {name}: {why}")).into());
    let Some(consumer) = connection.consumer(stream, &handler.consumer).await? else {
        return refused(format!("it has no consumer on stream {stream}, so nothing is decided"));
    };
    let owner = Owner {
        mesh: &plan.mesh,
        incarnation: "",
        ledger: None,
    };
    check_owner(handler, &consumer, &owner)?;
    let (Some(ledger), Some(incarnation)) = (&handler.ledger, consumer.metadata(META_LEDGER)) else {
        return Ok(None);
    };
    let Some(former) = read::bucket_of(connection, incarnation).await? else {
        return refused("the bucket of its old ledger does not exist any more, or was purged".to_owned());
    };
    if former == *ledger {
        return Ok(None);
    }
    served(connection, plan, handler, Some(&consumer)).await?;
    if consumer.num_ack_pending > 0 {
        return refused(format!(
            "{} event(s) are delivered and not decided: run the hosts with the old configuration until `jetmesh \
             status` shows nothing IN FLIGHT",
            consumer.num_ack_pending
        ));
    }
    let letters = letters(connection, handler).await?;
    if letters > 0 {
        return refused(format!(
            "{letters} dead letter(s) belong to its old ledger: replay or discard them first, with the old \
             configuration"
        ));
    }
    let undecided = undecided(connection, plan, handler, &consumer, &former).await?;
    if undecided > 0 {
        return refused(format!(
            "{undecided} event(s) up to {stream}:{} are not decided in its old ledger: run the hosts with the old \
             configuration for some minutes; they look for such events",
            consumer.delivered.stream_seq
        ));
    }
    carried_out(connection, &former).await?;
    Ok(Some((former, consumer)))
}

/// How many events the server has nothing to do for any more, and the former ledger does not know. A stream that removes
/// what is acked holds none of these.
async fn undecided(
    connection: &Connection,
    plan: &Plan,
    handler: &Handler,
    consumer: &ConsumerInfo,
    former: &str,
) -> Result<u64, Error> {
    let removes = connection
        .stream(&handler.stream)
        .await?
        .is_none_or(|info| info.retention() != "limits");
    let (Some(token), false) = (consumer.metadata(META_INCARNATION), removes) else {
        return Ok(0);
    };
    let key = incarnation::key(&handler.stream);
    let value = keys::fetch(connection, MESH_BUCKET, &key).await?.1;
    let known = value.map(|value| incarnation::parse(&handler.stream, &value));
    // A stream that has lost its last messages has events of several incarnations.
    let known = known.transpose()?.filter(|known| known.has(token));
    let bucket = former_ledger(plan, former);
    bucket.catch_up().await?;
    let first = match &known {
        Some(known) if !known.former.is_empty() => 1,
        _ => bucket.floor(&handler.name, token) + 1,
    };
    let first = first.max(consumer.start()?.unwrap_or(1));
    let until = consumer.delivered.stream_seq;
    if first > until {
        return Ok(0);
    }
    let from = From::Sequence(first);
    let mut scan = Scan::start(connection, &handler.stream, &handler.subjects, from, until, true).await?;
    let mut undecided = 0;
    while let Some(scanned) = scan.next().await? {
        let sequence = scanned.sequence;
        let incarnation = known.as_ref().map_or(token, |known| known.of(sequence)).into();
        let event = EventId { incarnation, sequence };
        undecided += u64::from(bucket.decided(&handler.name, &event).is_none());
    }
    scan.end().await?;
    Ok(undecided)
}

fn former_ledger(plan: &Plan, former: &str) -> Bucket {
    let connections = Arc::new(Connections::new(&plan.nats, "reset"));
    Bucket::new(former, &format!("reset-{}", token()), connections, usize::MAX)
}

/// How many letters of a handler are not settled.
async fn letters(connection: &Connection, handler: &Handler) -> Result<u64, Error> {
    let filter = [format!("$MESH.dead.{}.{}.*.*", handler.stream, handler.name)];
    let mut scan = Scan::start(connection, DEAD, &filter, From::Sequence(1), u64::MAX, true).await?;
    let mut letters = 0;
    while let Some(scanned) = scan.next().await? {
        let settled = scanned
            .message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(SETTLED));
        letters += u64::from(settled.is_none());
    }
    scan.end().await?;
    Ok(letters)
}

/// Deletes what a handler has decided in its former ledger, which is no longer needed.
async fn forget(connection: &Connection, plan: &Plan, handler: &Handler, former: &str) -> Result<(), Error> {
    let bucket = former_ledger(plan, former);
    bucket.fence().await?;
    let heaps = [
        (kv_stream(former), Subjects::new(former).death(&handler.name, ">")),
        (
            kv_stream(ATTEMPTS),
            key_subject(ATTEMPTS, &format!("{}.>", handler.name)),
        ),
    ];
    for (stream, filter) in heaps {
        let purge = format!("STREAM.PURGE.{stream}");
        let _: Value = connection.api(&purge, &json!({ "filter": filter })).await?;
    }
    Ok(bucket.forget(&handler.name).await?)
}
