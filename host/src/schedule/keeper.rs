//! Takes the steps of schedules: arms those of this host's configuration, once; takes in what the server has fired; and looks
//! every minute whether each schedule still waits for a timer that exists.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::key;
use super::open::is_open;
use super::state::{ActedBy, ConsumerName, ScheduleState, ScheduleStep};
use super::store::{self, Error, Stepped};
use crate::broker::Connections;
use crate::broker::connection::{redial_delay, token};
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::event::subject::subject_matches;
use crate::failpoint;
use crate::failpoint::mistake::Mistake;
use crate::ledger::Bucket;
use crate::ledger::relay::due::TimerDue;
use crate::ledger::store::committer;
use crate::plan::{Handler, Overlap, Plan};
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
        let Some(schedules) = self.plan.schedules.as_ref().filter(|_| !*self.armed.lock()) else {
            return Ok(());
        };
        for spec in schedules {
            let consumers = self.consumers(&spec.subject);
            let arm = |found: Option<&ScheduleState>, by: ActedBy| {
                ScheduleState::arm(found, (spec, &consumers), by, &token())
            };
            if let Stepped::Taken(taken) = self.step(&spec.name, arm).await? {
                failpoint::point("schedule-armed");
                let next = taken.state.next.as_ref().map(|next| rfc3339(next.due));
                tracing::info!(schedule = %spec.name, next = next.as_deref().unwrap_or("never"), "schedule armed");
            }
        }
        let connection = self.connections.ledgers.connection(None).await?;
        for name in store::names(&connection).await? {
            if schedules.iter().any(|spec| spec.name == name) {
                continue;
            }
            let disarm = |found: Option<&ScheduleState>, by: ActedBy| found?.disarm(by);
            if let Stepped::Taken(_) = self.step(&name, disarm).await? {
                tracing::warn!(schedule = %name, "schedule disarmed: the configuration does not have it any more");
            }
        }
        *self.armed.lock() = true;
        Ok(())
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
        if self.plan.schedules.is_some()
            && *self.armed.lock()
            && let Err(error) = self.look_at_all().await
        {
            trouble!(Weight::Aside, "", error, { %error }, "schedules cannot be looked at");
        }
    }

    async fn look_at_all(&self) -> Result<(), Error> {
        let connection = self.connections.ledgers.connection(None).await?;
        self.bucket.catch_up().await?;
        for name in store::names(&connection).await? {
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
        let mut own = self.plan.schedules.iter().flatten();
        let own = own.find(|spec| spec.name == *name);
        let why = match (own, &state.disarmed) {
            (Some(_), Some(by)) => format!("host {}, whose configuration does not have it, has disarmed it", by.by),
            (Some(own), None) if *own != state.spec => {
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
