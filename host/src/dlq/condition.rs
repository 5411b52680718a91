//! Conditions as people write them.

use crate::config::names::{NAME, is_name};
use crate::event::clock::Moment;
use crate::event::parse_rfc3339;
use crate::event::subject::no_subject;

/// The name of a handler.
pub fn handler(text: &str) -> Result<String, String> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("not a handler's name, which has {NAME}")),
    }
}

/// The beginning of a module's digest.
pub fn digest(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    match !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        true => Ok(digits.to_ascii_lowercase()),
        false => Err("not the beginning of a digest, which has the digits 0-9 and a-f".to_owned()),
    }
}

/// A subject, perhaps with wildcards.
pub fn pattern(text: &str) -> Result<String, String> {
    match no_subject(text) {
        None => Ok(text.to_owned()),
        Some(why) => Err(format!("not a subject: {why}")),
    }
}

/// A point in time.
pub fn time(text: &str) -> Result<Moment, String> {
    if let Some(ms) = parse_rfc3339(text) {
        return Ok(Moment::At(ms));
    }
    humantime::parse_duration(text).map(Moment::Ago).map_err(|_| {
        "neither a date with its time and zone, 2026-05-01T08:00:00Z, nor a duration such as 90m".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_would_mean_everything_or_nothing_is_none() {
        assert_eq!(handler("in_v-1"), Ok("in_v-1".to_owned()));
        assert_eq!(digest("sha256:31C1"), Ok("31c1".to_owned()));
        assert_eq!(pattern("orders.*.>"), Ok("orders.*.>".to_owned()));
        for wrong in ["", "a b", "*", ">", "a.b"] {
            assert!(handler(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "sha256:", "xyz"] {
            assert!(digest(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", ">.x", "a..b", "a*"] {
            assert!(pattern(wrong).is_err(), "{wrong}");
        }
    }
}
