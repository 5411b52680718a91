//! One event whose spans are made again and again, for a benchmark of what that costs.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::{self, Overrides};
use crate::event::outcome::{Outcome, Verdict};
use crate::event::{EventId, Headers, Message};
use crate::handler_task::attempt_span::{AttemptSpan, SpannedDelivery};
use crate::handler_task::delivery::Ran;
use crate::ledger::Committed;
use crate::plan::{Handler, Otlp, OtlpEndpoint, OtlpProtocol, ProducerSpan, Sampler, SpanBatch, Spans};
use crate::spans;
use crate::wasm::source::{ModuleDigest, ModuleHash};

/// An event of the first handler of a configuration.
pub struct SpannedEvent {
    plan: Handler,
    message: Message,
    ran: Ran,
}

impl SpannedEvent {
    /// An event with this id and these headers. `None`: there is no such configuration, or this is no id.
    pub fn new(config: &Path, id: &str, headers: Headers) -> Option<SpannedEvent> {
        let loaded = config::look(Some(config), &Overrides::default()).ok()?;
        let now = Instant::now();
        Some(SpannedEvent {
            plan: loaded.plan.handlers.into_iter().next()?,
            message: Message {
                event: EventId::parse(id)?,
                subject: "orders.created".to_owned(),
                headers,
                payload: bytes::Bytes::from_static(&[b'x'; 300]),
                time_ms: 0,
            },
            ran: Ran {
                outcome: Outcome::Done,
                verdict: Verdict::Done,
                committed: Some(Committed::Here { entry: 1 }),
                lines: Vec::new(),
                took: Duration::from_micros(20),
                run_ended: now,
                ended: now + Duration::from_micros(300),
                reruns: 0,
                digest: ModuleDigest::from(ModuleHash::of(&[])),
                seed: None,
            },
        })
    }

    /// Does for its spans what `handler_task` does for those of an attempt.
    pub fn handle(&self) {
        let delivery = SpannedDelivery {
            message: &self.message,
            delivered: 1,
            at: self.ran.run_ended,
            replay: None,
        };
        let span = AttemptSpan::of(&self.plan, delivery, 1);
        if let Some(spans) = span.and_then(|span| span.ended(&self.plan, delivery, 1, &self.ran, true)) {
            spans.record();
        }
    }

    /// From now on spans are exported over HTTP, for as long as this is polled; so many may wait.
    pub async fn export(to: SocketAddr, queue_max: usize) {
        let plan = Spans {
            producer: ProducerSpan::Parent,
            failures: true,
            otlp: Some(Otlp {
                protocol: OtlpProtocol::Http,
                endpoint: OtlpEndpoint {
                    tls: false,
                    host: to.ip().to_string(),
                    port: to.port(),
                    path: "/v1/traces".to_owned(),
                },
                headers: Vec::new(),
                timeout: Duration::from_secs(10),
                ca: None,
                resource: Vec::new(),
                sampler: Sampler {
                    by_parent: true,
                    ratio: 1.0,
                },
                batch: SpanBatch {
                    queue_max,
                    export_max: 512,
                    delay: Duration::from_millis(50),
                    timeout: Duration::from_secs(30),
                },
            }),
        };
        if let Ok(Some(export)) = spans::start(&plan, "benchmark") {
            export.run().await;
        }
    }

    /// Spans that were exported, and dropped.
    pub fn counted() -> (u64, u64) {
        (spans::exported(), spans::dropped())
    }

    /// Whether spans are made by now.
    pub fn is_exported() -> bool {
        spans::recorder().is_some()
    }
}
