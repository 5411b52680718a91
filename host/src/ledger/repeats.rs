//! Whether an event repeats another, as far as this host has read.

use super::bucket::Bucket;
use super::entry::Id;
use crate::message::EventId;

impl Bucket {
    /// The event that was the first of this id, if it is another one and decided.
    pub fn first_of(&self, handler: &str, id: &Id, event: &EventId) -> Option<EventId> {
        self.book().index.first_of(handler, id, event).map(|(first, _)| first)
    }
}
