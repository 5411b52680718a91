//! What has become of the letters that were meant.

use std::time::Duration;

use serde_json::{Value, json};

use super::Replay;
use crate::cli::{Error, FAILED, OK, table};
use crate::dlq::course::Course;
use crate::dlq::replay::End;

pub fn tell(course: &Course, end: End, took: Duration, args: &Replay) -> Result<u8, Error> {
    let counts = course.counts();
    let whole = counts.succeeded + counts.gone == course.len() && course.lost == 0;
    if args.json {
        println!("{}", json_of(course, word(&end), took));
    } else {
        print(course, took);
    }
    match end {
        End::Over => return Ok(if whole { OK } else { FAILED }),
        End::TooManyFailures => note!(
            "\nstopped: {} of {} failed again, more than {} %",
            counts.failed + counts.silent,
            counts.succeeded + counts.failed + counts.silent,
            args.max_failures * 100.0,
        ),
        End::Interrupted => note!(
            "\ninterrupted: {}",
            match counts.out {
                0 => "nothing is under way".to_owned(),
                out => format!("{out} are asked for and go on without this"),
            }
        ),
        End::Unserved(handler) => {
            note!("\nerror: no host serves handler {handler}; what is asked for waits for one, see `jetmesh status`")
        }
        End::Broken(error) => note!("\nerror: {error}; what is asked for goes on without this"),
    }
    note!("the same command again takes up what is not settled");
    Ok(FAILED)
}

fn print(course: &Course, took: Duration) {
    let counts = course.counts();
    let seconds = took.as_secs_f64();
    println!("replayed {} of {} in {seconds:.1} s", counts.replayed(), course.len());
    let lines = [
        (counts.succeeded, "succeeded"),
        (
            counts.failed,
            "failed again; they stay, with a line more in their history",
        ),
        (
            counts.silent,
            "over without a word; they stay as they were, and the hosts' logs say why",
        ),
        (counts.out, "asked for and not decided yet"),
        (counts.untried, "not tried"),
        (counts.gone, "gone meanwhile; others have replayed or discarded them"),
        (course.lost, "left out; their events were lost with their payloads"),
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

/// The account for scripts; `end` says why it has come to its end.
pub fn json_of(course: &Course, end: &str, took: Duration) -> Value {
    let counts = course.counts();
    let failures: Vec<Value> = course
        .failures()
        .map(|(kind, code, failures)| {
            json!({
                "group": kind.key.id(),
                "handler": kind.key.handler,
                "code": code,
                "count": failures.count,
                "sample": failures.sample,
                "error": failures.error,
            })
        })
        .collect();
    json!({
        "end": end,
        "meant": course.len(),
        "replayed": counts.replayed(),
        "succeeded": counts.succeeded,
        "failed_again": counts.failed,
        "without_a_word": counts.silent,
        "undecided": counts.out,
        "not_tried": counts.untried,
        "gone": counts.gone,
        "lost": course.lost,
        "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "failures": failures,
    })
}

fn word(end: &End) -> &'static str {
    match end {
        End::Over => "over",
        End::TooManyFailures => "too-many-failures",
        End::Interrupted => "interrupted",
        End::Unserved(_) => "unserved",
        End::Broken(_) => "broken",
    }
}
