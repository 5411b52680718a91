//! Messages that the client library cannot read. Each delivery of one breaks the connection, and what comes behind it is
//! lost from that delivery; so after a break the pending messages are read raw, and what cannot be read is buried.

use std::borrow::Cow;
use std::sync::Arc;

use crate::broker::Error;
use crate::broker::consumer::ConsumerInfo;
use crate::burial::{self, Attempts, Buried, Dead};
use crate::dead_letter::Body;
use crate::effects::subject_matches;
use crate::lane::{Counters, Lane, Link};
use crate::message::EventId;
use crate::outcome::{Cause, Failure};
use crate::settle::ack_by_sequence;

/// Buries every unreadable message among those that the consumer waits for.
pub async fn isolate(lane: &Lane, link: &Link, consumer: &ConsumerInfo) -> Result<(), Error> {
    let plan = &lane.plan;
    let mut next = consumer.ack_floor.stream_seq + 1;
    while next <= consumer.delivered.stream_seq {
        let Some(stored) = link.connection.stored_next(&plan.stream, next, ">").await? else {
            break;
        };
        next = stored.sequence + 1;
        let Err(why) = stored.headers() else { continue };
        let ours = plan.subjects.is_empty() || plan.subjects.iter().any(|f| subject_matches(f, &stored.subject));
        if !ours || stored.sequence > consumer.delivered.stream_seq {
            continue;
        }
        let event = EventId {
            incarnation: Arc::clone(&link.incarnation),
            sequence: stored.sequence,
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
        if burial::bury(lane, &event, &dead, Some(Body::of(stored))).await? == Buried::Now {
            Counters::add(&lane.counters.dead, 1);
            tracing::warn!(handler = %plan.name, %event, cause = %dead.cause, code = dead.failure.code,
                error = dead.failure.message, "dead");
        }
        ack_by_sequence(&link.connection, &plan.stream, &plan.consumer, event.sequence).await?;
    }
    Ok(())
}
