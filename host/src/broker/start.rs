//! Where a handler begins whose consumer is not there.

use super::error::Error;
use super::stream::StreamInfo;
use crate::plan::{Handler, Start};

/// A consumer that was removed goes on after the floor, whatever `start` says: with "new" it would leave out what came meanwhile.
pub(super) fn start(handler: &Handler, stream: &StreamInfo, floor: u64) -> Result<Start, Error> {
    if floor > 0 {
        // A work queue takes no other start; and it holds only what is not acked.
        return Ok(match stream.retention() {
            "workqueue" => Start::All,
            _ => Start::Sequence(floor + 1),
        });
    }
    match handler.start {
        Some(start) => Ok(start),
        None if stream.state.messages == 0 => Ok(Start::All),
        None => Err(Error::Refused(format!(
            "handler {}: stream {} already contains {} messages; set where it starts: `start = \"all\"`, \
             `\"new\"`, a sequence or a time",
            handler.name, handler.stream, stream.state.messages
        ))),
    }
}
