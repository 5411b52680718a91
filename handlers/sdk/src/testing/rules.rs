//! What a host refuses, in its words.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use crate::events::When;
use crate::state;

/// Most that one value may be, that one call may write and emit together, and keys and events of one call.
const VALUE_BYTES_MAX: usize = 512 * 1024;
const EFFECT_BYTES_MAX: usize = 1024 * 1024;
const EFFECTS_MAX: usize = 400;
const SUBJECT_BYTES_MAX: usize = 512;
const CODE_CHARS_MAX: usize = 64;
/// How far ahead an event may be emitted.
const DELAY_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// What one call has used up.
#[derive(Default)]
pub struct Call {
    read: BTreeSet<String>,
    written: BTreeSet<String>,
    emitted: usize,
    bytes: usize,
}

impl Call {
    /// A key is read.
    pub fn touch(&mut self, key: &str, bytes: usize) -> Result<(), String> {
        // It sees its own writes, and reads a key once.
        if self.written.contains(key) || self.read.contains(key) {
            return Ok(());
        }
        self.grow(bytes)?;
        self.read.insert(key.into());
        Ok(())
    }

    /// A key is written.
    pub fn write(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!(
                "a value of {} bytes is over the limit of {VALUE_BYTES_MAX}",
                value.len()
            ));
        }
        self.grow(value.len() + key.len())?;
        self.written.insert(key.into());
        Ok(())
    }

    /// A timer is set or cancelled: a key and an event.
    pub fn timer(&mut self, bytes: usize) -> Result<(), String> {
        self.grow(bytes)?;
        self.emitted += 2;
        Ok(())
    }

    /// An event is emitted.
    pub fn emit(&mut self, bytes: usize) -> Result<(), String> {
        self.grow(bytes)?;
        self.emitted += 1;
        Ok(())
    }

    fn grow(&mut self, bytes: usize) -> Result<(), String> {
        if self.read.len() + self.written.len() + self.emitted >= EFFECTS_MAX {
            return Err(format!(
                "one call touches more than {EFFECTS_MAX} keys, emitted events and timers, of which a timer counts twice"
            ));
        }
        if self.bytes + bytes > EFFECT_BYTES_MAX {
            return Err(format!(
                "the writes and emitted events of one call are over {EFFECT_BYTES_MAX} bytes together"
            ));
        }
        self.bytes += bytes;
        Ok(())
    }
}

/// Most that the name of a timer may have.
const TIMER_BYTES_MAX: usize = 128;

pub fn check_timer(name: &str) -> Result<(), String> {
    if name.len() > TIMER_BYTES_MAX {
        return Err(format!(
            "the name of a timer has {} bytes, over the limit of {TIMER_BYTES_MAX}",
            name.len()
        ));
    }
    check_chars(name).map_err(|why| format!("the name of a timer is a key: {why}"))
}

pub fn check_key(key: &str) -> Result<(), String> {
    if key == "mesh-timers" || key.starts_with("mesh-timer.") {
        return Err(format!("`{key}`: keys of this name hold timers"));
    }
    check_chars(key)
}

fn check_chars(key: &str) -> Result<(), String> {
    if state::is_key(key) {
        return Ok(());
    }
    Err(format!(
        "`{}`: a key has tokens of A-Z a-z 0-9 - _ / = joined by dots, and {} bytes at most",
        key.escape_debug(),
        state::KEY_BYTES_MAX
    ))
}

pub fn check_subject(subject: &str) -> Result<(), String> {
    if subject.len() > SUBJECT_BYTES_MAX {
        return Err(format!(
            "a subject of {} bytes is over the limit of {SUBJECT_BYTES_MAX}",
            subject.len()
        ));
    }
    let shown = subject.escape_debug();
    if subject.split('.').any(str::is_empty) {
        return Err(format!("`{shown}`: the parts of a subject between dots are not empty"));
    }
    if subject
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || c == '*' || c == '>')
    {
        return Err(format!(
            "`{shown}`: a subject has no spaces, control characters or wildcards"
        ));
    }
    Ok(())
}

pub fn check_grant(granted: &[String], subject: &str) -> Result<(), String> {
    if granted.iter().any(|pattern| matches(pattern, subject)) {
        return Ok(());
    }
    Err(format!(
        "handler test may not publish on `{subject}`: it may publish {} (`publish` in its configuration)",
        granted.join(", ")
    ))
}

/// Whether a subject lies within a pattern with `*` and `>`.
fn matches(pattern: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    for token in pattern.split('.') {
        match (token, subject.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(part)) if token == part => {}
            _ => return false,
        }
    }
    subject.next().is_none()
}

pub fn check_header(name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
        return Err(format!(
            "`{}`: a header's name is printable ASCII without spaces and colons",
            name.escape_debug()
        ));
    }
    let prefix = name.get(..5).unwrap_or_default();
    if prefix.eq_ignore_ascii_case("nats-") || prefix.eq_ignore_ascii_case("mesh-") {
        return Err(format!(
            "`{name}`: headers that begin with Nats- or Mesh- are the server's and the mesh's"
        ));
    }
    if value.contains(['\r', '\n', '\0']) {
        return Err(format!("`{name}`: a header's value is one line"));
    }
    Ok(())
}

pub fn check_when(when: When) -> Result<(), String> {
    let delay = match when {
        When::Now => return Ok(()),
        When::After(delay) => delay,
        // What is past is now.
        When::At(time) => time.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    if delay > DELAY_MAX {
        return Err(format!(
            "an event is delayed by 366 days at most; {} ms are wanted",
            delay.as_millis()
        ));
    }
    Ok(())
}

/// # Panics
/// When it is none.
pub fn check_code(code: &str) {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    assert!(
        (1..=CODE_CHARS_MAX).contains(&code.chars().count()) && code.chars().all(fits),
        "`{}` is no code: a code has 1 to {CODE_CHARS_MAX} characters of a-z 0-9 - _ and .",
        code.escape_debug()
    );
}
