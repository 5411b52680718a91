//! Whether a handler has reason to expect messages that the client library cannot read.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::failpoint;

/// How long a lane that has met such a message is guarded after the last one.
const SUSPECT: Duration = Duration::from_secs(600);

/// The least that it is guarded after a break whose reason is not known; what was on its way then comes again at once, or
/// after its ack wait.
const UNKNOWN_MIN: Duration = Duration::from_secs(30);

/// Until when a lane has reason to believe that it will be given such messages.
#[derive(Default)]
pub struct Suspicion(Mutex<Option<Instant>>);

impl Suspicion {
    pub fn stands(&self) -> bool {
        let until = *self.0.lock();
        until.is_some_and(|until| Instant::now() < until)
    }

    /// A connection broke, and it may have been such a message.
    pub fn broken(&self, ack_wait: Duration) {
        self.raise((ack_wait.saturating_mul(2)).clamp(UNKNOWN_MIN, SUSPECT));
    }

    pub fn met(&self) {
        self.raise(SUSPECT);
    }

    fn raise(&self, time: Duration) {
        let time = failpoint::number("suspect-ms").map_or(time, Duration::from_millis);
        let until = Some(Instant::now() + time);
        let mut now = self.0.lock();
        *now = until.max(*now);
    }
}
