//! Connections that several owners use. A connection lives once: when it breaks, all of its owners begin again, over one
//! new connection. So what shares a connection shares its breaks; see ARCHITECTURE, *Threads and connections*.

use std::time::Instant;

use tokio::sync::{Mutex, Semaphore};

use super::connection::Connection;
use super::dial::open;
use super::error::Error;
use super::guard::open_guarded;
use super::scan::LOOKS_MAX;
use crate::plan::{ConnectionsWanted, Nats};

/// One connection at a time, opened by the first owner that needs it. It works on the runtime of that owner.
pub struct Shared {
    nats: Nats,
    name: String,
    guarded: bool,
    state: Mutex<SharedState>,
    /// Held by an owner while it begins over the connection.
    pub starts: Semaphore,
}

/// Owners of a connection that begin at a time. Each asks the server a dozen things, and all of them begin together when a
/// host starts or a connection has broken: what thousands ask at once is not answered in time, and they would begin again.
const STARTS_MAX: usize = 32;

#[derive(Default)]
struct SharedState {
    current: Option<Connection>,
    /// When opening one has failed last, and why.
    failed: Option<(Instant, Error)>,
}

impl Shared {
    /// `name`: how the server lists the connection.
    pub fn new(nats: &Nats, name: String) -> Shared {
        Shared {
            nats: nats.clone(),
            name,
            guarded: false,
            state: Mutex::default(),
            starts: Semaphore::new(STARTS_MAX),
        }
    }

    /// The same over guarded connections, for an owner that receives messages which others have written.
    pub fn guarded(nats: &Nats, name: String) -> Shared {
        Shared {
            guarded: true,
            ..Shared::new(nats, name)
        }
    }

    /// The current connection, or a new one. `failed`: a connection on which requests are no longer answered; it is not handed
    /// out again, and owners that still get answers over it keep it.
    ///
    /// # Cancel safety
    /// Dropped half-way, the next caller opens the connection.
    pub async fn connection(&self, failed: Option<&Connection>) -> Result<Connection, Error> {
        let began = Instant::now();
        let mut state = self.state.lock().await;
        let usable = |connection: &&Connection| !connection.is_closed() && failed.is_none_or(|f| !f.is(connection));
        if let Some(connection) = state.current.as_ref().filter(usable) {
            return Ok(connection.clone());
        }
        // One attempt answers all who have waited for it.
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| *at >= began) {
            return Err(error.clone());
        }
        self.tell_of_loss(&mut state);
        state.current = None;
        let opened = match self.guarded {
            true => open_guarded(&self.nats, &self.name).await,
            false => open(&self.nats, &self.name).await,
        };
        match opened {
            Ok(connection) => {
                state.current = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn tell_of_loss(&self, state: &mut SharedState) {
        if state.current.take_if(|current| current.is_closed()).is_some() {
            tracing::info!(connection = self.name, "connection lost, connecting again");
        }
    }
}

/// The connections of one thread that runs handlers.
pub struct Connections {
    /// Of its handlers: deliveries, answers, attempt records.
    handlers: Shared,
    /// Of those handlers that have lately been given a message that no client can read: such a one breaks only the other.
    /// Its ledgers are read over it too.
    guarded: Shared,
    /// Of its ledgers, for all but reading: over it come answers of the server only, so nothing that was published breaks it.
    pub ledgers: Shared,
    /// Held by a sweep.
    pub sweeps: Semaphore,
    /// Held by a sweep while it reads a stream over a connection of its own.
    pub surveys: Semaphore,
}

/// Sweeps of a thread at a time: all handlers want one when they begin, and each asks the server some things.
const SWEEPS_MAX: usize = 32;

/// Sweeps of a thread that read at a time.
const SURVEYS_MAX: usize = 2;

/// How many connections a host with this number of threads has. `relay`: it has relays, and `outboxes`: also those of
/// outboxes.
pub fn wanted(threads: usize, relay: bool, outboxes: bool) -> ConnectionsWanted {
    // Advisories and the micro service; what relays publish and what they fetch, and delayed events that are due.
    let relays = if relay { 3 } else { 0 };
    // All outboxes share one.
    let of_outboxes = usize::from(relay && outboxes);
    let usual = 2 * threads.max(1) + 2 + relays + of_outboxes;
    // Guarded handlers, with ledgers that are read, and sweeps; what relays look for, and their end, or the start.
    let at_times = (1 + SURVEYS_MAX) * threads.max(1) + if relay { LOOKS_MAX + 1 } else { 1 };
    ConnectionsWanted {
        usual,
        most: usual + at_times,
    }
}

impl Connections {
    /// `thread`: its name.
    pub fn new(nats: &Nats, thread: &str) -> Connections {
        Connections {
            handlers: Shared::new(nats, format!("jetmesh handlers {thread}")),
            guarded: Shared::guarded(nats, format!("jetmesh guarded {thread}")),
            ledgers: Shared::new(nats, format!("jetmesh ledgers {thread}")),
            sweeps: Semaphore::new(SWEEPS_MAX),
            surveys: Semaphore::new(SURVEYS_MAX),
        }
    }

    /// Held by a handler while it begins.
    pub fn starts(&self) -> &Semaphore {
        &self.handlers.starts
    }

    /// A handler's connection. `failed`: see [`Shared::connection`].
    pub async fn of_handler(&self, guarded: bool, failed: Option<&Connection>) -> Result<Connection, Error> {
        if !guarded {
            return self.handlers.connection(failed).await;
        }
        self.handlers.tell_of_loss(&mut *self.handlers.state.lock().await);
        self.guarded.connection(failed).await
    }

    /// A guarded connection, for reading a ledger. `failed`: see [`Shared::connection`].
    pub async fn reader(&self, failed: Option<&Connection>) -> Result<Connection, Error> {
        self.guarded.connection(failed).await
    }
}
