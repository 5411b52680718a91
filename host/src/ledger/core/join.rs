//! How a finished transaction takes its place in the ledger's order, and how waiting ones take their places again. Pure.

use std::collections::BTreeMap;

use super::append::{BatchTooLarge, fits_alone};
use super::book::Book;
use super::entry::DecisionKind;
use super::fate::{CommitError, CommitResult, Committed, Fates};
use super::group::{Group, Member, TxId, room};
use super::index::Decided;
use crate::event::EventId;
use crate::event::effects::Version;
use crate::failpoint::mistake::Mistake;
use crate::ledger::core::transaction::{Transaction, already_decided};

/// What came of joining.
#[derive(Debug)]
pub enum Join<W> {
    /// It stands in a group; its waiter will be told.
    Joined,
    /// It is over already.
    Over(W, CommitResult),
    /// It writes these keys without having read them, and their revisions are not known: `learn` them and join again.
    Missing(Vec<String>, Box<Transaction>, W),
}

impl<W> Book<W> {
    /// A finished transaction takes its place in the ledger's order, if all that it read is still the latest.
    pub fn join(&mut self, tx: Transaction, waiter: W) -> Join<W> {
        let id = self.next_id;
        self.next_id += 1;
        self.place(id, tx, waiter, true)
    }

    fn place(&mut self, id: TxId, mut tx: Transaction, waiter: W, checked: bool) -> Join<W> {
        let dies = tx.decision.as_ref().is_some_and(|d| d.verdict == DecisionKind::Dead);
        if dies && self.planted.is(Mistake::RejectOutside) {
            tx.reads.clear();
        }
        if tx.decision.is_some() {
            if let Some(decided) = already_decided(self.index.decided(&tx.handler, &tx.event), tx.death) {
                return Join::Over(waiter, Ok(Committed::Before(decided)));
            }
            if self.standing.contains(&tx.handler, &tx.event) {
                let why = "it is being committed already".to_owned();
                return Join::Over(waiter, Err(CommitError::Host(why)));
            }
            match self.first_of(&tx) {
                Some(first) => tx.repeats(&first),
                // What it was taken for is not decided after all: it has to run.
                None if tx.is_repetition() => return Join::Over(waiter, Err(CommitError::Conflict)),
                None => {}
            }
        }
        let rests = checked && !tx.reads.is_empty() && !self.planted.is(Mistake::JoinBlind);
        if rests && (tx.session != self.session || !tx.reads.iter().all(|(key, read)| self.view.is_latest(key, *read)))
        {
            return Join::Over(waiter, Err(CommitError::Conflict));
        }
        if tx.only_waits() && !self.rests_on_pending(&tx) {
            return Join::Over(waiter, Ok(Committed::Here { entry: self.head.n }));
        }
        // What was pending when it was read may be committed by now.
        let now = |(key, read): (&String, &Version)| (key.clone(), self.view.version(key).unwrap_or(*read));
        let mut versions: BTreeMap<String, Version> = tx.reads.iter().map(now).collect();
        let mut missing = Vec::new();
        for key in tx.writes.keys().filter(|key| !tx.reads.contains_key(*key)) {
            match self.view.version(key) {
                Some(version) => drop(versions.insert(key.clone(), version)),
                None => missing.push(key.clone()),
            }
        }
        if !missing.is_empty() {
            return Join::Missing(missing, Box::new(tx), waiter);
        }
        let more = room(&tx);
        // One that is larger than a group may grow must fit a batch of its own.
        if !Group::<W>::holds(more, self.payload_max) {
            let upon = (&self.head, self.head_sequence);
            let fits = fits_alone(&self.bucket, upon, &tx, &versions, self.payload_max);
            if let Err(BatchTooLarge(why)) = fits {
                return Join::Over(waiter, Err(CommitError::TooLarge(why)));
            }
        }
        // A key that was read may have left the cache since. The server will check whether it is still the same, but it can
        // check each key only once for a group.
        let joins = |group: &Group<W>| group.fits(more, &versions, self.payload_max) && group.agrees(&versions);
        if !self.forming.back().is_some_and(joins) {
            self.forming.push_back(Group::default());
        }
        for (key, value) in &tx.writes {
            self.view.write(key, id, value.clone());
        }
        self.standing.insert(&tx);
        if let Some(group) = self.forming.back_mut() {
            group.add(Member { id, tx, waiter }, &versions, more);
        }
        Join::Joined
    }

    /// The other event that this one repeats: one that is decided, or that stands before it. A replay's event is dead
    /// itself.
    fn first_of(&self, tx: &Transaction) -> Option<EventId> {
        let id = tx.decision.as_ref().and_then(|decision| decision.id.as_ref());
        let id = id.filter(|_| tx.death.is_none())?;
        let decided = self.index.first_of(&tx.handler, id, &tx.event).map(|(first, _)| first);
        decided.or_else(|| self.standing.first_of(&tx.handler, id, &tx.event))
    }

    /// The result for the caller that waits for a transaction which an entry contains.
    pub(super) fn decided_by(&self, tx: &Transaction, entry: u64) -> Committed {
        let id = tx.decision.as_ref().and_then(|decision| decision.id.as_ref());
        match id.filter(|_| tx.is_repetition()) {
            None => Committed::Here { entry },
            Some(id) => {
                let first = self.index.first_of(&tx.handler, id, &tx.event);
                let entry = first.map_or(entry, |(_, entry)| entry);
                Committed::Before(Decided::Same { entry })
            }
        }
    }

