//! A step of a schedule as a transaction of the mesh's ledger. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::key;
use super::state::{DueEvent, ScheduleStep};
use crate::event::effects::Version;
use crate::event::{EventId, Headers};
use crate::ledger::core::entry::Decision;
use crate::ledger::core::transaction::{Planned, Transaction};
use crate::ledger::identity::{EVENT_ID, SEAL, seal};
use crate::mesh_streams::delayed::TIMER_TO;
use crate::plan::{Schedule, time_text};

/// Header of a schedule's event: its schedule.
pub const SCHEDULE: &str = "Mesh-Schedule";
/// Header of a schedule's event: its due time.
pub const DUE: &str = "Mesh-Schedule-Due";

/// `read`: which value of the key the step rests on. `session`: of the ledger, in which it was read.
pub fn transaction(taken: &ScheduleStep, read: Version, session: u64) -> Transaction {
    let state = &taken.state;
    let name = &state.spec.name;
    let handler = key(name);
    let event = EventId {
        incarnation: state.token.as_str().into(),
        sequence: state.n,
    };
    let mut consequences: Vec<Planned> = taken.events.iter().map(|due| event_of(&state.spec, due)).collect();
    // A timer that this step has not made is armed already.
    let own = format!(".{}", state.n);
    if let Some(next) = state.next.as_ref().filter(|next| next.id.ends_with(&own)) {
        consequences.push(Planned::Delayed {
            id: next.id.clone(),
            due_ms: next.at,
            subject: format!("{TIMER_TO}{name}"),
            headers: Headers::new(),
            payload: Bytes::new(),
        });
    }
    let value = serde_json::to_vec(state).expect("a schedule's state serialises");
    Transaction {
        handler: handler.clone(),
        event: event.clone(),
        decision: Some(Decision::done(&handler, event.to_string(), 1, String::new())),
        session,
        reads: BTreeMap::from([(handler.clone(), read)]),
        writes: BTreeMap::from([(handler, Some(value.into()))]),
        consequences,
        death: None,
        trial: None,
    }
}

fn event_of(spec: &Schedule, due: &DueEvent) -> Planned {
    let at = time_text::text(due.due);
    let payload = Bytes::from(spec.payload.replace("{due}", &at));
    let mut headers = spec.headers.clone();
    for (name, value) in [
        (EVENT_ID, due.id.clone()),
        (SEAL, seal(&due.id, &payload)),
        (SCHEDULE, spec.name.clone()),
        (DUE, at),
    ] {
        headers.push((name.to_owned(), value));
    }
    Planned::Event {
        id: due.id.clone(),
        subject: spec.subject.clone(),
        headers,
        payload,
    }
}
