//! What has followed from an event: the events that a handler emitted for it, where they are, and what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use serde::Serialize;

use super::reading::{Extent, Range, Seen};
use super::stand::{Letter, Stand};
use super::{Message, Part, Traced, Tracer};
use crate::broker::provision::{DELAYED, kv_stream};
use crate::broker::{By, Error};
use crate::dead_letter;
use crate::delayed;
use crate::identity::EVENT_ID;
use crate::ledger::entry::Consequence;
use crate::message::{EventId, header, parse_rfc3339};
use crate::plan::Handler;

/// An event that followed, or is to follow.
#[derive(Debug, Serialize)]
pub struct Follow {
    /// The mesh's own, `<handler>.<incarnation>.<sequence>.<which of its emits>`.
    pub id: String,
    pub subject: String,
    pub whereabouts: Whereabouts,
}

#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Whereabouts {
    /// It is in its stream.
    Published { traced: Box<Traced> },
    /// It waits for its time.
    Delayed { due: String },
    /// Its time has come, and no host has published it yet.
    Due { due: String },
    /// Its stream refused it, or there is none.
    Undeliverable { letter: Letter },
    /// Not published yet, or removed from its stream since.
    Absent,
    /// Not found before the bound was reached.
    NotFound,
}

/// An event that is looked for in its stream.
struct Wanted {
    id: String,
    subject: String,
    due: Option<String>,
}

const BOUND: &str = "the limit of what is read was reached: events may have followed that are not shown";

