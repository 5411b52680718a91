//! A handler task: it takes deliveries and replays, runs handlers, lets transactions join, dead-letters, and answers. The calls
//! are those of `dispatch.rs`, `dead_lettering.rs`, `advisory/`, `replay/` and `bucket.rs`, in their order.

use std::collections::BTreeMap;

use super::bounds::Bounds;
use super::program::{KEYS, bytes, value};
use super::world::{Broken, HANDLER, ModelRun, ModelWaiter, Stands, WorkKind, World, event_id};
use crate::event::outcome::Cause;
use crate::failpoint::mistake::Mistake;
use crate::ledger::core::entry::{Decision, DecisionKind};
use crate::ledger::core::fate::{CommitError, CommitResult, Committed, Fates};
use crate::ledger::core::join::Join;
use crate::ledger::core::transaction::Planned;
use crate::ledger::core::transaction::{Transaction, already_decided};
use crate::mesh_streams::dead_letter::{DEATH, DeathRef};

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnds {
    /// As its program says: done, or rejected.
    AsItShould,
    /// It asks for another attempt; after the last one it is dead.
    Failing,
}

impl World {
    pub fn deliver(&mut self, bounds: &Bounds, host: usize, event: usize) {
        self.events[event].deliveries += 1;
        self.take(bounds, host, event, WorkKind::Delivery);
    }

    /// A sweep has found an event that was acked and is not decided: it is run once more.
    pub fn sweep(&mut self, bounds: &Bounds, host: usize, event: usize) {
        self.take(bounds, host, event, WorkKind::Delivery);
    }

    /// A replay follows the death that its letter names; delivered again, the one that stands is looked for.
    pub fn replay(&mut self, bounds: &Bounds, host: usize, replay: usize) {
        let (event, named) = (self.replays[replay].event, self.replays[replay].death);
        self.catch_up(bounds, host);
        if !self.hosts[host].connected {
            return;
        }
        let stands = self.server.death(HANDLER, &event_id(event).to_string());
        if stands.is_some_and(|stands| stands.entry == named.entry && stands.record != named.record) {
            self.breaks(Broken::Numbers);
        }
        if !std::mem::replace(&mut self.replays[replay].delivered, true) {
            return self.take(bounds, host, event, WorkKind::Replay(named));
        }
        match stands {
            Some(stands) if stands.entry == named.entry => self.take(bounds, host, event, WorkKind::Replay(stands)),
            _ => self.answer(bounds, event, WorkKind::Replay(DeathRef { record: 0, ..named })),
        }
    }

    fn take(&mut self, bounds: &Bounds, host: usize, event: usize, kind: WorkKind) {
        if self.hosts[host].held.contains(&event) {
            return;
        }
        let id = event_id(event);
        let death = match kind {
            WorkKind::Replay(death) => Some(death),
            WorkKind::Delivery | WorkKind::DeadLetter => None,
        };
        let decided = self.book(host).index.decided(HANDLER, &id);
        if already_decided(decided, death).is_some() {
            return self.answer(bounds, event, kind);
        }
        if decided.is_none() || death.is_some() {
            self.book(host).index.open(HANDLER, &id);
        }
        let held = &mut self.host(host).held;
        held.push(event);
        held.sort_unstable();
        self.begin(bounds, host, event, kind);
    }

    fn begin(&mut self, bounds: &Bounds, host: usize, event: usize, kind: WorkKind) {
        let session = self.book(host).session;
        let runs = &mut self.host(host).runs;
        runs.push(ModelRun {
            event,
            kind,
            session,
            reads: BTreeMap::new(),
        });
        runs.sort_by_key(|run| run.event);
        if !bounds.reads_apart && self.hosts[host].connected {
            let at = self.hosts[host]
                .runs
                .iter()
                .position(|run| run.event == event)
                .expect("it was put there");
            while !self.has_read(bounds, host, at) {
                self.read(bounds, host, at);
            }
        }
    }

    pub fn has_read(&self, bounds: &Bounds, host: usize, run: usize) -> bool {
        let run = &self.hosts[host].runs[run];
        run.reads.len() == bounds.programs[run.event].reads().len()
    }