    fn rests_on_pending(&self, tx: &Transaction) -> bool {
        let pending =
            |(key, read): (&String, &Version)| matches!(read, Version::Pending(_)) && self.view.is_pending(key);
        tx.reads.iter().any(pending)
    }

    /// All waiting transactions join again, in their order.
    pub(super) fn rejoin(&mut self) -> Fates<W> {
        let members = self.withdraw_all();
        self.place_anew(members)
    }

    /// The same for some of what was taken back.
    pub(super) fn place_anew(&mut self, members: Vec<Member<W>>) -> Fates<W> {
        let unchecked = self.planted.is(Mistake::RefusedKeepsReads);
        let mut fates = Vec::new();
        for member in members {
            match self.place(member.id, member.tx, member.waiter, !unchecked) {
                Join::Joined => {}
                Join::Over(waiter, fate) => fates.push((waiter, fate)),
                Join::Missing(_, _, waiter) => fates.push((waiter, Err(CommitError::Conflict))),
            }
        }
        fates
    }

    pub(super) fn leave(&mut self, tx: &Transaction, id: TxId) {
        for key in tx.writes.keys() {
            self.view.withdraw(key, id);
        }
        self.standing.remove(tx);
    }
}

#[cfg(test)]
mod tests {
    use super::super::append::{Author, Batch};
    use super::super::book::Read;
    use super::super::entry::{Decision, Entry, Head, Id};
    use super::*;
    use crate::failpoint::mistake::Planted;

    fn event(sequence: u64) -> EventId {
        EventId::of_test(sequence)
    }

    /// Adds to a key, under an id, stored at a time.
    fn adds(sequence: u64, hash: u64, time_ms: u64, read: Option<Version>) -> Transaction {
        let id = Id::of_test(hash, time_ms);
        let decision = Decision {
            id: Some(id),
            ..Decision::of_test("h", &event(sequence).to_string(), DecisionKind::Done)
        };
        Transaction {
            handler: "h".into(),
            event: event(sequence),
            decision: Some(decision),
            session: 1,
            reads: read.map(|version| ("key".to_owned(), version)).into_iter().collect(),
            writes: BTreeMap::from([("key".to_owned(), Some("1".into()))]),
            consequences: vec![],
            death: None,
            trial: None,
        }
    }

    /// A host's book, just opened; the key is known to it.
    fn book() -> Book<u64> {
        let mut book = Book::new("b", 1 << 20, Planted::default());
        let opening = book.begin(Head::default(), 1, 1);
        book.finish(opening, 1 << 20);
        book.learn("key", 0, None);
        book
    }

    fn send(book: &mut Book<u64>, append: &str) -> Batch {
        let by = Author {
            append,
            host: "",
            at: "",
        };
        book.next(by).1.expect("something is to be sent").batch.clone()
    }

    fn same_as(entry: &Entry) -> Vec<Option<&str>> {
        entry
            .decisions
            .iter()
            .map(|decision| decision.same_as.as_deref())
            .collect()
    }

    fn joined(book: &mut Book<u64>, tx: Transaction) {
        let waiter = tx.event.sequence;
        assert!(matches!(book.join(tx, waiter), Join::Joined));
    }

    #[test]
    fn a_repetition_beside_its_first_stands_after_it_without_effects() {
        let mut book = book();
        joined(&mut book, adds(1, 7, 100, None));
        joined(&mut book, adds(2, 7, 110, None));
        joined(&mut book, adds(3, 7, 111, None));
        let batch = send(&mut book, "a");
        assert_eq!(
            same_as(&batch.entry),
            [None, Some("k.1"), None],
            "the third is past the window"
        );
        assert_eq!(batch.entry.writes.len(), 1);
        let Read::Applied(fates) = book.apply(&batch.entry, 10) else {
            panic!("it is the next entry");
        };
        let here = Ok(Committed::Here { entry: 1 });
        let before = Ok(Committed::Before(Decided::Same { entry: 1 }));
        assert_eq!(fates, [(1, here.clone()), (2, before), (3, here)]);
    }

    #[test]
    fn a_repetition_whose_first_another_host_has_decided_goes_out_again_without_effects() {
        let (mut here, mut there) = (book(), book());
        joined(&mut there, adds(1, 7, 100, None));
        let first = send(&mut there, "there");
        joined(&mut here, adds(2, 7, 105, None));
        let refused = send(&mut here, "here");
        assert_eq!(same_as(&refused.entry), [None]);
        assert!(matches!(here.apply(&first.entry, 10), Read::Applied(fates) if fates.is_empty()));
        assert!(here.refused(&[]).is_empty());
        let again = send(&mut here, "again");
        assert_eq!(same_as(&again.entry), [Some("k.1")]);
        assert_eq!((again.entry.n, again.entry.writes.len()), (2, 0));
        let Read::Applied(fates) = here.apply(&again.entry, 20) else {
            panic!("it is the next entry");
        };
        assert_eq!(fates, [(2, Ok(Committed::Before(Decided::Same { entry: 1 })))]);
    }

    #[test]
    fn a_repetition_of_what_is_not_decided_after_all_runs_again() {
        let mut book = book();
        joined(&mut book, adds(1, 7, 100, Some(Version::Stored(0))));
        joined(&mut book, adds(2, 7, 105, None));
        send(&mut book, "a");
        // Another host has written the key.
        book.relearn(vec![("key".to_owned(), 99, None)]);
        let conflict = Err(CommitError::Conflict);
        assert_eq!(book.refused(&[]), [(1, conflict.clone()), (2, conflict)]);
        assert!(!book.has_work());
    }
}
