//! How a run of a guest has ended: its outcome, and the limit that has ended it.

use std::time::{Duration, Instant};

use crate::event::outcome::Outcome;
use crate::text::display::clean;
use crate::wasm::engine::trapped;
use crate::wasm::guest::jetmesh::handler::types::Failure;
use crate::wasm::guest::{self, Line};
use crate::wasm::sandbox::SandboxLimit;

/// The limit that has ended a run. `None` as the answer: its time was over.
pub(super) fn limit_of<T>(answer: Option<&wasmtime::Result<T>>) -> Option<SandboxLimit> {
    match answer {
        None => Some(SandboxLimit::Time),
        Some(answer) => answer.as_ref().err().and_then(SandboxLimit::of),
    }
}

/// How long a read may take before a run out of time is the host's fault. A read normally takes milliseconds. A guest that
/// reads too often, or computes until there is no time left for a read, has used up its own time.
fn read_patience(timeout: Duration) -> Duration {
    (timeout / 2).min(Duration::from_secs(1))
}

/// The outcome of a guest that was still running when its time was over. `waiting`: how long it had waited for a read.
pub(super) fn out_of_time(waiting: Duration, timeout: Duration) -> Outcome {
    match waiting > read_patience(timeout) {
        true => Outcome::HostFault {
            message: format!("state: a read had not come back when the time limit of {timeout:?} was over"),
        },
        false => Outcome::Timeout { limit: timeout },
    }
}

pub(super) fn outcome_of(answer: Result<(), Failure>, lines: &mut Vec<Line>) -> Outcome {
    match answer {
        Ok(()) => Outcome::Done,
        Err(Failure::Retry(retry)) => Outcome::Retry {
            code: code(&retry.code, lines),
            message: clean(&retry.message),
            after: retry.delay_ms.map(Duration::from_millis),
        },
        Err(Failure::Reject(reject)) => Outcome::Reject {
            code: code(&reject.code, lines),
            message: clean(&reject.message),
        },
    }
}

/// A failure's code, made to fit its rule: it is grouped by, and stands in headers. A change is told.
fn code(text: &str, lines: &mut Vec<Line>) -> String {
    let code: String = text
        .chars()
        .take(64)
        .map(|c| match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() || "-_.".contains(c) => c,
            _ => '-',
        })
        .collect();
    let code = if code.is_empty() { "error".to_owned() } else { code };
    if code != text {
        let told = format!("the code `{text}` is written as `{code}`: a code has 1 to 64 of a-z 0-9 - _ and .");
        lines.push(Line {
            level: tracing::Level::WARN,
            text: clean(&told),
            at: Instant::now(),
        });
    }
    code
}

/// Whether the engine has no place left.
pub(super) fn is_full(error: &wasmtime::Error) -> bool {
    error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some()
}

pub(super) fn instance_failure(error: &wasmtime::Error, timeout: Duration, lines: &[Line]) -> Outcome {
    if let Some(wasmtime::Trap::Interrupt) = error.downcast_ref::<wasmtime::Trap>() {
        return Outcome::Timeout { limit: timeout };
    }
    if is_full(error) {
        return Outcome::HostFault {
            message: "no free instance slot".to_owned(),
        };
    }
    let (message, backtrace) = trapped(error);
    Outcome::Trap {
        message: guest::explained(lines, message),
        backtrace,
    }
}
