//! Events that are at work on this host: no floor decides them meanwhile, only an entry.

use super::bucket::Bucket;
use crate::event::EventId;

impl Bucket {
    /// An undecided event is at work here, until the guard is dropped.
    pub fn at_work<'a>(&'a self, handler: &'a str, event: &EventId) -> AtWork<'a> {
        self.book().index.open(handler, event);
        AtWork {
            bucket: self,
            handler,
            event: event.clone(),
        }
    }
}

/// Held while an event that was undecided is at work.
pub struct AtWork<'a> {
    bucket: &'a Bucket,
    handler: &'a str,
    event: EventId,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.bucket.book().index.close(self.handler, &self.event);
    }
}
