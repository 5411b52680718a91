//! Whether the last event of a schedule is decided by all handlers that are given it.

use super::state::{LastEvent, ScheduleState};
use crate::broker::kv::kv_stream;
use crate::broker::provision::MESH_BUCKET;
use crate::broker::scan::{From, Scan};
use crate::broker::{By, Captured, Connection, Error};
use crate::event::{header, headers_of};
use crate::ledger::identity::EVENT_ID;
use crate::ledger::relay::CONSUMER;

/// Clocks of servers may differ by this.
const APART_MS: u64 = 60_000;

/// Whether some handler has not decided it. A handler counts as through with it when its consumer has settled everything up to it,
/// so an earlier event that is retried counts as well.
pub async fn is_open(connection: &Connection, state: &ScheduleState) -> Result<bool, Error> {
    let Some(last) = state.last.as_ref().filter(|_| !state.consumers.is_empty()) else {
        return Ok(false);
    };
    // Asked before the event is looked for: what is published meanwhile is found then.
    let relay = connection.consumer(&kv_stream(MESH_BUCKET), CONSUMER).await?;
    let on_its_way = relay.is_some_and(|relay| relay.num_pending + relay.num_ack_pending > 0);
    let Some((stream, sequence)) = place(connection, &state.spec.subject, last).await? else {
        // It was removed, as a work queue does with what is settled; or it is not published yet.
        return Ok(on_its_way);
    };
    for consumer in state.consumers.iter().filter(|consumer| consumer.stream == stream) {
        let info = connection.consumer(&stream, &consumer.name).await?;
        if info.is_some_and(|info| info.settled_floor() < sequence) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The stream and the sequence at which an event lies. `None`: it is not published yet, or was removed.
pub async fn place(connection: &Connection, subject: &str, last: &LastEvent) -> Result<Option<(String, u64)>, Error> {
    let Some(Captured { stream, subject }) = connection.captured(subject).await? else {
        return Ok(None);
    };
    let sequence = sequence(connection, &stream, &subject, last).await?;
    Ok(sequence.map(|sequence| (stream, sequence)))
}

async fn sequence(
    connection: &Connection,
    stream: &str,
    subject: &str,
    last: &LastEvent,
) -> Result<Option<u64>, Error> {
    let newest = connection.stored(stream, By::Last(subject)).await?;
    let is_it = |headers: &crate::event::Headers| header(headers, EVENT_ID) == Some(&last.id);
    if let Some(newest) = &newest
        && newest.headers().is_ok_and(|headers| is_it(&headers))
    {
        return Ok(Some(newest.sequence));
    }
    if newest.is_none() {
        return Ok(None);
    }
    // Others publish on this subject too.
    let from = From::Time(last.at.saturating_sub(APART_MS));
    let mut scan = Scan::start(connection, stream, &[subject.to_owned()], from, u64::MAX, true).await?;
    let mut found = None;
    while let Some(scanned) = scan.next().await? {
        if is_it(&headers_of(scanned.message.headers.as_ref())) {
            found = Some(scanned.sequence);
            break;
        }
    }
    scan.end().await?;
    Ok(found)
}
