//! A book that is opened: over a new connection the ledger is read again, entry by entry, so that other tasks of the thread do
//! not wait for all of it. Pure.

use std::collections::VecDeque;

use super::book::{Appended, Book, remember};
use super::entry::{Entry, Head};
use super::fate::Fates;
use super::group::Member;
use super::index::Index;
use crate::failpoint::mistake::Mistake;

/// What has been read so far. Dropped, it leaves a book that knows little, and may be begun again.
#[derive(Debug)]
pub struct Opening {
    head: Head,
    head_sequence: u64,
    index: Index,
    recent: VecDeque<(u64, Appended)>,
    entries: u64,
    /// The append that is on its way, and whether it has been found.
    own: Option<(String, bool)>,
}

impl Opening {
    /// How many have been fed.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry, in their order.
    pub fn feed(&mut self, entry: &Entry, sequence: u64) {
        self.entries += 1;
        self.index.apply(entry);
        remember(&mut self.recent, entry, sequence);
        if let Some((append, found)) = &mut self.own {
            *found |= *append == entry.append;
        }
    }
}

impl<W> Book<W> {
    /// From which entry on a new connection reads: where a starting host begins, or, if that is earlier, where this one
    /// has ended. What is at work here may have been decided in between, and a floor may have passed it.
    pub fn reads_from(&self, head: &Head) -> u64 {
        match self.session {
            0 => head.index_from.max(1),
            _ => head.index_from.max(1).min(self.head.n + 1),
        }
    }

    /// A new connection: everything is read again, and nothing known before is relied on. The entries to be fed begin with
    /// `first`: `reads_from`, or, if some of those were collected, the head's `index_from`. In the second case the missing
    /// entries may have decided what is at work here, so the floors count for it too.
    ///
    /// Until the end of it this book knows only its floors and what is at work: two indexes at a time would take twice the
    /// memory. What it does not know it takes for undecided, and nothing is sent meanwhile.
    pub fn begin(&mut self, head: Head, head_sequence: u64, first: u64) -> Opening {
        let mut index = Index::new(&head);
        self.index.keep_only_work();
        if first <= self.head.n + 1 || head.n <= self.head.n {
            index.keep_open(&self.index);
        }
        self.is_opening = true;
        Opening {
            head,
            head_sequence,
            index,
            recent: VecDeque::new(),
            entries: 0,
            own: self.sent.as_ref().map(|sent| (sent.batch.entry.append.clone(), false)),
        }
    }

    /// All is read. What was on its way and has been found is committed; what rests on anything that was read before runs
    /// again.
    pub fn finish(&mut self, opening: Opening, payload_max: usize) -> Fates<W> {
        let Opening {
            head,
            head_sequence,
            mut index,
            recent,
            entries: _,
            own,
        } = opening;
        index.take_work(&self.index);
        self.index = index;
        self.recent = recent;
        (self.head, self.head_sequence) = (head, head_sequence);
        self.payload_max = payload_max;
        self.session += 1;
        self.is_opening = false;
        if !self.planted.is(Mistake::StaleReopen) {
            self.view.forget_all();
        }
        let mut fates = Vec::new();
        let own = own.filter(|(_, found)| *found);
        let found = |append: &str| own.as_ref().is_some_and(|(own, _)| own == append);
        if let Some(sent) = self.sent.take_if(|sent| found(&sent.batch.entry.append)) {
            let entry = sent.batch.entry.n;
            let told = |m: Member<W>| (m.waiter, Ok(self.decided_by(&m.tx, entry)));
            fates.extend(sent.group.members.into_iter().map(told));
        }
        fates.extend(self.rejoin());
        fates
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Decision, DecisionKind, Floor, Id};
    use super::super::index::Decided;
    use super::*;
    use crate::event::EventId;
    use crate::failpoint::mistake::Planted;

    const HANDLER: &str = "h";

    fn event(sequence: u64) -> EventId {
        EventId::of_test(sequence)
    }

    /// Entry `n` decides event `n`, which is known by an id.
    fn entry(n: u64) -> Entry {
        let decision = Decision {
            id: Some(Id::of_test(n, n)),
            ..Decision::of_test(HANDLER, &event(n).to_string(), DecisionKind::Done)
        };
        Entry {
            n,
            append: format!("a{n}"),
            host: "x".into(),
            at: String::new(),
            min_reader: 1,
            decisions: vec![decision],
            writes: vec![],
            floors: std::collections::BTreeMap::default(),
            index_from: None,
            incarnations: std::collections::BTreeMap::default(),
            reset: vec![],
            rollouts: std::collections::BTreeMap::default(),
            trials: Vec::new(),
        }
    }

    /// A head at entry `n`, with a floor; a start reads from an entry on.
    fn head(n: u64, floor: u64, index_from: u64) -> Head {
        let mut of = Floor::default();
        of.raise("k", floor);
        Head {
            n,
            index_from,
            floors: [(HANDLER.to_owned(), of)].into(),
            ..Head::default()
        }
    }

    fn book() -> Book<u64> {
        Book::new("b", 1 << 20, Planted::default())
    }

    fn read(book: &mut Book<u64>, head: Head, entries: std::ops::RangeInclusive<u64>) {
        let mut opening = book.begin(head, 99, *entries.start());
        entries.for_each(|n| opening.feed(&entry(n), n));
        book.finish(opening, 1 << 20);
    }

    #[test]
    fn what_is_at_work_while_the_ledger_is_read_anew_is_decided_by_its_entry_only() {
        let mut book = book();
        read(&mut book, head(2, 0, 1), 1..=2);
        for sequence in [3, 4, 5] {
            book.index.open(HANDLER, &event(sequence));
        }
        // Others have decided 3; a floor has passed all three of them, and 4 and 5 have been removed by their stream.
        let mut opening = book.begin(head(3, 5, 3), 99, 3);
        opening.feed(&entry(3), 3);
        // One leaves meanwhile, and one comes.
        book.index.close(HANDLER, &event(5));
        book.index.open(HANDLER, &event(9));
        book.finish(opening, 1 << 20);
        let decided = |sequence| book.index.decided(HANDLER, &event(sequence));
        assert_eq!(decided(3), Some(Decided::Done { entry: 3 }));
        assert_eq!(decided(4), None, "nothing says so but a floor");
        assert_eq!(decided(5), Some(Decided::Below), "it is not at work any more");
        assert_eq!(decided(9), None);
        book.index.raise(HANDLER, "k", 20);
        assert_eq!(book.index.decided(HANDLER, &event(9)), None, "it is at work");
    }

    #[test]
    fn an_opening_that_breaks_off_forgets_no_work_and_decides_nothing_new() {
        let mut book = book();
        read(&mut book, head(3, 0, 1), 1..=3);
        book.index.open(HANDLER, &event(2));
        book.index.open(HANDLER, &event(4));
        for _ in 0..2 {
            drop(book.begin(head(5, 4, 4), 99, 4));
            // It knows less, and nothing that is not so.
            assert_eq!(book.index.decided(HANDLER, &event(2)), Some(Decided::Done { entry: 2 }));
            assert_eq!(book.index.decided(HANDLER, &event(3)), None);
            assert_eq!(book.index.decided(HANDLER, &event(4)), None);
        }
        read(&mut book, head(5, 4, 4), 4..=5);
        let decided = |sequence| book.index.decided(HANDLER, &event(sequence));
        assert_eq!(
            decided(2),
            Some(Decided::Done { entry: 2 }),
            "its entry is not read again"
        );
        assert_eq!(decided(4), Some(Decided::Done { entry: 4 }));
        assert_eq!(decided(3), Some(Decided::Below));
    }
}
