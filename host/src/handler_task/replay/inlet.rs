//! Where a lane's replays come from. Replays are rare, and a consumer costs the server memory and, with replicas, a Raft
//! group: so a handler has a consumer on `MESH_REPLAY` only while something waits there for it.

use std::time::{Duration, Instant};

use async_nats::Subscriber;
use futures_util::StreamExt;

use super::{bind, consumer};
use crate::broker::error::Code;
use crate::broker::provision::REPLAY;
use crate::broker::pull::{Inlet, Pulled};
use crate::broker::{Connection, Error};
use crate::handler_task::circuit::Circuit;
use crate::handler_task::lost::{self, Door};
use crate::mesh_streams::replay_queue::subject;
use crate::plan::Handler;

/// How long after its last replay a lane keeps its consumer.
const IDLE: Duration = Duration::from_secs(30);
/// The server removes a consumer from which no host has pulled for this time.
pub const INACTIVE: Duration = Duration::from_secs(60);

/// What a lane hears of its replays.
pub enum Heard {
    Pulled(Pulled),
    /// Something was asked for: [`Replays::bind`] gets it.
    Asked,
}

/// A handler's replays, over one connection.
pub struct Replays<'a> {
    connection: &'a Connection,
    plan: &'a Handler,
    mesh: &'a str,
    /// What has been taken of them.
    door: &'a Door,
    /// While the handler is paused, they wait in their stream.
    circuit: &'a Circuit,
    /// Hears each replay of this handler as it is asked for. Absent while there is an inlet.
    asked: Option<Subscriber>,
    inlet: Option<Inlet>,
    /// When a replay came last.
    last: Instant,
}

impl<'a> Replays<'a> {
    /// Listens, and gets what waits already.
    pub async fn open(
        connection: &'a Connection,
        plan: &'a Handler,
        mesh: &'a str,
        (door, circuit): (&'a Door, &'a Circuit),
    ) -> Result<Replays<'a>, Error> {
        let mut replays = Replays {
            connection,
            plan,
            mesh,
            door,
            circuit,
            asked: Some(listen(connection, &plan.name).await?),
            inlet: None,
            last: Instant::now(),
        };
        replays.look().await?;
        Ok(replays)
    }

    /// Whether something waits that was not heard of: a message to a subscriber may be lost.
    pub async fn look(&mut self) -> Result<(), Error> {
        if self.inlet.is_some() || self.circuit.is_paused() {
            return Ok(());
        }
        let filter = format!("{}.>", subject(&self.plan.name));
        match self.connection.stored_next(REPLAY, 1, &filter).await {
            Ok(Some(_)) => self.bind().await,
            // A stream that was removed is made again in a moment, without what it held.
            Ok(None)
            | Err(Error::Api {
                code: Code::STREAM_NOT_FOUND,
                ..
            }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the consumer, or finds it, and pulls from it; not while the handler is paused.
    pub async fn bind(&mut self) -> Result<(), Error> {
        if self.circuit.is_paused() {
            return Ok(());
        }
        let found = bind(self.connection, self.plan, self.mesh).await?;
        let exactly_once = self.plan.ledger.is_some();
        lost::hand_back(self.connection, REPLAY, &found, self.door, exactly_once, |_| false).await;
        self.inlet = Some(Inlet::open(self.connection, REPLAY, consumer(self.plan)).await?);
        self.asked = None;
        self.last = Instant::now();
        Ok(())
    }

    /// Lets an idle consumer go. What is asked for at this moment is found by the look that follows.
    pub async fn tick(&mut self) -> Result<(), Error> {
        if let Some(inlet) = &mut self.inlet {
            inlet.forget_if_stale();
        }
        if self.last.elapsed() < IDLE {
            return Ok(());
        }
        let Some(inlet) = self.inlet.take() else {
            return Ok(());
        };
        self.asked = Some(listen(self.connection, &self.plan.name).await?);
        inlet.hand_back(self.connection).await;
        self.look().await
    }

    /// Asks for as many as there is room for.
    pub async fn ask(&mut self) -> Result<(), Error> {
        if let Some(inlet) = &mut self.inlet {
            let paused = self.circuit.is_paused();
            inlet.ask(if paused { 0 } else { self.door.free() }).await?;
        }
        Ok(())
    }

    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Heard, Error> {
        if let Some(inlet) = &mut self.inlet {
            let pulled = inlet.next().await?;
            if !matches!(pulled, Pulled::Ended) {
                self.last = Instant::now();
            }
            return Ok(Heard::Pulled(pulled));
        }
        let heard = match &mut self.asked {
            Some(asked) => asked.next().await,
            None => None,
        };
        heard.map(|_| Heard::Asked).ok_or_else(|| Error::Gone {
            what: "listening for replays".to_owned(),
        })
    }

    /// Stops, and gives back what has been received and not begun.
    pub async fn hand_back(self) {
        if let Some(inlet) = self.inlet {
            inlet.hand_back(self.connection).await;
        }
    }
}

async fn listen(connection: &Connection, handler: &str) -> Result<Subscriber, Error> {
    let replays = format!("{}.>", subject(handler));
    connection.client.subscribe(replays).await.map_err(|_| Error::Gone {
        what: "listening for replays".to_owned(),
    })
}
