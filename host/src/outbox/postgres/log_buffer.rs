//! What was read of the log and is not settled: transactions in the order of their commits, each with its rows. It computes how far the log
//! is settled, and has no I/O.

use std::collections::{HashSet, VecDeque};

use crate::outbox::marker::RowRef;
use crate::outbox::row::OutboxRow;

/// How far the log is settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPlace {
    /// All transactions that end here or before are settled.
    pub lsn: u64,
    /// Of the next transaction that has rows, so many are settled.
    pub settled: u64,
}

/// What is heard of the log, in its order.
#[derive(Debug)]
pub enum LogNews {
    Begin {
        commit: u64,
    },
    Row(OutboxRow),
    Commit {
        end: u64,
    },
    /// The log was read up to here.
    Read {
        until: u64,
    },
}

#[derive(Debug, Default)]
pub struct LogBuffer {
    transactions: VecDeque<LogTransaction>,
    /// Whether the last of them is not heard whole.
    open: bool,
    place: LogPlace,
    /// Rows of the next transaction that were settled before.
    before: u64,
    /// Whether the transaction that is heard was settled before.
    passing: bool,
    /// Rows that are settled as soon as they are heard.
    published: HashSet<RowRef>,
    bytes: usize,
    count: usize,
    /// How far the log was read.
    read: u64,
}

#[derive(Debug)]
struct LogTransaction {
    end: u64,
    rows: VecDeque<(OutboxRow, bool)>,
    /// Settled rows that are gone from the front.
    gone: u64,
}

impl LogBuffer {
    /// Begins where the log was settled.
    pub fn new(place: LogPlace) -> LogBuffer {
        LogBuffer {
            place,
            before: place.settled,
            ..LogBuffer::default()
        }
    }

    pub fn hear(&mut self, heard: LogNews) {
        match heard {
            // A commit that begins before this place ends there at the latest.
            LogNews::Begin { commit } => self.passing = commit < self.place.lsn,
            LogNews::Row(row) if !self.passing => self.row(row),
            LogNews::Row(_) => {}
            LogNews::Commit { end } => {
                if self.open {
                    self.transactions.back_mut().expect("one is open").end = end;
                    self.open = false;
                    self.shorten();
                } else if self.transactions.is_empty() && self.before == 0 {
                    self.place.lsn = self.place.lsn.max(end);
                }
                (self.passing, self.read) = (false, self.read.max(end));
            }
            LogNews::Read { until } => {
                if self.transactions.is_empty() && self.before == 0 {
                    self.place.lsn = self.place.lsn.max(until);
                }
                self.read = self.read.max(until);
            }
        }
    }

    fn row(&mut self, row: OutboxRow) {
        if !self.open {
            self.open = true;
            self.transactions.push_back(LogTransaction {
                end: 0,
                rows: VecDeque::new(),
                // Also before they are heard: the place must not go back.
                gone: self.before,
            });
        }
        let last = self.transactions.back_mut().expect("one is open");
        if self.before > 0 {
            self.before -= 1;
            return;
        }
        let settled = self.published.remove(&row.at);
        if !settled {
            self.bytes += row.bytes();
            self.count += 1;
        }
        last.rows.push_back((row, settled));
        self.shorten();
    }

    /// Settles rows.
    pub fn settle(&mut self, rows: &[RowRef]) {
        let _ = self.mark(rows.iter().copied().collect());
    }

    /// Rows that lie in the stream already: those that are not heard yet are settled when they are.
    pub fn publish(&mut self, rows: Vec<RowRef>) {
        self.published = self.mark(rows.into_iter().collect());
    }

    /// Marks rows as settled; returns those that are not here.
    fn mark(&mut self, mut rows: HashSet<RowRef>) -> HashSet<RowRef> {
        for (row, settled) in self.transactions.iter_mut().flat_map(|one| &mut one.rows) {
            if rows.remove(&row.at) && !*settled {
                *settled = true;
                self.bytes -= row.bytes();
                self.count -= 1;
            }
        }
        self.shorten();
        rows
    }

    /// How many of those are not heard yet.
    pub fn unheard(&self) -> usize {
        self.published.len()
    }

    /// Those that were not heard; they will not be looked for any more.
    pub fn give_up(&mut self) -> Vec<RowRef> {
        let mut missing: Vec<RowRef> = self.published.drain().collect();
        missing.sort_unstable();
        missing
    }

    /// Removes what is settled from the front.
    fn shorten(&mut self) {
        while let Some(first) = self.transactions.front_mut() {
            while first.rows.front().is_some_and(|(_, settled)| *settled) {
                first.rows.pop_front();
                first.gone += 1;
            }
            let open = self.open && self.transactions.len() == 1;
            let first = self.transactions.front().expect("it was there");
            if open || !first.rows.is_empty() {
                self.place.settled = first.gone;
                return;
            }
            self.place = LogPlace {
                lsn: first.end,
                settled: 0,
            };
            self.transactions.pop_front();
        }
    }

    pub fn place(&self) -> LogPlace {
        self.place
    }

    pub fn has_read(&self, until: u64) -> bool {
        self.read >= until
    }

    /// Rows that are not settled.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether it has more than fits into a batch.
    pub fn is_full(&self, rows_max: usize, bytes_max: usize) -> bool {
        self.count > rows_max || self.bytes > bytes_max
    }

    /// Whether a transaction was heard in part.
    pub fn is_open(&self) -> bool {
        self.open
    }

    pub fn oldest_ms(&self) -> Option<u64> {
        self.rows().next().map(|row| row.time_ms)
    }

    pub fn find(&self, at: RowRef) -> Option<&OutboxRow> {
        self.rows().find(|row| row.at == at)
    }

    fn rows(&self) -> impl Iterator<Item = &OutboxRow> {
        let rows = self.transactions.iter().flat_map(|one| &one.rows);
        rows.filter(|(_, settled)| !settled).map(|(row, _)| row)
    }

    /// The first rows: whole transactions, as many as fit; of one that does not fit alone, as much of it as fits, and at least a row.
    pub fn first(&self, rows_max: usize, bytes_max: usize) -> Vec<OutboxRow> {
        let mut found: Vec<OutboxRow> = Vec::new();
        let mut bytes = 0;
        for (at, transaction) in self.transactions.iter().enumerate() {
            let (whole, mut taken) = (found.len(), bytes);
            for (row, _) in transaction.rows.iter().filter(|(_, settled)| !settled) {
                taken += row.bytes();
                if found.len() == rows_max || (taken > bytes_max && !found.is_empty()) {
                    if at > 0 {
                        found.truncate(whole);
                    }
                    return found;
                }
                found.push(row.clone());
            }
            if self.open && at + 1 == self.transactions.len() && at > 0 {
                // More of it is to come, and it may fit into the next batch.
                found.truncate(whole);
            }
            bytes = taken;
        }
        found
    }
}

#[cfg(test)]
#[path = "log_buffer_tests.rs"]
mod tests;
