//! Outboxes as a table.

use crate::cli::table;
use crate::cli::text::{in_time, span};
use crate::event::clock::now_ms;
use crate::event::parse_rfc3339;
use crate::outbox::COUNT_MAX;
use crate::report::outbox::{OutboxStatus, word};

/// A table of outboxes, and a line for each thing that a person should know. Nothing without outboxes.
pub fn print(outboxes: &[OutboxStatus]) {
    if outboxes.is_empty() {
        return;
    }
    let time = |at: &Option<String>| at.as_deref().and_then(parse_rfc3339);
    let now = now_ms();
    let row = |one: &OutboxStatus| {
        let waiting = match one.waiting {
            None => "?".to_owned(),
            Some(waiting) if waiting > COUNT_MAX => format!(">{COUNT_MAX}"),
            Some(waiting) => waiting.to_string(),
        };
        let lag = match (one.waiting, time(&one.oldest)) {
            (None, None) => "?".to_owned(),
            (_, oldest) => format!("{} s", oldest.map_or(0, |at| now.saturating_sub(at) / 1000)),
        };
        let last = time(&one.published_at).map_or_else(|| "-".to_owned(), |at| in_time(at, now));
        vec![
            one.outbox.clone(),
            word(one.state).to_owned(),
            waiting,
            lag,
            last,
            one.stream.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = outboxes.iter().map(row).collect();
    table::print(&["OUTBOX", "STATE", "WAITING", "LAG", "LAST BATCH", "STREAM"], &rows);
    for one in outboxes {
        let since = |since: &Option<String>| {
            let past = |at| format!(" (for {})", span(now.saturating_sub(at)));
            time(since).map_or_else(String::new, past)
        };
        if let Some(why) = &one.why {
            println!(
                "outbox {} is {}{}: {why}",
                one.outbox,
                word(one.state),
                since(&one.since)
            );
        }
        for stopped in &one.stopped {
            let why = stopped.why.as_deref().unwrap_or_default();
            println!(
                "outbox {} is {} on host {}{}: {why}",
                one.outbox,
                stopped.state,
                stopped.host,
                since(&stopped.since)
            );
        }
        if let (Some(held), Some(behind)) = (one.wal_bytes, one.lag_bytes) {
            println!(
                "outbox {}: PostgreSQL keeps {held} bytes of its log for it, of which {behind} are not settled",
                one.outbox
            );
        }
        if let Some(restored) = &one.restored {
            println!("outbox {}: {restored}", one.outbox);
        }
    }
}
