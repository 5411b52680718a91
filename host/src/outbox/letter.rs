//! The dead letter of a row that is no event.

use super::error::Error;
use super::row::OutboxRow;
use super::sides::Sides;
use crate::event::rfc3339;
use crate::mesh_streams::dead_letter::{self, TIME};

/// The row's id, or its place in the log.
pub const ROW: &str = "Mesh-Outbox-Row";
/// Its `uid`, which its event would have had in its message id as well.
pub const UID: &str = "Mesh-Outbox-Uid";
/// The row's headers, if they cannot be read.
const UNREAD: &str = "Mesh-Outbox-Headers";
/// How much of those is kept.
const UNREAD_CHARS: usize = 4096;

/// Stores the letter, unless it is there. `database`: its own name.
pub async fn store(sides: &Sides<'_>, database: &str, row: &OutboxRow, why: &str) -> Result<(), Error> {
    let id = format!("{}.{database}.{}.0", sides.outbox.name, row.at.1.unsigned_abs());
    let headers = row.readable_headers();
    let (subject, mut letter) = dead_letter::undeliverable(&sides.outbox.stream, &id, &row.subject, &headers, why);
    letter.push((ROW.to_owned(), row.name()));
    letter.push((UID.to_owned(), row.at.1.to_string()));
    if row.time_ms > 0 {
        letter.push((TIME.to_owned(), rfc3339(row.time_ms)));
    }
    if let Some(text) = row.headers.as_ref().filter(|_| headers.is_empty()) {
        let plain = |c: char| if c.is_ascii_control() { ' ' } else { c };
        letter.push((UNREAD.to_owned(), text.chars().take(UNREAD_CHARS).map(plain).collect()));
    }
    let stored = dead_letter::store(sides.connection, &subject, &letter, row.payload.clone());
    if sides.kept(stored).await? {
        tracing::warn!(
            outbox = sides.outbox.name,
            row = row.name(),
            subject = Some(row.subject.as_str()).filter(|subject| !subject.is_empty()),
            why,
            "a row is a dead letter"
        );
    }
    Ok(())
}
