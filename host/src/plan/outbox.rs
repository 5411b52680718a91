//! Outboxes: the databases of services, and how they are reached.

use std::fmt;
use std::path::PathBuf;

/// A table of a service's own database whose rows become events of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox {
    pub name: String,
    pub database: OutboxDatabase,
    pub source: OutboxSource,
    /// The table with the rows; of a log, what the name of the position begins with.
    pub table: String,
    /// The stream that captures the subjects of its rows.
    pub stream: String,
}

impl Outbox {
    /// A row's id for people: in a log it is a place.
    pub fn row_name(&self, id: i64) -> String {
        match self.source {
            OutboxSource::Table => id.to_string(),
            OutboxSource::Log { .. } => lsn_text(id.cast_unsigned()),
        }
    }

    /// Reads what a person calls a row by. `Err`: what it should be.
    pub fn row_id(&self, text: &str) -> Result<i64, &'static str> {
        match self.source {
            OutboxSource::Table => text.parse().map_err(|_| "the id of a row, such as 4711"),
            OutboxSource::Log { .. } => {
                let place = lsn(text).map(u64::cast_signed);
                place.ok_or("a place in the log, such as 0/16B3748, which pg_logical_emit_message returns")
            }
        }
    }

    /// The subject on which the stream holds what is published of it.
    pub fn marker(&self) -> String {
        format!("$MESH.outbox.{}", self.name)
    }
}

/// What is read of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxSource {
    Table,
    /// The log of a PostgreSQL. `wal_max`: bytes that the database may keep for the slot.
    Log {
        wal_max: Option<u64>,
    },
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
    /// The database in it.
    pub name: String,
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

/// A place in the log of a PostgreSQL, as it writes it.
pub fn lsn_text(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

/// Reads that.
pub fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |text: &str| u32::from_str_radix(text, 16).ok().map(u64::from);
    Some(part(high)? << 32 | part(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_of_the_log_is_read_as_it_is_written() {
        for at in [0, 0x16B_3748, 0x1_0000_0000, u64::MAX] {
            assert_eq!(lsn(&lsn_text(at)), Some(at));
        }
        assert_eq!(lsn_text(0x16B_3748), "0/16B3748");
        for wrong in ["", "7", "0/", "x/1", "1/2/3", "0/100000000"] {
            assert_eq!(lsn(wrong), None, "{wrong}");
        }
    }
}
