//! Spans for OpenTelemetry. What makes one hands it to the [`Recorder`], which never waits; a task exports them.

pub mod context;
mod export;
mod otlp;
mod sample;
pub mod span;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::context::{SpanContext, SpanId, TraceId};
pub use self::export::SpanExport;
use self::span::SpanRecord;
use crate::plan::{Otlp, ProducerSpan, Sampler, Spans};

/// How long the end of a host waits for its last spans.
const LAST: Duration = Duration::from_secs(2);

/// The attribute that tells hosts apart.
const INSTANCE: &str = "service.instance.id";

/// Header by which an event belongs to a trace. It is written in small letters, and read in any.
pub const TRACEPARENT: &str = "traceparent";
/// Header of an emitted event: the span of the attempt that has emitted it. The span that its `traceparent` names is then the relay's.
pub const CAUSE_SPAN: &str = "Mesh-Cause-Span";

/// Kinds of spans whose ids several places know.
pub const COMMIT: &str = "commit";
pub const PUBLISH: &str = "publish";

static RECORDER: OnceLock<Recorder> = OnceLock::new();
static EXPORTED: AtomicU64 = AtomicU64::new(0);
/// The queue was full.
static NO_ROOM: AtomicU64 = AtomicU64::new(0);
/// No collector took them.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// What takes spans.
pub struct Recorder {
    queue: mpsc::Sender<Queued>,
    sampler: Sampler,
    producer: ProducerSpan,
    failures: bool,
}

enum Queued {
    Span(Box<SpanRecord>),
    /// All before it is to be exported, and then this is answered.
    Flush(oneshot::Sender<()>),
}

/// `None`: spans are exported nowhere, and none is made.
pub fn recorder() -> Option<&'static Recorder> {
    RECORDER.get()
}

/// Starts recording, once per process. The result is to be run until the process ends. `None`: there is nothing to do.
pub fn start(plan: &Spans, host: &str) -> std::io::Result<Option<SpanExport>> {
    let Some(otlp) = &plan.otlp else { return Ok(None) };
    let mut otlp: Otlp = otlp.clone();
    if !otlp.resource.iter().any(|(key, _)| key == INSTANCE) {
        otlp.resource.push((INSTANCE.to_owned(), host.to_owned()));
    }
    let (queue, spans) = mpsc::channel(otlp.batch.queue_max);
    let export = SpanExport::new(&otlp, spans)?;
    let recorder = Recorder {
        queue,
        sampler: otlp.sampler,
        producer: plan.producer,
        failures: plan.failures,
    };
    Ok(RECORDER.set(recorder).is_ok().then_some(export))
}

/// Exports what waits, for a limited time. At the end of a host.
pub async fn flush() {
    let Some(recorder) = recorder() else { return };
    let (done, ended) = oneshot::channel();
    let flushed = async {
        let _ = recorder.queue.send(Queued::Flush(done)).await;
        let _ = ended.await;
    };
    if tokio::time::timeout(LAST, flushed).await.is_err() {
        let waiting = recorder.queue.max_capacity() - recorder.queue.capacity();
        tracing::warn!(
            waiting,
            "the last spans were not exported: the collector did not take them in time"
        );
    }
}

/// Spans that a collector has taken since the start.
pub fn exported() -> u64 {
    EXPORTED.load(Ordering::Relaxed)
}

/// Spans that are lost: the queue was full, or no collector took them.
pub fn dropped() -> u64 {
    NO_ROOM.load(Ordering::Relaxed) + REFUSED.load(Ordering::Relaxed)
}

/// Where the span of an event begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    pub trace: TraceId,
    pub sampled: bool,
    /// The span of the producer, as its parent.
    pub parent: Option<SpanId>,
    /// The same, linked.
    pub link: Option<SpanContext>,
}

impl Beginning {
    /// A span of this trace.
    pub fn context(&self, span: SpanId) -> SpanContext {
        SpanContext {
            trace: self.trace,
            span,
            sampled: self.sampled,
        }
    }
}

impl Recorder {
    /// `traceparent`: that of the event. `own`: what names a trace that begins here.
    pub fn beginning(&self, traceparent: Option<&str>, own: &[&str]) -> Beginning {
        let producer = traceparent.and_then(SpanContext::parse);
        let parent = producer.filter(|_| self.producer == ProducerSpan::Parent);
        let trace = parent.map_or_else(|| TraceId::of(own), |parent| parent.trace);
        Beginning {
            trace,
            sampled: sample::is_sampled(self.sampler, parent.as_ref(), trace),
            parent: parent.map(|parent| parent.span),
            link: producer.filter(|_| parent.is_none()),
        }
    }

    /// Whether a span is to be made. `failed`: of something that has failed.
    pub fn wants(&self, sampled: bool, failed: bool) -> bool {
        sampled || (failed && self.failures)
    }

    /// Never waits.
    pub fn record(&self, span: SpanRecord) {
        if self.queue.try_send(Queued::Span(Box::new(span))).is_err() {
            NO_ROOM.fetch_add(1, Ordering::Relaxed);
        }
    }
}
