//! Of many things that are due, those that are due next.

use std::collections::BinaryHeap;

use crate::event::parse_rfc3339;

/// Of many those that are due next.
#[derive(Debug)]
pub struct NextDue<T> {
    /// At most so many; 0: all.
    limit: usize,
    heap: BinaryHeap<DueItem<T>>,
    /// How many there were.
    pub count: u64,
}

impl<T> NextDue<T> {
    pub fn new(limit: usize) -> NextDue<T> {
        NextDue {
            limit,
            heap: BinaryHeap::new(),
            count: 0,
        }
    }

    /// `due`: RFC 3339; what has no such time is due at once.
    pub fn add(&mut self, due: Option<&str>, item: T) {
        self.count += 1;
        let due = due.and_then(parse_rfc3339).unwrap_or(0);
        let count = self.count;
        self.heap.push(DueItem { due, count, item });
        if self.limit > 0 && self.heap.len() > self.limit {
            // The last due goes.
            self.heap.pop();
        }
    }

    /// Those that are due first, first.
    pub fn sorted(self) -> Vec<T> {
        let sorted = self.heap.into_sorted_vec();
        sorted.into_iter().map(|one| one.item).collect()
    }
}

/// One in the order of what is due, and then in the order of where they lie.
#[derive(Debug)]
struct DueItem<T> {
    due: u64,
    count: u64,
    item: T,
}

impl<T> DueItem<T> {
    fn key(&self) -> (u64, u64) {
        (self.due, self.count)
    }
}

impl<T> PartialEq for DueItem<T> {
    fn eq(&self, other: &DueItem<T>) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for DueItem<T> {}

impl<T> PartialOrd for DueItem<T> {
    fn partial_cmp(&self, other: &DueItem<T>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for DueItem<T> {
    fn cmp(&self, other: &DueItem<T>) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_due_first_are_kept_and_all_are_counted() {
        let times = ["2026-01-03T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"];
        let mut next = NextDue::new(2);
        times.iter().for_each(|due| next.add(Some(due), *due));
        assert_eq!(next.count, 3);
        assert_eq!(next.sorted(), [times[1], times[2]]);
        let mut all = NextDue::new(0);
        all.add(Some(times[0]), "third");
        all.add(None, "runs");
        all.add(Some("no time"), "too");
        assert_eq!(all.sorted(), ["runs", "too", "third"]);
    }
}
