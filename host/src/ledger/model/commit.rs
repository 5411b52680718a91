//! What a committer and its session do. The calls of the book are those of `committer.rs` (`append`, `resolve`) and
//! `session.rs` (`open`, `sync`), in their order; whatever waits there is a step of its own here.

use std::sync::Arc;

use super::bounds::Bounds;
use super::judge;
use super::server::{BUCKET, Laid};
use super::world::{At, BatchFlight, Broken, Copy, ModelHost, World};
use crate::failpoint::mistake::Planted;
use crate::ledger::core::append::Author;
use crate::ledger::core::book::{Book, Following, Read};
use crate::ledger::core::group::TxId;

impl World {
    /// A process starts: nothing is known, and the first session is opened.
    pub fn start(&mut self, bounds: &Bounds, host: usize) {
        let book = Book::new(BUCKET, bounds.cache_bytes, Planted::new(bounds.mistake));
        self.host(host).book = Some(book);
        self.open(bounds, host);
    }

    /// A process ends at once; what it has sent is on its way.
    pub fn crash(&mut self, host: usize) {
        *self.host(host) = ModelHost::default();
    }

    /// A connection breaks; what was sent over it may still arrive, but no answer will.
    pub fn disconnect(&mut self, host: usize) {
        self.host(host).connected = false;
    }

    /// A new session over a new connection: `Bucket::open`. A lane may be faster with it than the committer, which
    /// then still holds the old connection.
    pub fn open(&mut self, bounds: &Bounds, host: usize) {
        let server = Arc::clone(&self.server);
        let newest = usize::try_from(server.head.index_from.max(1) - 1).expect("few entries");
        let from = usize::try_from(self.book(host).reads_from(&server.head) - 1).expect("few entries");
        let from = if from < server.collected { newest } else { from };
        if from < server.collected {
            // What has to be read was removed: the ledger cannot be opened.
            return;
        }
        let book = self.book(host);
        let mut opening = book.begin(server.head.clone(), server.head_sequence, from as u64 + 1);
        for (entry, sequence) in server.entries.iter().skip(from) {
            opening.feed(entry, *sequence);
        }
        let fates = book.finish(opening, bounds.payload_max);
        self.host(host).connected = true;
        if let Some(flight) = &mut self.host(host).flight {
            flight.stale = true;
        }
        self.tell(bounds, host, fates);
        for run in 0..self.hosts[host].runs.len() {
            while !bounds.reads_apart && !self.has_read(bounds, host, run) {
                self.read(bounds, host, run);
            }
        }
    }

    /// The committer sees that its connection is closed: `append` ends with an error and the session is dropped.
    pub fn notice(&mut self, bounds: &Bounds, host: usize) {
        let flight = self.host(host).flight.take().expect("it is committing");
        if flight.stale && flight.at == At::Again {
            // It slept: what it sends next goes over the old connection and is lost.
            self.lay(bounds, host, Some(&flight));
        }
        self.host(host).connected = false;
    }

    /// The next batch, or the same once more.
    pub fn send(&mut self, bounds: &Bounds, host: usize) {
        let before = self.host(host).flight.take();
        let Some(laid) = self.lay(bounds, host, before.as_ref()) else {
            return;
        };
        let copies = self
            .net
            .iter()
            .filter(|copy| copy.laid.name == laid.name)
            .map(|copy| copy.copy + 1);
        let copy = copies.max().unwrap_or(0);
        self.net.push(Copy {
            laid: Arc::clone(&laid),
            copy,
        });
        self.host(host).flight = Some(BatchFlight {
            laid,
            copy,
            at: At::Sent,
            stale: false,
        });
    }

    /// `before`: what this round has sent already.
    fn lay(&mut self, bounds: &Bounds, host: usize, before: Option<&BatchFlight>) -> Option<Arc<Laid>> {
        let name = match before {
            Some(flight) if bounds.one_name_a_round => flight.laid.name,
            _ => self.free_name(host),
        };
        let text = name.text();
        let (fates, batch) = {
            let (fates, sent) = self.book(host).next(Author {
                append: &text,
                host: "host",
                at: "",
            });
            (fates, sent.map(|sent| sent.batch.clone()))
        };
        self.tell(bounds, host, fates);
        let batch = batch?;
        let known = before.filter(|flight| flight.laid.batch.entry.append == batch.entry.append);
        match known {
            Some(flight) if Arc::ptr_eq(&flight.laid.batch.records, &batch.records) => Some(Arc::clone(&flight.laid)),
            _ => Some(Arc::new(Laid::new(name, batch))),
        }
    }

