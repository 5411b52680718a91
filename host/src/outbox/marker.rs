//! What the stream holds of an outbox: the marker, the last message of each batch. It says which rows the batch has settled, and
//! each follows the one before it. So it decides what is published, and one relay at a time can write it.

use serde::{Deserialize, Serialize};

/// Which row of an outbox's table: its `id`, and the random number in `uid`. After a restore an id may come again, with
/// another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowRef(pub i64, pub i64);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The database's own random name.
    pub database: String,
    /// Counts the batches that have settled rows. A marker that settles none, as of a pause, has the number before.
    pub batch: u64,
    /// The host that wrote it.
    pub host: String,
    /// Rows that are events of this batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<RowRef>,
    /// Rows that are dead letters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dead: Vec<DeadRow>,
    /// Rows of a log that a person has skipped, and that are not read yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<SkippedRow>,
    /// How far the log is settled, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogPoint>,
    /// The stream has events of this database only behind this sequence: before, it had those of another one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub since: u64,
    /// A person has paused the outbox; absent: it publishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A row that is no event, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadRow {
    pub row: RowRef,
    pub why: String,
}

/// A row of a log that becomes a dead letter when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedRow {
    pub id: i64,
    pub why: String,
}

/// A place in the log of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPoint {
    /// The cluster, as PostgreSQL identifies it.
    pub system: String,
    /// Which of its histories: a restored one has another.
    pub timeline: String,
    /// As PostgreSQL writes it.
    pub lsn: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub reason: String,
    /// When, RFC 3339.
    pub since: String,
}

/// What the marker takes up for a row at most: two numbers of 64 bits, and what separates them.
pub const ROW_BYTES: usize = 48;
/// The same for a row that is a dead letter.
pub const DEAD_BYTES: usize = 512;
/// How much of why a row is a dead letter its marker keeps.
const WHY_CHARS: usize = 300;

impl DeadRow {
    pub fn new(row: RowRef, why: &str) -> DeadRow {
        let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        DeadRow {
            row,
            why: why.chars().take(WHY_CHARS).map(plain).collect(),
        }
    }
}

impl Marker {
    pub fn parse(payload: &[u8]) -> Result<Marker, String> {
        serde_json::from_slice(payload).map_err(|error| error.to_string())
    }

    pub fn body(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a marker serialises")
    }
}

/// The message id of a row's event.
pub fn message_id(outbox: &str, RowRef(id, uid): RowRef) -> String {
    format!("outbox.{outbox}.{id}.{uid}")
}

/// The row of this outbox that a message id names.
pub fn row_of(outbox: &str, message_id: &str) -> Option<RowRef> {
    let rest = message_id
        .strip_prefix("outbox.")?
        .strip_prefix(outbox)?
        .strip_prefix('.')?;
    let (id, uid) = rest.split_once('.')?;
    Some(RowRef(id.parse().ok()?, uid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_names_its_row_and_no_row_of_another_outbox() {
        let row = RowRef(-7, i64::MAX);
        assert_eq!(row_of("orders", &message_id("orders", row)), Some(row));
        for other in [
            "outbox.orders2.1.2",
            "outbox.order.1.2",
            "outbox.orders.1",
            "orders.1.2",
            "outbox.orders.x.2",
        ] {
            assert_eq!(row_of("orders", other), None, "{other}");
        }
    }

    #[test]
    fn a_marker_takes_up_no_more_than_is_reckoned_for_its_rows() {
        let row = RowRef(i64::MIN, i64::MIN);
        let bare = Marker {
            rows: vec![row],
            dead: vec![DeadRow::new(row, "")],
            ..Marker::default()
        }
        .body()
        .len();
        let rows = Marker {
            rows: vec![row; 11],
            dead: vec![DeadRow::new(row, "")],
            ..Marker::default()
        };
        assert!(rows.body().len() <= bare + 10 * ROW_BYTES);
        let why = "\"ü\n".repeat(1000);
        let dead = Marker {
            rows: vec![row],
            dead: vec![DeadRow::new(row, &why); 11],
            ..Marker::default()
        };
        assert!(
            dead.body().len() <= bare + 11 * (DEAD_BYTES + WHY_CHARS),
            "{}",
            dead.body().len()
        );
        assert_eq!(Marker::parse(&dead.body()), Ok(dead));
    }
}
