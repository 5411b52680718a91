//! What has followed from an event: the events that a handler emitted for it, where they are, and what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::reading::{Extent, Range, Seen};
use super::stand::{Stand, TracedLetter};
use super::{Part, Traced, TracedMessage, Tracer, takes};
use crate::broker::kv::kv_stream;
use crate::broker::provision::DELAYED;
use crate::broker::{By, Captured, Error};
use crate::event::timer::id_in;
use crate::event::{EventId, MESSAGE_ID, header, parse_rfc3339};
use crate::ledger::core::entry::{Consequence, DecisionKind};
use crate::ledger::identity::EVENT_ID;
use crate::ledger::relay::CONSUMER;
use crate::ledger::store::keys;
use crate::mesh_streams::dead_letter::{self, LetterEdit};
use crate::mesh_streams::delayed::{self, TIMER_KEY, TIMER_SUBJECT};
use crate::plan::Handler;

/// An event that followed, or is to follow.
#[derive(Debug)]
pub struct Follow {
    /// The mesh's own, `<handler>.<incarnation>.<sequence>.<which of its emits>`.
    pub id: String,
    pub subject: String,
    pub whereabouts: Whereabouts,
    /// The edits of its dead letter's payload, oldest first, if its stream has refused it.
    pub edits: Vec<LetterEdit>,
}

#[derive(Debug)]
pub enum Whereabouts {
    /// It is in its stream.
    Published { traced: Box<Traced> },
    /// It waits for its time.
    Delayed { due: String },
    /// Its time has come, and no host has published it yet.
    Due { due: String },
    /// A timer that its bucket does not name any more: it was cancelled or set again, or its event was removed.
    CalledOff { due: String },
    /// A person has cancelled it: by whom, and why.
    Cancelled { due: String, why: String },
    /// Its stream refused it, or there is none.
    Undeliverable { letter: TracedLetter },
    /// Its stream does not hold it.
    Absent {
        /// The stream that captures its subject.
        stream: Option<String>,
        /// Whether a relay has recorded that it was published.
        published: bool,
    },
    /// Not found before the bound was reached.
    NotFound,
}

/// An event that is looked for in its stream.
struct Wanted {
    id: String,
    subject: String,
    due: Option<String>,
    /// Of a timer, its key.
    timer: Option<String>,
    /// The sequence of the ledger's message that it is in.
    out: u64,
}

const BOUND: &str = "the limit of what is read was reached: events may have followed that are not shown";

impl<'a> Tracer<'a> {
    pub(super) async fn follow(
        &mut self,
        handler: &Handler,
        event: &EventId,
        message: Option<&TracedMessage>,
        part: &mut Part,
        depth: u32,
    ) -> Result<(), Error> {
        let Some(ledger) = &handler.ledger else {
            return Ok(());
        };
        let before = part.before_resets.first().map(|before| before.decided.at_ms);
        let decided = match &part.stand {
            Stand::Done { decided } => Some(&**decided),
            Stand::Forgotten { .. } => {
                let since_ms = before.or(message.map(|m| m.time_ms)).unwrap_or(0);
                return self.by_cause(handler, event, since_ms, part, depth).await;
            }
            // What it emitted before it was reset is there anyway.
            _ => part.before_resets.last().map(|before| &before.decided),
        };
        let Some(decided) =
            decided.filter(|d| d.decision.verdict == DecisionKind::Done && d.decision.same_as.is_none())
        else {
            return Ok(());
        };
        // What it emits again has the ids of the first time, and lies where it lay then.
        let since_ms = before.unwrap_or(decided.at_ms);
        let Some(consequences) = self.consequences(ledger, decided).await? else {
            return self.by_cause(handler, event, since_ms, part, depth).await;
        };
        let wanted: Vec<Wanted> = consequences.into_iter().filter_map(Wanted::of).collect();
        let mut edits = match wanted.is_empty() {
            true => BTreeMap::new(),
            false => self.edits_of_emitted(ledger, handler, event).await?,
        };
        let (mut found, extent) = self.published(&wanted, since_ms).await?;
        for wanted in wanted {
            let whereabouts = match found.remove(&wanted.id) {
                Some((stream, sequence)) => self.published_at(&stream, sequence, depth).await?,
                None => self.elsewhere(&wanted, ledger, (since_ms, extent), depth).await?,
            };
            let letter = dead_letter::undeliverable_subject(&kv_stream(ledger), &wanted.id);
            part.follows.push(Follow {
                id: wanted.id,
                subject: wanted.subject,
                whereabouts,
                edits: edits.remove(&letter).unwrap_or_default(),
            });
        }
        Ok(())
    }

