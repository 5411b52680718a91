//! What a host knows of a bucket's ledger, and what it is about to append: transactions join, groups go out one at a
//! time, and what comes back is resolved. Pure: the host, the model and the property tests run the same steps.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::append::{Author, Batch, BatchTooLarge, EntryExtras, batch};
use super::entry::{Entry, Head, Incarnation, Subjects};
use super::fate::{CommitError, Committed, Fates};
use super::group::{Group, Member, TxId};
use super::index::Index;
use super::standing::Standing;
use super::view::View;
use crate::event::effects::Version;
use crate::failpoint::mistake::{Mistake, Planted};

/// What came of an entry that was read.
#[derive(Debug)]
pub enum Read<W> {
    Known,
    /// Entries before it are missing.
    Gap,
    Applied(Fates<W>),
}

/// A group on its way.
#[derive(Debug, Clone)]
pub struct Sent<W> {
    pub(in crate::ledger) group: Group<W>,
    pub batch: Batch,
}

/// A replay that follows a death: where it expects that one's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    pub id: TxId,
    pub subject: String,
    pub sequence: u64,
}

/// `W`: who waits for a transaction.
#[derive(Debug, Clone)]
pub struct Book<W> {
    pub(in crate::ledger) bucket: String,
    /// Counts the connections that this has been read over.
    pub session: u64,
    pub head: Head,
    /// The head's own stream sequence; 0: there is none.
    pub head_sequence: u64,
    pub index: Index,
    /// The incarnations that every head from now on contains: in each, no event with a higher sequence than the one there is
    /// decided.
    pub incarnations: BTreeMap<String, Incarnation>,
    pub(in crate::ledger) view: View,
    pub(in crate::ledger) sent: Option<Sent<W>>,
    pub(in crate::ledger) forming: VecDeque<Group<W>>,
    pub(in crate::ledger) standing: Standing,
    pub(in crate::ledger) next_id: TxId,
    pub(in crate::ledger) payload_max: usize,
    pub(in crate::ledger) planted: Planted,
    /// The newest entries, by their numbers.
    pub(in crate::ledger) recent: VecDeque<(u64, Appended)>,
    /// It is being opened: its entries are read again.
    pub(in crate::ledger) is_opening: bool,
}

/// An entry as the bucket holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Which append it is.
    pub append: String,
    /// Its stream sequence.
    pub sequence: u64,
}

/// How many of the newest entries are known: more than a relay has in hand.
const RECENT_MAX: usize = 1024;

impl<W> Book<W> {
    /// `cache_bytes_max`: how much of the bucket's keys is kept at hand.
    pub fn new(bucket: &str, cache_bytes_max: usize, planted: Planted) -> Book<W> {
        Book {
            bucket: bucket.to_owned(),
            session: 0,
            head: Head::default(),
            head_sequence: 0,
            index: Index::default(),
            incarnations: BTreeMap::new(),
            view: View::new(cache_bytes_max),
            sent: None,
            forming: VecDeque::new(),
            standing: Standing::default(),
            next_id: 1,
            payload_max: 1024 * 1024,
            planted,
            recent: VecDeque::new(),
            is_opening: false,
        }
    }

    /// The value of a key as a transaction that runs now sees it. `None`: it is not known here; `learn` it.
    pub fn read(&mut self, key: &str) -> Option<(Option<Bytes>, Version)> {
        self.view.read(key)
    }

    /// A key as the bucket's leader has it.
    pub fn learn(&mut self, key: &str, revision: u64, value: Option<Bytes>) {
        self.view.learn(key, revision, value);
    }

    /// The same for keys that a refused batch rests on, whatever was known of them. `true`: one of them has changed.
    pub fn relearn(&mut self, keys: Vec<(String, u64, Option<Bytes>)>) -> bool {
        let mut changed = false;
        for (key, revision, value) in keys {
            let base = self.sent.as_ref().and_then(|sent| sent.group.keys.get(&key));
            changed |= base.is_some_and(|touched| touched.base != Version::Stored(revision));
            self.view.forget(&key);
            self.view.learn(&key, revision, value);
        }
        changed
    }

