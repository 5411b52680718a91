//! What is stored of a schedule, and each step that it can take. Pure: the time, and who takes the step, come from the caller.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::key;
use crate::calendar::{Calendar, delay_of};
use crate::plan::{CatchUp, Overlap, Schedule, time_text};

/// The format that this host writes, and the newest that it can read.
pub const FORMAT: u32 = 1;
/// Events of one transaction at most; the rest follows at once.
pub const EVENTS_MAX: usize = 100;
/// Due times that one transaction takes in at most.
const DUES_MAX: usize = 50_000;
/// After this time a schedule looks again whether its last event is decided.
const HELD_MS: u64 = 5_000;
/// How late an event of a schedule may come that catches nothing up.
const PUNCTUAL_MS: u64 = 60_000;

/// A schedule as the mesh's bucket has it, in key `schedule.<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleState {
    pub format: u32,
    /// All that is needed to fire it.
    pub spec: Schedule,
    /// Who has armed it as it is, and when.
    pub armed: ActedBy,
    /// The making of this key: with it, a step's number names one step for good.
    pub token: String,
    /// How many steps it has taken, and when it took the last one.
    pub n: u64,
    #[serde(with = "time_text")]
    pub stepped: u64,
    /// What is due up to here has had its event, or has been missed.
    #[serde(with = "time_text")]
    pub through: u64,
    /// What it waits for. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastEvent>,
    /// Since when it waits until its last event is decided.
    #[serde(default, with = "time_text::option", skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// The consumers whose handlers decide its events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<ConsumerName>,
    /// How many events it has had at due times of its own.
    pub runs: u64,
    /// How many due times have passed without an event, because no host or no server was up.
    pub missed: u64,
    /// How many have passed without an event, because the one before was not decided.
    #[serde(default)]
    pub skipped: u64,
    /// Since when it is paused, and by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<ActedBy>,
    /// Since when no configuration has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disarmed: Option<ActedBy>,
}

/// A consumer of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerName {
    pub stream: String,
    pub name: String,
}

/// Who has done something, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActedBy {
    pub by: String,
    #[serde(with = "time_text")]
    pub at: u64,
}

/// A delayed event by which the server fires a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// The due time that it is for.
    #[serde(with = "time_text")]
    pub due: u64,
    /// When the server fires it: later by the jitter.
    #[serde(with = "time_text")]
    pub at: u64,
    /// The id of the delayed event.
    pub id: String,
}

/// The newest event of a schedule's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEvent {
    #[serde(with = "time_text")]
    pub due: u64,
    /// When it was emitted.
    #[serde(with = "time_text")]
    pub at: u64,
    pub id: String,
}

/// A step: the state after it, and the events that come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleStep {
    pub state: ScheduleState,
    pub events: Vec<DueEvent>,
}

/// An event of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueEvent {
    pub id: String,
    pub due: u64,
}

impl ScheduleState {
    /// The configuration of a host has this schedule, and handlers with these consumers that are given its events. `None`: it is
    /// armed so already. `token`: for a key that is new.
    pub fn arm(
        found: Option<&ScheduleState>,
        (spec, consumers): (&Schedule, &[ConsumerName]),
        by: ActedBy,
        token: &str,
    ) -> Option<ScheduleStep> {
        let now = by.at;
        let Some(found) = found else {
            let state = ScheduleState {
                format: FORMAT,
                spec: spec.clone(),
                armed: by,
                token: token.to_owned(),
                n: 1,
                stepped: now,
                through: now,
                next: None,
                last: None,
                held: None,
                consumers: consumers.to_vec(),
                runs: 0,
                missed: 0,
                skipped: 0,
                paused: None,
                disarmed: None,
            };
            return Some(ScheduleStep::of(state, now));
        };
        // Hosts with the same schedule may run different handlers.
        let mut all = found.consumers.clone();
        all.extend(consumers.iter().filter(|one| !found.consumers.contains(one)).cloned());
        if found.spec == *spec && found.disarmed.is_none() {
            let more = all.len() > found.consumers.len();
            return more.then(|| {
                let mut state = found.step(now);
                state.consumers = all;
                ScheduleStep::quiet(state)
            });
        }
        // What is due and has not been taken in yet is still the former schedule's.
        let mut taken = found.take_in(now, now, false);
        if let (Some(_), Some(calendar)) = (&found.next, found.calendar()) {
            let left = calendar.between(taken.state.through, now).take(DUES_MAX);
            taken.state.missed += left.count() as u64;
        }
        taken.state.spec = spec.clone();
        taken.state.armed = by;
        taken.state.disarmed = None;
        taken.state.held = None;
        taken.state.consumers = all;
        taken.state.through = taken.state.through.max(now);
        taken.state.wait(now);
        Some(taken)
    }

