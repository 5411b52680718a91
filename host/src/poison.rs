//! Messages that the client library cannot read. Each delivery of one breaks the connection, and what comes behind it is
//! lost from that delivery; so after a break the pending messages are read raw, and what cannot be read is buried.

use std::borrow::Cow;
use std::sync::Arc;

use crate::broker::consumer::ConsumerInfo;
use crate::broker::scan::one_by_one;
use crate::broker::{Connection, Error};
use crate::burial::{self, Attempts, Buried, Dead};
use crate::lane::{Counters, Lane, Link};
use crate::message::EventId;
use crate::outcome::{Cause, Failure};
use crate::settle::ack_by_sequence;
use crate::sweep;

/// Buries every unreadable message among those that the consumer waits for.
pub async fn isolate(lane: &Lane, link: &Link, consumer: &ConsumerInfo) -> Result<(), Error> {
    let plan = &lane.plan;
    let (first, last) = (consumer.ack_floor.stream_seq + 1, consumer.delivered.stream_seq);
    for message in sweep::matching(lane, link, first, last).await? {
        let Err(why) = message.headers else { continue };
        // One that cannot be buried must not keep the others, or the handler.
        if let Err(error) = bury(lane, link, message.sequence, &why).await {
            tracing::error!(handler = %plan.name, sequence = message.sequence, %error,
                "a message that no client can read cannot be buried");
        }
    }
    Ok(())
}

/// Takes away what nobody can read among the replays or advisories that a consumer waits for. They name events and are
/// none, so nothing is buried: an advisory's event is found by the sweep, and a replay can be asked for again.
pub async fn discard(connection: &Connection, stream: &str, consumer: &ConsumerInfo) -> Result<(), Error> {
    if consumer.num_ack_pending == 0 {
        return Ok(());
    }
    let (mut next, last) = (consumer.ack_floor.stream_seq + 1, consumer.delivered.stream_seq);
    let (filters, mut found) = (consumer.filters(), Vec::new());
    one_by_one(connection, stream, &filters, &mut next, last, usize::MAX, &mut found).await?;
    for message in found {
        let Err(why) = message.headers else { continue };
        tracing::error!(
            stream,
            handler = consumer.name,
            sequence = message.sequence,
            why,
            "a message that no client can read is taken away"
        );
        ack_by_sequence(connection, stream, &consumer.name, message.sequence).await?;
    }
    Ok(())
}

async fn bury(lane: &Lane, link: &Link, sequence: u64, why: &str) -> Result<(), Error> {
    let plan = &lane.plan;
    let event = EventId {
        incarnation: Arc::clone(&link.incarnation),
        sequence,
    };
    let failure = Failure {
        code: "malformed-message".to_owned(),
        message: format!("no client can read this message: {why}"),
    };
    let dead = Dead {
        cause: Cause::Rejected,
        failure: Cow::Owned(failure),
        record: Attempts::default(),
    };
    let Some(body) = burial::body_in_stream(lane, &event).await? else {
        return Ok(());
    };
    if burial::bury(lane, &event, &dead, Some(body)).await? == Buried::Now {
        Counters::add(&lane.counters.dead, 1);
        tracing::warn!(handler = %plan.name, %event, cause = %dead.cause, code = dead.failure.code,
            error = dead.failure.message, "dead");
    }
    ack_by_sequence(&link.connection, &plan.stream, &plan.consumer, event.sequence).await
}
