//! What a replay needs of its letter besides the event: where it lies and which death it tells of. Its other headers, a
//! whole history perhaps, are left where they are.

use std::collections::HashMap;

use bytes::Bytes;

use super::{DEATH, DEATH_RECORD, LEDGER, Letter, PARTS, SETTLED, SUBJECT, TIME, original, originals};
use crate::broker::Connection;
use crate::broker::provision::DEAD;
use crate::broker::stored::Glanced;
use crate::event::{EventId, Headers, Message, header, headers_as, parse_rfc3339};

/// Which death of an event is meant: it can die, be replayed, and die again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeathRef {
    /// The entry that decided it.
    pub entry: u64,
    /// The sequence of its record in the bucket's stream.
    pub record: u64,
}

#[derive(Debug)]
pub struct Envelope {
    pub subject: String,
    pub sequence: u64,
    /// The body lies in parts on subjects of their own.
    pub in_parts: bool,
    /// The death that the letter tells of: its ledger, the entry, and the sequence of the record, if it names that.
    death: Option<(String, u64, Option<u64>)>,
}

impl Envelope {
    fn of<'a>(subject: &str, sequence: u64, header: impl Fn(&str) -> Option<&'a str>) -> Envelope {
        let number = |name| header(name)?.parse().ok().filter(|number: &u64| *number > 0);
        let death = || Some((header(LEDGER)?.to_owned(), number(DEATH)?, number(DEATH_RECORD)));
        Envelope {
            subject: subject.to_owned(),
            sequence,
            in_parts: header(PARTS).is_some(),
            death: death(),
        }
    }

    /// The death in this ledger that the letter says it tells of, if it names its record.
    pub fn death_in(&self, ledger: &str) -> Option<DeathRef> {
        let (here, entry, record) = self.death.as_ref()?;
        let death = |record| DeathRef { entry: *entry, record };
        record.filter(|_| here == ledger).map(death)
    }

    /// Whether the letter tells of the death that this entry has decided.
    pub fn tells_of(&self, entry: u64) -> bool {
        self.death.as_ref().is_some_and(|(_, of, _)| *of == entry)
    }
}

impl Letter {
    /// The letter's envelope, and its event as the handler is given it again.
    pub fn open(self, event: EventId) -> (Envelope, Message) {
        let of = |name: &str| header(&self.headers, name);
        let envelope = Envelope::of(&self.subject, self.sequence, of);
        (envelope, message(event, of, originals(&self.headers), self.payload))
    }
}

/// The letter on a subject as some replica holds it, opened, if it is one and whole in itself: see
/// [`Connection::glance`].
pub async fn glance(connection: &Connection, subject: &str, event: &EventId) -> Option<(Envelope, Message)> {
    opened(connection.glance(DEAD, subject).await?, subject, event)
}

/// The same of many letters; those are left out that a replica does not have, or not whole in themselves.
pub async fn glance_all(connection: &Connection, letters: &[(EventId, &str)]) -> HashMap<EventId, (Envelope, Message)> {
    let events: HashMap<&str, &EventId> = letters.iter().map(|(event, subject)| (*subject, event)).collect();
    let subjects: Vec<&str> = letters.iter().map(|(_, subject)| *subject).collect();
    let found = connection.glance_all(DEAD, &subjects).await;
    let opened = found.into_iter().filter_map(|glanced| {
        let (subject, event) = events.get_key_value(glanced.subject()?)?;
        Some(((*event).clone(), opened(glanced, subject, event)?))
    });
    opened.collect()
}

fn opened(glanced: Glanced, subject: &str, event: &EventId) -> Option<(Envelope, Message)> {
    let of = |name: &str| glanced.headers.get(name).map(|value| value.as_str());
    if of(PARTS).is_some() || of(SETTLED).is_some() {
        return None;
    }
    let envelope = Envelope::of(subject, glanced.sequence, of);
    let headers = headers_as(&glanced.headers, original);
    Some((envelope, message(event.clone(), of, headers, glanced.payload)))
}

/// `headers`: the original's.
fn message<'a>(event: EventId, header: impl Fn(&str) -> Option<&'a str>, headers: Headers, payload: Bytes) -> Message {
    Message {
        event,
        subject: header(SUBJECT).unwrap_or_default().to_owned(),
        headers,
        time_ms: header(TIME).and_then(parse_rfc3339).unwrap_or(0),
        payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &str)]) -> Envelope {
        let of = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        Envelope::of("$MESH.dead.ORDERS.inventory.k.3", 7, of)
    }

    #[test]
    fn a_letter_tells_of_one_death_in_one_ledger() {
        let letter = of(&[(LEDGER, "inventory"), (DEATH, "5"), (DEATH_RECORD, "12")]);
        assert_eq!(letter.death_in("inventory"), Some(DeathRef { entry: 5, record: 12 }));
        assert_eq!(letter.death_in("points"), None);
        assert_eq!((letter.tells_of(5), letter.tells_of(12)), (true, false));
    }

    #[test]
    fn a_record_that_cannot_be_is_none() {
        for record in ["0", "", "-1", "twelve"] {
            let letter = of(&[(LEDGER, "inventory"), (DEATH, "5"), (DEATH_RECORD, record)]);
            assert_eq!(letter.death_in("inventory"), None, "{record}: no record is at 0");
            assert!(letter.tells_of(5));
        }
        assert!(!of(&[]).tells_of(0));
    }
}
