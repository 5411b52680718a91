//! What an attempt asks of the ledger, and what it comes to after its commit. Pure: tables, without a server.

use crate::event::outcome::{Failure, Outcome, Verdict};
use crate::ledger::{CommitError, Committed};

/// How often an event is run again at once when what it read has changed.
const RERUNS_MAX: u32 = 20;

/// What a verdict asks of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// To store a decision.
    Decision,
    /// To wait until everything is committed that the run has read: its verdict may rest on what is not.
    Wait,
    Nothing,
}

/// `reads`: the run has read keys.
pub fn asks(verdict: &Verdict, of_letter: bool, reads: bool) -> Asks {
    match (verdict.decides(of_letter), reads) {
        (true, _) => Asks::Decision,
        (false, true) => Asks::Wait,
        (false, false) => Asks::Nothing,
    }
}

/// What has happened in an attempt so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct SoFar {
    pub of_letter: bool,
    /// The host is draining.
    pub drains: bool,
    /// It was run again because what it had read has changed.
    pub reruns: u32,
    /// It was run again, because what it had read may be old.
    pub has_read_again: bool,
}

/// What an attempt comes to after its commit.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Its verdict stands, by this decision if it made one.
    Stands(Option<Committed>),
    /// It runs again, and reads everything again.
    ReadAgain,
    /// What it has read has changed: it runs again.
    RunAgain,
    /// What it wants can never be committed: the event is dead.
    DeadLetter(Failure),
    /// Something else came of it than of the run.
    Instead(Outcome),
}

/// What follows a commit, with its result, the verdict on the run, and what has happened so far.
pub fn next(result: Result<Committed, CommitError>, verdict: &Verdict, so_far: SoFar) -> Next {
    match result {
        Ok(committed) if verdict.decides(so_far.of_letter) => Next::Stands(Some(committed)),
        // A letter is replayed after its cause was mended, perhaps by hand and unknown to this host until now.
        Ok(_) if matches!(verdict, Verdict::Dead { .. }) && !so_far.has_read_again => Next::ReadAgain,
        Ok(_) => Next::Stands(None),
        Err(CommitError::Conflict) if so_far.reruns < RERUNS_MAX && !so_far.drains => Next::RunAgain,
        Err(CommitError::Conflict) => Next::Instead(Outcome::Conflict),
        Err(CommitError::TooLarge(why)) if so_far.of_letter => Next::Instead(too_large(why)),
        Err(CommitError::TooLarge(message)) => Next::DeadLetter(Failure {
            code: TOO_LARGE.to_owned(),
            message,
        }),
        Err(CommitError::Host(message)) => Next::Instead(Outcome::HostFault { message }),
    }
}

/// The code of an event whose effects no batch can hold.
const TOO_LARGE: &str = "too-large";

/// The outcome of such a run.
pub fn too_large(message: String) -> Outcome {
    Outcome::Reject {
        code: TOO_LARGE.to_owned(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::outcome::Cause;
    use crate::ledger::Decided;

    const HERE: Committed = Committed::Here { entry: 4 };
    const BEFORE: Committed = Committed::Before(Decided::Done { entry: 2 });

    fn failure(code: &str, message: &str) -> Failure {
        Failure {
            code: code.to_owned(),
            message: message.to_owned(),
        }
    }

    fn dead() -> Verdict {
        Verdict::Dead {
            cause: Cause::Exhausted,
            failure: failure("c", "m"),
        }
    }

    fn retry() -> Verdict {
        Verdict::Retry {
            delay: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_decision_is_stored_and_any_other_verdict_waits_for_what_it_rests_on() {
        let (done, dead, retry) = (Verdict::Done, dead(), retry());
        let rows = [
            // Verdict, of a letter's replay, has read: what it asks of the ledger.
            (&done, false, false, Asks::Decision),
            (&done, true, true, Asks::Decision),
            (&dead, false, false, Asks::Decision),
            (&dead, false, true, Asks::Decision),
            // The death of a letter's event stands already.
            (&dead, true, false, Asks::Nothing),
            (&dead, true, true, Asks::Wait),
            (&retry, false, false, Asks::Nothing),
            (&retry, false, true, Asks::Wait),
            (&retry, true, true, Asks::Wait),
        ];
        for (verdict, of_letter, reads, expected) in rows {
            assert_eq!(
                asks(verdict, of_letter, reads),
                expected,
                "{verdict:?}, {of_letter}, {reads}"
            );
        }
    }

    #[test]
    fn what_follows_a_commit() {
        let first = SoFar::default();
        let of_letter = SoFar {
            of_letter: true,
            ..first
        };
        let has_read_again = SoFar {
            has_read_again: true,
            ..of_letter
        };
        let reruns = |reruns| SoFar { reruns, ..first };
        let drains = SoFar { drains: true, ..first };
        let too_large = || Err(CommitError::TooLarge("9 of 8".to_owned()));
        let host = || Err(CommitError::Host("no server".to_owned()));
        let rejected = || Outcome::Reject {
            code: "too-large".to_owned(),
            message: "9 of 8".to_owned(),
        };
        let fault = || Outcome::HostFault {
            message: "no server".to_owned(),
        };
        let rows = [
            // A decision stands by whatever has decided it.
            (Ok(HERE), Verdict::Done, first, Next::Stands(Some(HERE))),
            (Ok(BEFORE), Verdict::Done, of_letter, Next::Stands(Some(BEFORE))),
            (Ok(HERE), dead(), first, Next::Stands(Some(HERE))),
            // What has waited only stands by nothing.
            (Ok(HERE), retry(), first, Next::Stands(None)),
            (Ok(HERE), retry(), of_letter, Next::Stands(None)),
            // A letter's replay fails upon fresh reads only.
            (Ok(HERE), dead(), of_letter, Next::ReadAgain),
            (Ok(HERE), dead(), has_read_again, Next::Stands(None)),
            // A conflict is run again, some times.
            (Err(CommitError::Conflict), Verdict::Done, first, Next::RunAgain),
            (Err(CommitError::Conflict), retry(), of_letter, Next::RunAgain),
            (
                Err(CommitError::Conflict),
                Verdict::Done,
                reruns(RERUNS_MAX - 1),
                Next::RunAgain,
            ),
            (
                Err(CommitError::Conflict),
                Verdict::Done,
                reruns(RERUNS_MAX),
                Next::Instead(Outcome::Conflict),
            ),
            (
                Err(CommitError::Conflict),
                dead(),
                drains,
                Next::Instead(Outcome::Conflict),
            ),
            // What no batch can hold is dead; a letter's event is so already.
            (
                too_large(),
                Verdict::Done,
                first,
                Next::DeadLetter(failure("too-large", "9 of 8")),
            ),
            (too_large(), Verdict::Done, of_letter, Next::Instead(rejected())),
            // A fault of the host is never counted as the event's.
            (host(), Verdict::Done, first, Next::Instead(fault())),
            (host(), dead(), of_letter, Next::Instead(fault())),
        ];
        for (result, verdict, so_far, expected) in rows {
            let case = format!("{result:?}, {verdict:?}, {so_far:?}");
            assert_eq!(next(result, &verdict, so_far), expected, "{case}");
        }
    }
}
