//! Connections that several owners use. A connection lives once: when it breaks, all of its owners begin again, over one
//! new connection. So what shares a connection shares its breaks; see ARCHITECTURE, *Threads and connections*.

use std::time::Instant;

use tokio::sync::{Mutex, Semaphore};

use super::connection::{Connection, open};
use super::error::Error;
use crate::plan::Nats;

/// One connection at a time, opened by the first owner that needs it. It works on the runtime of that owner.
pub struct Shared {
    nats: Nats,
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
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
            state: Mutex::default(),
        }
    }

    pub fn nats(&self) -> &Nats {
        &self.nats
    }

    /// The present connection, or a new one. `failed`: one on which requests are no longer answered; it is not given to
    /// anybody any more, and those who still get answers over it keep it.
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
        if state.current.as_ref().is_some_and(Connection::is_closed) {
            tracing::info!(connection = self.name, "connection lost, connecting again");
        }
        state.current = None;
        match open(&self.nats, &self.name).await {
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
}

/// The connections of one thread that runs handlers.
pub struct Connections {
    /// Of its handlers: deliveries, answers, attempt records.
    pub handlers: Shared,
    /// Of its ledgers: apart, because what a publisher has sent can break a handler's.
    pub ledgers: Shared,
    /// Held by a sweep while it reads a stream over a connection of its own.
    pub surveys: Semaphore,
}

/// Sweeps of a thread that read at a time.
const SURVEYS_MAX: usize = 2;

impl Connections {
    /// `thread`: its name.
    pub fn new(nats: &Nats, thread: &str) -> Connections {
        Connections {
            handlers: Shared::new(nats, format!("jetmesh handlers {thread}")),
            ledgers: Shared::new(nats, format!("jetmesh ledgers {thread}")),
            surveys: Semaphore::new(SURVEYS_MAX),
        }
    }
}
