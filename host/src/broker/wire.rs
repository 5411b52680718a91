//! What the client library can read of a message on the wire, and what it cannot: the rules of its own parser (async-nats
//! 0.51, `connection.rs` and `header.rs`), which breaks the connection over a message that it refuses. A test compares both.

use std::borrow::Cow;

use crate::event::Headers;

/// The headers of a message (`NATS/1.0\r\n…`; empty: it has none), in the order of their names, or why the client refuses
/// the message.
pub fn headers(subject: &[u8], raw: &[u8]) -> Result<Headers, String> {
    let mut headers = Headers::new();
    read(subject, raw, |name, value| {
        headers.push((name.to_owned(), value.to_owned()))
    })?;
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(headers)
}

/// Whether the client refuses the message, and why.
pub fn check(subject: &[u8], raw: &[u8]) -> Result<(), String> {
    read(subject, raw, |_, _| ())
}

fn read(subject: &[u8], raw: &[u8], mut each: impl FnMut(&str, &str)) -> Result<(), String> {
    let subject = std::str::from_utf8(subject).map_err(|_| "its subject is not UTF-8".to_owned())?;
    if raw.is_empty() {
        return Ok(());
    }
    // The server separates by one space; the client, where there are headers, by every blank that Unicode knows. One at
    // an end of the subject would be lost.
    if subject.chars().any(char::is_whitespace) {
        return Err("its subject has a blank in it".to_owned());
    }
    let text = std::str::from_utf8(raw).map_err(|_| "its headers are not UTF-8".to_owned())?;
    // A line ends with a line feed; a carriage return before it goes too, any other stays.
    let mut lines = text.lines().peekable();
    let version = lines.next().unwrap_or_default();
    let status = version
        .strip_prefix("NATS/1.0")
        .ok_or_else(|| "its headers have no version".to_owned())?
        .trim();
    let status = status.split(' ').next().unwrap_or_default().trim();
    let is_code = status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit()) && !status.starts_with('0');
    if !status.is_empty() && !is_code {
        return Err(format!("`{}` is not a status", status.escape_debug()));
    }
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| "a header line has no colon".to_owned())?;
        if !name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("`{}` is not a header name", name.escape_debug()));
        }
        let mut value = Cow::Borrowed(value.trim_start());
        // A line that begins with a blank continues the one above.
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.to_mut().push_str(more);
        }
        let value = value.trim_end();
        if value.contains('\r') {
            return Err("a header has a carriage return in it".to_owned());
        }
        each(name, value);
    }
    Ok(())
}
