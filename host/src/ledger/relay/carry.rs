//! What the relay does with one message of consequences: publish, store, settle, each once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::blocked::{Blocked, ConsequencePlace};
use super::flight::Flight;
use super::state::RelayState;
use super::targets::Targets;
use crate::broker::{By, Connection, Error};
use crate::ledger::core::book::Appended;
use crate::ledger::core::entry::{Consequence, Entry, Head, Out, Subjects};
use crate::ledger::relay::asked::Asked;
use crate::ledger::relay::seen::Lookback;
use crate::ledger::relay::task::Task;
use crate::ledger::store::bucket::Bucket;
use crate::ledger::store::read;
use crate::mesh_streams::delayed::DelayedRoom;
use crate::plan::Plan;

/// A batch is stored message by message: its head comes a moment after its consequences.
const MOMENT: Duration = Duration::from_millis(2);
const MOMENTS: u32 = 100;
/// How long it is waited for what this host knows itself.
const OUR_OWN: Duration = Duration::from_millis(10);

/// A relay at work, over one connection.
pub struct Relay {
    /// For people.
    pub(super) state: Arc<RelayState>,
    pub(super) plan: Arc<Plan>,
    pub(super) connection: Connection,
    pub(super) stream: String,
    pub(super) subjects: Subjects,
    /// This host's own knowledge of the ledger, if it has any.
    bucket: Option<Arc<Bucket>>,
    pub flight: Flight,
    pub blocked: Blocked,
    /// Messages that have come and not begun, because too much waits: how they are numbered, and their sequences.
    pub(super) parked: VecDeque<(u64, u64)>,
    /// What is being found out about targets.
    pub(super) asks: FuturesUnordered<BoxFuture<'static, Asked>>,
    /// What was asked a moment ago.
    pub(super) asked: HashMap<String, Instant>,
    /// Then this relay was the pinned one for certain.
    pub pinned: Instant,
    /// The newest entry that is known to be committed.
    head: u64,
    pub(super) targets: Targets,
    pub(super) room: DelayedRoom,
    pub(super) lookback: Lookback,
}

/// A message of consequences.
pub struct Fetched<'a> {
    pub sequence: u64,
    /// When it was stored, by the server's clock.
    pub time_ms: u64,
    pub payload: &'a [u8],
    /// How it is confirmed; `None`: by a later one.
    pub reply: Option<Subject>,
    /// Not before this.
    pub at: Instant,
}

/// What stands behind consequences.
enum Backing {
    /// Their entry is in the ledger, with this sequence.
    Committed {
        entry_sequence: u64,
    },
    NotYet,
    /// Another append became that entry.
    Torn,
}

impl Relay {
    pub async fn new(
        state: &Arc<RelayState>,
        plan: &Arc<Plan>,
        connection: Connection,
        (stream, subjects): (String, Subjects),
        bucket: Option<Arc<Bucket>>,
    ) -> Result<Relay, Error> {
        Ok(Relay {
            state: Arc::clone(state),
            plan: Arc::clone(plan),
            flight: Flight::new(&connection).await?,
            blocked: Blocked::default(),
            parked: VecDeque::new(),
            asks: FuturesUnordered::new(),
            asked: HashMap::new(),
            pinned: Instant::now(),
            connection,
            stream,
            subjects,
            bucket,
            head: 0,
            targets: Targets::default(),
            room: DelayedRoom::default(),
            lookback: Lookback::default(),
        })
    }

    /// Takes up one message; its events are on their way when this returns, unless so much waits that it is only kept in
    /// mind. `false`: its entry is not there yet.
    pub async fn take_up(&mut self, fetched: Fetched<'_>) -> Result<bool, Error> {
        let Fetched {
            sequence,
            time_ms,
            payload,
            reply,
            at,
        } = fetched;
        let carried = self.flight.begin(sequence, time_ms, reply);
        if !self.parked.is_empty() || !self.blocked.has_room() {
            self.parked.push_back((carried, sequence));
            return Ok(true);
        }
        self.carry((carried, sequence), payload, at).await
    }

