//! Where in a trace something is, and by which ids. Pure.
//!
//! The ids of a span come from what it is about, so every host that handles an event has the same ones for the same attempt, and none
//! is stored.

use std::fmt;

use sha2::{Digest as _, Sha256};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(pub [u8; 8]);

/// A span, as a `traceparent` header names it (<https://www.w3.org/TR/trace-context/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    pub trace: TraceId,
    pub span: SpanId,
    pub sampled: bool,
}

impl TraceId {
    /// That of a trace which begins with this.
    pub fn of(parts: &[&str]) -> TraceId {
        let mut id = [0; 16];
        id.copy_from_slice(&hash("trace", parts)[..16]);
        TraceId(id)
    }

    /// One that is written out. `None`: it is not valid.
    pub fn parse(text: &str) -> Option<TraceId> {
        bytes(text).filter(|id| *id != [0; 16]).map(TraceId)
    }
}

impl SpanId {
    pub fn of(kind: &str, parts: &[&str]) -> SpanId {
        let mut id = [0; 8];
        id.copy_from_slice(&hash(kind, parts)[..8]);
        SpanId(id)
    }
}

/// An id is never zero: that is none.
fn hash(kind: &str, parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(kind);
    for part in parts {
        hash.update([0]);
        hash.update(part);
    }
    let mut id: [u8; 32] = hash.finalize().into();
    id[0] |= u8::from(id[..8] == [0; 8]);
    id
}

impl SpanContext {
    /// Reads a header. `None`: it is not valid, and then it counts as not there.
    pub fn parse(header: &str) -> Option<SpanContext> {
        let mut parts = header.trim().split('-');
        let version = bytes::<1>(parts.next()?)?;
        let (trace, span, [flags]) = (bytes(parts.next()?)?, bytes(parts.next()?)?, bytes::<1>(parts.next()?)?);
        // Later versions may have more.
        let whole = version != [0xff] && (version != [0] || parts.next().is_none());
        (whole && trace != [0; 16] && span != [0; 8]).then_some(SpanContext {
            trace: TraceId(trace),
            span: SpanId(span),
            sampled: flags & 1 == 1,
        })
    }

    /// The header.
    pub fn header(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// A span id that is written out.
pub fn span_id(text: &str) -> Option<SpanId> {
    bytes(text).map(SpanId)
}

/// Small hex digits, exactly as many as are needed.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_the_recommendation_says_and_written_again() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = SpanContext::parse(text).expect("it is valid");
        assert_eq!((context.header().as_str(), context.sampled), (text, true));
        let later = text.replace("00-4", "01-4") + "-more";
        assert_eq!(SpanContext::parse(&later), Some(context));
        let unsampled = SpanContext::parse(&text.replace("-01", "-02")).expect("it is valid");
        assert!(!unsampled.sampled);
        let invalid = [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-é4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
        ];
        for text in invalid {
            assert_eq!(SpanContext::parse(text), None, "{text}");
        }
    }

    #[test]
    fn ids_come_from_what_a_span_is_about_alone() {
        assert_eq!(TraceId::of(&["a", "b"]), TraceId::of(&["a", "b"]));
        assert_ne!(TraceId::of(&["a", "b"]), TraceId::of(&["ab"]));
        assert_ne!(SpanId::of("run", &["a"]), SpanId::of("commit", &["a"]));
        assert_eq!(SpanId::of("run", &["a"]).to_string(), "45a767811a72ca88");
    }
}
