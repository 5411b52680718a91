//! The transaction of an event that is done: its decision, its writes, and the events that follow from it.

use crate::event::effects::{Effects, Emit};
use crate::event::timer::{self, TimerState};
use crate::event::{HOPS, Headers, Message, rfc3339};
use crate::handler_task::delivery::Delivery;
use crate::ledger::core::entry::Decision;
use crate::ledger::core::transaction::{Planned, Transaction};
use crate::ledger::identity::{self, EVENT_ID, SEAL};
use crate::mesh_streams::dead_letter::REPLAYED;
use crate::mesh_streams::delayed::{HANDLER_TIMER_TO, TIMER_KEY, TIMER_SUBJECT};
use crate::plan::Handler;
use crate::wasm::source::ModuleDigest;

/// What is appended when a handler has succeeded.
pub fn done(plan: &Handler, delivery: &Delivery, attempt: u32, digest: &ModuleDigest, effects: Effects) -> Transaction {
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
pub fn of(plan: &Handler, message: &Message, attempt: u32, digest: &ModuleDigest, effects: Effects) -> Transaction {
    let mut consequences: Vec<Planned> = Vec::with_capacity(effects.emits.len() + 1);
    let mut ids = (0u64..).map(|i| format!("{}.{}.{i}", plan.name, message.event));
    for (emit, id) in effects.emits.into_iter().zip(&mut ids) {
        let headers = headers(plan, message, &emit, &id);
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
            let (state, planned) = set(plan, message, &key, emit, id);
            consequences.push(planned);
            serde_json::to_vec(&state).expect("a timer's state serialises").into()
        });
        writes.insert(key, set);
    }
    let id = identity::of(
        plan,
        &message.subject,
        &message.headers,
        &message.payload,
        message.time_ms,
    );
    let done = Decision::done(&plan.name, message.event.to_string(), attempt, digest.to_string());
    Transaction {
        handler: plan.name.clone(),
        event: message.event.clone(),
        decision: Some(Decision { id, ..done }),
        session: 0,
        reads: effects.reads,
        writes,
        consequences,
        death: None,
    }
}

/// The headers of an emitted event.
fn headers(plan: &Handler, message: &Message, emit: &Emit, id: &str) -> Headers {
    let traced = emit.headers.iter().any(|h| h.0 == "traceparent");
    let mut headers = emit.headers.clone();
    headers.reserve(6);
    headers.push((EVENT_ID.to_owned(), id.to_owned()));
    headers.push((SEAL.to_owned(), identity::seal(id, &emit.payload)));
    headers.push(("Mesh-Cause-Event".to_owned(), message.event.to_string()));
    headers.push(("Mesh-Cause-Handler".to_owned(), plan.name.clone()));
    headers.push((HOPS.to_owned(), (identity::hops(message) + 1).to_string()));
    if let (Some(trace), false) = (message.header("traceparent"), traced) {
        headers.push(("traceparent".to_owned(), trace.to_owned()));
    }
    headers
}

/// A timer that is set: what its key holds, and the delayed event by which the server fires it.
fn set(plan: &Handler, message: &Message, key: &str, emit: Emit, id: String) -> (TimerState, Planned) {
    let mut headers = headers(plan, message, &emit, &id);
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
        subject: format!("{HANDLER_TIMER_TO}{}", plan.ledger.as_deref().unwrap_or_default()),
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
    }
}