    /// The next key: from the book, or else from the leader.
    pub fn read(&mut self, bounds: &Bounds, host: usize, run: usize) {
        let at = &self.hosts[host].runs[run];
        let key = bounds.programs[at.event].reads()[at.reads.len()];
        let read = loop {
            match self.book(host).read(key) {
                Some(read) => break read,
                None => {
                    let (revision, value) = self.server.key(key);
                    self.book(host).learn(key, revision, value);
                }
            }
        };
        let read = (read.1, read.0.as_ref().map(value));
        self.host(host).runs[run].reads.insert(key.to_owned(), read);
    }

    /// A run ends, and what it wants joins.
    pub fn finish(&mut self, bounds: &Bounds, host: usize, run: usize, ends: RunEnds) {
        let run = self.host(host).runs.remove(run);
        let of_letter = matches!(run.kind, WorkKind::Replay(..));
        let of = |key: &str| run.reads.get(key).and_then(|(_, value)| *value);
        let writes = match ends {
            RunEnds::AsItShould => bounds.programs[run.event].run(KEYS.map(of)),
            RunEnds::Failing => None,
        };
        let last = self.events[run.event].deliveries >= bounds.deliveries;
        let verdict = match (writes, ends) {
            (Some(_), _) => Some(DecisionKind::Done),
            // A replay that fails decides nothing: death and letter stand.
            (None, _) if of_letter => None,
            (None, RunEnds::AsItShould) => Some(DecisionKind::Dead),
            (None, RunEnds::Failing) => last.then_some(DecisionKind::Dead),
        };
        let cause = match ends {
            RunEnds::AsItShould => Cause::Rejected,
            RunEnds::Failing => Cause::Exhausted,
        };
        let mut tx = transaction(bounds, run.event, run.kind, verdict, cause);
        tx.session = run.session;
        tx.reads = run
            .reads
            .iter()
            .map(|(key, (version, _))| (key.clone(), *version))
            .collect();
        let writes = KEYS.into_iter().zip(writes.unwrap_or_default());
        tx.writes = writes
            .filter_map(|(key, write)| Some((key.to_owned(), write?.map(bytes))))
            .collect();
        let waiter = ModelWaiter {
            event: run.event,
            kind: run.kind,
            decides: verdict.is_some(),
            answered: false,
        };
        if !waiter.decides && tx.reads.is_empty() {
            return self.put_off(bounds, host, waiter);
        }
        self.join(bounds, host, tx, waiter);
    }

    /// The server has given up on an event, or a sweep has found it.
    pub fn dead_letter(&mut self, bounds: &Bounds, host: usize, event: usize) {
        if self.book(host).index.decided(HANDLER, &event_id(event)).is_some() {
            return self.answer(bounds, event, WorkKind::DeadLetter);
        }
        let tx = transaction(
            bounds,
            event,
            WorkKind::DeadLetter,
            Some(DecisionKind::Dead),
            Cause::Exhausted,
        );
        self.join(
            bounds,
            host,
            tx,
            ModelWaiter {
                event,
                kind: WorkKind::DeadLetter,
                decides: true,
                answered: false,
            },
        );
    }

    fn join(&mut self, bounds: &Bounds, host: usize, mut tx: Transaction, mut waiter: ModelWaiter) {
        let early = waiter.decides && bounds.mistake == Some(Mistake::AckBeforeCommit);
        let who = waiter.clone();
        waiter.answered = early;
        loop {
            match self.book(host).join(tx, waiter) {
                Join::Joined if early => return self.told(bounds, host, who, Ok(Committed::Here { entry: 0 })),
                Join::Joined => return,
                Join::Over(mut waiter, fate) => {
                    waiter.answered = false;
                    return self.told(bounds, host, waiter, fate);
                }
                Join::Missing(keys, back, waits) => {
                    for key in keys {
                        let (revision, value) = self.server.key(&key);
                        self.book(host).learn(&key, revision, value);
                    }
                    (tx, waiter) = (*back, waits);
                }
            }
        }
    }

    pub fn tell(&mut self, bounds: &Bounds, host: usize, fates: Fates<ModelWaiter>) {
        for (waiter, fate) in fates {
            if !waiter.answered {
                self.told(bounds, host, waiter, fate);
            }
        }
    }

