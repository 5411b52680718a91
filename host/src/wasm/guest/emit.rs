//! What a guest emits, now or by a timer: checked against what is granted, and written down.

use std::sync::atomic::Ordering;

use super::Guest;
use super::jetmesh::handler::events::{Error, Header, Host};
use super::jetmesh::handler::timers;
use crate::event::check_header;
use crate::event::effects::{Emit, check_subject, due};
use crate::event::subject::subject_matches;
use crate::event::timer::check_name;

impl Host for Guest {
    fn emit(&mut self, subject: String, headers: Vec<Header>, payload: Vec<u8>) -> Result<(), Error> {
        self.note(subject, headers, payload, None)
    }

    fn emit_after(
        &mut self,
        subject: String,
        headers: Vec<Header>,
        payload: Vec<u8>,
        delay_ms: u64,
    ) -> Result<(), Error> {
        let now = self.clocks.now_ms();
        let due_ms = due(now.saturating_add(delay_ms), now).map_err(Error::Invalid)?;
        self.note(subject, headers, payload, due_ms)
    }

    fn emit_at(&mut self, subject: String, headers: Vec<Header>, payload: Vec<u8>, time_ms: u64) -> Result<(), Error> {
        let due_ms = due(time_ms, self.clocks.now_ms()).map_err(Error::Invalid)?;
        self.note(subject, headers, payload, due_ms)
    }
}

impl timers::Host for Guest {
    fn set_after(
        &mut self,
        name: String,
        delay_ms: u64,
        subject: String,
        headers: Vec<Header>,
        payload: Vec<u8>,
    ) -> Result<(), Error> {
        let at_ms = self.clocks.now_ms().saturating_add(delay_ms);
        self.set(&name, at_ms, subject, headers, payload)
    }

    fn set_at(
        &mut self,
        name: String,
        time_ms: u64,
        subject: String,
        headers: Vec<Header>,
        payload: Vec<u8>,
    ) -> Result<(), Error> {
        self.set(&name, time_ms, subject, headers, payload)
    }

    fn cancel(&mut self, name: String) -> Result<(), Error> {
        check_name(&name).map_err(Error::Invalid)?;
        if self.facts.publish.is_empty() {
            return Err(self.not_granted("has no timers"));
        }
        let cancelled = self.call.effects.timer(&name, None);
        cancelled.map_err(|e| Error::TooLarge(e.to_string()))
    }
}

impl Guest {
    fn note(
        &mut self,
        subject: String,
        headers: Vec<Header>,
        payload: Vec<u8>,
        due_ms: Option<u64>,
    ) -> Result<(), Error> {
        let emit = self.checked(subject, headers, payload, due_ms)?;
        let noted = self.call.effects.emit(emit);
        noted.map_err(|e| Error::TooLarge(e.to_string()))
    }

    fn set(
        &mut self,
        name: &str,
        at_ms: u64,
        subject: String,
        headers: Vec<Header>,
        payload: Vec<u8>,
    ) -> Result<(), Error> {
        check_name(name).map_err(Error::Invalid)?;
        let now = self.clocks.now_ms();
        // A timer of the past fires at once, as a timer.
        let due_ms = due(at_ms, now).map_err(Error::Invalid)?.unwrap_or(now);
        let emit = self.checked(subject, headers, payload, Some(due_ms))?;
        let set = self.call.effects.timer(name, Some(emit));
        set.map_err(|e| Error::TooLarge(e.to_string()))
    }

    fn not_granted(&self, what: &str) -> Error {
        let granted = match self.facts.publish.as_slice() {
            [] => "it may publish nothing".to_owned(),
            publish => format!("it may publish {}", publish.join(", ")),
        };
        let handler = &self.facts.handler;
        Error::NotGranted(format!(
            "handler {handler} {what}: {granted} (`publish` in its configuration)"
        ))
    }

    /// An event that the handler may emit.
    fn checked(
        &self,
        subject: String,
        headers: Vec<Header>,
        payload: Vec<u8>,
        due_ms: Option<u64>,
    ) -> Result<Emit, Error> {
        check_subject(&subject).map_err(Error::Invalid)?;
        if !self
            .facts
            .publish
            .iter()
            .any(|pattern| subject_matches(pattern, &subject))
        {
            return Err(self.not_granted(&format!("may not publish on `{subject}`")));
        }
        let mut list = Vec::with_capacity(headers.len());
        for Header { name, value } in headers {
            check_header(&name, &value).map_err(Error::Invalid)?;
            list.push((name, value));
        }
        let emit = Emit {
            subject,
            headers: list,
            payload: payload.into(),
            due_ms,
        };
        let message_bytes_max = self.facts.message_bytes_max.load(Ordering::Relaxed);
        let fits = emit.check(message_bytes_max);
        fits.map(|()| emit).map_err(|e| Error::TooLarge(e.to_string()))
    }
}
