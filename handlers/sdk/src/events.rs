//! Events that follow from this one.
//!
//! They are published after, and only if, the call's effects are committed; each exactly once.

use std::fmt;

use serde::Serialize;

use crate::host;

/// Why an event could not be emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The subject is not among the handler's `publish` subjects in the configuration.
    NotGranted(String),
    /// The subject, a header or the payload is malformed, or a header's name is reserved; says why.
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

/// Emits an event whose payload is JSON.
pub fn emit(subject: &str, payload: &impl Serialize) -> Result<(), Error> {
    emit_with_headers(subject, &[], payload)
}

/// Emits an event whose payload is JSON, with headers.
pub fn emit_with_headers(subject: &str, headers: &[(&str, &str)], payload: &impl Serialize) -> Result<(), Error> {
    let payload = serde_json::to_vec(payload).map_err(|error| Error::Invalid(format!("payload: {error}")))?;
    emit_bytes(subject, headers, &payload)
}

/// Emits an event whose payload is any bytes.
pub fn emit_bytes(subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<(), Error> {
    host::emit(subject, headers, payload)
}
