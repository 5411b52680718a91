//! What becomes of a transaction.

use super::index::Decided;

/// A decision that stands in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// By this append.
    Here { entry: u64 },
    /// Earlier, or by another host.
    Before(Decided),
}

/// Why nothing could be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitError {
    /// What it rests on has changed: run it again.
    Conflict,
    /// It can never be committed.
    TooLarge(String),
    /// NATS is out of reach, or the bucket needs a person.
    Host(String),
}

/// What has become of a transaction.
pub type CommitResult = Result<Committed, CommitError>;

/// Those who waited, and what they are told.
pub type Fates<W> = Vec<(W, CommitResult)>;
