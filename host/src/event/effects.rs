//! The effects of a handler. None of them happens while it runs; they are committed by the ledger or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::event::{HEADER_BYTES_MAX, Headers, header_bytes, rfc3339};

/// Most that one value may be: it must fit a message with room for headers.
pub const VALUE_BYTES_MAX: usize = 512 * 1024;
/// Most that the writes and emits of one call may be together: they go out as one batch of at most 2 MiB, with the
/// emitted payloads in base64 where they are not text.
pub const EFFECT_BYTES_MAX: usize = 1024 * 1024;
/// Most keys that one call may touch, and events that it may emit: a batch holds 1,000 messages.
pub const EFFECTS_MAX: usize = 400;
/// How far ahead an event may be emitted: a year, and a day for the year that has one more.
pub const DELAY_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Most that the mesh adds to an emitted event in headers: its id, what caused it, the trace. Names of handlers have 64
/// characters at most.
pub const ADDED_BYTES: usize = 1024;
/// The same while the event waits for its time: its subject, which has 512 bytes at most, and its ledger as well.
const ADDED_BYTES_DELAYED: usize = 2048;

/// Which value of a key was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// One that the bucket holds, by its revision (the stream sequence of the key's last message); 0: the key never was.
    Stored(u64),
    /// One that a transaction of this host has written and not committed yet.
    Pending(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emit {
    pub subject: String,
    pub headers: Headers,
    pub payload: Bytes,
    /// When it is to be published, in milliseconds since the Unix epoch; `None`: as soon as it may be.
    pub due_ms: Option<u64>,
}

impl Emit {
    /// What it takes of the room of a call.
    fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(n, v)| n.len() + v.len() + 4).sum();
        self.payload.len() + self.subject.len() + headers
    }

    /// Whether the event can be published at all, with what the mesh adds to it. `message_bytes_max`: the server's
    /// `max_payload`; 0: not known.
    pub fn check(&self, message_bytes_max: usize) -> Result<(), TooLarge> {
        let added = match self.due_ms {
            Some(_) => ADDED_BYTES_DELAYED,
            None => ADDED_BYTES,
        };
        let headers = header_bytes(&self.headers);
        if headers + added > HEADER_BYTES_MAX {
            return Err(TooLarge::Headers(headers, HEADER_BYTES_MAX - added));
        }
        let bytes = headers + self.payload.len();
        if message_bytes_max > 0 && bytes + added > message_bytes_max {
            return Err(TooLarge::Message(bytes, message_bytes_max.saturating_sub(added)));
        }
        Ok(())
    }
}

/// The buffered effects of one call, and what they rest on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    pub reads: BTreeMap<String, Version>,
    /// Final value of each written key; `None`: deleted.
    pub writes: BTreeMap<String, Option<Bytes>>,
    pub emits: Vec<Emit>,
    /// By name, what each timer is set to, with its due time; `None`: it is cancelled.
    pub timers: BTreeMap<String, Option<Emit>>,
    bytes: usize,
}

/// A limit that the call has reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    #[error("a value of {0} bytes is over the limit of {VALUE_BYTES_MAX}")]
    Value(usize),
    #[error("the writes and emitted events of one call are over {EFFECT_BYTES_MAX} bytes together")]
    Bytes,
    #[error(
        "an event with {0} bytes of payload and headers is over the limit of {1}: the server's max_payload, less what the \
         mesh adds"
    )]
    Message(usize, usize),
    #[error("{0} bytes of headers are over the limit of {1}: what JetStream takes, less what the mesh adds")]
    Headers(usize, usize),
    #[error("one call touches more than {EFFECTS_MAX} keys, emitted events and timers, of which a timer counts twice")]
    Count,
}

impl Effects {
    pub fn set(&mut self, key: &str, value: Option<Bytes>) -> Result<(), TooLarge> {
        let length = value.as_ref().map_or(0, Bytes::len);
        if length > VALUE_BYTES_MAX {
            return Err(TooLarge::Value(length));
        }
        self.grow(length + key.len())?;
        self.writes.insert(key.to_owned(), value);
        Ok(())
    }

    pub fn emit(&mut self, emit: Emit) -> Result<(), TooLarge> {
        self.grow(emit.bytes())?;
        self.emits.push(emit);
        Ok(())
    }

    /// Sets a timer, or cancels it.
    pub fn timer(&mut self, name: &str, timer: Option<Emit>) -> Result<(), TooLarge> {
        self.grow(name.len() + timer.as_ref().map_or(0, Emit::bytes))?;
        self.timers.insert(name.to_owned(), timer);
        Ok(())
    }

    pub fn read(&mut self, key: &str, version: Version) -> Result<(), TooLarge> {
        self.grow(0)?;
        self.reads.insert(key.to_owned(), version);
        Ok(())
    }

    /// What a verdict other than `done` keeps: nothing happens, but it still rests on what was read.
    pub fn only_reads(self) -> Effects {
        Effects {
            reads: self.reads,
            ..Effects::default()
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), TooLarge> {
        // A timer is a key and an event.
        if self.reads.len() + self.writes.len() + self.emits.len() + 2 * self.timers.len() >= EFFECTS_MAX {
            return Err(TooLarge::Count);
        }
        if self.bytes + bytes > EFFECT_BYTES_MAX {
            return Err(TooLarge::Bytes);
        }
        self.bytes += bytes;
        Ok(())
    }
}

/// Whether a key may be written: the rule of NATS KV keys
/// (<https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-8.md>), and at most 512 bytes.
pub fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty() {
        return Err("a key is not empty".to_owned());
    }
    if key.len() > 512 {
        return Err(format!("a key of {} bytes is over the limit of 512", key.len()));
    }
    if key.split('.').any(str::is_empty) {
        return Err(format!(
            "`{}`: the parts between dots are not empty",
            key.escape_debug()
        ));
    }
    match key
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || "-_/=.".contains(*c)))
    {
        Some(c) => Err(format!(
            "`{}`: the character {c:?} is not one of A-Z a-z 0-9 - _ / = and .",
            key.escape_debug()
        )),
        None => Ok(()),
    }
}

