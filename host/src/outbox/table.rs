//! What the database of an outbox tells of its table.

use super::marker::LogPoint;
use super::row::OutboxRow;

/// More rows than this are not counted.
pub const COUNT_MAX: u64 = 100_000;

/// What the database knows of what is published of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePosition {
    /// The database's own random name.
    pub database: String,
    /// The newest marker whose rows are deleted here: its number, and its sequence in the stream.
    pub batch: u64,
    pub sequence: u64,
    /// When that stream was created, as it tells.
    pub created: String,
}

#[derive(Debug)]
pub struct TableMoment {
    pub position: TablePosition,
    /// The first rows, in their order.
    pub rows: Vec<OutboxRow>,
    /// Without rows, none was there. A log that was just opened may not be read as far as it was written.
    pub whole: bool,
    /// Where they are in the log, if they are read from there.
    pub point: Option<LogPoint>,
}

/// Rows that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// At most one more than [`COUNT_MAX`]. Of a log: those that the host has read; `None`: another host reads it.
    pub rows: Option<u64>,
    /// When the oldest was written, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<u64>,
    pub log: Option<LogBacklog>,
}

/// What of its log the database keeps for an outbox, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBacklog {
    /// All that it keeps, and the place from which on.
    pub held: u64,
    pub from: u64,
    /// From where the outbox has settled it.
    pub behind: u64,
}

/// The first rows that fit into a number of bytes; the first one in any case.
pub fn fitting(rows: Vec<OutboxRow>, bytes_max: usize) -> Vec<OutboxRow> {
    let mut bytes = 0;
    let mut first = true;
    let fits = move |row: &OutboxRow| {
        bytes += row.bytes();
        std::mem::take(&mut first) || bytes <= bytes_max
    };
    rows.into_iter().take_while(fits).collect()
}

/// A number as databases store it.
pub fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
