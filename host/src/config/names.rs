//! What may be a name in NATS, and what a subject.

use super::reader::Reader;
use crate::event::subject::no_subject;

/// What a name is.
pub const NAME: &str = "1 to 64 characters of A-Z a-z 0-9 - and _";

/// Whether it may stand in a subject, a consumer or a bucket.
pub fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.len() <= 64 && name.chars().all(good)
}

pub fn check_name(reader: &mut Reader, key: &str, name: &str) {
    if !is_name(name) {
        reader.problem(key, format!("\"{}\" is not a name", name.escape_debug()), NAME);
    }
}

/// The name of a stream that need not be ours: as free as NATS allows.
pub fn check_stream(reader: &mut Reader, key: &str, name: &str) {
    let bad = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    if name.is_empty() || name.len() > 255 || name.contains(bad) {
        let what = format!("\"{}\" is not a stream's name", name.escape_debug());
        reader.problem(key, what, "1 to 255 bytes without spaces and . * > / \\");
    }
}

/// What other subjects begin with: a subject without wildcards.
pub fn check_prefix(reader: &mut Reader, key: &str, prefix: &str) {
    check_subject(reader, key, prefix);
    if prefix.split('.').any(|token| token == "*" || token == ">") {
        let what = format!("\"{}\" is not a prefix: it has a wildcard", prefix.escape_debug());
        reader.problem(key, what, "for instance \"_INBOX_jetmesh\"");
    }
}

pub fn check_subject(reader: &mut Reader, key: &str, subject: &str) {
    if let Some(why) = no_subject(subject) {
        reader.problem(
            key,
            format!("\"{}\" is not a subject: {why}", subject.escape_debug()),
            "",
        );
    }
}
