//! Which rows go out as one batch.

use super::marker::{DEAD_BYTES, DeadRow, LogPoint, ROW_BYTES, RowRef, SkippedRow};
use super::row::{OutboxRow, StreamLimits, judge};
use crate::event::Headers;

/// Most messages of a batch besides its marker: the server takes 1,000.
const EVENTS_MAX: usize = 999;
/// Most that a batch may be, about: the server holds it in memory until it is whole.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Rows of one look, in the order of their ids, as they are settled together.
#[derive(Debug, Default)]
pub struct OutboxGroup {
    pub events: Vec<(OutboxRow, Headers)>,
    pub dead: Vec<(OutboxRow, DeadRow)>,
    /// Rows whose events are in the stream already.
    pub known: Vec<RowRef>,
    /// Where the rows are in a log.
    pub point: Option<LogPoint>,
}

/// How many rows to look at for a group.
pub fn rows_max(limits: &StreamLimits) -> usize {
    (limits.message_bytes_max / 2 / ROW_BYTES).clamp(1, EVENTS_MAX)
}

/// How many bytes of rows to look at: with more, the first row alone.
pub fn bytes_max() -> usize {
    BYTES_MAX
}

impl OutboxGroup {
    /// The first rows that a batch can settle.
    pub fn of(rows: Vec<OutboxRow>, limits: &StreamLimits) -> OutboxGroup {
        let mut group = OutboxGroup::default();
        let mut marker = 0;
        for row in rows {
            let judged = judge(&row, limits);
            marker += if judged.is_ok() { ROW_BYTES } else { DEAD_BYTES };
            if marker > limits.message_bytes_max / 2 && !group.is_empty() {
                break;
            }
            match judged {
                Ok(headers) => group.events.push((row, headers)),
                Err(why) => group.dead_letter(row, &why),
            }
        }
        group
    }

    /// The rows that it settles.
    pub fn rows(&self) -> Vec<RowRef> {
        let events = self.events.iter().map(|(row, _)| row.at);
        let dead = self.dead.iter().map(|(row, _)| row.at);
        events.chain(dead).chain(self.known.iter().copied()).collect()
    }

    /// What of the rows that a person has skipped is not among these.
    pub fn unskipped(&self, skip: &[SkippedRow]) -> Vec<SkippedRow> {
        let here = |one: &&SkippedRow| !self.dead.iter().any(|(row, _)| row.is(one));
        skip.iter().filter(here).cloned().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.dead.is_empty()
    }

    /// Its one event is a dead letter after all.
    pub fn dead_letter_the_event(&mut self, why: &str) {
        if let Some((row, _)) = self.events.pop() {
            self.dead_letter(row, why);
        }
    }

    /// Its one event is in the stream already.
    pub fn know_the_event(&mut self) {
        self.known.extend(self.events.pop().map(|(row, _)| row.at));
    }

    fn dead_letter(&mut self, row: OutboxRow, why: &str) {
        let dead = DeadRow::new(row.at, why);
        self.dead.push((row, dead));
    }
}