    /// Nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.flight.unconfirmed().0 == 0
    }

    pub fn tell(&self) {
        let full = !self.parked.is_empty();
        let only_waits = self.flight.is_empty() && !full && !self.blocked.has_due() && !self.blocked.is_empty();
        self.state.under_way(self.flight.unconfirmed(), full, only_waits);
        self.state.blocked(self.blocked.snapshot());
    }

    /// There is room again for what was only kept in mind.
    pub fn can_unpark(&self) -> bool {
        !self.parked.is_empty() && self.blocked.has_room()
    }

    /// Goes on with one message of what has waited. `false`: an entry is not there yet.
    pub async fn go_on(&mut self) -> Result<bool, Error> {
        if self.blocked.has_due() {
            self.retry().await?;
            return Ok(true);
        }
        self.unpark().await
    }

    /// Begins one that was only kept in mind. `false`: its entry is not there yet.
    async fn unpark(&mut self) -> Result<bool, Error> {
        let Some((carried, sequence)) = self.parked.pop_front() else {
            return Ok(true);
        };
        let payload = self.read(sequence).await?;
        self.carry((carried, sequence), &payload, self.pinned).await
    }

    async fn carry(&mut self, (carried, sequence): (u64, u64), payload: &[u8], at: Instant) -> Result<bool, Error> {
        let out: Out = match serde_json::from_slice(payload) {
            Ok(out) => out,
            Err(error) => {
                self.pass_over(sequence, &error.to_string());
                self.flight.end(carried);
                return Ok(true);
            }
        };
        self.flight.follows(carried, out.n);
        let entry_sequence = match self.backing(&out).await? {
            Backing::Committed { entry_sequence } => entry_sequence,
            Backing::NotYet => return Ok(false),
            Backing::Torn => {
                tracing::warn!(entry = out.n, "the consequences of an incomplete batch are left out");
                self.flight.end(carried);
                return Ok(true);
            }
        };
        for (i, consequence) in out.consequences.into_iter().enumerate() {
            let task = Task {
                carried,
                place: ConsequencePlace { sequence, at: i },
                entry: out.n,
                entry_sequence,
                at,
                before: None,
            };
            self.begin(task, consequence).await?;
        }
        self.flight.end(carried);
        Ok(true)
    }

    /// Tries again what is due of one message.
    async fn retry(&mut self) -> Result<(), Error> {
        let Some((sequence, due)) = self.blocked.take_due() else {
            return Ok(());
        };
        let payload = self.read(sequence).await?;
        let out: Out = read::parse(&self.stream, &payload)?;
        let Backing::Committed { entry_sequence } = self.backing(&out).await? else {
            let what = self.subjects.entry(out.n);
            return Err(Error::Missing { what });
        };
        let mut consequences: Vec<Option<Consequence<'static>>> = out.consequences.into_iter().map(Some).collect();
        for (i, waiting) in due {
            let Some(consequence) = consequences.get_mut(i).and_then(Option::take) else {
                continue;
            };
            let task = Task {
                carried: waiting.carried,
                place: ConsequencePlace { sequence, at: i },
                entry: out.n,
                entry_sequence,
                at: self.pinned,
                before: Some(waiting),
            };
            let carried = task.carried;
            self.begin(task, consequence).await?;
            // It is on its way again, or waits again: it was counted when it was begun first.
            self.flight.confirm(carried);
        }
        Ok(())
    }

    /// A message of consequences, from the ledger's stream.
    async fn read(&mut self, sequence: u64) -> Result<Bytes, Error> {
        let stored = self.connection.stored(&self.stream, By::Sequence(sequence)).await?;
        let what = || format!("message {sequence} of stream {}", self.stream);
        Ok(stored.ok_or_else(|| Error::Missing { what: what() })?.payload)
    }

    /// Something else has written among the consequences: it is named, and what comes after it goes on.
    pub fn pass_over(&self, sequence: u64, why: &str) {
        let stream = &self.stream;
        tracing::error!(
            stream,
            sequence,
            why,
            "a message among the consequences that cannot be parsed is left out"
        );
        self.state.left_out(sequence, why.to_owned());
    }

    /// Nothing of it is published: a part is read by the consequence that names it.
    pub fn leave_out(&mut self, sequence: u64, time_ms: u64, reply: Option<Subject>) {
        let carried = self.flight.begin(sequence, time_ms, reply);
        self.flight.end(carried);
    }

    async fn backing(&mut self, out: &Out) -> Result<Backing, Error> {
        let is = |entry: &Appended| match entry.append == out.append {
            true => Backing::Committed {
                entry_sequence: entry.sequence,
            },
            false => Backing::Torn,
        };
        // This host's committer, or what it reads of others, is about to know: that saves reading the entry.
        if let Some(bucket) = self.bucket.as_ref().filter(|_| self.head < out.n)
            && let Some(appended) = bucket.appended_within(out.n, OUR_OWN).await
        {
            return Ok(is(&appended));
        }
        for _ in 0..MOMENTS {
            let known = self.bucket.as_ref().and_then(|bucket| bucket.appended(out.n));
            if let Some(appended) = known {
                return Ok(is(&appended));
            }
            if self.head < out.n {
                let subject = self.subjects.head();
                if let Some(stored) = self.connection.stored(&self.stream, By::Last(&subject)).await? {
                    self.head = read::parse::<Head>(&subject, &stored.payload)?.n;
                }
            }
            if self.head >= out.n {
                let subject = self.subjects.entry(out.n);
                // The consequences of a collected entry were published long ago.
                let Some(stored) = self.connection.stored(&self.stream, By::Last(&subject)).await? else {
                    return Ok(Backing::Torn);
                };
                let Entry { append, .. } = read::parse(&subject, &stored.payload)?;
                let sequence = stored.sequence;
                return Ok(is(&Appended { append, sequence }));
            }
            tokio::time::sleep(MOMENT).await;
        }
        Ok(Backing::NotYet)
    }
}
