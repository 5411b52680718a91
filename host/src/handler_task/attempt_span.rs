//! The spans of an attempt, by the conventions of OpenTelemetry for messaging
//! (<https://opentelemetry.io/docs/specs/semconv/messaging/>). They are made when the attempt has ended; only its ids are known before.

use std::time::Instant;

use crate::event::clock::about_us;
use crate::event::outcome::{Cause, Failure, Outcome, Verdict};
use crate::event::subject::subject_matches;
use crate::event::{EventId, Headers, MESSAGE_ID, Message, header};
use crate::handler_task::dead_lettering::Dead;
use crate::handler_task::delivery::{Delivery, Ran};
use crate::ledger::Committed;
use crate::mesh_streams::dead_letter::Body;
use crate::plan::Handler;
use crate::spans::context::{SpanContext, SpanId};
use crate::spans::span::{Attributes, SpanEvent, SpanKind, SpanParent, SpanRecord, SpanValue};
use crate::spans::{self, Beginning, CAUSE_SPAN, COMMIT, PUBLISH, Recorder, TRACEPARENT};
use crate::text::secret::hide;

/// Most lines of a guest in a span; a span has 128 events, as SDKs limit it.
const LINES_MAX: usize = 127;

/// What spans need of a delivery.
#[derive(Clone, Copy)]
pub struct SpannedDelivery<'a> {
    pub message: &'a Message,
    pub delivered: u64,
    pub at: Instant,
    /// By what a replay is answered, which no other delivery has. `None`: it is none.
    pub replay: Option<&'a str>,
}

impl<'a> From<&'a Delivery> for SpannedDelivery<'a> {
    fn from(delivery: &'a Delivery) -> SpannedDelivery<'a> {
        SpannedDelivery {
            message: &delivery.message,
            delivered: delivery.delivered,
            at: delivery.at,
            replay: delivery.replay.as_ref().map(|_| delivery.acker.reply.as_str()),
        }
    }
}

/// The span of an attempt, as far as it is known when its guest begins.
#[derive(Debug, Clone, Copy)]
pub struct AttemptSpan {
    pub context: SpanContext,
    beginning: Beginning,
    /// The span of the event's first attempt, unless this is it.
    first: Option<SpanContext>,
}

impl AttemptSpan {
    /// `None`: nothing is exported. Boxed, so that the future of an event stays small.
    pub fn of(plan: &Handler, delivery: SpannedDelivery<'_>, attempt: u32) -> Option<Box<AttemptSpan>> {
        let recorder = spans::recorder()?;
        let event = delivery.message.event.to_string();
        let beginning = beginning(recorder, plan, &event, delivery.message.header(TRACEPARENT));
        let own = match delivery.replay {
            None => process(plan, &event, &[&attempt.to_string(), &delivery.delivered.to_string()]),
            // A replay may come more often than once.
            Some(reply) => process(plan, &event, &[reply]),
        };
        let (first, own) = (beginning.context(first(plan, &event)), beginning.context(own));
        Some(Box::new(AttemptSpan {
            context: own,
            beginning,
            first: (own != first).then_some(first),
        }))
    }

    /// The headers by which an emitted event with this id belongs to the trace. `None`: it has those of its cause.
    pub fn passed_on(&self, id: &str) -> Option<Vec<(String, String)>> {
        let header = |context: SpanContext| (TRACEPARENT.to_owned(), context.header());
        if !self.context.sampled {
            let begins = self.beginning.parent.is_none();
            return begins.then(|| vec![header(self.context)]);
        }
        // The relay publishes it, and knows from these two which span that is and what its parent is.
        let publish = SpanContext {
            span: SpanId::of(PUBLISH, &[&self.context.span.to_string(), id]),
            ..self.context
        };
        Some(vec![
            header(publish),
            (CAUSE_SPAN.to_owned(), self.context.span.to_string()),
        ])
    }

