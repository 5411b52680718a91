//! A span, ready to be exported: what OpenTelemetry calls one.

use super::context::{SpanContext, SpanId};

/// As OpenTelemetry numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    Internal = 1,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SpanValue {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl From<&str> for SpanValue {
    fn from(text: &str) -> SpanValue {
        SpanValue::Text(text.to_owned())
    }
}

impl From<String> for SpanValue {
    fn from(text: String) -> SpanValue {
        SpanValue::Text(text)
    }
}

impl From<u64> for SpanValue {
    fn from(number: u64) -> SpanValue {
        SpanValue::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for SpanValue {
    fn from(flag: bool) -> SpanValue {
        SpanValue::Flag(flag)
    }
}

/// Names are fixed: nothing of an event becomes one.
pub type Attributes = Vec<(&'static str, SpanValue)>;

#[derive(Debug, Clone, PartialEq)]
pub struct SpanRecord {
    pub context: SpanContext,
    pub parent: Option<SpanParent>,
    pub name: String,
    pub kind: SpanKind,
    /// In microseconds since the Unix epoch.
    pub start_us: u64,
    pub end_us: u64,
    pub attributes: Attributes,
    pub events: Vec<SpanEvent>,
    /// Events beyond the limit.
    pub dropped_events: usize,
    pub links: Vec<SpanContext>,
    /// Why it failed.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanParent {
    pub span: SpanId,
    /// It is of another process, as far as is known.
    pub remote: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SpanEvent {
    pub name: &'static str,
    pub at_us: u64,
    pub attributes: Attributes,
}
