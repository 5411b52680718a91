//! Whether the circuit of a handler is open, by the attempts that ended last. Pure: the time is handed in, since the host began.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::event::outcome::{Failure, Outcome};
use crate::plan::CircuitPolicy;

/// What an attempt says of what its handler depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// The handler asks for another attempt.
    Failed(Failure),
    /// The attempt came to any other end of its own: not all attempts fail.
    Ended,
    /// Nothing: the host has broken it off.
    Nothing,
}

impl Sign {
    /// A trap or a timeout is as a rule the fault of a module or of one event, and does not pass by waiting: it opens no circuit.
    pub fn of(outcome: &Outcome) -> Sign {
        match outcome {
            Outcome::Retry { code, message, .. } => Sign::Failed(Failure {
                code: code.clone(),
                message: message.clone(),
            }),
            Outcome::Done | Outcome::Reject { .. } | Outcome::Trap { .. } | Outcome::Timeout { .. } => Sign::Ended,
            Outcome::Conflict | Outcome::HostFault { .. } => Sign::Nothing,
        }
    }
}

/// Whether an event may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    Runs,
    /// It runs as a probe.
    Probes,
    /// It waits until the next probe is due.
    WaitsUntil(Duration),
    /// It waits for the end of a probe.
    WaitsForProbe,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CircuitChange {
    None,
    Opened,
    /// It was open for so long, with so many probes.
    Closed(Duration, u64),
    /// The same, as there was nothing that it would have held back.
    Idle(Duration, u64),
}

#[derive(Debug)]
pub struct CircuitState {
    policy: CircuitPolicy,
    /// The newest attempts that asked for another one, oldest first, while it is closed.
    failed: VecDeque<FailedAttempt>,
    open: Option<OpenCircuit>,
}

#[derive(Debug)]
struct FailedAttempt {
    at: Duration,
    /// How many attempts had ended otherwise until then.
    others: u64,
    /// The sequence of its event.
    event: u64,
}

/// A circuit that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCircuit {
    /// Since when.
    pub at: Duration,
    /// How many attempts had failed, of how many.
    pub failed: usize,
    pub of: u64,
    /// What the last one of them, or the last probe, said.
    pub failure: Failure,
    /// Probes that have failed.
    pub probes: u64,
    /// When the next probe is due.
    pub next: Duration,
    pause: Duration,
    is_probed: bool,
}

impl CircuitState {
    pub fn new(policy: CircuitPolicy) -> CircuitState {
        CircuitState {
            policy,
            failed: VecDeque::new(),
            open: None,
        }
    }

    pub fn open(&self) -> Option<&OpenCircuit> {
        self.open.as_ref()
    }

    /// An event is to run. `Probes`: its end is told by [`probed`](Self::probed).
    pub fn enter(&mut self, now: Duration) -> Entrance {
        match &mut self.open {
            None => Entrance::Runs,
            Some(open) if open.is_probed => Entrance::WaitsForProbe,
            Some(open) if now < open.next => Entrance::WaitsUntil(open.next),
            Some(open) => {
                open.is_probed = true;
                Entrance::Probes
            }
        }
    }

    /// When the next probe is due; `None`: one is at work, or it is closed.
    pub fn next_probe(&self) -> Option<Duration> {
        self.open.as_ref().filter(|open| !open.is_probed).map(|open| open.next)
    }

    /// When it closes if no event comes until then; `None`: a probe is at work, or it is closed.
    pub fn idle_at(&self) -> Option<Duration> {
        Some(self.next_probe()? + self.policy.window)
    }

    /// No event may have come for a probe that is due: a circuit that holds nothing back helps nothing.
    pub fn idle(&mut self, now: Duration) -> CircuitChange {
        match self.idle_at() {
            Some(at) if now >= at => self.close(now, CircuitChange::Idle),
            _ => CircuitChange::None,
        }
    }

    /// The replay of a dead letter has ended. Its failure says nothing new: it was asked for, and is no probe.
    pub fn replayed(&mut self, now: Duration, sign: &Sign) -> CircuitChange {
        match sign {
            Sign::Ended => self.close(now, CircuitChange::Closed),
            Sign::Failed(_) | Sign::Nothing => CircuitChange::None,
        }
    }

    /// `change`: what that is, with how long it was open and how many probes there were.
    fn close(&mut self, now: Duration, change: fn(Duration, u64) -> CircuitChange) -> CircuitChange {
        match self.open.take() {
            Some(open) => change(now.saturating_sub(open.at), open.probes),
            None => CircuitChange::None,
        }
    }

    /// An attempt that was no probe has failed. `others`: how many have ended otherwise so far. Attempts that began before it was
    /// opened say nothing new.
    pub fn failed(&mut self, now: Duration, others: u64, event: u64, failure: &Failure) -> CircuitChange {
        if self.open.is_some() {
            return CircuitChange::None;
        }
        if self.failed.len() >= self.policy.failures {
            self.failed.pop_front();
        }
        self.failed.push_back(FailedAttempt { at: now, others, event });
        let Some(first) = self
            .failed
            .front()
            .filter(|_| self.failed.len() >= self.policy.failures)
        else {
            return CircuitChange::None;
        };
        let failed = self.failed.len() as u64;
        let of = failed + others.saturating_sub(first.others);
        let lately = now.saturating_sub(first.at) <= self.policy.window;
        // A few events that fail again and again say nothing of the others.
        let events: HashSet<u64> = self.failed.iter().map(|one| one.event).collect();
        if !lately || failed * 100 < of * self.policy.percent || events.len() as u64 * 2 < failed {
            return CircuitChange::None;
        }
        self.open = Some(OpenCircuit {
            at: now,
            failed: self.failed.len(),
            of,
            failure: failure.clone(),
            probes: 0,
            next: now + self.policy.probe,
            pause: self.policy.probe,
            is_probed: false,
        });
        self.failed.clear();
        CircuitChange::Opened
    }

    /// A probe has ended.
    pub fn probed(&mut self, now: Duration, sign: Sign) -> CircuitChange {
        let Some(open) = &mut self.open else {
            return CircuitChange::None;
        };
        open.is_probed = false;
        match sign {
            Sign::Ended => {
                open.probes += 1;
                return self.close(now, CircuitChange::Closed);
            }
            Sign::Failed(failure) => {
                open.failure = failure;
                open.probes += 1;
                open.pause = open.pause.saturating_mul(2).min(self.policy.probe_max);
            }
            Sign::Nothing => {}
        }
        open.next = now + open.pause;
        CircuitChange::None
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
