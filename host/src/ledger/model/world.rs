//! The state that is searched: a server, the network, the hosts with their books, the source and the target.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::bounds::{Bounds, May};
use super::server::{Laid, ModelServer, Name};
use crate::event::EventId;
use crate::event::effects::Version;
use crate::ledger::core::book::Book;
use crate::ledger::core::entry::Out;
use crate::ledger::core::group::TxId;
use crate::mesh_streams::dead_letter::DeathRef;

pub const HANDLER: &str = "h";
pub const INCARNATION: &str = "k";

/// An invariant of the protocol that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// Entries are 1, 2, 3 … and no entry is ever rewritten.
    Numbers,
    /// An event is decided at most once, apart from a replay's `done` after its own death.
    DecidedTwice,
    /// The transactions, run one after another, give what is stored.
    NotSerial,
    /// The ledger alone tells what the keys hold.
    LedgerIsNotTheState,
    /// A consequence is published before its entry is committed, or twice.
    CarriedOutWrongly,
    /// An event is acked that is not decided.
    AckedUndecided,
    /// A replay is answered and its death stands.
    ReplayLost,
    /// A floor passes an event that is not decided.
    FloorTooHigh,
    /// A host believes of a head or of a revision what it is not.
    BelievesWrongly,
    /// No step is left that acks, decides or publishes, and not everything is done.
    Unexpected,
}

/// How an event stands, as the server holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stands {
    Open,
    Done,
    Dead(u64),
}

/// Why an event is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkKind {
    Delivery,
    /// Of a letter that tells of this death.
    Replay(DeathRef),
    DeadLetter,
}

/// Who waits for a transaction.
#[derive(Debug, Clone)]
pub struct ModelWaiter {
    pub event: usize,
    pub kind: WorkKind,
    /// `false`: an attempt that failed and waits until what it has read is committed.
    pub decides: bool,
    /// Answered already, which is a mistake.
    pub answered: bool,
}

/// A handler at work.
#[derive(Debug, Clone)]
pub struct ModelRun {
    pub event: usize,
    pub kind: WorkKind,
    pub session: u64,
    /// What it has read so far.
    pub reads: BTreeMap<String, (Version, Option<u8>)>,
}

/// The committer's batch, and how far it is with it.
#[derive(Debug, Clone)]
pub struct BatchFlight {
    pub laid: Arc<Laid>,
    pub copy: u8,
    pub at: At,
    /// Another session has been opened since: whatever is sent over the old connection is lost.
    pub stale: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum At {
    /// The server has not answered yet.
    Sent,
    /// The last message's sequence.
    Committed(u64),
    Refused,
    /// Refused, and the ledger says nothing new.
    Read,
    /// The keys that it rests on were fetched, and the replays whose death has no record were found.
    Fetched(Vec<(String, u64, Option<bytes::Bytes>)>, Vec<TxId>),
    /// To be sent again, after a moment.
    Again,
}

/// A copy of a batch on its way to the server.
#[derive(Debug, Clone)]
pub struct Copy {
    pub laid: Arc<Laid>,
    pub copy: u8,
}

/// A relay between fetching a message of consequences and its ack.
#[derive(Debug, Clone)]
pub struct Carrying {
    /// Which message of the stream's consequences.
    pub at: usize,
    /// The next consequence in it.
    pub next: usize,
    /// Events that were found in the target already.
    pub there: Vec<usize>,
}

#[derive(Debug, Clone, Default)]
pub struct ModelHost {
    /// `None`: the process has ended.
    pub book: Option<Book<ModelWaiter>>,
    pub connected: bool,
    pub runs: Vec<ModelRun>,
    /// Events that run or wait for their commit here.
    pub held: Vec<usize>,
    pub flight: Option<BatchFlight>,
    pub carrying: Option<Carrying>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LetterState {
    None,
    /// Of this death.
    Stored(DeathRef),
    Settled,
}

/// An event in its source and in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Event {
    pub deliveries: u8,
    pub acked: bool,
    /// By the server's own storage, not by what a host believes.
    pub stands: Stands,
    pub emitted: u8,
    /// The target still knows its message id.
    pub remembered: bool,
    pub letter: LetterState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelReplay {
    pub event: usize,
    /// The death that the letter names.
    pub death: DeathRef,
    pub delivered: bool,
    pub acked: bool,
}

#[derive(Debug, Clone)]
pub struct World {
    pub broken: Option<Broken>,
    pub server: Arc<ModelServer>,
    pub net: Vec<Copy>,
    pub hosts: Vec<Arc<ModelHost>>,
    pub events: Vec<Event>,
    pub replays: Vec<ModelReplay>,
    /// Messages of consequences that the relay's consumer holds for acked.
    pub relayed: usize,
    pub put: usize,
    /// What the server can still lose: how it and the events stood before the last append.
    pub undo: Option<(Arc<ModelServer>, Vec<Stands>)>,
    pub left: May,
    /// What this state is, up to the names of hosts, appends and transactions.
    pub fingerprint: u64,
}

impl World {
    pub fn new(bounds: &Bounds) -> World {
        let event = Event {
            deliveries: 0,
            acked: false,
            stands: Stands::Open,
            emitted: 0,
            remembered: false,
            letter: LetterState::None,
        };
        let mut world = World {
            broken: None,
            server: Arc::new(ModelServer::new(bounds.start)),
            net: Vec::new(),
            hosts: vec![Arc::default(); bounds.hosts],
            events: vec![event; bounds.programs.len()],
            replays: Vec::new(),
            relayed: 0,
            put: 0,
            undo: None,
            left: bounds.may,
            fingerprint: 0,
        };
        for host in 0..bounds.hosts {
            world.start(bounds, host);
        }
        world.seal();
        world
    }