    /// A run that failed rested on these; the next one reads them from the leader.
    pub fn doubt<'a>(&mut self, keys: impl Iterator<Item = &'a String>) {
        keys.for_each(|key| self.view.forget(key));
    }

    /// A head as the bucket holds it, of the same number as the one known.
    pub fn confirm_head(&mut self, head: Head, sequence: u64) {
        if head.n == self.head.n {
            (self.head, self.head_sequence) = (head, sequence);
        }
    }

    /// The batch on its way, to be sent or sent again; else the next group, as one. The fates are of those that had
    /// nothing to send.
    pub fn next(&mut self, by: Author<'_>) -> (Fates<W>, Option<&Sent<W>>) {
        let mut fates = Vec::new();
        while self.sent.is_none() {
            let Some(group) = self.forming.pop_front() else { break };
            if group.decides_nothing() {
                let entry = self.head.n;
                let told = |m: Member<W>| (m.waiter, Ok(Committed::Here { entry }));
                fates.extend(group.members.into_iter().map(told));
                continue;
            }
            let upon = (&self.head, self.head_sequence);
            match batch(&self.bucket, upon, &group, self.to_say(), by, self.payload_max) {
                Ok(batch) => {
                    let batch = self.planted.spoilt(batch);
                    self.sent = Some(Sent { group, batch });
                }
                Err(BatchTooLarge(why)) => fates.extend(self.broken(group, &why)),
            }
        }
        (fates, self.sent.as_ref())
    }

    /// What the next entry contains besides.
    fn to_say(&self) -> EntryExtras {
        let news = |(stream, known): &(&String, &Incarnation)| {
            let said = self.head.incarnations.get(*stream);
            // Another host has seen more of it.
            said != Some(*known) && said.is_none_or(|said| said.token != known.token || said.sequence <= known.sequence)
        };
        // An index that is not whole does not know where a start begins.
        let from = if self.is_opening { 0 } else { self.index.reads_from() };
        let incarnations = self.incarnations.iter().filter(news);
        EntryExtras {
            floors: self.index.risen(&self.head),
            index_from: (from > self.head.index_from).then_some(from),
            incarnations: incarnations.map(|(s, i)| (s.clone(), i.clone())).collect(),
            reset: Vec::new(),
        }
    }

    /// A group that cannot be laid out: its first transaction is at fault if it is alone; else all try again.
    fn broken(&mut self, group: Group<W>, why: &str) -> Fates<W> {
        let alone = group.members.len() == 1;
        let mut fates = Vec::new();
        for member in group.members {
            self.leave(&member.tx, member.id);
            let fault = match alone {
                true => CommitError::TooLarge(why.to_owned()),
                false => CommitError::Conflict,
            };
            fates.push((member.waiter, Err(fault)));
        }
        fates.extend(self.rejoin());
        fates
    }

    /// An entry as the bucket holds it, with its stream sequence: another host's, or the own one that was on its way.
    pub fn apply(&mut self, entry: &Entry, sequence: u64) -> Read<W> {
        if entry.n <= self.head.n {
            return Read::Known;
        }
        if entry.n > self.head.n + 1 {
            return Read::Gap;
        }
        let head = self.head.after(entry);
        (self.head, self.head_sequence) = (head, sequence + 1);
        remember(&mut self.recent, entry, sequence);
        let first = entry.first_revision(sequence);
        let own = |sent: &mut Sent<W>| sent.batch.entry.append == entry.append;
        self.index.apply(entry);
        if let Some(sent) = self.sent.take_if(own) {
            return Read::Applied(self.committed(sent.group, entry.n, first));
        }
        for (write, revision) in entry.writes.iter().zip(first..) {
            let value = match (&write.value, write.bytes) {
                (Some(text), _) => text.bytes().ok(),
                (None, None) => None,
                // Too large to be repeated in the entry.
                (None, Some(_)) => {
                    self.view.forget(&write.key);
                    continue;
                }
            };
            self.view.learn(&write.key, revision, value);
        }
        // What is on its way will be refused, and then everything is looked at.
        let fates = if self.sent.is_none() { self.rejoin() } else { Vec::new() };
        Read::Applied(fates)
    }

    /// A committed entry. `None`: it is not among the newest that are known here.
    pub fn appended(&self, n: u64) -> Option<&Appended> {
        let (first, _) = self.recent.front()?;
        let at = usize::try_from(n.checked_sub(*first)?).ok()?;
        self.recent.get(at).map(|(_, appended)| appended)
    }

    fn committed(&mut self, group: Group<W>, entry: u64, first: u64) -> Fates<W> {
        let written = group
            .keys
            .iter()
            .filter_map(|(key, touched)| Some((key, touched.write.as_ref()?)));
        for ((key, (by, value)), revision) in written.zip(first..) {
            self.view.commit(key, *by, revision, value.clone());
            // The groups that come after build on it, up to the next that writes the key.
            for later in &mut self.forming {
                if let Some(touched) = later.keys.get_mut(key) {
                    if touched.base == Version::Pending(*by) {
                        touched.base = Version::Stored(revision);
                    }
                    if touched.write.is_some() {
                        break;
                    }
                }
            }
        }
        let mut fates = Vec::with_capacity(group.members.len());
        for member in group.members {
            self.standing.remove(&member.tx);
            fates.push((member.waiter, Ok(self.decided_by(&member.tx, entry))));
        }
        fates
    }

    /// The batch on its way was refused, and everything that has to be known was read since. Transactions that are still valid
    /// are sent again, upon the new head. `stale`: replays whose death has no record at the sequence that they expect.
    pub fn refused(&mut self, stale: &[TxId]) -> Fates<W> {
        if self.planted.is(Mistake::RefusedIsDone)
            && let Some(sent) = self.sent.take()
        {
            let entry = self.head.n;
            let members = sent.group.members.into_iter();
            return members.map(|m| (m.waiter, Ok(Committed::Here { entry }))).collect();
        }
        let (stale, rest): (Vec<_>, Vec<_>) = self.withdraw_all().into_iter().partition(|m| stale.contains(&m.id));
        let why = || CommitError::Host("the record of its death is not at the sequence in its dead letter".to_owned());
        let mut fates: Fates<W> = stale.into_iter().map(|m| (m.waiter, Err(why()))).collect();
        fates.extend(self.place_anew(rest));
        fates
    }

    /// The keys that the batch on its way rests on.
    pub fn keys_on_their_way(&self) -> Vec<String> {
        self.sent
            .iter()
            .flat_map(|sent| sent.group.keys.keys().cloned())
            .collect()
    }

    /// The deaths that replays in the batch on its way follow.
    pub fn deaths_on_their_way(&self) -> Vec<Following> {
        let subjects = Subjects::new(&self.bucket);
        let members = self.sent.iter().flat_map(|sent| &sent.group.members);
        let following = |member: &Member<W>| {
            let sequence = member.tx.death?.record;
            let subject = subjects.death(&member.tx.handler, &member.tx.event.to_string());
            let id = member.id;
            Some(Following { id, subject, sequence })
        };
        members.filter_map(following).collect()
    }

    /// The bucket cannot be used: every waiting caller gets the reason.
    pub fn give_up(&mut self, why: &str) -> Fates<W> {
        let all = self.withdraw_all().into_iter();
        all.map(|m| (m.waiter, Err(CommitError::Host(why.to_owned()))))
            .collect()
    }

    /// Takes everything back that waits, in its order.
    pub(super) fn withdraw_all(&mut self) -> Vec<Member<W>> {
        self.view.withdraw_all();
        self.standing.clear();
        let sent = self.sent.take().map(|sent| sent.group);
        let groups = sent.into_iter().chain(self.forming.drain(..));
        groups.flat_map(|group| group.members).collect()
    }

    pub fn has_work(&self) -> bool {
        self.sent.is_some() || !self.forming.is_empty()
    }
}

pub(super) fn remember(recent: &mut VecDeque<(u64, Appended)>, entry: &Entry, sequence: u64) {
    let append = entry.append.clone();
    recent.push_back((entry.n, Appended { append, sequence }));
    if recent.len() > RECENT_MAX {
        recent.pop_front();
    }
}
