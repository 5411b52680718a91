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
                let (lasted, probes) = (now.saturating_sub(open.at), open.probes + 1);
                self.open = None;
                return CircuitChange::Closed(lasted, probes);
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
mod tests {
    use super::*;

    const POLICY: CircuitPolicy = CircuitPolicy {
        failures: 10,
        percent: 90,
        window: Duration::from_secs(60),
        probe: Duration::from_secs(1),
        probe_max: Duration::from_secs(5),
    };

    fn failure() -> Failure {
        Failure {
            code: "busy".to_owned(),
            message: "no answer".to_owned(),
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Attempts at different events, one a second from `from` on; `others` have ended otherwise meanwhile.
    fn fail(state: &mut CircuitState, from: u64, count: u64, others: u64) -> Vec<CircuitChange> {
        let attempt = |n: u64| state.failed(seconds(from + n), others * n / count, n, &failure());
        (0..count).map(attempt).collect()
    }

    fn opened() -> CircuitState {
        let mut state = CircuitState::new(POLICY);
        assert_eq!(fail(&mut state, 0, 10, 0).last(), Some(&CircuitChange::Opened));
        state
    }

    #[test]
    fn it_opens_at_the_last_of_the_failures_and_not_before() {
        let mut state = CircuitState::new(POLICY);
        let changes = fail(&mut state, 0, 10, 0);
        assert_eq!(changes[..9], vec![CircuitChange::None; 9]);
        let open = state.open().expect("it is open");
        assert_eq!((open.failed, open.of, open.next), (10, 10, seconds(10)));
    }

    #[test]
    fn it_stays_closed_while_enough_attempts_end_otherwise() {
        let mut state = CircuitState::new(POLICY);
        // Ten of eleven are more than nine tenths, ten of thirteen are not.
        assert!(!fail(&mut state, 0, 30, 9).contains(&CircuitChange::Opened));
        let mut state = CircuitState::new(POLICY);
        assert!(fail(&mut state, 0, 30, 3).contains(&CircuitChange::Opened));
    }

    #[test]
    fn it_stays_closed_while_failures_lie_further_apart_than_the_window() {
        let mut state = CircuitState::new(POLICY);
        let apart = (0..50u64).map(|n| state.failed(seconds(n * 7), 0, n, &failure()));
        assert!(
            apart
                .collect::<Vec<_>>()
                .iter()
                .all(|change| *change == CircuitChange::None)
        );
    }

    #[test]
    fn a_few_events_that_fail_again_and_again_do_not_open_it() {
        let mut state = CircuitState::new(POLICY);
        let four = (0..100u64).map(|n| state.failed(Duration::ZERO, 0, n % 4, &failure()));
        assert!(
            four.collect::<Vec<_>>()
                .iter()
                .all(|change| *change == CircuitChange::None)
        );
        let mut state = CircuitState::new(POLICY);
        let five = (0..10u64).map(|n| state.failed(Duration::ZERO, 0, n % 5, &failure()));
        assert_eq!(five.last(), Some(CircuitChange::Opened));
    }

    #[test]
    fn one_event_at_a_time_probes_at_intervals_that_double_up_to_the_limit() {
        let mut state = opened();
        let (mut now, mut pauses) = (seconds(9), Vec::new());
        for _ in 0..5 {
            let Entrance::WaitsUntil(next) = state.enter(now) else {
                panic!("no probe is due at {now:?}");
            };
            pauses.push((next - now).as_secs());
            now = next;
            assert_eq!(state.enter(now), Entrance::Probes);
            assert_eq!(state.enter(now), Entrance::WaitsForProbe);
            assert_eq!(state.probed(now, Sign::Failed(failure())), CircuitChange::None);
        }
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        assert_eq!(state.open().map(|open| open.probes), Some(5));
    }

    #[test]
    fn a_probe_that_ends_otherwise_closes_it_and_one_that_the_host_breaks_off_is_made_again() {
        let mut state = opened();
        assert_eq!(state.enter(seconds(10)), Entrance::Probes);
        assert_eq!(state.probed(seconds(10), Sign::Nothing), CircuitChange::None);
        assert_eq!(
            state.enter(seconds(10)),
            Entrance::WaitsUntil(seconds(11)),
            "the interval is the same"
        );
        assert_eq!(state.enter(seconds(11)), Entrance::Probes);
        assert_eq!(
            state.probed(seconds(12), Sign::Ended),
            CircuitChange::Closed(seconds(3), 1)
        );
        assert_eq!(state.enter(seconds(12)), Entrance::Runs);
        assert!(
            fail(&mut state, 13, 9, 0)
                .iter()
                .all(|change| *change == CircuitChange::None),
            "what failed before counts no more"
        );
    }

    #[test]
    fn attempts_that_began_before_it_was_opened_change_nothing() {
        let mut state = opened();
        let before = state.open().cloned();
        assert!(
            fail(&mut state, 20, 30, 0)
                .iter()
                .all(|change| *change == CircuitChange::None)
        );
        assert_eq!(state.open().cloned(), before);
    }

    #[test]
    fn only_a_handler_that_asks_for_another_attempt_is_a_failure() {
        let retry = Outcome::Retry {
            code: "busy".to_owned(),
            message: "no answer".to_owned(),
            after: None,
        };
        let reject = Outcome::Reject {
            code: "c".to_owned(),
            message: "m".to_owned(),
        };
        let trap = Outcome::Trap {
            message: "m".to_owned(),
            backtrace: Vec::new(),
        };
        let fault = Outcome::HostFault {
            message: "m".to_owned(),
        };
        assert_eq!(Sign::of(&retry), Sign::Failed(failure()));
        for ended in [Outcome::Done, reject, trap, Outcome::Timeout { limit: seconds(1) }] {
            assert_eq!(Sign::of(&ended), Sign::Ended, "{ended:?}");
        }
        for nothing in [Outcome::Conflict, fault] {
            assert_eq!(Sign::of(&nothing), Sign::Nothing, "{nothing:?}");
        }
    }
}
