//! A server that takes no further connection: it is told once in a while, for all who want one.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::Error;

/// How often it is said that the server takes no further connection.
const CROWD_TOLD_EVERY: Duration = Duration::from_secs(60);

/// Says that the server takes no further connection, for all who want one, once in a while.
pub(super) fn tell(error: &Error) {
    static TOLD: Mutex<Option<Instant>> = Mutex::new(None);
    let mut told = TOLD.lock();
    if told.is_none_or(|at| at.elapsed() >= CROWD_TOLD_EVERY) {
        *told = Some(Instant::now());
        tracing::warn!(%error, "a connection is missing, and what needs it waits");
    }
}
