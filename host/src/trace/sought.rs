//! What a person knows of an event whose id is not known: a field of its payload, its subject, or its trace.

use std::fmt;

use super::field::Json;
use super::reading::Seen;
use crate::event::header;
use crate::event::subject::subject_matches;
use crate::spans::TRACEPARENT;
use crate::spans::context::{SpanContext, TraceId};

/// Which events are searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    Key(Key),
    /// Those of a trace of OpenTelemetry, by the header `traceparent`.
    Trace(TraceId),
    /// A pattern.
    Subject(String),
}

impl fmt::Display for Sought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sought::Key(key) => key.fmt(f),
            Sought::Trace(trace) => write!(f, "the trace id {trace}"),
            Sought::Subject(subject) => write!(f, "the subject {subject}"),
        }
    }
}

/// Reads a trace id, as logs and collectors print it.
///
/// # Errors
/// It is none; names the rule.
pub fn trace_id(text: &str) -> Result<TraceId, String> {
    TraceId::parse(&text.to_ascii_lowercase())
        .ok_or_else(|| "not a trace id, which is 32 hex digits that are not all zero".to_owned())
}

impl Sought {
    /// Whether payloads have to be read.
    pub(super) fn is_in_payloads(&self) -> bool {
        matches!(self, Sought::Key(_))
    }

    /// `None`: it cannot be told, because the payload is no JSON.
    pub(super) fn is(&self, seen: &Seen) -> Option<bool> {
        match self {
            Sought::Key(key) => key.is_in(&seen.payload),
            Sought::Subject(pattern) => Some(subject_matches(pattern, &seen.subject)),
            Sought::Trace(trace) => {
                let context = header(&seen.headers, TRACEPARENT).and_then(SpanContext::parse);
                Some(context.is_some_and(|context| context.trace == *trace))
            }
        }
    }
}

/// A field of a JSON payload, and its value as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    field: String,
    value: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.field, self.value)
    }
}

impl Key {
    /// Reads `field=value`.
    pub fn parse(text: &str) -> Result<Key, String> {
        match text.split_once('=') {
            Some((field, value)) if !field.is_empty() => Ok(Key {
                field: field.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err("not field=value, such as order_id=42".to_owned()),
        }
    }

    /// The field is one of the object's own or, with dots, a path into it; a number in the path is a place in a list.
    /// `None`: the payload is no JSON.
    pub fn is_in(&self, payload: &[u8]) -> Option<bool> {
        let payload = Json::read(payload)?;
        let is = |found: Json<'_>| found.is(&self.value);
        let path = || self.field.split('.').try_fold(payload, Json::step);
        Some(payload.step(&self.field).is_some_and(is) || path().is_some_and(is))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_event_is_found_by_its_subject_and_by_its_trace() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let seen = |headers: &[(&str, &str)]| Seen {
            sequence: 1,
            subject: "orders.created".to_owned(),
            time_ms: 0,
            headers: headers
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            payload: Bytes::from_static(b"no json"),
        };
        let traced = seen(&[("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))]);
        let of = |text: &str| Sought::Trace(trace_id(text).expect("it is valid"));
        assert_eq!(of(trace).is(&traced), Some(true));
        assert_eq!(of(&trace.to_uppercase()).is(&traced), Some(true));
        assert_eq!(of(&trace.replace('4', "5")).is(&traced), Some(false));
        assert_eq!(of(trace).is(&seen(&[])), Some(false));
        for (pattern, is) in [
            ("orders.created", true),
            ("orders.*", true),
            (">", true),
            ("orders", false),
        ] {
            assert_eq!(Sought::Subject(pattern.to_owned()).is(&traced), Some(is), "{pattern}");
        }
        assert!(trace_id("4bf9").is_err() && trace_id(&"0".repeat(32)).is_err());
    }

    #[test]
    fn a_key_is_a_field_or_a_path_and_its_value_is_what_json_says() {
        let payload = br#"{"order_id":"42","n":42,"paid":true,"user":{"id":"u-7"},"a.b":"c","lines":[{"sku":"s-1"}]}"#;
        let has = |text: &str| Key::parse(text).unwrap().is_in(payload).unwrap();
        for yes in [
            "order_id=42",
            "n=42",
            "paid=true",
            "user.id=u-7",
            "a.b=c",
            "lines.0.sku=s-1",
        ] {
            assert!(has(yes), "{yes}");
        }
        for no in [
            "order_id=4",
            "order=42",
            "user={}",
            "user.id=u",
            "lines.1.sku=s-1",
            "a.c=c",
        ] {
            assert!(!has(no), "{no}");
        }
        assert_eq!(Key::parse("n=42").unwrap().is_in(b"no json"), None);
        assert!(Key::parse("n").is_err() && Key::parse("=1").is_err());
        assert_eq!(Key::parse("q=a=b").unwrap().is_in(br#"{"q":"a=b"}"#), Some(true));
    }

    #[test]
    fn a_number_is_found_as_it_is_written_or_as_it_is_usually_written() {
        let payload = "\u{feff} { \"price\" : 12.50, \"id\": 98765432109876543210987, \"big\": 18446744073709551616 } ";
        let has = |text: &str| Key::parse(text).unwrap().is_in(payload.as_bytes()).unwrap();
        for yes in [
            "price=12.50",
            "price=12.5",
            "id=98765432109876543210987",
            "big=18446744073709551616",
        ] {
            assert!(has(yes), "{yes}");
        }
        for no in [
            "price=12",
            "price=12.500",
            "id=98765432109876543210986",
            "big=18446744073709551615",
        ] {
            assert!(!has(no), "{no}");
        }
    }

    #[test]
    fn nothing_is_too_deep() {
        let (open, close) = ("{\"a\":[".repeat(10_000), "]}".repeat(10_000));
        let payload = format!("{{\"deep\":{open}7{close},\"id\":\"x\"}}");
        let key = Key::parse("id=x").unwrap();
        assert_eq!(key.is_in(payload.as_bytes()), Some(true));
        let path = format!("deep{}=7", ".a.0".repeat(500));
        assert_eq!(Key::parse(&path).unwrap().is_in(payload.as_bytes()), Some(false));
    }
}
