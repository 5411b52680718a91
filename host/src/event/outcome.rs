//! What came of an attempt, and what follows from it. Pure: no clock, no I/O; the random number is handed in.

use std::fmt;
use std::time::Duration;

use crate::plan::RetryPolicy;

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done,
    /// The handler asks for another attempt, not before `after`.
    Retry {
        code: String,
        message: String,
        after: Option<Duration>,
    },
    /// The handler says that no attempt will ever succeed.
    Reject {
        code: String,
        message: String,
    },
    /// The guest trapped: a panic, a memory or stack limit, an illegal instruction.
    Trap {
        message: String,
        /// The guest's functions that were running, innermost first.
        backtrace: Vec<String>,
    },
    /// The guest ran longer than it may.
    Timeout {
        limit: Duration,
    },
    /// What it read has changed before its effects were committed, too often in a row.
    Conflict,
    /// The host could not do its part: NATS out of reach, no memory for an instance. Never the event's fault.
    HostFault {
        message: String,
    },
}

/// Why an event is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// All attempts failed.
    Exhausted,
    /// The handler, or the host for it, said that no attempt can succeed.
    Rejected,
    /// The server gave up delivering it.
    MaxDeliver,
    /// Another client terminated it.
    Terminated,
    /// It was undecided when its stream had already removed it.
    Lost,
    /// A consequence that its target refuses for good.
    Undeliverable,
    /// A person gave it up between two attempts.
    GaveUp,
}

impl Cause {
    pub const ALL: [Cause; 7] = [
        Cause::Exhausted,
        Cause::Rejected,
        Cause::MaxDeliver,
        Cause::Terminated,
        Cause::Lost,
        Cause::Undeliverable,
        Cause::GaveUp,
    ];

    /// The word that letters and entries carry.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Exhausted => "exhausted",
            Cause::Rejected => "rejected",
            Cause::MaxDeliver => "max-deliver",
            Cause::Terminated => "terminated",
            Cause::Lost => "lost",
            Cause::Undeliverable => "undeliverable",
            Cause::GaveUp => "gave-up",
        }
    }

    pub fn parse(name: &str) -> Option<Cause> {
        Cause::ALL.into_iter().find(|cause| cause.name() == name)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why an event could not be handled: a code to group by, a text to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    pub code: String,
    pub message: String,
}

impl Outcome {
    /// Every word of [`Outcome::name`].
    pub const NAMES: [&'static str; 7] = ["done", "retry", "reject", "trap", "timeout", "conflict", "host-fault"];

    /// The word that logs and attempt records carry.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Retry { .. } => "retry",
            Outcome::Reject { .. } => "reject",
            Outcome::Trap { .. } => "trap",
            Outcome::Timeout { .. } => "timeout",
            Outcome::Conflict => "conflict",
            Outcome::HostFault { .. } => "host-fault",
        }
    }

    /// Where the guest was when it trapped, innermost first.
    pub fn backtrace(&self) -> &[String] {
        match self {
            Outcome::Trap { backtrace, .. } => backtrace,
            Outcome::Done
            | Outcome::Retry { .. }
            | Outcome::Reject { .. }
            | Outcome::Timeout { .. }
            | Outcome::Conflict
            | Outcome::HostFault { .. } => &[],
        }
    }

    /// What went wrong, or nothing.
    pub fn failure(&self) -> Option<Failure> {
        let (code, message) = match self {
            Outcome::Done => return None,
            Outcome::Retry { code, message, .. } | Outcome::Reject { code, message } => (code.clone(), message.clone()),
            Outcome::Trap { message, .. } => ("trap".to_owned(), message.clone()),
            Outcome::Timeout { limit } => ("timeout".to_owned(), format!("still running after {limit:?}")),
            Outcome::Conflict => (
                "conflict".to_owned(),
                "what it read kept changing before its effects were committed".to_owned(),
            ),
            Outcome::HostFault { message } => ("host-fault".to_owned(), message.clone()),
        };
        Some(Failure { code, message })
    }

    /// Whether it uses up one of the handler's attempts.
    pub fn counts(&self) -> bool {
        match self {
            Outcome::Done
            | Outcome::Retry { .. }
            | Outcome::Reject { .. }
            | Outcome::Trap { .. }
            | Outcome::Timeout { .. } => true,
            Outcome::Conflict | Outcome::HostFault { .. } => false,
        }
    }
}

/// An event that passed through this number of handlers of the mesh is taken to go in circles.
pub const HOPS_MAX: u32 = 16;

/// What becomes, without a run, of an event that goes in circles.
pub fn circles(hops: u32) -> Option<Outcome> {
    (hops > HOPS_MAX).then(|| Outcome::Reject {
        code: "too-many-hops".to_owned(),
        message: format!("it came through more than {HOPS_MAX} handlers: they feed one another in a circle"),
    })
}

/// What is to be done with the event.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Done,
    Dead { cause: Cause, failure: Failure },
    Retry { delay: Duration },
}

