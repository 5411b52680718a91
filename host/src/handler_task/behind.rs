//! A handler's consumer that is ahead of its stream (`broker/recreate`): it is deleted and created again where it has to continue.
//! Events that are delivered twice by that are answered from the ledger.

use crate::broker::consumer::{ConsumerInfo, META_INCARNATION, Owner, check_owner};
use crate::broker::recreate::CERTAIN;
use crate::broker::{Connection, Error, StreamInfo};
use crate::failpoint;
use crate::ledger::core::entry::Incarnation;
use crate::plan::Handler;

/// Deletes and creates again a consumer that has delivered more than its stream has, or had done so before the stream lost its
/// end.
pub async fn reconcile(
    connection: &Connection,
    plan: &Handler,
    (found, owner): (&ConsumerInfo, &Owner<'_>),
    (info, present): (&StreamInfo, &Incarnation),
) -> Result<(), Error> {
    if failpoint::off("look-at-bind") {
        return Ok(());
    }
    let given = found.delivered.stream_seq;
    // It was bound before the stream lost its end, and has passed what came in the place of what was lost.
    let bound = found.metadata(META_INCARNATION);
    let passed = (present.former.iter()).find(|former| bound == Some(&*former.token) && former.until < given);
    let end = match passed {
        Some(former) => former.until,
        None => match connection.ends_before(&plan.stream, given, info).await? {
            Some(info) => info.state.last_seq,
            None => return Ok(()),
        },
    };
    check_owner(plan, found, owner)?;
    recreate(connection, plan, found, end).await
}

/// From where it had acked everything that the stream still has.
async fn recreate(connection: &Connection, plan: &Handler, found: &ConsumerInfo, end: u64) -> Result<(), Error> {
    let delivered = found.delivered.stream_seq;
    tracing::warn!(handler = %plan.name, stream = %plan.stream, consumer = %plan.consumer, delivered, end,
        "the stream has lost its last messages: the handler's consumer was ahead of it and is created again");
    let from = found.ack_floor.stream_seq.min(end) + 1;
    connection.recreate(&plan.stream, found, (from, &[])).await.map(drop)
}

/// Deletes and creates again a consumer that is ahead of its stream, or to which the server leaves something undelivered.
/// `true`: it was so. `info`: the stream as it was before `found`.
pub async fn look(
    connection: &Connection,
    plan: &Handler,
    found: &ConsumerInfo,
    info: &StreamInfo,
) -> Result<bool, Error> {
    if failpoint::off("look-at-sweep") {
        return Ok(false);
    }
    let found = &as_told(found.clone());
    if found.is_ahead_of(info)
        && let Some(info) = connection.left_behind(&plan.stream, found).await?
    {
        // The lane binds it again, and finds out what the stream has lost.
        recreate(connection, plan, found, info.state.last_seq).await?;
        return Ok(true);
    }
    let Some(passed) = connection.passed_over(info, found).await? else {
        return Ok(false);
    };
    // Between storing a message and telling a consumer of it, it may be so.
    tokio::time::sleep(CERTAIN).await;
    let again = connection.consumer(&plan.stream, &plan.consumer).await?.map(as_told);
    let Some(again) = again.filter(|again| again.num_pending == 0 && again.delivered.stream_seq < passed) else {
        return Ok(false);
    };
    tracing::warn!(handler = %plan.name, stream = %plan.stream, consumer = %plan.consumer, sequence = passed,
        "the server does not deliver an event: the handler's consumer is created again");
    connection
        .recreate(&plan.stream, &again, (again.settled_floor() + 1, &[]))
        .await?;
    Ok(true)
}

/// A test plants a server that does not tell of what is pending.
fn as_told(mut consumer: ConsumerInfo) -> ConsumerInfo {
    if failpoint::off("pending-told") {
        consumer.num_pending = 0;
    }
    consumer
}
