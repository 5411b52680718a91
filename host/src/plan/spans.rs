//! Spans for OpenTelemetry: which there are, and where they go.

use std::path::PathBuf;
use std::time::Duration;

/// What the configuration says of spans.
#[derive(Debug, Clone, PartialEq)]
pub struct Spans {
    pub producer: ProducerSpan,
    /// Whether spans of what fails are exported although their trace is not sampled.
    pub failures: bool,
    /// `None`: nothing is exported.
    pub otlp: Option<Otlp>,
}

/// What the span of a producer is to the span of a handler that processes the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerSpan {
    /// Its parent: both are in one trace.
    Parent,
    /// Linked: the handler's span begins a trace.
    Link,
}

impl ProducerSpan {
    pub const WORDS: [(&'static str, ProducerSpan); 2] =
        [("parent", ProducerSpan::Parent), ("link", ProducerSpan::Link)];

    pub fn word(self) -> &'static str {
        match self {
            ProducerSpan::Parent => "parent",
            ProducerSpan::Link => "link",
        }
    }
}

/// What the `OTEL_…` variables say.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    pub protocol: OtlpProtocol,
    pub endpoint: OtlpEndpoint,
    /// Sent with each request. They may be secret.
    pub headers: Vec<(String, String)>,
    /// For one request.
    pub timeout: Duration,
    /// Certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Attributes of this host.
    pub resource: Vec<(String, String)>,
    pub sampler: Sampler,
    pub batch: SpanBatch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    Grpc,
    Http,
}

impl OtlpProtocol {
    pub fn word(self) -> &'static str {
        match self {
            OtlpProtocol::Grpc => "grpc",
            OtlpProtocol::Http => "http/protobuf",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpEndpoint {
    pub tls: bool,
    /// An IPv6 address without brackets.
    pub host: String,
    pub port: u16,
    /// With a `/` at its begin.
    pub path: String,
}

/// Which traces are sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// A trace that has begun elsewhere is sampled as it was there.
    pub by_parent: bool,
    /// Which part of all other traces, by their ids, 0 to 1.
    pub ratio: f64,
}

/// How spans are collected before they are exported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpanBatch {
    /// Most spans that wait.
    pub queue_max: usize,
    /// Most spans in one request.
    pub export_max: usize,
    /// How long a span waits for others.
    pub delay: Duration,
    /// How long one batch is tried, with all of its retries.
    pub timeout: Duration,
}
