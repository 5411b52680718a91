//! What a handler needs of NATS before it serves, made or found: its stream, its ledger, the stream's incarnation, its
//! consumer.

use crate::broker::consumer::{ConsumerInfo, META_INCARNATION, META_LEDGER, Owner, bind, work_queue};
use crate::broker::kv::kv_stream;
use crate::broker::provision::{MESH_BUCKET, REPLAY, again, kept, restore};
use crate::broker::{Connection, Error, StreamInfo};
use crate::event::parse_rfc3339;
use crate::failpoint;
use crate::handler_task::behind;
use crate::handler_task::lane::Lane;
use crate::handler_task::links::Link;
use crate::handler_task::lost;
use crate::handler_task::sweep;
use crate::ledger::core::entry::Incarnation;
use crate::ledger::store::incarnation;
use crate::ledger::store::known::{check_ledger, gone_bucket};
use crate::mesh_streams::pauses::HandlerPause;
use crate::plan::{Handler, Plan};

/// Binds a connection to a handler's consumer.
pub async fn connect(lane: &Lane, connection: Connection) -> Result<Link, Error> {
    let (plan, whole) = (&*lane.plan, &*lane.whole);
    let info = source_stream(&connection, plan, whole).await?;
    if let Some(conflict) = work_queue(whole, plan, info.retention()) {
        return Err(Error::Refused(conflict));
    }
    let found = connection.consumer(&plan.stream, &plan.consumer).await?;
    let (ledger, present) = identify(&connection, lane, &info, found.as_ref()).await?;
    let owner = Owner {
        mesh: &whole.mesh,
        incarnation: &present.token,
        ledger: ledger.as_deref(),
    };
    failpoint::point("before-bind");
    if let Some(found) = &found {
        behind::reconcile(&connection, plan, (found, &owner), (&info, &present)).await?;
    }
    let floor = lane
        .bucket
        .as_ref()
        .map_or(0, |bucket| bucket.floor(&plan.name, &present.token));
    let paused = lane.circuit.paused();
    let until = paused.as_ref().map(HandlerPause::deadline);
    let own = bind(&connection, plan, &info, &owner, (floor, until)).await?;
    let now = connection.stream(&plan.stream).await?;
    if now.is_none_or(|now| now.created != info.created) {
        // The stream was deleted and created again in between, and this consumer names the old incarnation: no host may use it.
        connection.remove_consumer(&plan.stream, &plan.consumer).await?;
        return Err(gone(plan));
    }
    // What it has told of, or would have, the sweep finds.
    restore(&connection, whole, REPLAY).await?;
    let (stream, door, exactly_once) = (&plan.stream, &lane.doors.source, lane.bucket.is_some());
    let created_ms = parse_rfc3339(&info.created).ok_or_else(|| Error::Answer {
        what: format!("when stream {stream} was made"),
        why: format!("`{}` is no time", info.created),
    })?;
    let link = Link::new(connection, &present, created_ms, info.retention() != "limits");
    let at_work = |sequence| lane.in_flight.contains(&link.event(sequence));
    lost::hand_back(&link.connection, stream, &own, door, exactly_once, at_work).await;
    sweep::removed(plan, &lane.counters, &link, &info, &own);
    Ok(link)
}

/// The handler's stream, made if it is one of the mesh's to make.
async fn source_stream(connection: &Connection, plan: &Handler, whole: &Plan) -> Result<StreamInfo, Error> {
    if let Some(info) = connection.stream(&plan.stream).await? {
        return Ok(info);
    }
    // It may have been removed.
    again(connection, whole, &plan.stream).await?;
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
    })
}

/// Which incarnations the ledger's bucket and the source stream have; the first only with a ledger. `found`: the
/// handler's consumer, which names both.
async fn identify(
    connection: &Connection,
    lane: &Lane,
    info: &StreamInfo,
    found: Option<&ConsumerInfo>,
) -> Result<(Option<String>, Incarnation), Error> {
    let (plan, whole) = (&*lane.plan, &*lane.whole);
    let named = |key| found.and_then(|consumer| consumer.metadata(key));
    let (ledger, from_head) = match &lane.bucket {
        None => (None, None),
        Some(bucket) => {
            let (incarnation, known) = bucket.identity(&plan.stream).await?;
            check_ledger(connection, plan, named(META_LEDGER), Some(&incarnation)).await?;
            (Some(incarnation), known)
        }
    };
    let bound = named(META_INCARNATION);
    let newest = lane.source.newest();
    let seen = (from_head.as_ref(), newest.as_ref());
    let resolve = incarnation::resolve(connection, &plan.stream, info, bound, seen);
    let present = match kept(connection, whole, &kv_stream(MESH_BUCKET), resolve).await {
        Err(_) if connection.stream(&kv_stream(MESH_BUCKET)).await?.is_none() => return Err(gone_bucket(MESH_BUCKET)),
        present => present?,
    };
    lane.source.remember(&present);
    Ok((ledger, present))
}

/// The handler's consumer is not there, or not the one that was bound.
pub fn gone(plan: &Handler) -> Error {
    Error::Missing {
        what: format!("consumer {} on stream {}", plan.consumer, plan.stream),
    }
}
