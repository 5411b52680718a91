//! What a handler has been given of its stream: by that it is seen later whether the stream still has all of it.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::event::EventId;
use crate::ledger::Bucket;
use crate::ledger::core::entry::Incarnation;

/// What is remembered of a handler's stream; of a handler with a ledger, by that.
pub struct SourceMemory {
    stream: String,
    bucket: Option<Arc<Bucket>>,
    /// Without a ledger: the newest event that the handler was given.
    newest: Mutex<Option<Incarnation>>,
}

impl SourceMemory {
    pub fn new(stream: &str, bucket: Option<Arc<Bucket>>) -> SourceMemory {
        SourceMemory {
            stream: stream.to_owned(),
            bucket,
            newest: Mutex::default(),
        }
    }

    /// An event has come that is to be decided: its stream is recognised by it.
    pub fn saw(&self, event: &EventId, time_ms: u64) {
        if let Some(bucket) = &self.bucket {
            return bucket.saw(&self.stream, event, time_ms);
        }
        if let Some(newest) = &mut *self.newest.lock() {
            newest.saw(&event.incarnation, event.sequence, time_ms);
        }
    }

    /// What the handler was given before, if it has no ledger.
    pub fn newest(&self) -> Option<Incarnation> {
        self.newest.lock().clone()
    }

    /// The handler is bound to this incarnation.
    pub fn remember(&self, present: &Incarnation) {
        if let Some(bucket) = &self.bucket {
            return bucket.remember(&self.stream, present);
        }
        *self.newest.lock() = Some(present.clone());
    }
}