    /// The spans of an attempt that has ended; the last is the attempt itself.
    pub fn ended(
        &self,
        plan: &Handler,
        delivery: SpannedDelivery<'_>,
        attempt: u32,
        ran: &Ran,
        committed: bool,
    ) -> Option<EndedSpans> {
        let recorder = spans::recorder()?;
        let failure = ran.outcome.failure();
        let failed = failure.is_some() || !committed;
        if !recorder.wants(self.context.sampled, failed) {
            return None;
        }
        let mut spans = vec![self.run(ran)];
        spans.extend(self.commit(plan, ran));
        let message = delivery.message;
        let mut attributes = about_event(plan, &message.event, Some(&message.subject), &message.headers);
        attributes.extend([
            ("messaging.message.body.size", (message.payload.len() as u64).into()),
            ("jetmesh.attempt", u64::from(attempt).into()),
            ("jetmesh.deliveries", delivery.delivered.into()),
            ("jetmesh.module", ran.digest.to_string().into()),
            (
                "jetmesh.outcome",
                if committed { ran.outcome.name() } else { "not-committed" }.into(),
            ),
        ]);
        if ran.reruns > 0 {
            attributes.push(("jetmesh.reruns", u64::from(ran.reruns).into()));
        }
        if delivery.replay.is_some() {
            attributes.push(("jetmesh.replay", true.into()));
        }
        if let Verdict::Dead { cause, .. } = ran.verdict {
            attributes.push(("jetmesh.cause", cause.name().into()));
        }
        let mut events = lines(ran);
        let at_us = about_us(ran.run_ended);
        let mut error = None;
        if let Some(failure) = &failure {
            attributes.push(("error.type", failure.code.as_str().into()));
            events.push(exception(failure, ran.outcome.backtrace(), at_us));
            error = Some(hide(&failure.message));
        } else if !committed {
            attributes.push(("error.type", "not-committed".into()));
            error = Some("its decision was not committed; it comes again".to_owned());
        }
        spans.push(SpanRecord {
            attributes,
            events,
            error,
            dropped_events: ran.lines.len().saturating_sub(LINES_MAX),
            ..self.whole(plan, &message.subject, about_us(delivery.at))
        });
        Some(EndedSpans { recorder, spans })
    }

    fn whole(&self, plan: &Handler, subject: &str, start_us: u64) -> SpanRecord {
        let links = self.beginning.link.into_iter().chain(self.first);
        SpanRecord {
            context: self.context,
            parent: self.beginning.parent.map(|span| SpanParent { span, remote: true }),
            name: format!("process {}", template(plan, subject)),
            kind: SpanKind::Consumer,
            start_us,
            end_us: start_us,
            attributes: Vec::new(),
            events: Vec::new(),
            dropped_events: 0,
            links: links.collect(),
            error: None,
        }
    }

