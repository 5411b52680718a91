//! Where a lane's replays come from. Replays are rare, and a consumer costs the server memory and, with replicas, a Raft
//! group: so a handler has a consumer on `MESH_REPLAY` only while something waits there for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use futures_util::StreamExt;

use super::{bind, consumer};
use crate::broker::error::Code;
use crate::broker::provision::REPLAY;
use crate::broker::pull::{Inlet, Pulled};
use crate::broker::{Connection, Error};
use crate::handler_task::lane::Lane;
use crate::handler_task::lost;
use crate::replay_queue::subject;

/// How long after its last replay a lane keeps its consumer.
const IDLE: Duration = Duration::from_secs(30);
/// The server removes a consumer that no host has pulled from for so long.
pub const INACTIVE: Duration = Duration::from_secs(60);

/// What a lane hears of its replays.
pub enum Heard {
    Pulled(Pulled),
    /// Something was asked for: [`Replays::bind`] gets it.
    Asked,
}

pub struct Replays {
    /// Hears each replay of this handler as it is asked for. Absent while there is an inlet.
    asked: Option<Subscriber>,
    inlet: Option<Inlet>,
    /// When a replay came last.
    last: Instant,
}

impl Replays {
    /// Listens, and gets what waits already.
    pub async fn open(connection: &Connection, lane: &Arc<Lane>) -> Result<Replays, Error> {
        let mut replays = Replays {
            asked: Some(listen(connection, lane).await?),
            inlet: None,
            last: Instant::now(),
        };
        replays.look(connection, lane).await?;
        Ok(replays)
    }

    /// Whether something waits that was not heard of: a message to a subscriber may be lost.
    pub async fn look(&mut self, connection: &Connection, lane: &Arc<Lane>) -> Result<(), Error> {
        if self.inlet.is_some() {
            return Ok(());
        }
        let filter = format!("{}.>", subject(&lane.plan.name));
        match connection.stored_next(REPLAY, 1, &filter).await {
            Ok(Some(_)) => self.bind(connection, lane).await,
            // A stream that was removed is made again in a moment, without what it held.
            Ok(None)
            | Err(Error::Api {
                code: Code::STREAM_NOT_FOUND,
                ..
            }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the consumer, or finds it, and pulls from it.
    pub async fn bind(&mut self, connection: &Connection, lane: &Arc<Lane>) -> Result<(), Error> {
        let found = bind(connection, lane).await?;
        let exactly_once = lane.bucket.is_some();
        lost::hand_back(connection, REPLAY, &found, &lane.doors.replays, exactly_once, |_| false).await;
        self.inlet = Some(Inlet::open(connection, REPLAY, &consumer(lane)).await?);
        self.asked = None;
        self.last = Instant::now();
        Ok(())
    }

    /// Lets an idle consumer go. What is asked for at this moment is found by the look that follows.
    pub async fn tick(&mut self, connection: &Connection, lane: &Arc<Lane>) -> Result<(), Error> {
        if let Some(inlet) = &mut self.inlet {
            inlet.forget_if_stale();
        }
        if self.last.elapsed() < IDLE {
            return Ok(());
        }
        let Some(inlet) = self.inlet.take() else {
            return Ok(());
        };
        self.asked = Some(listen(connection, lane).await?);
        inlet.hand_back(connection).await;
        self.look(connection, lane).await
    }

    /// Asks for as many as there is room for.
    pub async fn ask(&mut self, room: usize) -> Result<(), Error> {
        if let Some(inlet) = &mut self.inlet {
            inlet.ask(room).await?;
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
    pub async fn hand_back(self, connection: &Connection) {
        if let Some(inlet) = self.inlet {
            inlet.hand_back(connection).await;
        }
    }
}

async fn listen(connection: &Connection, lane: &Lane) -> Result<Subscriber, Error> {
    let replays = format!("{}.>", subject(&lane.plan.name));
    connection.client.subscribe(replays).await.map_err(|_| Error::Gone {
        what: "listening for replays".to_owned(),
    })
}
