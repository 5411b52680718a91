//! The transaction of an event that is done: its decision, its writes, and the events that follow from it.

use crate::event::effects::Effects;
use crate::event::{HOPS, Message};
use crate::handler_task::delivery::Delivery;
use crate::ledger::core::entry::Decision;
use crate::ledger::core::transaction::{Planned, Transaction};
use crate::ledger::identity::{self, EVENT_ID, SEAL};
use crate::mesh_streams::dead_letter::REPLAYED;
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
    let hops = identity::hops(message) + 1;
    let mut consequences: Vec<Planned> = Vec::with_capacity(effects.emits.len() + 1);
    for (i, emit) in effects.emits.into_iter().enumerate() {
        let traced = emit.headers.iter().any(|h| h.0 == "traceparent");
        let mut headers = emit.headers;
        headers.reserve(6);
        let id = format!("{}.{}.{i}", plan.name, message.event);
        headers.push((EVENT_ID.to_owned(), id.clone()));
        headers.push((SEAL.to_owned(), identity::seal(&id, &emit.payload)));
        headers.push(("Mesh-Cause-Event".to_owned(), message.event.to_string()));
        headers.push(("Mesh-Cause-Handler".to_owned(), plan.name.clone()));
        headers.push((HOPS.to_owned(), hops.to_string()));
        if let (Some(trace), false) = (message.header("traceparent"), traced) {
            headers.push(("traceparent".to_owned(), trace.to_owned()));
        }
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
        writes: effects.writes,
        consequences,
        death: None,
    }
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