/// Whether an event may be published on this subject: tokens without spaces, control characters or wildcards.
pub fn check_subject(subject: &str) -> Result<(), String> {
    if subject.len() > 512 {
        return Err(format!("a subject of {} bytes is over the limit of 512", subject.len()));
    }
    if subject.is_empty() {
        return Err("the subject is empty".to_owned());
    }
    if subject.split('.').any(str::is_empty) {
        return Err(format!(
            "`{}`: the parts of a subject between dots are not empty",
            subject.escape_debug()
        ));
    }
    if subject
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || c == '*' || c == '>')
    {
        return Err(format!(
            "`{}`: a subject has no spaces, control characters or wildcards",
            subject.escape_debug()
        ));
    }
    Ok(())
}

/// When an event that is wanted at a time is to be published; `None`: at once, because that time has come.
pub fn due(at_ms: u64, now_ms: u64) -> Result<Option<u64>, String> {
    let Some(delay) = at_ms.checked_sub(now_ms).filter(|delay| *delay > 0) else {
        return Ok(None);
    };
    let days = DELAY_MAX.as_secs() / 86_400;
    if u128::from(delay) > DELAY_MAX.as_millis() {
        let limit = rfc3339(now_ms.saturating_add(u64::try_from(DELAY_MAX.as_millis()).unwrap_or(u64::MAX)));
        return Err(format!(
            "an event can be delayed by at most {days} days, until {limit}; the handler asked for {delay} ms"
        ));
    }
    Ok(Some(at_ms))
}

/// Where `state.get` reads from.
pub trait State: Send + Sync {
    /// The value of a key, or nothing, and which one it is.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Option<Bytes>, Version), String>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_delayed_by_a_year_at_most_and_one_of_the_past_not_at_all() {
        let (now, most) = (1_700_000_000_000, 366 * 86_400_000);
        assert_eq!(due(now + 1, now), Ok(Some(now + 1)));
        assert_eq!(due(now + most, now), Ok(Some(now + most)));
        assert_eq!(
            (due(now, now), due(now - 1, now), due(0, now)),
            (Ok(None), Ok(None), Ok(None))
        );
        for far in [now + most + 1, u64::MAX] {
            let why = due(far, now).unwrap_err();
            assert!(
                why.contains("at most 366 days, until 2024-11-14T22:13:20.000Z"),
                "{why}"
            );
        }
    }

    #[test]
    fn keys_that_nats_refuses_are_refused_here() {
        assert!(["stock.sku-1", "a/b=c_d", "A"].iter().all(|k| check_key(k).is_ok()));
        assert!(
            ["", ".", "a..b", "a.", "a b", "a*", "ü", "a>"]
                .iter()
                .all(|k| check_key(k).is_err())
        );
        assert!(check_key(&"a".repeat(513)).is_err());
    }

    #[test]
    fn an_event_has_room_for_what_the_mesh_adds_to_it_on_the_servers_terms() {
        let emit = |headers: usize, payload: usize, due_ms: Option<u64>| Emit {
            subject: "events.a".to_owned(),
            headers: vec![("Large".to_owned(), "x".repeat(headers))],
            payload: vec![0; payload].into(),
            due_ms,
        };
        // The header's name, its blanks and its version are 21 bytes.
        let (max, most) = (65_536, 65_536 - 1024 - 21);
        assert_eq!(emit(0, most, None).check(max), Ok(()));
        let over = Err(TooLarge::Message(most + 22, max - 1024));
        assert_eq!(emit(0, most + 1, None).check(max), over);
        assert!(
            emit(0, most, Some(1)).check(max).is_err(),
            "a delayed one needs more room"
        );
        assert_eq!(
            emit(0, most + 1, None).check(0),
            Ok(()),
            "the server's limit is not known yet"
        );
        let most = 65_535 - 1024 - 21;
        assert_eq!(emit(most, 0, None).check(1 << 20), Ok(()));
        let over = Err(TooLarge::Headers(most + 22, 65_535 - 1024));
        assert_eq!(emit(most + 1, 0, None).check(1 << 20), over);
    }

    #[test]
    fn a_call_cannot_have_more_effects_than_a_batch_holds() {
        let mut effects = Effects::default();
        assert_eq!(
            effects.set("k", Some(vec![0; VALUE_BYTES_MAX + 1].into())),
            Err(TooLarge::Value(VALUE_BYTES_MAX + 1))
        );
        let half = Bytes::from(vec![0; VALUE_BYTES_MAX]);
        effects.set("k", Some(half.clone())).unwrap();
        assert_eq!(effects.set("l", Some(half)), Err(TooLarge::Bytes));
        let mut effects = Effects::default();
        for i in 0..EFFECTS_MAX {
            effects.read(&i.to_string(), Version::Stored(0)).unwrap();
        }
        assert_eq!(effects.set("k", None), Err(TooLarge::Count));
    }
}
