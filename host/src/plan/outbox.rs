//! Outboxes: the databases of services, and how they are reached.

use std::fmt;
use std::path::PathBuf;

/// A table of a service's own database whose rows become events of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox {
    pub name: String,
    pub database: OutboxDatabase,
    pub table: String,
    /// The stream that captures the subjects of its rows.
    pub stream: String,
}

impl Outbox {
    /// The subject on which the stream holds what is published of it.
    pub fn marker(&self) -> String {
        format!("$MESH.outbox.{}", self.name)
    }
}

/// The database of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboxDatabase {
    /// A file of SQLite, absolute or relative to the working directory.
    Sqlite(PathBuf),
    Postgres(Postgres),
}

impl OutboxDatabase {
    /// For people: an address without a user and its secrets.
    pub fn told(&self) -> String {
        match self {
            OutboxDatabase::Sqlite(file) => file.display().to_string(),
            OutboxDatabase::Postgres(postgres) => postgres.told.clone(),
        }
    }
}

/// How a PostgreSQL is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Postgres {
    /// As the client library reads it, without what follows here.
    pub url: String,
    pub password: Option<String>,
    pub tls: PostgresTls,
    /// A file with the certificates that are trusted; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The address for people.
    pub told: String,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest may have a password.
        f.debug_tuple("Postgres").field(&self.told).finish()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostgresTls {
    /// The connection is not encrypted.
    Disable,
    /// It is encrypted, and the server may be any.
    Require,
    /// It is encrypted, and the server proves its name.
    VerifyFull,
}

impl PostgresTls {
    /// As PostgreSQL writes it.
    pub fn word(self) -> &'static str {
        match self {
            PostgresTls::Disable => "disable",
            PostgresTls::Require => "require",
            PostgresTls::VerifyFull => "verify-full",
        }
    }
}
