//! Where log lines go: standard error, as text or JSON, one line each. A log that cannot be written is no fault of the
//! mesh: lines that cannot leave are lost, and counted.

use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format;

use crate::plan::{Log, LogFormat};
use crate::process::logged_event::{self, WithEvent};
use crate::text::display::straight;
use crate::text::secret;
use crate::trouble;

#[derive(Debug, thiserror::Error)]
#[error("log.filter: {0}")]
pub struct Error(String);

/// Starts logging; once per process.
pub fn start(plan: &Log) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&plan.filter).map_err(|e| Error(e.to_string()))?;
    // The client logs each of its reconnects as an error; the mesh says it once, with what it means.
    let filter = filter.add_directive("async_nats=off".parse().map_err(|e| Error(format!("{e}")))?);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would tell of a failed write by a print that panics when it fails as well.
        .log_internal_errors(false)
        .with_writer(|| LogLine);
    let terminal = io::stderr().is_terminal();
    match plan.format {
        LogFormat::Text => {
            let colours = colours(terminal, |name| std::env::var_os(name));
            let lines = format::format()
                .with_ansi(colours)
                .with_target(false)
                .with_timer(LogClock { day: !terminal });
            log.with_ansi(colours)
                .event_format(WithEvent { lines, json: false })
                .init();
        }
        LogFormat::Json => {
            logged_event::say_traces();
            let lines = format::json().flatten_event(true).with_timer(LogClock { day: true });
            log.fmt_fields(format::JsonFields::new())
                .event_format(WithEvent { lines, json: true })
                .init();
        }
    }
    Ok(())
}

/// Whether lines have colours: on a terminal that knows them, unless they are not wanted (<https://no-color.org>).
fn colours(terminal: bool, variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> bool {
    let unwanted = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    terminal && !unwanted && variable("TERM").is_none_or(|term| term != "dumb")
}

/// Log lines that could not be written since the start.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Says how many lines were lost, once some can be written again, and how often what goes wrong comes again; for as long as
/// it is polled.
pub async fn watch() {
    let mut told = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        trouble::tell();
        let lost = lost();
        if lost > told && !gate().broken {
            tracing::warn!(lines = lost - told, "log lines were lost: standard error took none");
            told = lost;
        }
    }
}

/// How often it is looked whether lines were lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a slow reader may keep the host waiting for one line. A reader that took nothing in this time is not waited for
/// again until it reads.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a pipe that can be written to takes without waiting: its `PIPE_BUF`.
const CHUNK: usize = 4096;

static LOST: AtomicU64 = AtomicU64::new(0);
static GATE: Mutex<LogGate> = Mutex::new(LogGate { broken: false });

/// Lines leave one by one.
struct LogGate {
    /// The last line was lost; perhaps a part of it has left.
    broken: bool,
}

fn gate() -> MutexGuard<'static, LogGate> {
    GATE.lock()
}

/// Standard error, for one line: its write never fails and never waits for long.
struct LogLine;

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = line.len();
        let line = &*secret::hide_in_line(line);
        let shown = String::from_utf8_lossy(line);
        let shown = straight(&shown);
        let mut gate = gate();
        let patience = if gate.broken { Duration::ZERO } else { PATIENCE };
        let begins = gate.broken.then_some(&b"\n"[..]);
        let written = begins
            .into_iter()
            .chain(shown.as_bytes().chunks(CHUNK))
            .try_for_each(|chunk| send(chunk, patience));
        gate.broken = written.is_err();
        if gate.broken {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a few bytes as soon as they can be written, within a time limit.
fn send(mut bytes: &[u8], patience: Duration) -> rustix::io::Result<()> {
    let stderr = io::stderr();
    let began = Instant::now();
    while !bytes.is_empty() {
        let left = patience.saturating_sub(began.elapsed());
        let limit = Timespec::try_from(left).map_err(|_| rustix::io::Errno::INVAL)?;
        match poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&limit)) {
            Ok(0) => return Err(rustix::io::Errno::TIMEDOUT),
            Err(rustix::io::Errno::INTR) => continue,
            ready => ready?,
        };
        match rustix::io::write(&stderr, bytes) {
            Ok(0) => return Err(rustix::io::Errno::IO),
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) if left > Duration::ZERO => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// RFC 3339 in UTC with milliseconds, like every other time that the mesh writes, but by the host's own clock, as whatever else a machine logs; on a terminal
/// without the day.
struct LogClock {
    day: bool,
}

impl tracing_subscriber::fmt::time::FormatTime for LogClock {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        let time = crate::event::rfc3339(crate::event::clock::wall_ms());
        let short = time.split_once('T').map_or(time.as_str(), |(_, time)| time);
        w.write_str(if self.day { &time } else { short })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_know_them_and_people_who_want_them() {
        let with = |terminal, set: &[(&str, &str)]| {
            colours(terminal, |name| {
                let found = set.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| value.into())
            })
        };
        assert!(with(true, &[]) && with(true, &[("TERM", "xterm"), ("NO_COLOR", "")]));
        assert!(!with(false, &[]));
        assert!(!with(true, &[("NO_COLOR", "1")]) && !with(true, &[("TERM", "dumb")]));
    }
}