    /// By the subject of the letter: the edits of events that this one has emitted and that were refused. One request, because hardly any is.
    async fn edits_of_emitted(
        &self,
        ledger: &str,
        handler: &Handler,
        event: &EventId,
    ) -> Result<BTreeMap<String, Vec<LetterEdit>>, Error> {
        let letters = dead_letter::undeliverable_letters(&kv_stream(ledger), &handler.name, event);
        dead_letter::edits_of(&self.reading.connection, &letters).await
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
        let mut by_subject: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for one in wanted {
            by_subject.entry(&one.subject).or_default().insert(&one.id);
        }
        // By stream: the subjects there, and the ids.
        let mut targets: BTreeMap<String, (Vec<String>, BTreeSet<&str>)> = BTreeMap::new();
        for (subject, wanted) in by_subject {
            if let Some(Captured { stream, subject }) = self.reading.connection.captured(subject).await? {
                let (subjects, ids) = targets.entry(stream).or_default();
                subjects.push(subject);
                ids.extend(wanted);
            }
        }
        let (mut found, mut all) = (BTreeMap::new(), Extent::Whole);
        for (stream, (mut subjects, ids)) in targets {
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
            // An event has its id in a header, whatever subject it is stored under.
            filters: if info.transforms() { &[] } else { subjects },
            first: self.reading.since(stream, &info, since_ms).await?,
            last: info.state.last_seq,
            headers_only: true,
        };
        self.reading.range(&range, see).await
    }

    /// An event that is not in its stream.
    async fn elsewhere(
        &mut self,
        wanted: &Wanted,
        ledger: &str,
        (since_ms, mut extent): (u64, Extent),
        depth: u32,
    ) -> Result<Whereabouts, Error> {
        if let (Some(due), Some(key)) = (&wanted.due, &wanted.timer) {
            let (_, value) = keys::fetch(&self.reading.connection, ledger, key).await?;
            if value.and_then(|value| id_in(&value).ok()).as_ref() != Some(&wanted.id) {
                return Ok(Whereabouts::CalledOff { due: due.clone() });
            }
        }
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
            if let Some(why) = delayed::cancelled(&self.reading.connection, &wanted.id).await? {
                return Ok(Whereabouts::Cancelled { due, why });
            }
        }
        let subject = dead_letter::undeliverable_subject(&kv_stream(ledger), &wanted.id);
        // One that a replay has published is looked for like any other.
        if let Some(letter) = self.letter_on(&subject).await?.filter(|letter| !letter.is_replayed()) {
            return Ok(Whereabouts::Undeliverable { letter });
        }
        let target = self.reading.connection.captured(&wanted.subject).await?;
        for (handler, subject) in self.readers(target.as_ref()) {
            let (found, read) = self.decided_by_id(handler, subject, &wanted.id, since_ms).await?;
            if let Some(event) = found {
                let place = self.place_of(handler, event).await?;
                let traced = Box::new(self.trace(place, depth + 1).await?);
                return Ok(Whereabouts::Published { traced });
            }
            if read == Extent::Bound {
                extent = Extent::Bound;
            }
        }
        Ok(match extent {
            Extent::Bound => Whereabouts::NotFound,
            Extent::Whole | Extent::Enough => Whereabouts::Absent {
                stream: target.map(|target| target.stream),
                published: self.is_carried_out(ledger, wanted.out).await?,
            },
        })
    }

    /// Whether the relay of a ledger has confirmed this message of consequences. It confirms them in their order.
    async fn is_carried_out(&self, ledger: &str, out: u64) -> Result<bool, Error> {
        let relay = self.reading.connection.consumer(&kv_stream(ledger), CONSUMER).await?;
        Ok(relay.is_some_and(|relay| relay.ack_floor.stream_seq >= out))
    }

    /// The handlers whose ledgers may know an event that its stream does not hold any more, and the subject by which they do.
    fn readers<'t>(&self, target: Option<&'t Captured>) -> Vec<(&'a Handler, &'t str)> {
        let plan = self.plan;
        let reads = |target: &'t Captured| {
            let handlers = plan.handlers.iter();
            let takes = handlers.filter(|handler| takes(handler, &target.stream, Some(&target.subject)));
            takes.map(|handler| (handler, target.subject.as_str()))
        };
        target.into_iter().flat_map(reads).collect()
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
                edits: Vec::new(),
            });
        }
        Ok(())
    }
}

/// Which emitted event a message is.
fn id_of(seen: &Seen) -> Option<&str> {
    header(&seen.headers, EVENT_ID).or_else(|| header(&seen.headers, MESSAGE_ID))
}

impl Wanted {
    fn of((out, consequence): (u64, Consequence<'static>)) -> Option<Wanted> {
        match consequence {
            Consequence::Event { id, subject, .. } => Some(Wanted {
                id: id.into_owned(),
                subject: subject.into_owned(),
                due: None,
                timer: None,
                out,
            }),
            Consequence::Delayed {
                id,
                subject,
                due,
                headers,
                ..
            } => Some(Wanted {
                id: id.into_owned(),
                subject: header(&headers, TIMER_SUBJECT).map_or(subject.into_owned(), str::to_owned),
                due: parse_rfc3339(&due).map(|_| due),
                timer: header(&headers, TIMER_KEY).map(str::to_owned),
                out,
            }),
            Consequence::Letter { .. } | Consequence::Settle { .. } => None,
        }
    }
}