impl Verdict {
    /// Whether it decides the event, by an entry if there is a ledger. `of_letter`: a dead letter is being replayed; if that
    /// fails, its death stands and nothing is decided.
    pub fn decides(&self, of_letter: bool) -> bool {
        match self {
            Verdict::Done => true,
            Verdict::Dead { .. } => !of_letter,
            Verdict::Retry { .. } => false,
        }
    }
}

/// The verdict on attempt number `attempt` (beginning with 1). `random` lies in `0..1` and becomes the jitter.
pub fn decide(outcome: &Outcome, attempt: u32, policy: &RetryPolicy, random: f64) -> Verdict {
    let Some(failure) = outcome.failure() else {
        return Verdict::Done;
    };
    let own = match outcome {
        Outcome::Done => return Verdict::Done,
        Outcome::Reject { .. } => {
            return Verdict::Dead {
                cause: Cause::Rejected,
                failure,
            };
        }
        Outcome::Retry { after, .. } => after.unwrap_or_default(),
        Outcome::Trap { .. } | Outcome::Timeout { .. } | Outcome::Conflict | Outcome::HostFault { .. } => {
            Duration::ZERO
        }
    };
    if outcome.counts() && attempt >= policy.max_attempts {
        return Verdict::Dead {
            cause: Cause::Exhausted,
            failure,
        };
    }
    // What the handler asks for is a floor, and it is capped like our own delays: a delayed message holds a place
    // among the consumer's pending ones.
    Verdict::Retry {
        delay: backoff(attempt, policy, random).max(own).min(policy.backoff_max),
    }
}

/// The delay after failure number `attempt`: doubled each time, capped, with jitter within `[d/2, d]`.
pub fn backoff(attempt: u32, policy: &RetryPolicy, random: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(30);
    let full = policy.backoff.saturating_mul(1 << doublings).min(policy.backoff_max);
    full.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        max_attempts: 3,
        backoff: Duration::from_secs(1),
        backoff_max: Duration::from_secs(10),
    };

    fn retry(after: Option<u64>) -> Outcome {
        Outcome::Retry {
            code: "c".into(),
            message: "m".into(),
            after: after.map(Duration::from_secs),
        }
    }

    fn dead(cause: Cause, code: &str, message: &str) -> Verdict {
        Verdict::Dead {
            cause,
            failure: Failure {
                code: code.into(),
                message: message.into(),
            },
        }
    }

    fn later(seconds: u64) -> Verdict {
        Verdict::Retry {
            delay: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn every_row_of_the_table() {
        let trap = || Outcome::Trap {
            message: "t".into(),
            backtrace: Vec::new(),
        };
        let timeout = || Outcome::Timeout {
            limit: Duration::from_secs(2),
        };
        let fault = || Outcome::HostFault { message: "f".into() };
        let reject = || Outcome::Reject {
            code: "r".into(),
            message: "no".into(),
        };
        let rows = [
            (Outcome::Done, 1, Verdict::Done),
            (Outcome::Done, 3, Verdict::Done),
            (retry(None), 1, later(1)),
            (retry(None), 2, later(2)),
            (retry(None), 3, dead(Cause::Exhausted, "c", "m")),
            (retry(Some(5)), 1, later(5)),
            (retry(Some(60)), 1, later(10)),
            (retry(Some(0)), 2, later(2)),
            (retry(Some(5)), 3, dead(Cause::Exhausted, "c", "m")),
            (reject(), 1, dead(Cause::Rejected, "r", "no")),
            (reject(), 3, dead(Cause::Rejected, "r", "no")),
            (trap(), 1, later(1)),
            (trap(), 3, dead(Cause::Exhausted, "trap", "t")),
            (timeout(), 2, later(2)),
            (
                timeout(),
                3,
                dead(Cause::Exhausted, "timeout", "still running after 2s"),
            ),
            (Outcome::Conflict, 1, later(1)),
            (Outcome::Conflict, 3, later(4)),
            (fault(), 1, later(1)),
            (fault(), 9, later(10)),
        ];
        for (outcome, attempt, verdict) in rows {
            assert_eq!(
                decide(&outcome, attempt, &POLICY, 1.0),
                verdict,
                "{outcome:?}, attempt {attempt}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_delay_lies_within_half_and_all_of_the_capped_exponential(attempt in 1u32..2000, random in 0.0f64..1.0) {
            let full = POLICY.backoff.as_secs_f64() * 2f64.powi(attempt.min(100) as i32 - 1);
            let full = full.min(POLICY.backoff_max.as_secs_f64());
            let delay = backoff(attempt, &POLICY, random).as_secs_f64();
            prop_assert!(delay >= full / 2.0 - 1e-6 && delay <= full + 1e-6, "{delay} not within {full}/2..={full}");
        }

        #[test]
        fn an_event_is_never_retried_after_its_last_counted_attempt(attempt in 1u32..10, after in 0u64..100, random in 0.0f64..1.0) {
            let dead = matches!(decide(&retry(Some(after)), attempt, &POLICY, random), Verdict::Dead { .. });
            prop_assert_eq!(dead, attempt >= POLICY.max_attempts);
        }
    }
}
