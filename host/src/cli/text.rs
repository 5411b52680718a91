//! Values and times as people read them.

use std::time::Duration;

use serde::Serialize;

use super::table::cut;
use crate::text::display::{clean, shown};

/// In place of the standard library's: whatever is printed, a terminal neither obeys it nor is turned by it.
macro_rules! println {
    () => {
        ::std::println!()
    };
    ($($text:tt)*) => {
        ::std::println!("{}", $crate::text::display::shown(&::std::format!($($text)*)))
    };
}

/// The same.
macro_rules! print {
    ($($text:tt)*) => {
        ::std::print!("{}", $crate::text::display::shown(&::std::format!($($text)*)))
    };
}

/// A line on standard error. That it cannot be written is no reason to stop.
macro_rules! note {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let text = ::std::format!($($text)*);
        let _ = writeln!(std::io::stderr(), "{}", $crate::text::display::shown(&text));
    }};
}

/// How a panic begins that says that standard output cannot be written. The standard library's own begins so.
pub const UNPRINTED: &str = "failed printing to stdout: ";

/// What looks more often costs the hosts more than it shows.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// Begins an empty screen.
pub fn clear() {
    // Not the macro, which has a terminal obey nothing. Home, and erase all that is shown.
    std::print!("\x1b[H\x1b[2J");
}

/// Writes what was printed without the end of a line.
///
/// # Panics
/// If it cannot be written, as printing does.
pub fn flush() {
    use std::io::Write as _;
    if let Err(error) = std::io::stdout().flush() {
        panic!("{UNPRINTED}{error}");
    }
}

/// JSON on one line.
pub fn json_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what is printed serialises")
}

/// JSON laid out for reading.
pub fn json_page(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("what is printed serialises")
}

/// Bytes on one line: text as it is, anything else by its size.
pub fn value(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok("") => "\"\"".to_owned(),
        Ok(text) => clean(text),
        Err(_) => format!("({} bytes that are no text)", bytes.len()),
    }
}

/// Reads a pause between two looks.
pub fn pause(text: &str) -> Result<Duration, String> {
    let pause = humantime::parse_duration(text).map_err(|error| format!("{error}: for instance 2s"))?;
    match pause < PAUSE_MIN {
        true => Err("it is at least 500ms".to_owned()),
        false => Ok(pause),
    }
}

/// A number of bytes, in its largest unit, with one digit after the point.
pub fn size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

/// A number of dead letters, in words.
pub fn letters(count: u64) -> String {
    format!("{count} dead letter{}", if count == 1 { "" } else { "s" })
}

/// A line of at most this number of columns; `None`: as long as it is.
pub fn fit(line: String, columns: Option<usize>) -> String {
    match columns {
        // As wide as it is when it is shown.
        Some(columns) => cut(&shown(&line), columns),
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

/// How long something lasts.
pub fn span(ms: u64) -> String {
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
}
