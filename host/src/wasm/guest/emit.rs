//! What a guest emits: checked against what is granted, and written down.

use std::sync::atomic::Ordering;

use super::Guest;
use super::jetmesh::handler::events::{Error, Header, Host};
use crate::event::check_header;
use crate::event::effects::{Emit, check_subject, due};
use crate::event::subject::subject_matches;

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

impl Guest {
    fn note(
        &mut self,
        subject: String,
        headers: Vec<Header>,
        payload: Vec<u8>,
        due_ms: Option<u64>,
    ) -> Result<(), Error> {
        check_subject(&subject).map_err(Error::Invalid)?;
        if !self
            .facts
            .publish
            .iter()
            .any(|pattern| subject_matches(pattern, &subject))
        {
            let granted = if self.facts.publish.is_empty() {
                "it may publish nothing".to_owned()
            } else {
                format!("it may publish {}", self.facts.publish.join(", "))
            };
            return Err(Error::NotGranted(format!(
                "handler {} may not publish on `{subject}`: {granted} (`publish` in its configuration)",
                self.facts.handler
            )));
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
        fits.and_then(|()| self.call.effects.emit(emit))
            .map_err(|e| Error::TooLarge(e.to_string()))
    }
}
