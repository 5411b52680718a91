//! Finds an event by the message id of its publisher.

use std::ops::ControlFlow;

use super::Tracer;
use super::find::Place;
use super::reading::Range;
use crate::broker::Error;
use crate::event::{MESSAGE_ID, header};

/// Whether a text is the id of an event of a schedule, `schedule.NAME.DUE.STEP`, or of an outbox, `outbox.NAME.ID.UID`. Both are
/// message ids, and do not say where the event lies.
pub fn is_message_id(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    matches!(parts[..], ["schedule" | "outbox", _, _, _, ..])
}

impl Tracer<'_> {
    /// The first event of the configuration's streams, from a time on, that has this message id: also one that no handler reads.
    /// `None`: there is none, or the bound was reached before it.
    pub async fn by_message_id(&mut self, id: &str, since_ms: u64) -> Result<Option<Place>, Error> {
        let mut streams = self.sources();
        for named in self.plan.streams.iter().map(|stream| stream.name.as_str()) {
            if !streams.contains(&named) {
                streams.push(named);
            }
        }
        for stream in streams {
            let Some(info) = self.stream(stream).await? else {
                continue;
            };
            let filters = self.filters(stream);
            let range = Range {
                stream,
                info: &info,
                // The filters of one consumer may not overlap.
                filters: if filters.len() == 1 { &filters } else { &[] },
                first: self.reading.since(stream, &info, since_ms).await?,
                last: info.state.last_seq,
                headers_only: true,
            };
            let mut found = None;
            let see = |seen: super::reading::Seen| match header(&seen.headers, MESSAGE_ID) == Some(id) {
                true => {
                    found = Some(seen.sequence);
                    ControlFlow::Break(())
                }
                false => ControlFlow::Continue(()),
            };
            self.reading.range(&range, see).await?;
            if let Some(sequence) = found {
                return self.place(stream, sequence).await.map(Some);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::is_message_id;

    #[test]
    fn events_of_schedules_and_outboxes_are_found_by_their_message_id() {
        for id in ["schedule.tick.20300101T000000Z.0", "outbox.orders.7.123"] {
            assert!(is_message_id(id), "{id}");
        }
        for other in ["inventory.k.7.0", "schedule.k.7", "ORDERS:7", "k.7"] {
            assert!(!is_message_id(other), "{other}");
        }
    }
}
