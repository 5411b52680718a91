//! When two states are one: they differ only in which host is which, and in how appends and transactions are called.
//! A state is written down with names in the order in which they come up, for both orders of the hosts; the lesser of
//! the two numbers stands for it.

use sha2::{Digest, Sha256};

use super::program::KEYS;
use super::server::Name;
use super::world::{At, HANDLER, INCARNATION, LetterState, ModelHost, ModelWaiter, Stands, WorkKind, World, event_id};
use crate::event::effects::Version;
use crate::ledger::core::book::Book;
use crate::ledger::core::group::{Group, TxId};
use crate::ledger::core::index::Decided;
use crate::mesh_streams::dead_letter::DeathRef;

/// What is written of a state.
#[derive(Default)]
struct Ink {
    bytes: Vec<u8>,
    names: Vec<Name>,
    /// Transactions of the host that is being written.
    ids: Vec<TxId>,
}

impl World {
    /// To be called after each step.
    pub fn seal(&mut self) {
        let order: Vec<usize> = (0..self.hosts.len()).collect();
        let back: Vec<usize> = order.iter().rev().copied().collect();
        self.fingerprint = self.number(&order).min(self.number(&back));
    }

    fn number(&self, order: &[usize]) -> u64 {
        let mut ink = Ink {
            bytes: Vec::with_capacity(1024),
            ..Ink::default()
        };
        for (sequence, mark, by) in self.server.digests() {
            ink.number(sequence);
            ink.number(mark);
            ink.name(by);
        }
        for host in order {
            ink.host(self, &self.hosts[*host]);
            ink.short(254);
            for copy in self.net.iter().filter(|copy| copy.laid.name.host == *host) {
                ink.name(Some(copy.laid.name));
                ink.number(copy.laid.digest());
                ink.short(u8::from(self.is_awaited(&copy.laid, copy.copy)));
            }
        }
        for event in &self.events {
            ink.short(event.deliveries);
            ink.short(u8::from(event.acked));
            ink.stands(event.stands);
            ink.short(event.emitted);
            ink.short(u8::from(event.remembered));
            match event.letter {
                LetterState::None => ink.short(0),
                LetterState::Stored(DeathRef { entry: n, record }) => {
                    ink.number(n + 1);
                    ink.number(record);
                }
                LetterState::Settled => ink.short(2),
            }
        }
        for replay in &self.replays {
            ink.place(replay.event);
            ink.number(replay.death.entry);
            ink.number(replay.death.record);
            ink.short(u8::from(replay.acked) * 2 + u8::from(replay.delivered));
        }
        ink.place(self.server.collected);
        if let Some((server, _)) = &self.undo {
            for (sequence, mark, by) in server.digests() {
                ink.number(sequence);
                ink.number(mark);
                ink.name(by);
            }
        }
        ink.place(self.relayed);
        ink.place(self.put);
        ink.bytes.extend(format!("{:?}{:?}", self.left, self.broken).bytes());
        let hash = Sha256::digest(&ink.bytes);
        u64::from_le_bytes(hash[..8].try_into().expect("a hash is longer"))
    }
}

impl Ink {
    fn short(&mut self, value: u8) {
        self.bytes.push(value);
    }

    fn number(&mut self, value: u64) {
        self.bytes.extend(value.to_le_bytes());
    }

    fn place(&mut self, at: usize) {
        self.bytes
            .extend(u16::try_from(at).expect("bounds are small").to_le_bytes());
    }

    fn name(&mut self, name: Option<Name>) {
        let Some(name) = name else { return self.short(255) };
        let at = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        self.place(at);
    }

    fn id(&mut self, id: TxId) {
        let at = self.ids.iter().position(|known| *known == id).unwrap_or_else(|| {
            self.ids.push(id);
            self.ids.len() - 1
        });
        self.place(at);
    }

    fn version(&mut self, version: Version) {
        match version {
            Version::Stored(revision) => {
                self.short(0);
                self.number(revision);
            }
            Version::Pending(id) => {
                self.short(1);
                self.id(id);
            }
        }
    }

    fn stands(&mut self, stands: Stands) {
        match stands {
            Stands::Open => self.short(0),
            Stands::Done => self.short(1),
            Stands::Dead(n) => self.number(n),
        }
    }

    fn kind(&mut self, kind: WorkKind) {
        match kind {
            WorkKind::Delivery => self.short(0),
            WorkKind::DeadLetter => self.short(1),
            WorkKind::Replay(DeathRef {
                entry,
                record: sequence,
            }) => {
                self.number(entry);
                self.number(sequence);
            }
        }
    }

