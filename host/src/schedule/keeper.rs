//! Takes the steps of schedules: arms those of this host's configuration, once; takes in what the server has fired; and looks
//! every minute whether each schedule still waits for a timer that exists.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::open::is_open;
use super::state::{ActedBy, ConsumerName, ScheduleState, ScheduleStep};
use super::store::{self, Error, Stepped};
use super::{LAG, key};
use crate::broker::Connections;
use crate::broker::connection::{redial_delay, token};
use crate::broker::provision::REPLAY;
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::event::subject::subject_matches;
use crate::failpoint;
use crate::failpoint::mistake::Mistake;
use crate::ledger::Bucket;
use crate::ledger::relay::due::TimerDue;
use crate::ledger::store::committer;
use crate::plan::{Handler, Overlap, Plan, Schedule};
use crate::trouble::Weight;

/// How often the timers are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How often they are looked for, and how long after it was armed a timer has reached the server.
fn look_every() -> Duration {
    failpoint::number("schedules-looked-at").map_or(LOOK_EVERY, Duration::from_millis)
}

/// The schedules of the mesh, on this host.
pub struct Keeper {
    plan: Arc<Plan>,
    host: String,
    /// The mesh's own.
    bucket: Arc<Bucket>,
    /// No handler of this host has that ledger: then a committer runs from the first step on.
    is_alone: bool,
    needed: Notify,
    connections: Arc<Connections>,
    /// What the server has fired.
    fired: tokio::sync::Mutex<mpsc::Receiver<TimerDue>>,
    /// The configuration has been armed: once in the life of a host, so that two hosts do not take turns for ever.
    armed: Mutex<bool>,
}

impl Keeper {
    pub fn new(
        plan: Arc<Plan>,
        host: &str,
        (bucket, is_alone): (Arc<Bucket>, bool),
        connections: Arc<Connections>,
        fired: mpsc::Receiver<TimerDue>,
    ) -> Keeper {
        Keeper {
            plan,
            host: host.to_owned(),
            bucket,
            is_alone,
            needed: Notify::new(),
            connections,
            fired: tokio::sync::Mutex::new(fired),
            armed: Mutex::new(false),
        }
    }

