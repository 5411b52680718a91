//! The imports as the other modules see them.

use super::{Emitted, rules, with};
use crate::{
    events::{self, When},
    log::Level,
    state,
};

pub fn log(level: Level, message: &str) {
    with(|world| world.logged.push((level, message.into())));
}

pub fn setting(name: &str) -> Option<String> {
    with(|world| world.settings.get(name).cloned())
}

pub fn handler_name() -> String {
    "test".into()
}

pub fn attempt() -> u32 {
    with(|world| world.attempt.unwrap_or(1))
}

pub fn max_attempts() -> u32 {
    5
}

pub fn idempotency_key() -> String {
    "test-key".into()
}

pub fn trace_id() -> Option<String> {
    None
}

pub fn state_get(key: &str) -> Result<Option<Vec<u8>>, state::Error> {
    rules::check_key(key).map_err(state::Error::InvalidKey)?;
    with(|world| {
        world.call.touch(key, 0).map_err(state::Error::TooLarge)?;
        Ok(world.state.get(key).cloned())
    })
}

pub fn state_set(key: &str, value: &[u8]) -> Result<(), state::Error> {
    rules::check_key(key).map_err(state::Error::InvalidKey)?;
    with(|world| {
        world.call.write(key, value).map_err(state::Error::TooLarge)?;
        world.state.insert(key.into(), value.into());
        Ok(())
    })
}

pub fn state_delete(key: &str) -> Result<(), state::Error> {
    rules::check_key(key).map_err(state::Error::InvalidKey)?;
    with(|world| {
        world.call.write(key, &[]).map_err(state::Error::TooLarge)?;
        world.state.remove(key);
        Ok(())
    })
}

pub fn emit(subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<(), events::Error> {
    emit_when(When::Now, subject, headers, payload)
}

pub fn timer_set(
    name: &str,
    when: When,
    subject: &str,
    headers: &[(&str, &str)],
    payload: &[u8],
) -> Result<(), events::Error> {
    rules::check_timer(name).map_err(events::Error::Invalid)?;
    let timer = checked(when, subject, headers, payload)?;
    with(|world| {
        // It is a key and an event.
        let bytes = name.len() + size(&timer);
        world.call.timer(bytes).map_err(events::Error::TooLarge)?;
        world.timers.insert(name.into(), timer);
        Ok(())
    })
}

pub fn timer_cancel(name: &str) -> Result<(), events::Error> {
    rules::check_timer(name).map_err(events::Error::Invalid)?;
    with(|world| {
        world.call.timer(name.len()).map_err(events::Error::TooLarge)?;
        world.timers.remove(name);
        Ok(())
    })
}

pub fn emit_when(when: When, subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<(), events::Error> {
    let event = checked(when, subject, headers, payload)?;
    with(|world| {
        world.call.emit(size(&event)).map_err(events::Error::TooLarge)?;
        world.emitted.push(event);
        Ok(())
    })
}

/// What an event takes of the room of a call.
fn size(event: &Emitted) -> usize {
    let headers: usize = event.headers.iter().map(|(n, v)| n.len() + v.len() + 4).sum();
    event.subject.len() + headers + event.payload.len()
}

/// An event that the handler may emit.
fn checked(when: When, subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<Emitted, events::Error> {
    rules::check_when(when).map_err(events::Error::Invalid)?;
    rules::check_subject(subject).map_err(events::Error::Invalid)?;
    with(|world| {
        if let Some(granted) = &world.granted {
            rules::check_grant(granted, subject).map_err(events::Error::NotGranted)?;
        }
        for (name, value) in headers {
            rules::check_header(name, value).map_err(events::Error::Invalid)?;
        }
        let headers = headers.iter().map(|&(name, value)| (name.into(), value.into()));
        Ok(Emitted {
            subject: subject.into(),
            headers: headers.collect(),
            payload: payload.into(),
            when,
        })
    })
}
