//! Events that follow from this one.
//!
//! They are published after, and only if, the call's effects are committed; each exactly once.
//!
//! ```
//! # use std::time::{Duration, SystemTime};
//! # use jetmesh_sdk::events;
//! # let (order, midnight) = ("o-1", SystemTime::now());
//! events::emit("orders.counted", &order)?;
//! events::after(Duration::from_secs(15 * 60)).emit("orders.unpaid", &order)?;
//! events::at(midnight).emit("reports.wanted", &order)?;
//! # Ok::<(), events::Error>(())
//! ```

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::host;

/// Why an event could not be emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The subject is not among the handler's `publish` subjects in the configuration.
    NotGranted(String),
    /// The subject, a header or the payload is malformed, a header's name is reserved, or the time is too far away; says
    /// why.
    Invalid(String),
    /// The payload, or the emitted events of this call together, are too large; says the limit.
    TooLarge(String),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGranted(what) => write!(f, "emit not granted: {what}"),
            Self::Invalid(why) => write!(f, "invalid emit: {why}"),
            Self::TooLarge(limit) => write!(f, "emit too large: {limit}"),
            Self::Other(why) => write!(f, "emit: {why}"),
        }
    }
}

impl std::error::Error for Error {}

/// When an event is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// As soon as the call's effects are committed.
    Now,
    /// This long after the call, in whole milliseconds.
    After(Duration),
    /// At this time; one of the past is now.
    At(SystemTime),
}

/// Emits an event whose payload is JSON.
pub fn emit(subject: &str, payload: &impl Serialize) -> Result<(), Error> {
    emit_with_headers(subject, &[], payload)
}

/// Emits an event whose payload is JSON, with headers.
pub fn emit_with_headers(subject: &str, headers: &[(&str, &str)], payload: &impl Serialize) -> Result<(), Error> {
    emit_bytes(subject, headers, &json(payload)?)
}

/// Emits an event whose payload is any bytes.
pub fn emit_bytes(subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<(), Error> {
    host::emit(subject, headers, payload)
}

/// For an event that is published later: `events::after(Duration::from_secs(900)).emit("orders.unpaid", &order)?;`
///
/// The delay counts from the call and is at most 366 days. NATS keeps the event meanwhile, with no host up as well.
pub fn after(delay: Duration) -> When {
    When::After(delay)
}

/// For an event that is published at a time, at most 366 days from now.
pub fn at(time: SystemTime) -> When {
    When::At(time)
}

impl When {
    /// Emits an event whose payload is JSON.
    pub fn emit(self, subject: &str, payload: &impl Serialize) -> Result<(), Error> {
        self.emit_with_headers(subject, &[], payload)
    }

    /// Emits an event whose payload is JSON, with headers.
    pub fn emit_with_headers(
        self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &impl Serialize,
    ) -> Result<(), Error> {
        self.emit_bytes(subject, headers, &json(payload)?)
    }

    /// Emits an event whose payload is any bytes.
    pub fn emit_bytes(self, subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<(), Error> {
        // A handler that never delays anything imports nothing for it, and so runs on any host.
        host::emit_when(self, subject, headers, payload)
    }
}

pub(crate) fn json(payload: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(payload).map_err(|error| Error::Invalid(format!("payload: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn emitted_events_tell_when_they_are_published() {
        testing::reset();
        let (delay, time) = (Duration::from_secs(900), SystemTime::UNIX_EPOCH);
        emit("a", &1).unwrap();
        after(delay).emit("b", &2).unwrap();
        at(time).emit_with_headers("c", &[("K", "v")], &3).unwrap();
        let emitted = testing::emitted();
        let times: Vec<When> = emitted.iter().map(|event| event.when).collect();
        assert_eq!(times, [When::Now, When::After(delay), When::At(time)]);
        assert_eq!(emitted[2].headers, [("K".to_owned(), "v".to_owned())]);
    }
}
