//! A trace as JSON; `jetmesh schema trace` says what it is made of.

use serde_json::{Value, json};

use crate::cli::retrying;
use crate::ledger::core::entry::DecisionKind;
use crate::message::rfc3339;
use crate::payload::{Payload, headers};
use crate::trace::follow::{Follow, Whereabouts};
use crate::trace::ledger::{BeforeReset, TracedDecision, WrittenKey};
use crate::trace::reading::Reading;
use crate::trace::search::Searched;
use crate::trace::stand::{Stand, TracedLetter};
use crate::trace::{Part, Traced, TracedMessage};

pub fn all(events: &[Traced], searched: &[Searched], reading: &Reading<'_>) -> Value {
    let searched = searched.iter().map(|one| {
        json!({
            "stream": one.stream,
            "messages": one.messages,
            "unreadable": one.unreadable,
            "since": one.since,
            "whole": one.whole,
            "missing": one.missing,
            "removed": one.removed.as_ref().map(|removed| json!({
                "before": removed.before,
                "oldest": removed.oldest,
                "between": removed.between,
                "by": removed.by,
            })),
        })
    });
    json!({
        "events": events.iter().map(event).collect::<Vec<_>>(),
        "searched": searched.collect::<Vec<_>>(),
        "messages_read": reading.read,
        "limit_reached": reading.stopped,
    })
}

fn event(traced: &Traced) -> Value {
    json!({
        "stream": traced.stream,
        "sequence": traced.sequence,
        "event": traced.event,
        "former": traced.former,
        "message": traced.message.as_ref().map(message),
        "handlers": traced.handlers.iter().map(part).collect::<Vec<_>>(),
        "note": traced.note,
    })
}

fn message(message: &TracedMessage) -> Value {
    json!({
        "subject": message.subject,
        "time": rfc3339(message.time_ms),
        "headers": headers(&message.headers),
        "payload": Payload::of(&message.payload),
    })
}

fn part(part: &Part) -> Value {
    json!({
        "handler": part.handler,
        "stand": stand(&part.stand),
        "before_resets": part.before_resets.iter().map(before_reset).collect::<Vec<_>>(),
        "follows": part.follows.iter().map(follow).collect::<Vec<_>>(),
        "hindered": part.hindered,
        "note": part.note,
    })
}

fn stand(stand: &Stand) -> Value {
    match stand {
        Stand::Done { decided: how } => json!({ "state": "done", "decided": decided(how) }),
        Stand::Dead {
            decided: how,
            letter: of,
            replay,
        } => json!({
            "state": "dead",
            "decided": how.as_deref().map(decided),
            "letter": of.as_ref().map(letter),
            "replay": replay,
        }),
        Stand::Retrying { record, max_attempts } => json!({
            "state": "retrying",
            "attempts": retrying::json_of(record, Some(*max_attempts)),
        }),
        Stand::Delivered { ledger } => json!({ "state": "delivered", "ledger": ledger }),
        Stand::Waiting { delivered, held_up } => {
            json!({ "state": "waiting", "delivered": delivered, "why": held_up })
        }
        Stand::BeforeStart { start } => json!({ "state": "before-start", "start": start }),
        Stand::NoConsumer => json!({ "state": "no-consumer" }),
        Stand::Forgotten { done, was_its } => json!({ "state": "forgotten", "done": done, "was_its": was_its }),
        Stand::Answered => json!({ "state": "answered" }),
        Stand::Lost => json!({ "state": "lost" }),
        Stand::Unknown => json!({ "state": "unknown" }),
        Stand::NotFound { decided } => json!({ "state": "not-found", "is_decided": decided }),
    }
}

fn decided(decided: &TracedDecision) -> Value {
    let decision = &decided.decision;
    json!({
        "verdict": match decision.verdict {
            DecisionKind::Done => "done",
            DecisionKind::Dead => "dead",
        },
        "at": rfc3339(decided.at_ms),
        "entry": decided.entry,
        "host": decided.host,
        "attempt": decision.attempt,
        "module": decision.module,
        "cause": decision.cause.map(|cause| cause.name()),
        "code": decision.code,
        "error": decision.message,
        "same_as": decision.same_as,
        "follows_death": decision.follows_death,
        "writes": decided.writes.iter().map(write).collect::<Vec<_>>(),
    })
}

fn before_reset(before: &BeforeReset) -> Value {
    json!({ "reset": rfc3339(before.reset_ms), "decided": decided(&before.decided) })
}

/// Without a value it is deleted, or, if it says how many bytes there were, too large for the ledger.
fn write(written: &WrittenKey) -> Value {
    let write = &written.write;
    let value = write.value.as_ref().and_then(|value| value.bytes().ok());
    json!({
        "key": write.key,
        "value": value.map(|value| Payload::of(&value)),
        "bytes": write.bytes,
        "base": write.base,
        "writers": written.writers,
    })
}

fn letter(letter: &TracedLetter) -> Value {
    json!({
        "id": letter.id,
        "dead_since": letter.since,
        "cause": letter.cause,
        "code": letter.code,
        "error": letter.error,
        "attempts": letter.attempts,
        "settled": letter.settled,
    })
}

fn follow(follow: &Follow) -> Value {
    let whereabouts = match &follow.whereabouts {
        Whereabouts::Published { traced } => json!({ "state": "published", "traced": event(traced) }),
        Whereabouts::Delayed { due } => json!({ "state": "delayed", "due": due }),
        Whereabouts::Due { due } => json!({ "state": "due", "due": due }),
        Whereabouts::Undeliverable { letter: of } => json!({ "state": "undeliverable", "letter": letter(of) }),
        Whereabouts::Absent { stream, published } => {
            json!({ "state": "absent", "stream": stream, "published": published })
        }
        Whereabouts::NotFound => json!({ "state": "not-found" }),
    };
    json!({ "id": follow.id, "subject": follow.subject, "whereabouts": whereabouts })
}
