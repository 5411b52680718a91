//! How a finished transaction takes its place in the ledger's order, and how those that wait take theirs anew. Pure.

use std::collections::BTreeMap;

use super::append::{By, Said, TooLarge, Transaction, batch, moot};
use super::book::Book;
use super::entry::Verdict;
use super::fate::{Committed, Fate, Fates, Fault};
use super::group::{Group, Member, TxId, room};
use super::mistake::Mistake;
use crate::effects::Version;

/// What came of joining.
#[derive(Debug)]
pub enum Join<W> {
    /// It stands in a group; its waiter will be told.
    Joined,
    /// It is over already.
    Over(W, Fate),
    /// It writes these keys without having read them, and nobody knows their revisions: `learn` them and join again.
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
        let dies = tx.decision.as_ref().is_some_and(|d| d.verdict == Verdict::Dead);
        if dies && self.planted.is(Mistake::RejectOutside) {
            tx.reads.clear();
        }
        if tx.decision.is_some() {
            if let Some(decided) = moot(self.index.decided(&tx.handler, &tx.event), tx.death) {
                return Join::Over(waiter, Ok(Committed::Before(decided)));
            }
            let standing = self.standing.get(&tx.handler);
            if standing.is_some_and(|events| events.contains(&tx.event)) {
                let why = "it is being committed already".to_owned();
                return Join::Over(waiter, Err(Fault::Host(why)));
            }
        }
        let rests = checked && !tx.reads.is_empty() && !self.planted.is(Mistake::JoinBlind);
        if rests && (tx.session != self.session || !tx.reads.iter().all(|(key, read)| self.view.is_latest(key, *read)))
        {
            return Join::Over(waiter, Err(Fault::Conflict));
        }
        if tx.decision.is_none() && !self.rests_on_pending(&tx) {
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
        if let Err(TooLarge(why)) = self.fits_alone(&tx, &versions) {
            return Join::Over(waiter, Err(Fault::TooLarge(why)));
        }
        // Whether a key that was read and is not at hand any more is still what it was, the server will say: but it is
        // asked only once for each key of a group.
        let joins = |group: &Group<W>| group.fits(more, &versions, self.payload_max) && group.agrees(&versions);
        if !self.forming.back().is_some_and(joins) {
            self.forming.push_back(Group::default());
        }
        for (key, value) in &tx.writes {
            self.view.write(key, id, value.clone());
        }
        if tx.decision.is_some() {
            match self.standing.get_mut(&tx.handler) {
                Some(events) => drop(events.insert(tx.event.clone())),
                None => drop(self.standing.insert(tx.handler.clone(), [tx.event.clone()].into())),
            }
        }
        if let Some(group) = self.forming.back_mut() {
            group.add(Member { id, tx, waiter }, &versions);
        }
        Join::Joined
    }

    /// One that is larger than a group may grow must fit a batch of its own.
    fn fits_alone(&self, tx: &Transaction, versions: &BTreeMap<String, Version>) -> Result<(), TooLarge> {
        if Group::<()>::holds(room(tx), self.payload_max) {
            return Ok(());
        }
        let mut group = Group::default();
        let (id, waiter) = (0, ());
        group.add(
            Member {
                id,
                tx: tx.clone(),
                waiter,
            },
            versions,
        );
        let by = By {
            append: "",
            host: "",
            at: "",
        };
        let upon = (&self.head, self.head_sequence);
        batch(
            &self.bucket,
            upon,
            &group,
            Said::default(),
            by,
            self.payload_max,
            self.planted,
        )
        .map(drop)
    }

    fn rests_on_pending(&self, tx: &Transaction) -> bool {
        let pending =
            |(key, read): (&String, &Version)| matches!(read, Version::Pending(_)) && self.view.is_pending(key);
        tx.reads.iter().any(pending)
    }

    /// Everything that waits joins anew, in its order.
    pub(super) fn rejoin(&mut self) -> Fates<W> {
        let sent = self.sent.take().map(|sent| sent.group);
        let groups: Vec<Group<W>> = sent.into_iter().chain(self.forming.drain(..)).collect();
        self.view.withdraw_all();
        self.standing.clear();
        let unchecked = self.planted.is(Mistake::RefusedKeepsReads);
        let mut fates = Vec::new();
        for member in groups.into_iter().flat_map(|group| group.members) {
            match self.place(member.id, member.tx, member.waiter, !unchecked) {
                Join::Joined => {}
                Join::Over(waiter, fate) => fates.push((waiter, fate)),
                Join::Missing(_, _, waiter) => fates.push((waiter, Err(Fault::Conflict))),
            }
        }
        fates
    }

    pub(super) fn leave(&mut self, tx: &Transaction, id: TxId) {
        for key in tx.writes.keys() {
            self.view.withdraw(key, id);
        }
        self.stands_no_more(tx);
    }

    pub(super) fn stands_no_more(&mut self, tx: &Transaction) {
        if tx.decision.is_some()
            && let Some(events) = self.standing.get_mut(&tx.handler)
        {
            events.remove(&tx.event);
        }
    }
}
