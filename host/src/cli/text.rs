//! Values and times as people read them.

use std::time::Duration;

use super::table::cut;
use crate::guest::clean;

/// Bytes on one line: text as it is, anything else by its size.
pub fn value(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok("") => "\"\"".to_owned(),
        Ok(text) => clean(text),
        Err(_) => format!("({} bytes that are no text)", bytes.len()),
    }
}

/// What a failure says first. The message of a trap begins with a backtrace; what the trap was stands at its end.
pub fn gist(message: &str) -> &str {
    match message.rsplit_once(": wasm trap: ") {
        Some((before, trap)) if before.contains("wasm backtrace:") => trap,
        _ => message,
    }
}

/// A line of at most so many columns; `None`: as long as it is.
pub fn fit(line: String, columns: Option<usize>) -> String {
    match columns {
        Some(columns) => cut(&line, columns),
        None => line,
    }
}

/// A point in time as seen from now, to its two largest units: `in 4m 12s`, `3s ago`.
pub fn in_time(at_ms: u64, now_ms: u64) -> String {
    match at_ms >= now_ms {
        true => format!("in {}", span(at_ms - now_ms)),
        false => format!("{} ago", span(now_ms - at_ms)),
    }
}

fn span(ms: u64) -> String {
    let seconds = Duration::from_secs(ms.div_ceil(1000));
    let text = humantime::format_duration(seconds).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_as_seen_from_now() {
        assert_eq!(in_time(10_000, 5_500), "in 5s");
        assert_eq!(in_time(5_000, 5_000), "in 0s");
        assert_eq!(in_time(0, 3_600_000 * 26 + 61_000), "1day 2h ago");
        assert_eq!(value(b"a\nb"), "a b");
        assert_eq!(value(&[0xff, 0]), "(2 bytes that are no text)");
        assert_eq!(value(b""), "\"\"");
    }

    #[test]
    fn a_trap_is_told_without_its_backtrace() {
        let trap = "error while executing at wasm backtrace:     0:  0x4d05a - <unknown>!f: wasm trap: unreachable";
        assert_eq!(gist(trap), "unreachable");
        assert_eq!(gist("a: wasm trap: b"), "a: wasm trap: b");
    }
}
