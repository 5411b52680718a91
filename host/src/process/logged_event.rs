//! The event that a log line is about: each line that is written while an event is handled names it, also a line of a library.

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::event::EventId;
use crate::plan::Handler;
use crate::spans::context::{SpanId, TraceId};

tokio::task_local! {
    static EVENT: LoggedEvent;
}

/// An event that is handled.
struct LoggedEvent {
    handler: Arc<Handler>,
    event: EventId,
    /// Once it is known.
    attempt: Cell<Option<LoggedAttempt>>,
}

/// What a line says of an attempt.
#[derive(Clone, Copy)]
pub struct LoggedAttempt {
    pub number: u32,
    pub trace: Option<TraceId>,
    pub span: Option<SpanId>,
}

static SAYS_TRACES: AtomicBool = AtomicBool::new(false);

/// Whether lines name traces, as they do in JSON.
pub fn says_traces() -> bool {
    SAYS_TRACES.load(Ordering::Relaxed)
}

/// The log has such lines.
pub fn say_traces() {
    SAYS_TRACES.store(true, Ordering::Relaxed);
}

/// Handles an event: the lines that it writes name it.
///
/// # Cancel safety
/// That of `handled`.
pub fn about<F: Future>(
    handler: &Arc<Handler>,
    event: &EventId,
    handled: F,
) -> impl Future<Output = F::Output> + use<F> {
    let logged = LoggedEvent {
        handler: Arc::clone(handler),
        event: event.clone(),
        attempt: Cell::new(None),
    };
    EVENT.scope(logged, handled)
}

/// The lines from here on are about this attempt at the event that is handled.
pub fn attempt(attempt: LoggedAttempt) {
    // Outside of a handler there is no event.
    let _ = EVENT.try_with(|event| event.attempt.set(Some(attempt)));
}

/// Writes the lines of another format, with what is known of the event that is handled and is not in the line.
pub struct WithEvent<F> {
    pub lines: F,
    pub json: bool,
}

impl<S, N, F> FormatEvent<S, N> for WithEvent<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        let has = |name: &str| event.metadata().fields().field(name).is_some();
        // Outside of a handler there is nothing to add.
        let _ = EVENT.try_with(|logged| logged.add(self.json, has, &mut line));
        out.write_str(&line)
    }
}

impl LoggedEvent {
    /// To the end of a line, which is a line feed, and in JSON a brace before it.
    fn add(&self, json: bool, has: impl Fn(&str) -> bool, line: &mut String) {
        let end = if json { "}\n" } else { "\n" };
        if !line.ends_with(end) {
            return;
        }
        line.truncate(line.len() - end.len());
        let mut add = |name: &str, value: &dyn std::fmt::Display, quote: &str| {
            if !has(name) {
                // Writing to a String cannot fail. None of the values has anything that JSON would escape.
                let _ = match json {
                    true => write!(line, ",\"{name}\":{quote}{value}{quote}"),
                    false => write!(line, " {name}={value}"),
                };
            }
        };
        add("handler", &self.handler.name, "\"");
        add("event", &self.event, "\"");
        if let Some(LoggedAttempt { number, trace, span }) = self.attempt.get() {
            add("attempt", &number, "");
            if let Some(trace) = trace.filter(|_| json) {
                add("trace_id", &trace, "\"");
            }
            if let Some(span) = span.filter(|_| json) {
                add("span_id", &span, "\"");
            }
        }
        line.push_str(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spans::context::SpanContext;

    #[test]
    fn a_line_gets_what_it_does_not_say_of_its_event() {
        let text = "[handlers.points]\nmodule = \"points.wasm\"\nstream = \"ORDERS\"\n";
        let plan = crate::config::parse(text, std::path::Path::new("")).expect("it is valid");
        let parent =
            SpanContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").expect("it is valid");
        let logged = LoggedEvent {
            handler: Arc::new(plan.handlers[0].clone()),
            event: EventId::of_test(7),
            attempt: Cell::new(None),
        };
        let added = |json, has: &[&str], line: &str| {
            let mut line = line.to_owned();
            logged.add(json, |name| has.contains(&name), &mut line);
            line
        };
        assert_eq!(
            added(true, &["handler"], "{\"handler\":\"x\"}\n"),
            "{\"handler\":\"x\",\"event\":\"k.7\"}\n"
        );
        logged.attempt.set(Some(LoggedAttempt {
            number: 2,
            trace: Some(parent.trace),
            span: Some(parent.span),
        }));
        assert_eq!(
            added(false, &["event"], "INFO hm event=k.7\n"),
            "INFO hm event=k.7 handler=points attempt=2\n"
        );
        assert_eq!(
            added(true, &["handler", "event", "attempt"], "{\"attempt\":2}\n"),
            "{\"attempt\":2,\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"span_id\":\"00f067aa0ba902b7\"}\n"
        );
        assert_eq!(added(true, &[], "not a line"), "not a line");
    }
}
