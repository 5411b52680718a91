//! What a ledger says of one event of one handler.

use std::ops::ControlFlow;

use serde::Serialize;

use super::reading::{Extent, Range};
use super::{Message, Tracer};
use crate::broker::provision::kv_stream;
use crate::broker::{By, Error};
use crate::ledger::entry::{Consequence, Death, Decision, Entry, Out, PART, Subjects, Verdict, Write};
use crate::ledger::read::parse;
use crate::message::{EventId, header, rfc3339};

/// A decision, and what its entry says besides.
#[derive(Debug, Clone, Serialize)]
pub struct Decided {
    pub decision: Decision,
    pub entry: u64,
    pub host: String,
    pub at: String,
    pub writes: Vec<Write>,
    /// Of how many events the writes are: an entry does not say which of them wrote what.
    pub writers: usize,
    #[serde(skip)]
    pub append: String,
    #[serde(skip)]
    pub at_ms: u64,
}

/// What is known.
pub enum Word {
    Decided(Box<Decided>),
    /// Its entry is collected; how it ended is known from the record of its death, if it has one.
    Collected(Option<Verdict>),
    Undecided,
    /// The bound was reached before it was found.
    Bound,
}

impl Decided {
    fn of(entry: &Entry, handler: &str, event: &str, at_ms: u64) -> Option<Decided> {
        let is = |d: &&Decision| d.handler == handler && d.event == event;
        let decision = entry.decisions.iter().find(is)?.clone();
        // Neither a death nor a repetition writes anything.
        let writes = |d: &Decision| d.verdict == Verdict::Done && d.same_as.is_none();
        let own = writes(&decision);
        Some(Decided {
            decision,
            entry: entry.n,
            host: entry.host.clone(),
            at: rfc3339(at_ms),
            writes: if own { entry.writes.clone() } else { Vec::new() },
            writers: entry.decisions.iter().filter(|d| writes(d)).count(),
            append: entry.append.clone(),
            at_ms,
        })
    }
}

impl Tracer<'_> {
    /// Looks for the decision: by the record of a death, else in the entries since the event was stored.
    pub(super) async fn word(
        &mut self,
        (handler, ledger): (&str, &str),
        event: &EventId,
        message: Option<&Message>,
    ) -> Result<Word, Error> {
        let (stream, subjects) = (kv_stream(ledger), Subjects::new(ledger));
        let Some(head) = self.head(ledger).await? else {
            return Ok(Word::Undecided);
        };
        let below = head
            .floors
            .get(handler)
            .is_some_and(|f| event.sequence <= f.of(&event.incarnation));
        let name = event.to_string();
        let subject = subjects.death(handler, &name);
        if let Some(stored) = self.reading.connection.stored(&stream, By::Last(&subject)).await? {
            let death: Death = parse(&subject, &stored.payload)?;
            let subject = subjects.entry(death.n);
            let entry = self.reading.connection.stored(&stream, By::Last(&subject)).await?;
            let decided = match entry {
                Some(entry) => Decided::of(&parse(&subject, &entry.payload)?, handler, &name, entry.time_ms),
                None => None,
            };
            return Ok(decided.map_or(Word::Collected(Some(death.verdict)), |d| Word::Decided(Box::new(d))));
        }
        let Some(info) = self.reading.connection.stream(&stream).await? else {
            return Ok(Word::Undecided);
        };
        let first = match message {
            Some(message) => self.reading.since(&stream, &info, message.time_ms).await?,
            None => 1,
        };
        let range = Range {
            stream: &stream,
            info: &info,
            filters: &[subjects.entries()],
            first,
            last: info.state.last_seq,
            headers_only: false,
        };
        let mut found = None;
        let extent = self
            .reading
            .range(&range, |seen| {
                let Ok(entry) = serde_json::from_slice::<Entry>(&seen.payload) else {
                    return ControlFlow::Continue(());
                };
                found = Decided::of(&entry, handler, &name, seen.time_ms);
                match found {
                    Some(_) => ControlFlow::Break(()),
                    None => ControlFlow::Continue(()),
                }
            })
            .await?;
        Ok(match (found, extent) {
            (Some(decided), _) => Word::Decided(Box::new(decided)),
            (None, _) if below => Word::Collected(None),
            (None, Extent::Bound) => Word::Bound,
            (None, Extent::Whole | Extent::Enough) => Word::Undecided,
        })
    }

    /// What a decision's event was to be followed by. `None`: the ledger does not know any more.
    pub(super) async fn consequences(
        &self,
        ledger: &str,
        decided: &Decided,
    ) -> Result<Option<Vec<Consequence>>, Error> {
        let (stream, subjects) = (kv_stream(ledger), Subjects::new(ledger));
        let connection = &self.reading.connection;
        let mine = format!("{}.{}.", decided.decision.handler, decided.decision.event);
        let mut found = Vec::new();
        for k in 0.. {
            let subject = subjects.out(decided.entry, k);
            let Some(stored) = connection.stored(&stream, By::Last(&subject)).await? else {
                if k > 0 || decided.entry <= 1 {
                    break;
                }
                // Collecting takes the beginning of the stream: what lies after the entry before is all there.
                let before = subjects.entry(decided.entry - 1);
                let before = connection.stored(&stream, By::Last(&before)).await?;
                return Ok(before.map(|_| found));
            };
            if stored.headers().is_ok_and(|headers| header(&headers, PART).is_some()) {
                continue;
            }
            let out: Out = parse(&subject, &stored.payload)?;
            if out.append == decided.append {
                found.extend(out.consequences.into_iter().filter(|c| match c {
                    Consequence::Event { id, .. } | Consequence::Delayed { id, .. } => id.starts_with(&mine),
                    Consequence::Letter { .. } | Consequence::Settle { .. } => false,
                }));
            }
        }
        Ok(Some(found))
    }
}
