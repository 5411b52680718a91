//! What an event is known by besides its place in its stream: the id that the mesh gave it when a handler emitted it or,
//! where the configuration says so, its publisher's message id. Pure.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::event::{HOPS, Headers, MESSAGE_ID, Message, header};
use crate::ledger::core::entry::{Hash, Id};
use crate::plan::{Handler, Identity};

/// Header of an emitted event: which it is, however often it is published.
pub const EVENT_ID: &str = "Mesh-Event-Id";
/// Header of an emitted event: binds its id to its payload. Services copy headers from what they hear into what they publish;
/// an id counts only on the event that it was made for.
pub const SEAL: &str = "Mesh-Event-Seal";
/// For how long an emitted event's id is remembered: longer than a relay is absent.
const EMITTED_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// The id of an event that was delivered. `None`: it has no id, or the handler does not remember ids.
pub fn of_message(handler: &Handler, message: &Message) -> Option<Id> {
    let Message {
        subject,
        headers,
        payload,
        time_ms,
        ..
    } = message;
    of(handler, subject, headers, payload, *time_ms)
}

/// The same of an event by its parts.
pub fn of(handler: &Handler, subject: &str, headers: &Headers, payload: &[u8], time_ms: u64) -> Option<Id> {
    handler.ledger.as_ref()?;
    let mark = mark(headers, payload);
    if let Mark::Own(id) = mark {
        return emitted(handler, subject, id, time_ms);
    }
    if handler.identity == Identity::Sequence {
        return None;
    }
    let id = header(headers, MESSAGE_ID).filter(|id| !id.is_empty() && mark != Mark::Copied(id))?;
    Some(Id {
        hash: hash(false, &[&handler.stream, subject, id]),
        time_ms,
        window_ms: millis(handler.identity_window),
        emitted: false,
    })
}

/// What an event with this id of the mesh's own is known by.
pub fn emitted(handler: &Handler, subject: &str, id: &str, time_ms: u64) -> Option<Id> {
    handler.ledger.as_ref()?;
    Some(Id {
        hash: hash(true, &[&handler.stream, subject, id]),
        time_ms,
        window_ms: millis(EMITTED_WINDOW),
        emitted: true,
    })
}

/// Whether the mesh has emitted an event, by its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark<'a> {
    /// Not by the mesh.
    None,
    /// Under this id.
    Own(&'a str),
    /// It bears the id of another event, whose headers were copied.
    Copied(&'a str),
}

pub fn mark<'a>(headers: &'a Headers, payload: &[u8]) -> Mark<'a> {
    match header(headers, EVENT_ID).filter(|id| !id.is_empty()) {
        None => Mark::None,
        Some(id) if header(headers, SEAL) == Some(&seal(id, payload)) => Mark::Own(id),
        Some(id) => Mark::Copied(id),
    }
}

/// The value of [`SEAL`].
pub fn seal(id: &str, payload: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update((id.len() as u64).to_be_bytes());
    hasher.update(id);
    hasher.update(payload);
    format!("{:016x}", word(&hasher.finalize(), 0))
}

/// How many handlers of the mesh stand between an event and one from outside. What a service publishes comes from outside,
/// whatever it has copied.
pub fn hops(message: &Message) -> u32 {
    let said = header(&message.headers, HOPS).and_then(|hops| hops.parse().ok());
    let own = || matches!(mark(&message.headers, &message.payload), Mark::Own(_));
    said.filter(|hops| *hops > 0 && own()).unwrap_or(0)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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
    Hash([word(&digest, 0), word(&digest, 8)])
}

fn word(digest: &[u8], at: usize) -> u64 {
    digest[at..at + 8]
        .iter()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
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
        of(&plan.handlers[0], subject, &headers, PAYLOAD, 5)
    }

    const PAYLOAD: &[u8] = b"one";
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
        let seal = seal("h.k.1.0", PAYLOAD);
        let emitted = [
            ("Mesh-Event-Id", "h.k.1.0"),
            ("Nats-Msg-Id", "h.k.1.0"),
            ("Mesh-Event-Seal", &seal),
        ];
        let known = id("", "orders.created", &emitted).unwrap();
        assert!(known.emitted);
        assert_eq!(known.window_ms, 24 * 3_600_000);
        // A publisher cannot pass its own for one of these.
        let own = id(BY_ID, "orders.created", &[("Nats-Msg-Id", "h.k.1.0")]).unwrap();
        assert_ne!(own.hash, known.hash);
    }

    #[test]
    fn headers_that_were_copied_from_another_event_say_nothing_of_this_one() {
        let other = seal("h.k.1.0", b"another");
        for seal in [other.as_str(), "", "x"] {
            let copied = [
                ("Mesh-Event-Id", "h.k.1.0"),
                ("Nats-Msg-Id", "h.k.1.0"),
                ("Mesh-Event-Seal", seal),
            ];
            assert_eq!(id("", "orders.created", &copied), None);
            assert_eq!(
                id(BY_ID, "orders.created", &copied),
                None,
                "that id is another event's, too"
            );
            let of_its_own = [copied[0], ("Nats-Msg-Id", "o-1"), copied[2]];
            assert!(id(BY_ID, "orders.created", &of_its_own).is_some_and(|known| !known.emitted));
        }
    }

    #[test]
    fn hops_count_only_on_the_event_that_was_emitted_with_them() {
        let of = |payload: &'static [u8]| {
            let seal = seal("h.k.1.0", PAYLOAD);
            let headers = [
                ("Mesh-Event-Id", "h.k.1.0"),
                ("Mesh-Hops", "7"),
                ("Mesh-Event-Seal", &seal),
            ];
            hops(&Message {
                event: crate::event::EventId::of_test(1),
                subject: "s".to_owned(),
                headers: headers.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
                payload: payload.into(),
                time_ms: 0,
            })
        };
        assert_eq!((of(PAYLOAD), of(b"two")), (7, 0));
    }
}