    fn told(&mut self, bounds: &Bounds, host: usize, waiter: ModelWaiter, fate: CommitResult) {
        match fate {
            Ok(_) if !waiter.decides => {
                let keys: Vec<String> = bounds.programs[waiter.event]
                    .reads()
                    .iter()
                    .map(|&k| k.to_owned())
                    .collect();
                self.book(host).doubt(keys.iter());
                self.put_off(bounds, host, waiter);
            }
            Ok(_) => {
                self.answer(bounds, waiter.event, waiter.kind);
                self.release(host, &waiter);
            }
            Err(CommitError::Conflict) if waiter.kind != WorkKind::DeadLetter => {
                self.begin(bounds, host, waiter.event, waiter.kind);
            }
            Err(CommitError::Conflict | CommitError::Host(_)) => self.put_off(bounds, host, waiter),
            Err(CommitError::TooLarge(_)) => self.breaks(Broken::Unexpected),
        }
    }

    /// Nothing is decided: the server delivers again, if it may.
    fn put_off(&mut self, bounds: &Bounds, host: usize, waiter: ModelWaiter) {
        // A replay that was rejected is answered: its letter stands. So is one that failed, to keep the bounds small.
        if !waiter.decides
            && let WorkKind::Replay(..) = waiter.kind
        {
            self.answer_replay(waiter.event, waiter.kind);
        }
        let _ = bounds;
        self.release(host, &waiter);
    }

    fn release(&mut self, host: usize, waiter: &ModelWaiter) {
        if waiter.kind != WorkKind::DeadLetter {
            self.book(host).index.close(HANDLER, &event_id(waiter.event));
            self.host(host).held.retain(|held| *held != waiter.event);
        }
    }

    /// The event is decided, as far as the host knows. It may not know of a lost tail yet: that a sweep must heal.
    fn answer(&mut self, bounds: &Bounds, event: usize, kind: WorkKind) {
        match kind {
            WorkKind::Delivery | WorkKind::DeadLetter => {
                if self.events[event].stands == Stands::Open && bounds.may.lose_tail == 0 {
                    self.breaks(Broken::AckedUndecided);
                }
                self.events[event].acked = true;
            }
            WorkKind::Replay(death) => {
                if self.events[event].stands == Stands::Dead(death.entry) {
                    self.breaks(Broken::ReplayLost);
                }
                self.answer_replay(event, kind);
            }
        }
    }

    fn answer_replay(&mut self, event: usize, kind: WorkKind) {
        let WorkKind::Replay(death) = kind else { return };
        let of = self
            .replays
            .iter_mut()
            .filter(|replay| replay.event == event && replay.death.entry == death.entry);
        of.for_each(|replay| replay.acked = true);
    }
}

/// As `transaction.rs` and `dead_lettering.rs` make it.
fn transaction(
    bounds: &Bounds,
    event: usize,
    kind: WorkKind,
    verdict: Option<DecisionKind>,
    cause: Cause,
) -> Transaction {
    let id = event_id(event);
    let death = match (verdict, kind) {
        (Some(DecisionKind::Done), WorkKind::Replay(death)) => Some(death),
        _ => None,
    };
    let subject = format!("dead.{}", id.sequence);
    let mut consequences = Vec::new();
    if let (Some(verdict), true) = (verdict, bounds.relay) {
        let headers = Vec::new();
        consequences.push(match verdict {
            DecisionKind::Done => Planned::Event {
                id: format!("{HANDLER}.{id}"),
                subject: "emitted".to_owned(),
                headers,
                payload: bytes(0),
            },
            DecisionKind::Dead => Planned::Letter {
                subject: subject.clone(),
                headers: vec![(DEATH.to_owned(), String::new())],
                payload: bytes(0),
            },
        });
        if death.is_some() {
            consequences.push(Planned::Settle {
                subject,
                reason: "replayed".to_owned(),
                asked_by: None,
                in_parts: false,
            });
        }
    }
    Transaction {
        handler: HANDLER.to_owned(),
        event: id.clone(),
        decision: verdict.map(|verdict| Decision {
            cause: (verdict == DecisionKind::Dead).then_some(cause),
            follows_death: death.map(|death| death.entry),
            ..Decision::of_test(HANDLER, &id.to_string(), verdict)
        }),
        session: 0,
        reads: BTreeMap::new(),
        writes: BTreeMap::new(),
        consequences,
        death,
        trial: None,
    }
}
