//! An in-memory host for native tests: one per thread. Not present in a component.
//!
//! It refuses what a host refuses: keys, subjects and headers that are malformed or reserved, and whatever is over a
//! limit. Which subjects are granted is in the configuration, which it does not know: [`grant`] says them.
//!
//! ```
//! use jetmesh_sdk::{Error, Event, state, testing};
//!
//! fn count(_: Event) -> Result<(), Error> {
//!     state::set("count", "1")?;
//!     Ok(())
//! }
//!
//! testing::reset();
//! testing::call(count, testing::event("orders.created", "anything")).unwrap();
//! assert_eq!(testing::state("count").as_deref(), Some("1"));
//! ```

use std::{cell::RefCell, collections::BTreeMap};

use crate::{Error, Event, Handler, events::When, log::Level};

mod rules;

pub(crate) mod host;

use rules::Call;

/// An event that the handler emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    /// Where to.
    pub subject: String,
    /// Names and values in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub payload: Vec<u8>,
    /// When it is published.
    pub when: When,
}

impl Emitted {
    /// The payload read as JSON. Panics if it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).expect("the emitted payload is JSON")
    }
}

#[derive(Default)]
struct World {
    state: BTreeMap<String, Vec<u8>>,
    settings: BTreeMap<String, String>,
    emitted: Vec<Emitted>,
    timers: BTreeMap<String, Emitted>,
    logged: Vec<(Level, String)>,
    attempt: Option<u32>,
    /// `None`: whatever is a subject.
    granted: Option<Vec<String>>,
    call: Call,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

fn with<T>(f: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(f)
}

/// Starts again with no state, settings, events, timers or logs, and attempt 1. Call it first in each test, since a thread may run more
/// than one.
pub fn reset() {
    with(|world| *world = World::default());
}

/// Handles one event as the host does: after an error, state, emitted events and timers are what they were before.
///
/// # Panics
/// When the error's code is none: a host would write it as another word.
pub fn call<A>(handler: impl Handler<A>, event: Event) -> Result<(), Error> {
    let (state, emitted, timers) = with(|world| {
        world.call = Call::default();
        (world.state.clone(), world.emitted.len(), world.timers.clone())
    });
    let result = handler.call(event);
    if let Err(error) = &result {
        rules::check_code(error.code());
        with(|world| {
            world.state = state;
            world.emitted.truncate(emitted);
            world.timers = timers;
        });
    }
    result
}

/// An event to call a handler with.
pub fn event(subject: &str, payload: impl Into<Vec<u8>>) -> Event {
    Event {
        id: "test.1".into(),
        subject: subject.into(),
        payload: payload.into(),
        ..Event::default()
    }
}

/// Sets a value of the state.
pub fn set_state(key: &str, value: impl Into<Vec<u8>>) {
    with(|world| world.state.insert(key.into(), value.into()));
}

/// A value of the state as text. Panics if it is not UTF-8.
pub fn state(key: &str) -> Option<String> {
    with(|world| world.state.get(key).cloned()).map(|value| String::from_utf8(value).expect("the value is UTF-8"))
}

/// Sets one of the handler's settings.
pub fn set_setting(name: &str, value: &str) {
    with(|world| world.settings.insert(name.into(), value.into()));
}

/// Grants subjects, as `publish` in the configuration does, with its wildcards; events on any others are refused.
/// Before it is called every subject is granted.
pub fn grant(patterns: &[&str]) {
    let patterns = patterns.iter().map(|&pattern| pattern.into());
    with(|world| world.granted.get_or_insert_default().extend(patterns));
}

/// Sets which attempt the next calls are.
pub fn set_attempt(attempt: u32) {
    with(|world| world.attempt = Some(attempt));
}

/// All emitted events since [`reset`], in order.
pub fn emitted() -> Vec<Emitted> {
    with(|world| world.emitted.clone())
}

/// The timers that are set, by their names, each with the event that it emits when it fires.
pub fn timers() -> BTreeMap<String, Emitted> {
    with(|world| world.timers.clone())
}

/// All log lines since [`reset`], in order.
pub fn logged() -> Vec<(Level, String)> {
    with(|world| world.logged.clone())
}

#[cfg(test)]
mod tests;
