//! Where log lines go: standard error, as text or JSON, one line each.

use tracing_subscriber::EnvFilter;

use crate::plan::{Log, LogFormat};

#[derive(Debug, thiserror::Error)]
#[error("log.filter: {0}")]
pub struct Error(String);

/// Starts logging; once per process.
pub fn start(log: &Log) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|e| Error(e.to_string()))?;
    // The client logs each of its reconnects as an error; the mesh says it once, with what it means.
    let filter = filter.add_directive("async_nats=off".parse().map_err(|e| Error(format!("{e}")))?);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => {
            use std::io::IsTerminal as _;
            lines
                .with_ansi(std::io::stderr().is_terminal())
                .with_target(false)
                .with_timer(Clock)
                .init();
        }
        LogFormat::Json => lines.json().flatten_event(true).with_timer(Clock).init(),
    }
    Ok(())
}

/// RFC 3339 in UTC with milliseconds, like every other time that the mesh writes.
struct Clock;

impl tracing_subscriber::fmt::time::FormatTime for Clock {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        w.write_str(&crate::message::rfc3339(crate::message::now_ms()))
    }
}
