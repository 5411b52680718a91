//! What has become of the letters that were meant.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::ReplayCommand;
use crate::cli::stop::Stop;
use crate::cli::text::{json_line, letters};
use crate::cli::{FAILED, OK, UNSERVED, code_of, table};
use crate::dlq::course::Course;
use crate::dlq::replay::End;
use crate::mesh_streams::pauses::Pauses;

/// Prints it; returns the exit code.
pub fn tell(course: &Course, end: &End, took: Duration, args: &ReplayCommand, (stop, pauses): (&Stop, &Pauses)) -> u8 {
    let counts = course.counts();
    if args.json {
        println!("{}", json_line(&AccountJson::of(course, end.into(), took)));
    } else {
        print(course, end, took, pauses);
    }
    let code = match end {
        End::Over if counts.over() == course.len() && course.lost == 0 => return OK,
        End::Over => return FAILED,
        End::TooManyFailures => {
            let failed = counts.failed_in_all();
            let (decided, most) = (counts.decided() + counts.silent, args.max_failures * 100.0);
            note!("\nstopped: {failed} of {decided} failed again, more than {most} %");
            FAILED
        }
        End::Interrupted => {
            note!(
                "\ninterrupted: {}",
                match counts.out {
                    0 => "no replay is undecided".to_owned(),
                    out => format!("{out} are sent and continue without this command"),
                }
            );
            stop.code().unwrap_or(FAILED)
        }
        End::Unserved(handler) => {
            match pauses.contains_key(handler) {
                true => note!(
                    "\nerror: handler {handler} is paused; the replays that were sent wait until `jetmesh resume {handler}`"
                ),
                false => note!(
                    "\nerror: no host serves handler {handler}; the replays that were sent wait for one, see `jetmesh \
                       status`"
                ),
            }
            UNSERVED
        }
        End::Broken(error) => {
            let rest = match counts.out {
                0 => "",
                _ => "; the replays that were sent continue without this command",
            };
            note!("\nerror: {error}{rest}");
            code_of(error)
        }
    };
    note!("the same command again continues with the dead letters that are left");
    code
}

fn print(course: &Course, end: &End, took: Duration, pauses: &Pauses) {
    let counts = course.counts();
    let seconds = took.as_secs_f64();
    let (sent, all) = (counts.sent, letters(course.len() as u64));
    match counts.decided() {
        0 => println!("sent {sent} of {all}, and nothing is decided after {seconds:.1} s"),
        decided => println!("sent {sent} of {all}, decided {decided} in {seconds:.1} s"),
    }
    let undecided = match end {
        End::Unserved(handler) if pauses.contains_key(handler) => {
            format!("sent and not decided: {handler} is paused, so they wait until it is resumed")
        }
        End::Unserved(handler) => format!("sent and not decided: no host serves {handler}, so they wait for one"),
        End::Over | End::TooManyFailures | End::Interrupted | End::Broken(_) => {
            "sent and not decided yet; they continue without this command".to_owned()
        }
    };
    let untried = match end {
        End::Unserved(_) => "not sent: more are sent only when those before are decided",
        End::Over | End::TooManyFailures | End::Interrupted | End::Broken(_) => "not sent",
    };
    let lines = [
        (counts.succeeded, "succeeded"),
        (
            counts.failed,
            "failed again; they stay dead letters, with the new attempt in their history",
        ),
        (
            counts.succeeded_for_others,
            "succeeded in another replay, of another person or an earlier one",
        ),
        (
            counts.failed_for_others,
            "failed again in another replay; they stay dead letters",
        ),
        (
            counts.silent,
            "ended without a result; they stay dead letters, and the logs of the hosts have the reason",
        ),
        (counts.out, &undecided),
        (counts.untried, untried),
        (
            counts.gone,
            "discarded, or removed from their stream, since the command started",
        ),
        (course.lost, "not replayed; their events were lost with their payloads"),
    ];
    for (count, what) in lines.iter().filter(|(count, _)| *count > 0) {
        println!("{count:>8} {what}");
    }
    let rows: Vec<Vec<String>> = course
        .failures()
        .map(|(kind, code, failures)| {
            vec![
                kind.key.id(),
                code.to_owned(),
                failures.count.to_string(),
                failures.sample.clone(),
                failures.error.clone(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        println!();
        table::print(&["GROUP", "CODE", "COUNT", "SAMPLE", "ERROR"], &rows);
    }
}

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

#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Ended {
    Over,
    TooManyFailures,
    Interrupted,
    Unserved,
    Broken,
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

impl From<&End> for Ended {
    fn from(end: &End) -> Ended {
        match end {
            End::Over => Ended::Over,
            End::TooManyFailures => Ended::TooManyFailures,
            End::Interrupted => Ended::Interrupted,
            End::Unserved(_) => Ended::Unserved,
            End::Broken(_) => Ended::Broken,
        }
    }
}
