//! What an event is known by besides its place in its stream: the id that the mesh gave it when a handler emitted it or,
//! where the configuration says so, its publisher's message id. Pure.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::ledger::entry::{Hash, Id};
use crate::message::{Headers, header};
use crate::plan::{Handler, Identity};

/// Header of an emitted event: which it is, however often it is published.
pub const EVENT_ID: &str = "Mesh-Event-Id";
/// Header by which JetStream knows a publisher's repetition, for its duplicate window only.
const MESSAGE_ID: &str = "Nats-Msg-Id";
/// How long an emitted event is known again: longer than a relay is away.
const EMITTED_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// `None`: it has nothing by which it could be known again, or nobody remembers it.
pub fn of(handler: &Handler, subject: &str, headers: &Headers, time_ms: u64) -> Option<Id> {
    handler.ledger.as_ref()?;
    let named = |name| header(headers, name).filter(|id| !id.is_empty());
    let (id, window, emitted) = match (named(EVENT_ID), handler.identity) {
        (Some(id), _) => (id, EMITTED_WINDOW, true),
        (None, Identity::MessageId) => (named(MESSAGE_ID)?, handler.identity_window, false),
        (None, Identity::Sequence) => return None,
    };
    Some(Id {
        hash: hash(emitted, &[&handler.stream, subject, id]),
        time_ms,
        window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
        emitted,
    })
}

/// A publisher's bytes go no further than this.
fn hash(emitted: bool, parts: &[&str]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([u8::from(emitted)]);
    for part in parts {
        // No two lists of parts run together to the same bytes.
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    let word = |at: usize| {
        digest[at..at + 8]
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    Hash([word(0), word(8)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(config: &str, subject: &str, headers: &[(&str, &str)]) -> Option<Id> {
        let text = format!("[handlers.h]\nmodule = \"h\"\nstream = \"ORDERS\"\nledger = true\n{config}");
        let plan = crate::config::parse(&text, std::path::Path::new("")).unwrap();
        let headers = headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        of(&plan.handlers[0], subject, &headers, 5)
    }

    const BY_ID: &str = "identity = \"message-id\"\nidentity_window = \"1h\"";

    #[test]
    fn a_message_id_counts_only_where_it_is_asked_for() {
        let message = [("Nats-Msg-Id", "o-1")];
        assert_eq!(id("", "orders.created", &message), None);
        let known = id(BY_ID, "orders.created", &message).unwrap();
        assert_eq!((known.time_ms, known.window_ms, known.emitted), (5, 3_600_000, false));
        assert_eq!(id(BY_ID, "orders.created", &[]), None);
        assert_eq!(id(BY_ID, "orders.created", &[("Nats-Msg-Id", "")]), None);
    }

    #[test]
    fn an_id_is_one_of_its_stream_and_subject() {
        let message = [("Nats-Msg-Id", "o-1")];
        let hash = |config: &str, subject: &str| id(config, subject, &message).unwrap().hash;
        let one = hash(BY_ID, "orders.created");
        assert_eq!(hash(BY_ID, "orders.created"), one);
        assert_ne!(hash(BY_ID, "orders.paid"), one);
        let other = BY_ID.replace("identity =", "consumer = \"c\"\nidentity =");
        assert_eq!(hash(&other, "orders.created"), one, "whatever its consumer is called");
    }

    #[test]
    fn an_emitted_event_is_known_by_its_own_id_always() {
        let emitted = [("Mesh-Event-Id", "h.k.1.0"), ("Nats-Msg-Id", "h.k.1.0")];
        let known = id("", "orders.created", &emitted).unwrap();
        assert!(known.emitted);
        assert_eq!(known.window_ms, 24 * 3_600_000);
        // A publisher cannot pass its own for one of these.
        let own = id(BY_ID, "orders.created", &[("Nats-Msg-Id", "h.k.1.0")]).unwrap();
        assert_ne!(own.hash, known.hash);
    }
}
