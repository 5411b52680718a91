//! What keeps an outbox from publishing.

use crate::broker;

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Broker(#[from] broker::Error),
    /// The database cannot be used for now.
    #[error("database {database}: {why}")]
    Database { database: String, why: String },
    /// A person must act; says how.
    #[error("{0}")]
    Person(String),
    /// Another host reads the log, and one reads it at a time.
    #[error("another host reads the log of the database")]
    Busy,
    /// What was agreed on with the stream is no longer so: it is looked at again.
    #[error("another relay, a person or a restored database has changed how the outbox stands")]
    Moved,
}

impl Error {
    /// Whether it may go without a person.
    pub fn passes(&self) -> bool {
        match self {
            Error::Broker(error) => error.passes(),
            Error::Database { .. } | Error::Busy | Error::Moved => true,
            Error::Person(_) => false,
        }
    }
}
