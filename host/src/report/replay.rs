//! What would be replayed, and what has become of a run of replays.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::dlq::course::Course;
pub use crate::dlq::telling::Ended;
use crate::event::outcome::Cause;

/// What has become of the letters that were meant, for scripts.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "The account of `jetmesh dlq replay --json`", description = "")]
pub struct AccountJson<'a> {
    /// Why it came to its end.
    end: Ended,
    /// How many letters were meant and there.
    meant: usize,
    /// How many were asked for.
    sent: usize,
    /// Of those that are meant: known to be done or to have failed again.
    decided: usize,
    /// Done now; their letters are resolved.
    succeeded: usize,
    /// Still dead, with a line of history added.
    failed_again: usize,
    /// Done by another replay: of another person, or an earlier one.
    succeeded_for_others: usize,
    /// Failed again in another replay; still dead.
    failed_for_others: usize,
    /// Replays that are over, and nothing was written to their letters.
    without_a_word: usize,
    /// Sent and not decided yet; they go on, or wait for a host.
    undecided: usize,
    not_sent: usize,
    /// Discarded or removed by others meanwhile.
    gone: usize,
    /// Left out: their events were lost with their payloads.
    lost: usize,
    /// From the first that was asked for to the end: the reading of what is meant comes before.
    took_ms: u64,
    /// Those that failed again, by group and code.
    failures: Vec<FailuresJson<'a>>,
}

/// Letters of one group that have failed again with one code.
#[derive(Debug, Serialize, JsonSchema)]
struct FailuresJson<'a> {
    /// As `dlq ls --group` prints it.
    group: String,
    handler: &'a str,
    /// Of the newest failure.
    code: &'a str,
    count: usize,
    /// The id of one of them.
    sample: &'a str,
    error: &'a str,
}

impl<'a> AccountJson<'a> {
    pub fn of(course: &'a Course, end: Ended, took: Duration) -> AccountJson<'a> {
        let counts = course.counts();
        let failures = course.failures().map(|(kind, code, failures)| FailuresJson {
            group: kind.key.id(),
            handler: &kind.key.handler,
            code,
            count: failures.count,
            sample: &failures.sample,
            error: &failures.error,
        });
        AccountJson {
            end,
            meant: course.len(),
            sent: counts.sent,
            decided: counts.decided(),
            succeeded: counts.succeeded,
            failed_again: counts.failed,
            succeeded_for_others: counts.succeeded_for_others,
            failed_for_others: counts.failed_for_others,
            without_a_word: counts.silent,
            undecided: counts.out,
            not_sent: counts.untried,
            gone: counts.gone,
            lost: course.lost,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            failures: failures.collect(),
        }
    }
}

/// What a dry run prints for scripts.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "What `jetmesh dlq replay --dry-run --json` would replay", description = "")]
pub struct DryRunJson<'a> {
    /// How many letters are meant and can be replayed.
    would_replay: usize,
    /// How many are left out because their events were lost with their payloads.
    lost: usize,
    /// What they have in common, by group.
    groups: Vec<KindJson<'a>>,
}

/// Letters of one group.
#[derive(Debug, Serialize, JsonSchema)]
struct KindJson<'a> {
    /// As `dlq ls --group` prints it.
    group: String,
    /// How many of its letters would be replayed.
    #[schemars(range(min = 1))]
    count: usize,
    handler: &'a str,
    /// Why the events are dead.
    #[schemars(with = "Cause")]
    cause: &'a str,
    code: &'a str,
}

impl<'a> From<&'a Course> for DryRunJson<'a> {
    fn from(course: &'a Course) -> DryRunJson<'a> {
        let groups = course.kinds().into_iter().map(|kind| KindJson {
            group: kind.key.id(),
            count: kind.count,
            handler: &kind.key.handler,
            cause: &kind.key.cause,
            code: &kind.key.code,
        });
        DryRunJson {
            would_replay: course.len(),
            lost: course.lost,
            groups: groups.collect(),
        }
    }
}
