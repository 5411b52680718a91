//! Which of a handler's events are over, as far as two requests tell: those below its floor, or, without a ledger, those
//! that its consumer is through with.

use crate::broker::consumer::META_INCARNATION;
use crate::broker::kv::kv_stream;
use crate::broker::{Connection, Error};
use crate::event::EventId;
use crate::ledger::core::entry::{Floor, Subjects};
use crate::ledger::store::read;
use crate::plan::Handler;

/// What is over of one handler.
#[derive(Debug, Default)]
pub struct Over {
    /// Of its ledger.
    pub floor: Floor,
    /// The incarnation of its stream, and the sequence up to which its consumer waits for no answer; only of a handler without
    /// a ledger.
    settled: Option<(String, u64)>,
}

impl Over {
    pub async fn of(connection: &Connection, handler: &Handler) -> Result<Over, Error> {
        if let Some(ledger) = &handler.ledger {
            let head = read::head(connection, &kv_stream(ledger), &Subjects::new(ledger)).await?;
            let floor = head.and_then(|(mut head, _)| head.floors.remove(&handler.name));
            return Ok(Over {
                floor: floor.unwrap_or_default(),
                settled: None,
            });
        }
        let consumer = connection.consumer(&handler.stream, &handler.consumer).await?;
        let settled = consumer.and_then(|info| {
            let incarnation = info.metadata(META_INCARNATION)?.to_owned();
            Some((incarnation, info.settled_floor()))
        });
        Ok(Over {
            floor: Floor::default(),
            settled,
        })
    }

    /// Whether an event, `<incarnation>.<sequence>`, is.
    pub fn is(&self, event: &str) -> bool {
        EventId::parse(event).is_some_and(|event| {
            let settled = self.settled.as_ref().filter(|(token, _)| **token == *event.incarnation);
            event.sequence <= settled.map_or(self.floor.of(&event.incarnation), |(_, floor)| *floor)
        })
    }
}
