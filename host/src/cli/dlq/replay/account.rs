//! What has become of the letters that were meant.

use std::time::Duration;

use super::ReplayCommand;
use crate::cli::stop::Stop;
use crate::cli::text::{json_line, letters};
use crate::cli::{FAILED, OK, UNSERVED, code_of, table};
use crate::dlq::course::Course;
use crate::dlq::replay::End;
use crate::mesh_streams::pauses::Pauses;
use crate::report::replay::AccountJson;

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
