//! What can go wrong between the mesh and NATS.

/// The oldest server on which the tests have passed.
pub const SERVER_MIN: (i64, i64, i64) = (2, 12, 5);

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("cannot connect to NATS at {url}: {why}")]
    Connect { url: String, why: String },
    #[error("{what}: cannot be used: {why}")]
    Credentials { what: String, why: String },
    #[error(
        "nats-server {found} is too old: {} or newer is needed",
        format!("{}.{}.{}", SERVER_MIN.0, SERVER_MIN.1, SERVER_MIN.2)
    )]
    OldServer { found: String },
    #[error("JetStream is not enabled on the server, or not for this account: start nats-server with --jetstream")]
    NoJetStream,
    /// What JetStream answered; the code is its `err_code`.
    #[error("{what}: {text} ({code})")]
    Api { what: String, code: u64, text: String },
    #[error("{what}: nobody answered within the time limit")]
    Timeout { what: String },
    #[error("{what}: the connection to NATS is gone")]
    Gone { what: String },
    /// A stream or consumer that was there.
    #[error("{what} is gone")]
    Missing { what: String },
    #[error("{what}: an answer that cannot be read: {why}")]
    Answer { what: String, why: String },
    /// A state of NATS that a person must change; says how.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// JetStream's own error code, if it answered with one.
    pub fn code(&self) -> Option<u64> {
        match self {
            Error::Api { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn passes(&self) -> bool {
        match self {
            Error::Connect { .. }
            | Error::Timeout { .. }
            | Error::Gone { .. }
            | Error::Missing { .. }
            | Error::Answer { .. } => true,
            // 10008: JetStream temporarily unavailable; 503 family without a leader.
            Error::Api { code, .. } => matches!(code, 10008 | 10009 | 10023),
            Error::Credentials { .. } | Error::OldServer { .. } | Error::NoJetStream | Error::Refused(_) => false,
        }
    }
}

/// JetStream's `err_code`: no message found.
pub const NO_MESSAGE: u64 = 10037;
/// JetStream's `err_code`: stream not found.
pub const NO_STREAM: u64 = 10059;
/// JetStream's `err_code`: consumer not found.
pub const NO_CONSUMER: u64 = 10014;
/// JetStream's `err_code`: wrong last sequence.
pub const WRONG_LAST: u64 = 10071;
/// JetStream's `err_code`: message size exceeds maximum allowed.
pub const TOO_LARGE: u64 = 10054;
