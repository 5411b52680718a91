//! One event as it came from its stream, and the names it is known by.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub mod subject;
pub mod timer;

use async_nats::HeaderMap;
use bytes::Bytes;

pub mod clock;
pub mod effects;
pub mod outcome;

/// Headers in the order of their names; the values of one name keep their order.
pub type Headers = Vec<(String, String)>;

/// Which event it is: the incarnation of its source stream and its sequence there (see `ledger::incarnation`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId {
    pub incarnation: Arc<str>,
    pub sequence: u64,
}

/// The sequence alone: a stream has few incarnations, so few events have the same one.
impl Hash for EventId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sequence.hash(state);
    }
}

impl EventId {
    /// Reads `<incarnation>.<sequence>`.
    pub fn parse(text: &str) -> Option<EventId> {
        let (incarnation, sequence) = EventId::parts(text)?;
        Some(EventId {
            incarnation: incarnation.into(),
            sequence,
        })
    }

    /// Its incarnation and sequence, if it reads as one.
    pub fn parts(text: &str) -> Option<(&str, u64)> {
        let (incarnation, sequence) = text.split_once('.')?;
        let named = (1..=32).contains(&incarnation.len()) && incarnation.bytes().all(|b| b.is_ascii_alphanumeric());
        Some((incarnation, sequence.parse().ok()?)).filter(|_| named)
    }
}

#[cfg(test)]
impl EventId {
    /// An event of the tests' one stream.
    pub fn of_test(sequence: u64) -> EventId {
        EventId {
            incarnation: "k".into(),
            sequence,
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.sequence)
    }
}

/// A message of a source stream.
#[derive(Debug, Clone)]
pub struct Message {
    pub event: EventId,
    pub subject: String,
    pub headers: Headers,
    pub payload: Bytes,
    /// When the stream stored it, in milliseconds since the Unix epoch.
    pub time_ms: u64,
}

impl Message {
    /// The first value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The trace id of a W3C `traceparent` header (<https://www.w3.org/TR/trace-context/>).
    pub fn trace_id(&self) -> Option<&str> {
        let id = self.header("traceparent")?.split('-').nth(1)?;
        (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
    }
}

/// Header of an emitted event: how many handlers of the mesh stand between it and an event from outside.
pub const HOPS: &str = "Mesh-Hops";
/// Header by which JetStream knows a publisher's repetition, for its duplicate window only, and a relay what it has published.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";

/// The first value of a header, whatever the case of its name.
pub fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.as_str())
}

/// Most bytes that JetStream takes for the headers of a message, as [`header_bytes`] counts them: it keeps their length in
/// 16 bits (<https://github.com/nats-io/nats-server/blob/main/server/stream.go>, `MaxUint16`).
pub const HEADER_BYTES_MAX: usize = 65_535;

/// How many bytes headers are on the wire.
pub fn header_bytes(headers: &Headers) -> usize {
    "NATS/1.0\r\n\r\n".len() + headers.iter().map(bytes_of).sum::<usize>()
}

/// How many bytes one of them is.
pub fn bytes_of((name, value): &(String, String)) -> usize {
    name.len() + value.len() + ": \r\n".len()
}

/// Checks a header of an emitted event: the server and every client must be able to read it, and it must not look like one of the server's or the
/// mesh's.
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
    if value.chars().any(|c| c == '\r' || c == '\n' || c == '\0') {
        return Err(format!("`{name}`: a header's value is one line"));
    }
    Ok(())
}

/// Headers for the client library. `Err` names the one that it refuses.
pub fn header_map(headers: &Headers) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let refused = || format!("the header {} cannot be written", name.escape_debug());
        let name: async_nats::HeaderName = name.parse().map_err(|_| refused())?;
        let value: async_nats::HeaderValue = value.parse().map_err(|_| refused())?;
        map.append(name, value);
    }
    Ok(map)
}

/// The same, without those that it refuses.
pub fn writable(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (
            name.parse::<async_nats::HeaderName>(),
            value.parse::<async_nats::HeaderValue>(),
        ) {
            map.append(name, value);
        }
    }
    map
}

/// Headers of the client library as a list.
pub fn headers_of(map: Option<&HeaderMap>) -> Headers {
    map.map_or_else(Headers::new, |map| headers_as(map, |name| Some(name)))
}

/// Those that have a name, under that one.
pub fn headers_as(map: &HeaderMap, named: impl Fn(&str) -> Option<&str>) -> Headers {
    let mut headers = Headers::new();
    for (name, values) in map.iter() {
        if let Some(name) = named(name.as_ref()) {
            headers.extend(values.iter().map(|value| (name.to_owned(), value.as_str().to_owned())));
        }
    }
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers
}

/// The fields of a delivery's reply subject (ADR-15: `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer
/// sequence>.<time in ns>.<pending>`, with domain and account hash before the stream in the second form).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryInfo {
    /// 1 for the first delivery.
    pub delivered: u64,
    pub stream_sequence: u64,
    /// Grows with each delivery of a consumer, and starts again when the consumer is deleted and created again.
    pub consumer_sequence: u64,
    pub time_ms: u64,
    /// How many matching messages come after it.
    pub pending: u64,
}

impl DeliveryInfo {
    pub fn parse(reply: &str) -> Option<DeliveryInfo> {
        let rest = reply.strip_prefix("$JS.ACK.")?;
        let rest = rest.as_bytes();
        let dots = rest.iter().filter(|b| **b == b'.').count();
        let mut facts = rest.split(|b| *b == b'.').skip(if dots >= 8 { 4 } else { 2 });
        let delivered = number(facts.next()?)?;
        let stream_sequence = number(facts.next()?)?;
        let consumer_sequence = number(facts.next()?)?;
        let time_ns = number(facts.next()?)?;
        let pending = number(facts.next()?)?;
        Some(DeliveryInfo {
            delivered,
            stream_sequence,
            consumer_sequence,
            time_ms: time_ns / 1_000_000,
            pending,
        })
    }
}

/// Decimal digits, and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// A time as people and NATS write it: RFC 3339 in UTC, with milliseconds.
pub fn rfc3339(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| "?".to_owned(), |t| format!("{t:.3}"))
}

/// Reads an RFC 3339 time as milliseconds since the Unix epoch.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_reply_subject_are_read() {
        let old = DeliveryInfo::parse("$JS.ACK.ORDERS.inventory.3.17.20.1700000000123456789.5").unwrap();
        let new = DeliveryInfo::parse("$JS.ACK._.szMpdrwD.ORDERS.inventory.3.17.20.1700000000123456789.5.r").unwrap();
        assert_eq!(
            old,
            DeliveryInfo {
                delivered: 3,
                stream_sequence: 17,
                consumer_sequence: 20,
                time_ms: 1_700_000_000_123,
                pending: 5
            }
        );
        assert_eq!(old, new);
        assert_eq!(DeliveryInfo::parse("_INBOX.1"), None);
    }

    #[test]
    fn event_ids_read_back_and_refuse_what_could_not_stand_in_a_subject() {
        let id = EventId {
            incarnation: "k3f9".into(),
            sequence: 17,
        };
        assert_eq!(EventId::parse(&id.to_string()), Some(id));
        for bad in ["", "k", "k.", ".5", "k.x", "*.5", "a b.5", "k.5.6"] {
            assert_eq!(EventId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_read_back() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(parse_rfc3339("2023-11-14T22:13:20.123Z"), Some(1_700_000_000_123));
    }
}
