//! A rehearsal, for people: each letter, and in the end what it comes to.

use bytes::Bytes;

use crate::cli::table::{self, cut};
use crate::cli::text::{fit, in_time, value};
use crate::dlq::rehearse::stage::Came;
use crate::dlq::rehearse::{Change, HeldEmit};
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::report::rehearsal::account::{VERDICTS, verdict};
use crate::report::rehearsal::{FaultJson, SummaryJson};

/// How many of a failed run's last log lines are shown.
const LOG_LINES: usize = 10;
/// How much of a value is shown at least, and at most where no line ends; with `--json` it is whole.
const VALUE_COLUMNS_MIN: usize = 8;
const VALUE_COLUMNS_MAX: usize = 200;

pub fn lines(id: &str, came: &Came, columns: Option<usize>) -> Vec<String> {
    let run = match came {
        Came::Skipped(why) => return vec![fit(format!("{id}  skipped: {why}"), columns)],
        Came::Ran(run) => run,
    };
    let mut lines = vec![format!("{id}  {}", verdict(&run.outcome))];
    if let Some(failure) = run.outcome.failure() {
        if run.as_before {
            lines[0] += " as before";
        }
        // Whole, also on a terminal: it is what the rehearsal is for.
        lines[0] = format!("{}: {}: {}", lines[0], failure.code, failure.message);
        let skip = run.log.len().saturating_sub(LOG_LINES);
        if skip > 0 {
            lines.push(format!("  log: {skip} lines, and at last"));
        }
        let log = run.log[skip..].iter().map(|l| format!("  log {} {}", l.level, l.text));
        lines.extend(log.map(|line| fit(line, columns)));
        let functions = run.outcome.backtrace();
        if !functions.is_empty() {
            lines.push("  functions, innermost first".to_owned());
            lines.extend(functions.iter().map(|name| fit(format!("    {name}"), columns)));
        }
        return lines;
    }
    lines.extend(run.writes.iter().map(|change| changed(change, columns)));
    for held in &run.emits {
        lines.push(fit(emitted(held), columns));
        if let Some(problem) = &held.problem {
            lines.push(format!("    it would become a dead letter: {problem}"));
        }
    }
    if run.writes.is_empty() && run.emits.is_empty() {
        lines.push("  no effects".to_owned());
    }
    lines
}

fn changed(change: &Change, columns: Option<usize>) -> String {
    let verb = if change.new.is_some() { "write" } else { "delete" };
    let begin = format!("  {verb} {}: ", change.key);
    // Both values get half of what is left of the line.
    let of_line = |columns: usize| (columns.saturating_sub(begin.chars().count() + 3) / 2).max(VALUE_COLUMNS_MIN);
    let room = columns.map_or(VALUE_COLUMNS_MAX, of_line);
    let shown = |bytes: &Option<Bytes>| match bytes {
        None => "(none)".to_owned(),
        Some(bytes) => cut(&value(bytes), room),
    };
    format!("{begin}{} → {}", shown(&change.old), shown(&change.new))
}

fn emitted(held: &HeldEmit) -> String {
    let emit = &held.emit;
    let when = emit.due_ms.map_or_else(String::new, |due| {
        format!("{}, at {}, ", in_time(due, now_ms()), rfc3339(due))
    });
    format!("  emit {when}{} {}", emit.subject, value(&emit.payload))
}

/// What it comes to.
pub fn summary(summary: &SummaryJson<'_>) {
    if summary.rehearsed + summary.skipped == 0 {
        return println!("no dead letters of this kind");
    }
    if !summary.faults.is_empty() {
        println!("\nwhat would go wrong:");
        let rows: Vec<Vec<String>> = summary.faults.iter().map(row).collect();
        table::print(&["COUNT", "OUTCOME", "CODE", "SAMPLE", "ERROR"], &rows);
    }
    let counted = |verdict: &&str| Some(format!("{} {verdict}", summary.verdicts.get(verdict)?));
    let mut parts: Vec<String> = VERDICTS.iter().filter_map(counted).collect();
    if summary.as_before > 0 {
        parts.push(format!("{} of them as before", summary.as_before));
    }
    if summary.undelivered > 0 {
        parts.push(format!(
            "{} of them would emit an event that no stream stores",
            summary.undelivered
        ));
    }
    if summary.skipped > 0 {
        parts.push(format!("{} skipped", summary.skipped));
    }
    println!("\n{}; nothing has happened", parts.join(", "));
    for (handler, digest) in &summary.modules {
        println!("{handler}: rehearsed on module {digest}");
    }
}

fn row(fault: &FaultJson<'_>) -> Vec<String> {
    [
        &fault.count.to_string(),
        fault.outcome,
        fault.code,
        fault.sample,
        fault.error,
    ]
    .map(str::to_owned)
    .to_vec()
}
