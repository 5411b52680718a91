//! Which event is meant, and in which incarnation of its stream it is.

use super::Tracer;
use crate::broker::Error;
use crate::broker::error::Code;
use crate::broker::kv::kv_stream;
use crate::broker::provision::MESH_BUCKET;
use crate::event::EventId;
use crate::ledger::core::entry::{Head, Incarnation, Subjects};
use crate::ledger::store::{incarnation, keys, read};
use crate::plan::Handler;

/// What a person calls an event by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// `INCARNATION.SEQUENCE`, as logs and headers have it, or with a handler before it, as a letter's id. An emitted
    /// event's own id, `HANDLER.INCARNATION.SEQUENCE.INDEX`, is that of the event for which it was emitted, and one
    /// more number; so is the id of its letter, if it could not be delivered.
    Event(EventId),
    /// `STREAM:SEQUENCE`
    Place { stream: String, sequence: u64 },
}

impl Named {
    pub fn parse(text: &str) -> Option<Named> {
        if let Some((stream, sequence)) = text.split_once(':') {
            return Some(Named::Place {
                stream: stream.to_owned(),
                sequence: sequence.parse().ok().filter(|_| !stream.is_empty())?,
            });
        }
        let parts: Vec<&str> = text.split('.').collect();
        let (incarnation, sequence) = match parts[..] {
            [incarnation, sequence] => (incarnation, sequence),
            [_, incarnation, sequence] => (incarnation, sequence.split_once('-').map_or(sequence, |(of, _)| of)),
            [_, incarnation, sequence, index] if is_number(index) => (incarnation, sequence),
            _ => return None,
        };
        EventId::parse(&format!("{incarnation}.{sequence}")).map(Named::Event)
    }
}

fn is_number(text: &str) -> bool {
    text.parse::<u64>().is_ok()
}

/// Where an event lies, or lay.
#[derive(Debug, Clone)]
pub struct Place {
    pub stream: String,
    pub sequence: u64,
    /// `None`: no handler of the configuration has ever read its stream.
    pub event: Option<EventId>,
    /// Its stream was deleted and created again since.
    pub former: bool,
}

impl Tracer<'_> {
    /// `None`: no such incarnation of a stream is known.
    pub async fn find(&mut self, named: &Named) -> Result<Option<Place>, Error> {
        let event = match named {
            Named::Place { stream, sequence } => return self.place(stream, *sequence).await.map(Some),
            Named::Event(event) => event,
        };
        let plan = self.plan;
        for handler in &plan.handlers {
            let incarnation = self.incarnation(&handler.stream).await?;
            let former = incarnation.is_none_or(|incarnation| incarnation.of(event.sequence) != &*event.incarnation);
            // A handler's floors name the incarnations that it has seen.
            let known = match &handler.ledger {
                Some(ledger) if former => self.head(ledger).await?.is_some_and(|head| {
                    let floor = head.floors.get(&handler.name);
                    floor.is_some_and(|f| {
                        *f.incarnation == *event.incarnation || f.others.contains_key(&*event.incarnation)
                    })
                }),
                Some(_) | None => false,
            };
            if !former || known {
                return self.place_of(handler, event.clone()).await.map(Some);
            }
        }
        Ok(None)
    }

    /// The event at a place, in the current incarnation of the stream.
    pub async fn place(&mut self, stream: &str, sequence: u64) -> Result<Place, Error> {
        let incarnation = self.incarnation(stream).await?;
        Ok(Place {
            stream: stream.to_owned(),
            sequence,
            event: incarnation.map(|incarnation| EventId {
                incarnation: incarnation.of(sequence).into(),
                sequence,
            }),
            former: false,
        })
    }

    /// An event of a handler's stream, in whichever incarnation of the stream.
    pub(super) async fn place_of(&mut self, handler: &Handler, event: EventId) -> Result<Place, Error> {
        let incarnation = self.incarnation(&handler.stream).await?;
        let former = incarnation.is_none_or(|incarnation| incarnation.of(event.sequence) != &*event.incarnation);
        Ok(Place {
            stream: handler.stream.clone(),
            sequence: event.sequence,
            event: Some(event),
            former,
        })
    }

    async fn incarnation(&mut self, stream: &str) -> Result<Option<Incarnation>, Error> {
        if let Some(known) = self.incarnations.get(stream) {
            return Ok(known.clone());
        }
        let key = incarnation::key(stream);
        let value = match keys::fetch(&self.reading.connection, MESH_BUCKET, &key).await {
            Err(Error::Api {
                code: Code::STREAM_NOT_FOUND,
                ..
            }) => None,
            found => found?.1,
        };
        let incarnation = value.map(|value| incarnation::parse(stream, &value)).transpose()?;
        self.incarnations.insert(stream.to_owned(), incarnation.clone());
        Ok(incarnation)
    }

    pub(super) async fn head(&mut self, ledger: &str) -> Result<Option<&Head>, Error> {
        if !self.heads.contains_key(ledger) {
            let found = read::head(&self.reading.connection, &kv_stream(ledger), &Subjects::new(ledger)).await;
            let head = match found {
                Err(Error::Api {
                    code: Code::STREAM_NOT_FOUND,
                    ..
                }) => None,
                found => found?.map(|(head, _)| head),
            };
            self.heads.insert(ledger.to_owned(), head);
        }
        Ok(self.heads.get(ledger).and_then(Option::as_ref))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_named_by_its_id_its_place_or_a_letters_id() {
        let event = Some(Named::Event(EventId::of_test(7)));
        assert_eq!(Named::parse("k.7"), event);
        assert_eq!(Named::parse("inventory.k.7"), event);
        assert_eq!(Named::parse("inventory.k.7.0"), event, "what it emitted");
        assert_eq!(Named::parse("inventory.k.7-0"), event, "whose letter is called so");
        let (stream, sequence) = ("ORDERS".to_owned(), 7);
        assert_eq!(Named::parse("ORDERS:7"), Some(Named::Place { stream, sequence }));
        for bad in ["", "7", "ORDERS:", ":7", "ORDERS:x", "a.b.k.7", "a.k.7.x", "k.x"] {
            assert_eq!(Named::parse(bad), None, "{bad}");
        }
    }
}