    /// The server comes to a copy of a batch. `refuse`: whatever it expects.
    pub fn arrive(&mut self, bounds: &Bounds, copy: usize, refuse: bool) {
        let Copy { laid, copy } = self.net.remove(copy);
        let at = match !refuse && self.server.accepts(&laid.batch.records) {
            true => {
                let before = Arc::clone(&self.server);
                let stood = self.events.iter().map(|event| event.stands).collect();
                self.undo = (self.left.lose_tail > 0).then(|| (Arc::clone(&before), stood));
                let (last, rewritten) = Arc::make_mut(&mut self.server).take(&laid);
                if rewritten.is_some() {
                    self.breaks(Broken::Numbers);
                }
                let broken = judge::append(bounds, &before, &self.server, &laid, &mut self.events);
                self.broken = self.broken.or(broken);
                At::Committed(last)
            }
            false => At::Refused,
        };
        let host = laid.name.host;
        if self.is_awaited(&laid, copy) {
            let flight = self.host(host).flight.as_mut().expect("it is awaited");
            flight.at = at;
        }
    }

    /// The host still waits for the answer to this copy.
    pub fn is_awaited(&self, laid: &Laid, copy: u8) -> bool {
        let host = &self.hosts[laid.name.host];
        host.connected
            && host.flight.as_ref().is_some_and(|flight| {
                flight.laid.name == laid.name && flight.copy == copy && flight.at == At::Sent && !flight.stale
            })
    }

    /// The answer says where the batch is stored.
    pub fn confirm(&mut self, bounds: &Bounds, host: usize, last: u64) {
        let flight = self.host(host).flight.take().expect("it is committing");
        let batch = &flight.laid.batch;
        let sequence = last - (batch.records.len() - 1 - batch.entry_at) as u64;
        if let Read::Applied(fates) = self.book(host).apply(&batch.entry, sequence) {
            self.tell(bounds, host, fates);
        }
    }

    /// Refused: reads the ledger up to its end. If that says nothing new, the keys are looked at next.
    pub fn resolve(&mut self, bounds: &Bounds, host: usize) {
        self.catch_up(bounds, host);
        if !self.hosts[host].connected {
            return;
        }
        let n = self.hosts[host]
            .flight
            .as_ref()
            .map_or(0, |flight| flight.laid.batch.entry.n);
        if self.book(host).head.n < n {
            self.at(host, At::Read);
        } else {
            self.refused(bounds, host, &[]);
        }
    }

    pub fn fetch(&mut self, host: usize) {
        let keys = self.book(host).keys_on_their_way();
        let keys = keys.into_iter().map(|key| {
            let (revision, value) = self.server.key(&key);
            (key, revision, value)
        });
        let keys = keys.collect();
        let following = self.book(host).deaths_on_their_way();
        let stale = |one: &Following| self.server.last_of(&one.subject) != one.sequence;
        let stale = following.iter().filter(|one| stale(one)).map(|one| one.id);
        let stale = stale.collect();
        self.at(host, At::Fetched(keys, stale));
    }

    pub fn relearn(
        &mut self,
        bounds: &Bounds,
        host: usize,
        keys: Vec<(String, u64, Option<bytes::Bytes>)>,
        stale: &[TxId],
    ) {
        if self.book(host).relearn(keys) || !stale.is_empty() {
            self.refused(bounds, host, stale);
        } else {
            self.at(host, At::Again);
        }
    }

    fn refused(&mut self, bounds: &Bounds, host: usize, stale: &[TxId]) {
        self.host(host).flight = None;
        let fates = self.book(host).refused(stale);
        self.tell(bounds, host, fates);
    }

    /// The server loses its last append, and with it every connection and what was written to them.
    pub fn lose_tail(&mut self) {
        let Some((server, stood)) = self.undo.take() else {
            return;
        };
        self.server = server;
        self.events
            .iter_mut()
            .zip(stood)
            .for_each(|(event, stood)| event.stands = stood);
        self.net.clear();
        for host in 0..self.hosts.len() {
            self.host(host).connected = false;
        }
    }

    /// Patience is over.
    pub fn give_up(&mut self, bounds: &Bounds, host: usize) {
        self.host(host).flight = None;
        let fates = self.book(host).give_up("patience is over");
        self.tell(bounds, host, fates);
    }

    pub fn at(&mut self, host: usize, at: At) {
        if let Some(flight) = &mut self.host(host).flight {
            flight.at = at;
        }
    }

    /// Everything that others have appended: `Bucket::sync`.
    pub fn catch_up(&mut self, bounds: &Bounds, host: usize) {
        let server = Arc::clone(&self.server);
        let known = usize::try_from(self.book(host).head.n).expect("few entries");
        if known < server.collected {
            // What has to be read was removed: the session ends with an error, and the next one begins at the head.
            self.host(host).flight = None;
            return self.disconnect(host);
        }
        for (entry, sequence) in server.entries.iter().skip(known) {
            if let Read::Applied(fates) = self.book(host).apply(entry, *sequence) {
                self.tell(bounds, host, fates);
            }
        }
        self.book(host).confirm_head(server.head.clone(), server.head_sequence);
    }
}
