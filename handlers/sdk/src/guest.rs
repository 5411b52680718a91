//! The component's side of the interface: what `handler!` expands to, and the imports that the other modules wrap.

use std::{
    sync::Once,
    time::{Duration, SystemTime},
};

use bindings::jetmesh::handler as imports;

#[expect(
    missing_docs,
    reason = "generated from the WIT, whose comments are the documentation"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "event-handler",
        pub_export_macro: true,
        export_macro_name: "export_component",
        default_bindings_module: "jetmesh_sdk::guest::bindings",
    });
}

pub use bindings::exports::jetmesh::handler::handler::{Event, Failure, Guest};
pub use imports::context::{attempt, handler_name, idempotency_key, max_attempts, trace_id};
pub use imports::settings::get as setting;

use crate::{
    Error, Handler,
    events::{self, When},
    log::Level,
    state,
};

/// Handles one event with an author's function.
pub fn handle<A>(function: impl Handler<A>, event: Event) -> Result<(), Failure> {
    log_panics();
    let event = crate::Event {
        id: event.id,
        subject: event.subject,
        headers: event
            .headers
            .into_iter()
            .map(|header| (header.name, header.value))
            .collect(),
        payload: event.payload,
        time_ms: event.time_ms,
    };
    function.call(event).map_err(failure)
}

/// A panic ends in a trap, which carries no text; so the text goes to the log before.
fn log_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            log(Level::Error, &panic.to_string().replacen(":\n", ": ", 1))
        }));
    });
}

fn failure(error: Error) -> Failure {
    let (code, message) = (error.code().into(), error.message().into());
    if error.is_reject() {
        Failure::Reject(imports::types::Reject { code, message })
    } else {
        let delay_ms = error.delay().map(millis);
        Failure::Retry(imports::types::Retry {
            code,
            message,
            delay_ms,
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn log(level: Level, message: &str) {
    let level = match level {
        Level::Trace => imports::log::Level::Trace,
        Level::Debug => imports::log::Level::Debug,
        Level::Info => imports::log::Level::Info,
        Level::Warn => imports::log::Level::Warn,
        Level::Error => imports::log::Level::Error,
    };
    imports::log::log(level, message);
}

pub(crate) fn state_get(key: &str) -> Result<Option<Vec<u8>>, state::Error> {
    imports::state::get(key).map_err(state_error)
}

pub(crate) fn state_set(key: &str, value: &[u8]) -> Result<(), state::Error> {
    imports::state::set(key, value).map_err(state_error)
}

pub(crate) fn state_delete(key: &str) -> Result<(), state::Error> {
    imports::state::delete(key).map_err(state_error)
}

pub(crate) fn emit(subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<(), events::Error> {
    imports::events::emit(subject, &list(headers), payload).map_err(emit_error)
}

pub(crate) fn emit_when(
    when: When,
    subject: &str,
    headers: &[(&str, &str)],
    payload: &[u8],
) -> Result<(), events::Error> {
    match when {
        When::Now => return emit(subject, headers, payload),
        When::After(delay) => imports::events::emit_after(subject, &list(headers), payload, millis(delay)),
        When::At(time) => imports::events::emit_at(subject, &list(headers), payload, unix_millis(time)),
    }
    .map_err(emit_error)
}

pub(crate) fn timer_set(
    name: &str,
    when: When,
    subject: &str,
    headers: &[(&str, &str)],
    payload: &[u8],
) -> Result<(), events::Error> {
    let set_after = |delay| imports::timers::set_after(name, delay, subject, &list(headers), payload);
    match when {
        When::Now => set_after(0),
        When::After(delay) => set_after(millis(delay)),
        When::At(time) => imports::timers::set_at(name, unix_millis(time), subject, &list(headers), payload),
    }
    .map_err(emit_error)
}

pub(crate) fn timer_cancel(name: &str) -> Result<(), events::Error> {
    imports::timers::cancel(name).map_err(emit_error)
}

/// Since 1970; what was before is past, too.
fn unix_millis(time: SystemTime) -> u64 {
    millis(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn list(headers: &[(&str, &str)]) -> Vec<imports::types::Header> {
    headers
        .iter()
        .map(|&(name, value)| imports::types::Header {
            name: name.into(),
            value: value.into(),
        })
        .collect()
}

fn emit_error(error: imports::events::Error) -> events::Error {
    match error {
        imports::events::Error::NotGranted(what) => events::Error::NotGranted(what),
        imports::events::Error::Invalid(why) => events::Error::Invalid(why),
        imports::events::Error::TooLarge(limit) => events::Error::TooLarge(limit),
        imports::events::Error::Other(why) => events::Error::Other(why),
    }
}

fn state_error(error: imports::state::Error) -> state::Error {
    match error {
        imports::state::Error::NoBucket => state::Error::NoBucket,
        imports::state::Error::InvalidKey(why) => state::Error::InvalidKey(why),
        imports::state::Error::TooLarge(limit) => state::Error::TooLarge(limit),
        imports::state::Error::Other(why) => state::Error::Other(why),
    }
}