impl Tracer<'_> {
    pub(super) async fn follow(
        &mut self,
        handler: &Handler,
        event: &EventId,
        message: Option<&Message>,
        part: &mut Part,
        depth: u32,
    ) -> Result<(), Error> {
        let Some(ledger) = handler.ledger.as_ref().filter(|_| !handler.publish.is_empty()) else {
            return Ok(());
        };
        let (since_ms, wanted) = match &part.stand {
            Stand::Done { decided } if decided.decision.same_as.is_some() => return Ok(()),
            Stand::Done { decided } => (decided.at_ms, self.consequences(ledger, decided).await?),
            Stand::Forgotten { .. } => match message {
                Some(message) => (message.time_ms, None),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        let Some(consequences) = wanted else {
            return self.by_cause(handler, event, since_ms, part, depth).await;
        };
        let wanted: Vec<Wanted> = consequences.into_iter().filter_map(Wanted::of).collect();
        let (mut found, extent) = self.published(&wanted, since_ms).await?;
        for wanted in wanted {
            let whereabouts = match found.remove(&wanted.id) {
                Some((stream, sequence)) => self.published_at(&stream, sequence, depth).await?,
                None => self.elsewhere(&wanted, ledger, extent).await?,
            };
            part.follows.push(Follow {
                id: wanted.id,
                subject: wanted.subject,
                whereabouts,
            });
        }
        Ok(())
    }

    async fn published_at(&mut self, stream: &str, sequence: u64, depth: u32) -> Result<Whereabouts, Error> {
        let place = self.place(stream, sequence).await?;
        let traced = Box::new(self.trace(place, depth + 1).await?);
        Ok(Whereabouts::Published { traced })
    }

    /// By id, where events lie: stream and sequence.
    async fn published(
        &mut self,
        wanted: &[Wanted],
        since_ms: u64,
    ) -> Result<(BTreeMap<String, (String, u64)>, Extent), Error> {
        let mut targets: BTreeMap<String, Vec<&Wanted>> = BTreeMap::new();
        for one in wanted {
            if let Some(stream) = self.reading.connection.stream_of(&one.subject).await? {
                targets.entry(stream).or_default().push(one);
            }
        }
        let (mut found, mut all) = (BTreeMap::new(), Extent::Whole);
        for (stream, wanted) in targets {
            let ids: BTreeSet<&str> = wanted.iter().map(|one| one.id.as_str()).collect();
            let mut subjects: Vec<String> = wanted.iter().map(|one| one.subject.clone()).collect();
            subjects.sort_unstable();
            subjects.dedup();
            let mut missing = ids.len();
            let see = |seen: Seen| {
                if let Some(id) = id_of(&seen).filter(|id| ids.contains(id)) {
                    let first = found.insert(id.to_owned(), (stream.clone(), seen.sequence)).is_none();
                    missing -= usize::from(first);
                }
                match missing {
                    0 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            };
            if self.look_into(&stream, &subjects, since_ms, see).await? == Extent::Bound {
                all = Extent::Bound;
            }
        }
        Ok((found, all))
    }

    /// Reads the headers of a target from a time on.
    async fn look_into(
        &mut self,
        stream: &str,
        subjects: &[String],
        since_ms: u64,
        see: impl FnMut(Seen) -> ControlFlow<()>,
    ) -> Result<Extent, Error> {
        let Some(info) = self.reading.connection.stream(stream).await? else {
            return Ok(Extent::Whole);
        };
        let range = Range {
            stream,
            info: &info,
            filters: subjects,
            first: self.reading.since(stream, &info, since_ms).await?,
            last: info.state.last_seq,
            headers_only: true,
        };
        self.reading.range(&range, see).await
    }

    /// An event that is not in its stream.
    async fn elsewhere(&self, wanted: &Wanted, ledger: &str, extent: Extent) -> Result<Whereabouts, Error> {
        if let Some(due) = &wanted.due {
            let lies = async |begin: &str| {
                let subject = format!("{begin}{}", wanted.id);
                let stored = self.reading.connection.stored(DELAYED, By::Last(&subject)).await;
                stored.map(|stored| stored.is_some())
            };
            let due = due.clone();
            if lies(delayed::DUE).await? {
                return Ok(Whereabouts::Due { due });
            }
            if lies(delayed::WAITS).await? {
                return Ok(Whereabouts::Delayed { due });
            }
        }
        let subject = dead_letter::undeliverable_subject(&kv_stream(ledger), &wanted.id);
        Ok(match (self.letter_on(&subject).await?, extent) {
            (Some(letter), _) => Whereabouts::Undeliverable { letter },
            (None, Extent::Bound) => Whereabouts::NotFound,
            (None, Extent::Whole | Extent::Enough) => Whereabouts::Absent,
        })
    }

    /// The ledger has forgotten what followed: whatever the targets hold that names this event as its cause.
    async fn by_cause(
        &mut self,
        handler: &Handler,
        event: &EventId,
        since_ms: u64,
        part: &mut Part,
        depth: u32,
    ) -> Result<(), Error> {
        let mine = format!("{}.{event}.", handler.name);
        let mut found: Vec<(String, String, String, u64)> = Vec::new();
        let mut streams = BTreeSet::new();
        for pattern in &handler.publish {
            streams.extend(self.reading.connection.streams_of(pattern).await?);
        }
        for stream in streams {
            let see = |seen: Seen| {
                if let Some(id) = id_of(&seen).filter(|id| id.starts_with(&mine)) {
                    found.push((id.to_owned(), seen.subject.clone(), stream.clone(), seen.sequence));
                }
                ControlFlow::Continue(())
            };
            if self.look_into(&stream, &[], since_ms, see).await? == Extent::Bound {
                part.note = Some(BOUND);
            }
        }
        for (id, subject, stream, sequence) in found {
            let whereabouts = self.published_at(&stream, sequence, depth).await?;
            part.follows.push(Follow {
                id,
                subject,
                whereabouts,
            });
        }
        Ok(())
    }
}

/// Which emitted event a message is.
fn id_of(seen: &Seen) -> Option<&str> {
    header(&seen.headers, EVENT_ID).or_else(|| header(&seen.headers, "Nats-Msg-Id"))
}

impl Wanted {
    fn of(consequence: Consequence) -> Option<Wanted> {
        match consequence {
            Consequence::Event { id, subject, .. } => Some(Wanted { id, subject, due: None }),
            Consequence::Delayed { id, subject, due, .. } => Some(Wanted {
                id,
                subject,
                due: parse_rfc3339(&due).map(|_| due),
            }),
            Consequence::Letter { .. } | Consequence::Settle { .. } => None,
        }
    }
}