    fn host(&mut self, world: &World, host: &ModelHost) {
        self.ids.clear();
        let Some(book) = &host.book else { return self.short(0) };
        self.short(1 + u8::from(host.connected));
        self.book(world, book);
        for run in &host.runs {
            self.place(run.event);
            self.kind(run.kind);
            self.short(u8::from(run.session == book.session));
            for (version, value) in run.reads.values() {
                self.version(*version);
                self.short(value.map_or(255, |value| value));
            }
            self.short(253);
        }
        // The writer of a stored value counts only for a run that read the value before it was stored.
        for key in KEYS {
            match book.view.cache.peek(key) {
                None => self.short(255),
                Some(cached) => {
                    self.number(cached.revision);
                    let by = cached.by.filter(|by| self.ids.contains(by));
                    match by {
                        None => self.short(254),
                        Some(by) => self.id(by),
                    }
                }
            }
        }
        host.held.iter().for_each(|event| self.place(*event));
        self.short(252);
        if let Some(flight) = &host.flight {
            self.name(Some(flight.laid.name));
            self.short(u8::from(flight.stale));
            match &flight.at {
                At::Sent => self.short(0),
                At::Committed(last) => self.number(*last),
                At::Refused => self.short(2),
                At::Read => self.short(3),
                At::Again => self.short(4),
                At::Fetched(keys, stale) => {
                    keys.iter().for_each(|(_, revision, _)| self.number(*revision));
                    self.short(245);
                    stale.iter().for_each(|id| self.id(*id));
                }
            }
        }
        if let Some(carrying) = &host.carrying {
            self.place(carrying.at);
            self.place(carrying.next);
            carrying.there.iter().for_each(|event| self.place(*event));
        }
    }

    fn book(&mut self, world: &World, book: &Book<ModelWaiter>) {
        self.number(book.head.n);
        self.number(book.head_sequence);
        for event in 0..world.events.len() {
            match book.index.decided(HANDLER, &event_id(event)) {
                None => self.short(0),
                // No event of the model has an id.
                Some(Decided::Below | Decided::Same { .. }) => self.short(1),
                Some(Decided::Done { entry }) => self.number(entry * 2),
                Some(Decided::Dead { entry }) => self.number(entry * 2 + 1),
            }
            self.short(u8::from(book.index.was_replayed(HANDLER, &event_id(event))));
        }
        self.number(book.index.floor(HANDLER, INCARNATION));
        self.number(book.index.reads_from());
        self.number(book.head.index_from);
        if let Some(sent) = &book.sent {
            self.group(&sent.group, book.session);
            // The name of a batch counts as long as a copy of it is on its way or stored.
            let name = |at: &Name| at.text() == sent.batch.entry.append;
            let known = world.net.iter().map(|copy| copy.laid.name);
            let stored = world.server.digests().filter_map(|(_, _, by)| by);
            let flight = world
                .hosts
                .iter()
                .filter_map(|host| host.flight.as_ref())
                .map(|flight| flight.laid.name);
            let name = known.chain(stored).chain(flight).find(name);
            self.name(name);
            self.number(sent.batch.entry.n);
        }
        for group in &book.forming {
            self.short(251);
            self.group(group, book.session);
        }
        self.short(250);
        for key in KEYS {
            match book.view.version(key) {
                Some(version @ Version::Pending(_)) => self.version(version),
                _ => self.short(249),
            }
        }
    }

    fn group(&mut self, group: &Group<ModelWaiter>, session: u64) {
        for member in &group.members {
            self.id(member.id);
            self.place(member.waiter.event);
            self.kind(member.waiter.kind);
            self.short(u8::from(member.waiter.decides) * 2 + u8::from(member.waiter.answered));
            self.short(u8::from(member.tx.session == session));
            self.short(member.tx.decision.as_ref().map_or(2, |decision| decision.verdict as u8));
            for version in member.tx.reads.values() {
                self.version(*version);
            }
            self.short(248);
            for (key, value) in &member.tx.writes {
                self.bytes.extend(key.bytes());
                self.bytes.extend(value.iter().flatten());
            }
            self.short(247);
        }
        for (key, touched) in &group.keys {
            self.bytes.extend(key.bytes());
            self.version(touched.base);
            touched.write.iter().for_each(|(by, _)| self.id(*by));
        }
        self.short(246);
    }
}
