//! The transaction of an event that is done: its decision, its writes, and the events that follow from it.

use crate::event::effects::{Effects, Emit};
use crate::event::timer::{self, TimerState};
use crate::event::{HOPS, Headers, Message, rfc3339};
use crate::handler_task::attempt_span::AttemptSpan;
use crate::handler_task::delivery::Delivery;
use crate::ledger::core::entry::Decision;
use crate::ledger::core::transaction::{Planned, Transaction};
use crate::ledger::identity::{self, EVENT_ID, SEAL};
use crate::mesh_streams::dead_letter::REPLAYED;
use crate::mesh_streams::delayed::{HANDLER_TIMER_TO, TIMER_KEY, TIMER_SUBJECT};
use crate::plan::Handler;
use crate::spans::TRACEPARENT;
use crate::wasm::source::ModuleDigest;

/// What is appended when a handler has succeeded.
pub fn done(
    plan: &Handler,
    delivery: &Delivery,
    attempt: (u32, Option<&AttemptSpan>),
    digest: &ModuleDigest,
    effects: Effects,
) -> Transaction {
    let mut tx = of(plan, &delivery.message, attempt, digest, effects);
    tx.death = delivery.death();
    if let (Some(decision), Some(death)) = (&mut tx.decision, tx.death) {
        decision.follows_death = Some(death.entry);
    }
    if let Some(letter) = delivery.letter() {
        tx.consequences.push(Planned::Settle {
            subject: letter.subject.clone(),
            reason: REPLAYED.to_owned(),
            in_parts: letter.in_parts,
            asked_by: delivery.asked_by().map(str::to_owned),
        });
    }
    tx
}

/// The same without the letter that a replay resolves.
pub fn of(
    plan: &Handler,
    message: &Message,
    (attempt, span): (u32, Option<&AttemptSpan>),
    digest: &ModuleDigest,
    effects: Effects,
) -> Transaction {
    let mut consequences: Vec<Planned> = Vec::with_capacity(effects.emits.len() + 1);
    let event = message.event.to_string();
    let cause = EmitCause::of(plan, message, &event, span);
    let mut ids = (0u64..).map(|i| [&plan.name, ".", &event, ".", &i.to_string()].concat());
    for (emit, id) in effects.emits.into_iter().zip(&mut ids) {
        let headers = cause.headers(emit.headers, &emit.payload, &id);
        let (subject, payload) = (emit.subject, emit.payload);
        consequences.push(match emit.due_ms {
            None => Planned::Event {
                id,
                subject,
                headers,
                payload,
            },
            Some(due_ms) => Planned::Delayed {
                id,
                due_ms,
                subject,
                headers,
                payload,
            },
        });
    }
    let mut writes = effects.writes;
    for (name, timer) in effects.timers {
        let key = timer::key(plan.bucket.as_deref(), &plan.name, &name);
        let set = timer.zip(ids.next()).map(|(emit, id)| {
            let (state, planned) = set(&cause, &key, emit, id);
            consequences.push(planned);
            serde_json::to_vec(&state).expect("a timer's state serialises").into()
        });
        writes.insert(key, set);
    }
    let id = identity::of_message(plan, message);
    let done = Decision::done(&plan.name, event, attempt, digest.to_string());
    Transaction {
        handler: plan.name.clone(),
        event: message.event.clone(),
        decision: Some(Decision { id, ..done }),
        session: 0,
        reads: effects.reads,
        writes,
        consequences,
        death: None,
        trial: None,
    }
}

/// The event for which a handler emits others.
struct EmitCause<'a> {
    plan: &'a Handler,
    message: &'a Message,
    /// Its id, as text.
    event: &'a str,
    /// Of what it emits.
    hops: u32,
    /// The span of the attempt.
    span: Option<&'a AttemptSpan>,
}

impl<'a> EmitCause<'a> {
    fn of(plan: &'a Handler, message: &'a Message, event: &'a str, span: Option<&'a AttemptSpan>) -> EmitCause<'a> {
        EmitCause {
            plan,
            message,
            event,
            hops: identity::hops(message) + 1,
            span,
        }
    }

    /// The headers of an emitted event: those that the guest gave, and the mesh's own.
    fn headers(&self, mut headers: Headers, payload: &[u8], id: &str) -> Headers {
        let traced = headers.iter().any(|h| h.0.eq_ignore_ascii_case(TRACEPARENT));
        headers.reserve(7);
        headers.push((EVENT_ID.to_owned(), id.to_owned()));
        headers.push((SEAL.to_owned(), identity::seal(id, payload)));
        headers.push(("Mesh-Cause-Event".to_owned(), self.event.to_owned()));
        headers.push(("Mesh-Cause-Handler".to_owned(), self.plan.name.clone()));
        headers.push((HOPS.to_owned(), self.hops.to_string()));
        if traced {
            return headers;
        }
        match (
            self.span.and_then(|span| span.passed_on(id)),
            self.message.header(TRACEPARENT),
        ) {
            (Some(own), _) => headers.extend(own),
            (None, Some(trace)) => headers.push((TRACEPARENT.to_owned(), trace.to_owned())),
            (None, None) => {}
        }
        headers
    }
}

/// A timer that is set: what its key holds, and the delayed event by which the server fires it.
fn set(cause: &EmitCause<'_>, key: &str, emit: Emit, id: String) -> (TimerState, Planned) {
    let mut headers = cause.headers(emit.headers, &emit.payload, &id);
    headers.push((TIMER_KEY.to_owned(), key.to_owned()));
    headers.push((TIMER_SUBJECT.to_owned(), emit.subject.clone()));
    let due_ms = emit.due_ms.unwrap_or_default();
    let state = TimerState {
        format: 1,
        id: id.clone(),
        due: rfc3339(due_ms),
        subject: emit.subject,
    };
    let planned = Planned::Delayed {
        id,
        due_ms,
        subject: format!("{HANDLER_TIMER_TO}{}", cause.plan.ledger.as_deref().unwrap_or_default()),
        headers,
        payload: emit.payload,
    };
    (state, planned)
}

/// What a run that decides nothing waits for: until everything that it has read is committed.
pub fn waits(handler: &str, message: &Message, effects: &Effects) -> Transaction {
    Transaction {
        handler: handler.to_owned(),
        event: message.event.clone(),
        decision: None,
        session: 0,
        reads: effects.reads.clone(),
        writes: std::collections::BTreeMap::new(),
        consequences: Vec::new(),
        death: None,
        trial: None,
    }
}