    /// A part of the attempt.
    fn part(
        &self,
        (name, kind): (&'static str, SpanKind),
        (from, to): (Instant, Instant),
        attributes: Attributes,
    ) -> SpanRecord {
        SpanRecord {
            context: SpanContext {
                span: SpanId::of(name, &[&self.context.span.to_string()]),
                ..self.context
            },
            parent: Some(SpanParent {
                span: self.context.span,
                remote: false,
            }),
            name: name.to_owned(),
            kind,
            start_us: about_us(from),
            end_us: about_us(to),
            attributes,
            events: Vec::new(),
            dropped_events: 0,
            links: Vec::new(),
            error: None,
        }
    }

    fn run(&self, ran: &Ran) -> SpanRecord {
        let from = ran.run_ended.checked_sub(ran.took).unwrap_or(ran.run_ended);
        let attributes = vec![("jetmesh.module", ran.digest.to_string().into())];
        let mut span = self.part(("run", SpanKind::Internal), (from, ran.run_ended), attributes);
        if let Outcome::Trap { .. } | Outcome::Timeout { .. } = ran.outcome {
            span.error = ran.outcome.failure().map(|failure| hide(&failure.message));
        }
        span
    }

    /// `None`: nothing was committed.
    fn commit(&self, plan: &Handler, ran: &Ran) -> Option<SpanRecord> {
        let Some(Committed::Here { entry }) = ran.committed else {
            return None;
        };
        let ledger = plan.ledger.as_deref().unwrap_or_default();
        let attributes = vec![
            ("messaging.system", "nats".into()),
            ("messaging.operation.name", COMMIT.into()),
            ("messaging.operation.type", "settle".into()),
            ("jetmesh.ledger", ledger.into()),
            ("jetmesh.entry", entry.into()),
        ];
        Some(self.part((COMMIT, SpanKind::Client), (ran.run_ended, ran.ended), attributes))
    }
}

/// The spans of an attempt, but for the end of the last.
pub struct EndedSpans {
    recorder: &'static Recorder,
    spans: Vec<SpanRecord>,
}

impl EndedSpans {
    /// The server has been answered.
    pub fn record(mut self) {
        if let Some(whole) = self.spans.last_mut() {
            whole.end_us = about_us(Instant::now());
        }
        for span in self.spans {
            self.recorder.record(span);
        }
    }
}

/// An event became a dead letter without an attempt: it was given up, its host ended, or the server has ended its deliveries.
pub fn died(plan: &Handler, event: &EventId, dead: &Dead<'_>, body: Option<&Body>) {
    let Some(recorder) = spans::recorder() else { return };
    let none = Headers::new();
    let headers = body.and_then(|body| body.headers.as_ref().ok()).unwrap_or(&none);
    let subject = body.map(|body| body.subject.as_str());
    let name = event.to_string();
    let beginning = beginning(recorder, plan, &name, header(headers, TRACEPARENT));
    if !recorder.wants(beginning.sampled, true) {
        return;
    }
    let context = beginning.context(SpanId::of("dead-letter", &[&plan.name, &name]));
    let first = (dead.record.attempts > 0).then(|| beginning.context(first(plan, &name)));
    let span = AttemptSpan {
        context,
        beginning,
        first,
    };
    let now_us = about_us(Instant::now());
    let mut attributes = about_event(plan, event, subject, headers);
    attributes.extend([
        ("jetmesh.attempt", SpanValue::from(u64::from(dead.record.attempts))),
        ("jetmesh.cause", Cause::name(dead.cause).into()),
        ("error.type", dead.failure.code.as_str().into()),
    ]);
    let whole = span.whole(plan, subject.unwrap_or_default(), now_us);
    recorder.record(SpanRecord {
        name: whole.name.replacen("process", "dead-letter", 1),
        kind: SpanKind::Internal,
        attributes,
        events: vec![exception(&dead.failure, &[], now_us)],
        error: Some(hide(&dead.failure.message)),
        ..whole
    });
}

fn beginning(recorder: &Recorder, plan: &Handler, event: &str, traceparent: Option<&str>) -> Beginning {
    recorder.beginning(traceparent, &[&plan.stream, event])
}

fn process(plan: &Handler, event: &str, which: &[&str]) -> SpanId {
    SpanId::of("process", &[&[plan.name.as_str(), event], which].concat())
}

fn first(plan: &Handler, event: &str) -> SpanId {
    process(plan, event, &["1", "1"])
}

/// The filter subject by which the handler is given it.
fn template<'a>(plan: &'a Handler, subject: &str) -> &'a str {
    let found = plan.subjects.iter().find(|filter| subject_matches(filter, subject));
    found.map_or(&plan.stream, |filter| filter)
}

fn about_event(plan: &Handler, event: &EventId, subject: Option<&str>, headers: &Headers) -> Attributes {
    let name = event.to_string();
    let message_id = header(headers, MESSAGE_ID).unwrap_or(&name);
    let mut attributes: Attributes = vec![
        ("messaging.system", "nats".into()),
        ("messaging.operation.name", "process".into()),
        ("messaging.operation.type", "process".into()),
        ("messaging.consumer.group.name", plan.consumer.as_str().into()),
        ("messaging.message.id", message_id.into()),
        ("jetmesh.handler", plan.name.as_str().into()),
        ("jetmesh.event_id", name.as_str().into()),
        ("jetmesh.stream", plan.stream.as_str().into()),
        ("jetmesh.sequence", event.sequence.into()),
    ];
    if let Some(subject) = subject {
        attributes.push(("messaging.destination.name", subject.into()));
        attributes.push(("messaging.destination.template", template(plan, subject).into()));
    }
    attributes
}

fn lines(ran: &Ran) -> Vec<SpanEvent> {
    let lines = ran.lines.iter().take(LINES_MAX);
    let events = lines.map(|line| SpanEvent {
        name: "log",
        at_us: about_us(line.at),
        attributes: vec![
            ("log.severity", line.level.as_str().into()),
            ("log.message", hide(&line.text).into()),
        ],
    });
    events.collect()
}

fn exception(failure: &Failure, backtrace: &[String], at_us: u64) -> SpanEvent {
    let mut attributes = vec![
        ("exception.type", SpanValue::from(failure.code.as_str())),
        ("exception.message", hide(&failure.message).into()),
    ];
    if !backtrace.is_empty() {
        attributes.push(("exception.stacktrace", backtrace.join("\n").into()));
    }
    SpanEvent {
        name: "exception",
        at_us,
        attributes,
    }
}