    pub fn host(&mut self, host: usize) -> &mut ModelHost {
        Arc::make_mut(&mut self.hosts[host])
    }

    pub fn book(&mut self, host: usize) -> &mut Book<ModelWaiter> {
        self.host(host).book.as_mut().expect("the process is there")
    }

    pub fn breaks(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }

    /// Everything is decided, acked and published.
    pub fn is_settled(&self, bounds: &Bounds) -> bool {
        let event = |event: &Event| {
            let carried = match event.stands {
                Stands::Open => false,
                Stands::Done => event.emitted == 1 && !matches!(event.letter, LetterState::Stored(..)),
                Stands::Dead(n) => {
                    event.emitted == 0 && matches!(event.letter, LetterState::Stored(of) if of.entry == n)
                }
            };
            event.acked && event.stands != Stands::Open && (carried || !bounds.relay)
        };
        let idle =
            |host: &Arc<ModelHost>| host.flight.is_none() && host.book.as_ref().is_none_or(|book| !book.has_work());
        self.events.iter().all(event)
            && self.hosts.iter().all(idle)
            && self.replays.iter().all(|replay| replay.acked)
            && (!bounds.relay || self.relayed == self.server.outs.len())
    }

    /// The lowest name that this host's appends do not have.
    pub fn free_name(&self, host: usize) -> Name {
        let entries = self.server.digests().filter_map(|(_, _, by)| by);
        let net = self.net.iter().map(|copy| copy.laid.name);
        let sent = self.hosts[host].book.iter().filter_map(|book| book.sent.as_ref());
        let sent: Vec<String> = sent.map(|sent| sent.batch.entry.append.clone()).collect();
        let flight = self.hosts[host].flight.iter().map(|flight| flight.laid.name);
        let taken: Vec<Name> = entries.chain(net).chain(flight).collect();
        let free = |name: &Name| !taken.contains(name) && !sent.contains(&name.text());
        (0..)
            .map(|number| Name { host, number })
            .find(free)
            .expect("numbers do not end")
    }

    pub fn out(&self, at: usize) -> Option<&Arc<Out>> {
        self.server.outs.get(at)
    }
}

pub fn event_id(event: usize) -> EventId {
    EventId {
        incarnation: INCARNATION.into(),
        sequence: event as u64 + 1,
    }
}

/// The event that an id with this last part speaks of.
pub fn event_of(sequence: &str) -> usize {
    sequence.parse::<usize>().expect("ids of the model end with a sequence") - 1
}

impl PartialEq for World {
    fn eq(&self, other: &World) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for World {}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.fingerprint.hash(hasher);
    }
}