    /// The server has fired a timer. `is_open`: its last event is not decided. `None`: it is not the timer that the schedule waits
    /// for.
    pub fn fire(&self, timer: &str, now: u64, is_open: bool) -> Option<ScheduleStep> {
        let next = self.next.as_ref().filter(|next| next.id == timer)?;
        // The server has fired it, whatever the time is here.
        let now = now.max(next.at);
        if is_open && self.spec.overlap == Overlap::One {
            let mut state = self.step(now);
            state.held.get_or_insert(now);
            state.next = Some(Timer {
                due: next.due,
                at: now + HELD_MS,
                id: state.timer_id(),
            });
            return Some(ScheduleStep::quiet(state));
        }
        let until = now.saturating_sub(delay_ms(&self.spec)).max(next.due);
        let mut taken = self.take_in(until, now, is_open);
        taken.state.held = None;
        taken.state.wait(now);
        Some(taken)
    }

    /// The timer that it waits for is lost. `None`: it waits for another one by now.
    pub fn again(&self, timer: &str, now: u64) -> Option<ScheduleStep> {
        self.next.as_ref().filter(|next| next.id == timer)?;
        let mut state = self.step(now);
        state.wait(now);
        Some(ScheduleStep::quiet(state))
    }

    /// No configuration has it any more. `None`: that is known.
    pub fn disarm(&self, by: ActedBy) -> Option<ScheduleStep> {
        if self.disarmed.is_some() {
            return None;
        }
        let now = by.at;
        let mut state = self.step(now);
        state.disarmed = Some(by);
        state.held = None;
        state.wait(now);
        Some(ScheduleStep::quiet(state))
    }

    /// `None`: it is paused already.
    pub fn pause(&self, by: ActedBy) -> Option<ScheduleStep> {
        if self.paused.is_some() {
            return None;
        }
        let now = by.at;
        let mut state = self.step(now);
        state.paused = Some(by);
        state.held = None;
        state.wait(now);
        Some(ScheduleStep::quiet(state))
    }

    /// What was due during the pause stays without an event. `None`: it is not paused.
    pub fn resume(&self, now: u64) -> Option<ScheduleStep> {
        self.paused.as_ref()?;
        let mut state = self.step(now);
        state.paused = None;
        state.through = state.through.max(now);
        state.wait(now);
        Some(ScheduleStep::quiet(state))
    }

    /// Events that a person asks for, besides those of its own.
    pub fn extra(&self, dues: &[u64], now: u64) -> ScheduleStep {
        let state = self.step(now);
        let event = |due: &u64| DueEvent {
            id: state.event_id(*due, state.n),
            due: *due,
        };
        let events = dues.iter().map(event).collect();
        ScheduleStep { state, events }
    }

    pub fn calendar(&self) -> Option<Calendar> {
        // It was read when it was armed; another version of a zone's name may be gone since.
        Calendar::of(&self.spec.timetable).ok()
    }

    /// The same state, one step on.
    fn step(&self, now: u64) -> ScheduleState {
        let mut state = self.clone();
        state.n += 1;
        state.stepped = now;
        state
    }