    /// Keeps the schedules, for as long as it is polled.
    ///
    /// # Cancel safety
    /// A step that is dropped half-way is taken or not. What has asked for it asks again, and finds that out.
    pub async fn run(&self) {
        let committer = async {
            match self.is_alone {
                true => self.needed.notified().await,
                false => std::future::pending().await,
            }
            committer::run(Arc::clone(&self.bucket)).await;
        };
        tokio::select! {
            () = committer => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let mut fired = self.fired.lock().await;
        let mut look = tokio::time::interval(look_every());
        let mut attempt = 0;
        loop {
            if let Err(error) = self.arm_all().await {
                attempt += 1;
                if !error.passes() || attempt == 5 {
                    trouble!(Weight::Person, "", error, { %error }, "the schedules of the configuration cannot be armed");
                }
            } else {
                attempt = 0;
            }
            tokio::select! {
                due = fired.recv() => match due {
                    Some(due) => self.fire(due).await,
                    None => return,
                },
                _ = look.tick() => self.look().await,
                () = tokio::time::sleep(redial_delay(attempt)), if attempt > 0 => {}
            }
        }
    }

    /// Arms what the configuration has, and disarms what it has no more: once.
    async fn arm_all(&self) -> Result<(), Error> {
        if *self.armed.lock() {
            return Ok(());
        }
        for spec in self.plan.schedules.iter().flatten() {
            self.arm(spec, &self.consumers(&spec.subject)).await?;
        }
        for handler in &self.plan.handlers {
            if let Some(spec) = handler.redrive_schedule() {
                let consumer = ConsumerName {
                    stream: REPLAY.to_owned(),
                    name: handler.name.clone(),
                };
                self.arm(&spec, &[consumer]).await?;
            }
        }
        let connection = self.connections.ledgers.connection(None).await?;
        // A host knows of the redrives of its own handlers only.
        let redrives = store::redrives(&connection).await?;
        let mut gone: Vec<String> = redrives.into_iter().filter(|name| self.has_no_redrive(name)).collect();
        if let Some(schedules) = &self.plan.schedules {
            let names = store::names(&connection).await?;
            gone.extend(
                names
                    .into_iter()
                    .filter(|name| schedules.iter().all(|spec| spec.name != *name)),
            );
        }
        for name in gone {
            let disarm = |found: Option<&ScheduleState>, by: ActedBy| found?.disarm(by);
            if let Stepped::Taken(_) = self.step(&name, disarm).await? {
                tracing::warn!(schedule = %name, "schedule disarmed: the configuration does not have it any more");
            }
        }
        *self.armed.lock() = true;
        Ok(())
    }

    async fn arm(&self, spec: &Schedule, consumers: &[ConsumerName]) -> Result<(), Error> {
        let arm =
            |found: Option<&ScheduleState>, by: ActedBy| ScheduleState::arm(found, (spec, consumers), by, &token());
        if let Stepped::Taken(taken) = self.step(&spec.name, arm).await? {
            failpoint::point("schedule-armed");
            let next = taken.state.next.as_ref().map(|next| rfc3339(next.due));
            tracing::info!(schedule = %spec.name, next = next.as_deref().unwrap_or("never"), "schedule armed");
        }
        Ok(())
    }

    /// A redrive of a handler of this host, which the configuration does not have.
    fn has_no_redrive(&self, name: &str) -> bool {
        let mut handlers = self.plan.handlers.iter();
        handlers.any(|handler| handler.redrive.is_none() && handler.redrive_name() == name)
    }

    /// The consumers of this host's handlers that are given what is published on a subject.
    fn consumers(&self, subject: &str) -> Vec<ConsumerName> {
        let given = |handler: &&Handler| {
            handler.subjects.is_empty() || handler.subjects.iter().any(|filter| subject_matches(filter, subject))
        };
        let name = |handler: &Handler| ConsumerName {
            stream: handler.stream.clone(),
            name: handler.consumer.clone(),
        };
        self.plan.handlers.iter().filter(given).map(name).collect()
    }

    /// Takes a step of a schedule.
    async fn step(
        &self,
        name: &str,
        step: impl Fn(Option<&ScheduleState>, ActedBy) -> Option<ScheduleStep>,
    ) -> Result<Stepped, Error> {
        self.needed.notify_one();
        store::step(&self.bucket, name, &self.host, step).await
    }

    /// The server has fired a timer.
    async fn fire(&self, due: TimerDue) {
        failpoint::point("schedule-due");
        let TimerDue { schedule, timer, done } = due;
        let fired = match self.taken_in(&schedule, &timer).await {
            Ok(Stepped::Taken(taken)) => {
                failpoint::point("schedule-fired");
                let (events, missed) = (taken.events.len(), taken.state.missed);
                if let Some(last) = taken.events.last() {
                    LAG.count(now_ms().saturating_sub(last.due).saturating_mul(1_000_000));
                }
                tracing::debug!(schedule, timer, events, missed, "schedule has fired");
                Ok(())
            }
            Ok(Stepped::Nothing) => {
                tracing::debug!(schedule, timer, "a timer that no schedule waits for is left out");
                Ok(())
            }
            Err(error) => {
                let weight = Weight::of(error.passes());
                trouble!(weight, schedule, error, { schedule, %error }, "a schedule is due and cannot fire");
                Err(error.to_string())
            }
        };
        // If the one that asked is gone, the server delivers the timer again.
        let _ = done.send(fired);
    }

    async fn taken_in(&self, schedule: &str, timer: &str) -> Result<Stepped, Error> {
        self.bucket.catch_up().await?;
        let state = store::read(&self.bucket, schedule).await?;
        // Each event comes with a timer: as long as the schedule waits for this one, its last event is the same.
        let waits = |state: &ScheduleState| state.next.as_ref().is_some_and(|next| next.id == timer);
        let is_open = match state.filter(|state| state.spec.overlap != Overlap::All && waits(state)) {
            Some(state) => is_open(&self.connections.ledgers.connection(None).await?, &state).await?,
            None => false,
        };
        let blind = failpoint::planted().is(Mistake::ArmedTwice);
        let fire = |found: Option<&ScheduleState>, by: ActedBy| {
            let found = found?;
            let awaited = found.next.as_ref().filter(|_| blind).map_or(timer, |next| &next.id);
            found.fire(awaited, by.at, is_open)
        };
        self.step(schedule, fire).await
    }

    /// Looks after all schedules, if this host's configuration has a part in them.
    async fn look(&self) {
        let redrives = self.plan.handlers.iter().any(|handler| handler.redrive.is_some());
        if (self.plan.schedules.is_some() || redrives)
            && *self.armed.lock()
            && let Err(error) = self.look_at_all().await
        {
            trouble!(Weight::Aside, "", error, { %error }, "schedules cannot be looked at");
        }
    }

    async fn look_at_all(&self) -> Result<(), Error> {
        let connection = self.connections.ledgers.connection(None).await?;
        self.bucket.catch_up().await?;
        let redrives = self.plan.handlers.iter().filter(|handler| handler.redrive.is_some());
        let mut names: Vec<String> = redrives.map(Handler::redrive_name).collect();
        if self.plan.schedules.is_some() {
            names.extend(store::names(&connection).await?);
        }
        for name in names {
            let Some(state) = store::read(&self.bucket, &name).await? else {
                continue;
            };
            // A host that ended after its last step has not said so, and the ledger would keep that entry.
            self.bucket.raise_floor(&key(&name), &state.token, state.n);
            self.compare(&state);
            let Some(timer) = &state.next else { continue };
            // One that was armed just now is perhaps not published yet.
            let fresh = Duration::from_millis(now_ms().saturating_sub(state.stepped)) < look_every();
            if fresh || store::has_timer(&connection, &timer.id).await? {
                continue;
            }
            let again = |found: Option<&ScheduleState>, by: ActedBy| found?.again(&timer.id, by.at);
            if let Stepped::Taken(_) = self.step(&name, again).await? {
                tracing::warn!(schedule = %name, timer = timer.id, "a schedule's timer was lost and is armed again");
            }
        }
        Ok(())
    }

    /// Another host may have another configuration: the one that has started last is right.
    fn compare(&self, state: &ScheduleState) {
        let name = &state.spec.name;
        let redrives = self.plan.handlers.iter().filter_map(Handler::redrive_schedule);
        let mut own = self.plan.schedules.iter().flatten().cloned().chain(redrives);
        let own = own.find(|spec| spec.name == *name);
        let why = match (own, &state.disarmed) {
            (Some(_), Some(by)) => format!("host {}, whose configuration does not have it, has disarmed it", by.by),
            (Some(own), None) if own != state.spec => {
                format!("host {} has armed it by another configuration", state.armed.by)
            }
            (None, None) => format!(
                "host {} has armed it, and this host's configuration does not have it",
                state.armed.by
            ),
            (Some(_) | None, _) => return,
        };
        trouble!(Weight::Aside, name, why, { schedule = %name, why, since = rfc3339(state.armed.at) },
            "hosts do not agree on a schedule: give all hosts the same configuration, and restart one with the right one");
    }
}
