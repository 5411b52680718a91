//! The span of a publication: from when the relay publishes an event until its target has stored it. The attempt that has emitted the
//! event has given it its ids, in headers.

use std::time::Instant;

use crate::event::clock::about_us;
use crate::event::subject::subject_matches;
use crate::event::{Headers, header};
use crate::plan::Plan;
use crate::spans::context::{SpanContext, SpanId, span_id};
use crate::spans::span::{Attributes, SpanKind, SpanParent, SpanRecord};
use crate::spans::{self, CAUSE_SPAN, COMMIT, PUBLISH, TRACEPARENT};

/// A publication under way.
#[derive(Debug)]
pub struct PublishSpan {
    context: SpanContext,
    cause: SpanId,
    /// The pattern of the handler's grant; `None`: this host does not know the handler.
    template: Option<String>,
    attributes: Attributes,
    began: Instant,
}

impl PublishSpan {
    /// `None`: nothing is exported, or the event has no ids for this.
    pub fn of(plan: &Plan, (id, subject): (&str, &str), headers: &Headers) -> Option<Box<PublishSpan>> {
        spans::recorder()?;
        let cause = span_id(header(headers, CAUSE_SPAN)?)?;
        let context = SpanContext::parse(header(headers, TRACEPARENT)?)?;
        // A handler may have set it to something else.
        if context.span != SpanId::of(PUBLISH, &[&cause.to_string(), id]) {
            return None;
        }
        let handler = header(headers, "Mesh-Cause-Handler").unwrap_or_default();
        let known = plan.handlers.iter().find(|known| known.name == handler);
        let grants = known.map_or(&[][..], |known| &known.publish);
        let template = grants.iter().find(|grant| subject_matches(grant, subject)).cloned();
        let mut attributes: Attributes = vec![
            ("messaging.system", "nats".into()),
            ("messaging.operation.name", "publish".into()),
            ("messaging.operation.type", "send".into()),
            ("messaging.destination.name", subject.into()),
            ("messaging.message.id", id.into()),
            ("jetmesh.handler", handler.into()),
        ];
        if let Some(template) = &template {
            attributes.push(("messaging.destination.template", template.as_str().into()));
        }
        Some(Box::new(PublishSpan {
            context,
            cause,
            template,
            attributes,
            began: Instant::now(),
        }))
    }

    /// It is delayed until then.
    pub fn due(&mut self, due: &str) {
        self.attributes.push(("jetmesh.due", due.into()));
    }

    /// It is stored in this stream; or it never will be, for this reason.
    pub fn record(mut self, stream: Option<&str>, error: Option<&str>) {
        let Some(recorder) = spans::recorder().filter(|one| one.wants(self.context.sampled, error.is_some())) else {
            return;
        };
        if let Some(stream) = stream {
            self.attributes.push(("jetmesh.stream", stream.into()));
        }
        if error.is_some() {
            self.attributes.push(("error.type", "undeliverable".into()));
        }
        let name = self.template.as_deref().or(stream).unwrap_or_default();
        recorder.record(SpanRecord {
            context: self.context,
            parent: Some(SpanParent {
                span: self.cause,
                remote: true,
            }),
            name: format!("publish {name}").trim_end().to_owned(),
            kind: SpanKind::Producer,
            start_us: about_us(self.began),
            end_us: about_us(Instant::now()),
            attributes: self.attributes,
            events: Vec::new(),
            dropped_events: 0,
            links: vec![SpanContext {
                span: SpanId::of(COMMIT, &[&self.cause.to_string()]),
                ..self.context
            }],
            error: error.map(crate::text::secret::hide),
        });
    }
}