    /// Takes in all that is due up to a time. `is_open`: the last event is not decided, and prevents another one if they must not
    /// overlap.
    fn take_in(&self, until: u64, now: u64, is_open: bool) -> ScheduleStep {
        let mut step = ScheduleStep::quiet(self.step(now));
        let Some(calendar) = self.next.as_ref().and_then(|_| self.calendar()) else {
            return step;
        };
        let state = &mut step.state;
        let dues: Vec<u64> = calendar.between(self.through, until).take(DUES_MAX).collect();
        let whole = dues.len() < DUES_MAX;
        let (wide, most) = match self.spec.catch_up {
            // Two at once would overlap.
            CatchUp::All if self.spec.overlap != Overlap::All => (self.spec.catch_up_window_ms, 1),
            CatchUp::All => (self.spec.catch_up_window_ms, EVENTS_MAX),
            CatchUp::Last => (self.spec.catch_up_window_ms, usize::from(whole)),
            CatchUp::None => (PUNCTUAL_MS, usize::from(whole)),
        };
        let left = self
            .spec
            .max_runs
            .map_or(u64::MAX, |most| most.saturating_sub(self.runs));
        let most = most.min(usize::try_from(left).unwrap_or(usize::MAX));
        let late = until.saturating_sub(wide);
        let (lost, mut kept): (Vec<u64>, Vec<u64>) = dues.iter().partition(|due| **due < late);
        let mut missed = lost.len();
        match self.spec.catch_up {
            // The rest follows.
            CatchUp::All => kept.truncate(most),
            CatchUp::Last | CatchUp::None => missed += kept.drain(..kept.len().saturating_sub(most)).count(),
        }
        let taken = match (self.spec.catch_up, kept.last()) {
            (CatchUp::All, Some(last)) => Some(*last),
            _ => dues.last().copied(),
        };
        state.through = state.through.max(taken.unwrap_or(0));
        if is_open && self.spec.overlap == Overlap::Skip {
            state.skipped += kept.len() as u64;
            kept.clear();
        }
        match self.held {
            Some(_) => state.skipped += missed as u64,
            None => state.missed += missed as u64,
        }
        state.runs += kept.len() as u64;
        step.events = kept
            .iter()
            .map(|due| DueEvent {
                id: state.event_id(*due, 0),
                due: *due,
            })
            .collect();
        if let Some(event) = step.events.last() {
            state.last = Some(LastEvent {
                due: event.due,
                at: now,
                id: event.id.clone(),
            });
        }
        step
    }

    /// The timer of the next due time, if there is one.
    fn wait(&mut self, now: u64) {
        let spent = self.spec.max_runs.is_some_and(|most| self.runs >= most);
        let idle = spent || self.paused.is_some() || self.disarmed.is_some();
        let due = self
            .calendar()
            .filter(|_| !idle)
            .and_then(|calendar| calendar.after(self.through));
        self.next = due.map(|due| Timer {
            due,
            at: due.saturating_add(delay_ms(&self.spec)).max(now.saturating_add(1)),
            id: self.timer_id(),
        });
    }

    fn timer_id(&self) -> String {
        format!("{}.{}.{}", key(&self.spec.name), self.token, self.n)
    }

    /// `which`: 0 for the one of a due time; else the step in which a person has asked for it.
    fn event_id(&self, due: u64, which: u64) -> String {
        let due: String = time_text::text(due).chars().filter(|c| !"-:.".contains(*c)).collect();
        // It is a whole second.
        format!("{}.{}.{which}", key(&self.spec.name), due.replace("000Z", "Z"))
    }
}

/// How much later than it is due a schedule fires.
fn delay_ms(spec: &Schedule) -> u64 {
    let delay = delay_of(&spec.name, Duration::from_millis(spec.jitter_ms));
    u64::try_from(delay.as_millis()).unwrap_or(0)
}

impl ScheduleStep {
    fn of(mut state: ScheduleState, now: u64) -> ScheduleStep {
        state.wait(now);
        ScheduleStep::quiet(state)
    }

    fn quiet(state: ScheduleState) -> ScheduleStep {
        ScheduleStep {
            state,
            events: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
