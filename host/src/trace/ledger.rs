//! What a ledger contains about one event of one handler.

use std::ops::ControlFlow;

use super::reading::{Extent, Range};
use super::{TracedMessage, Tracer};
use crate::broker::kv::kv_stream;
use crate::broker::scan::CLOCKS_MS;
use crate::broker::{By, Error};
use crate::event::{EventId, header, parse_rfc3339};
use crate::ledger::core::entry::{Consequence, Death, Decision, DecisionKind, Entry, Out, PART, Subjects, Write};
use crate::ledger::identity;
use crate::ledger::store::read::{self, parse};
use crate::plan::Handler;

/// A decision, with the facts of its entry.
#[derive(Debug, Clone)]
pub struct TracedDecision {
    pub decision: Decision,
    pub entry: u64,
    pub host: String,
    pub at_ms: u64,
    pub writes: Vec<WrittenKey>,
    pub append: String,
}

/// A key that a decision writes.
#[derive(Debug, Clone)]
pub struct WrittenKey {
    /// With the value that its entry has: the last one.
    pub write: Write,
    /// How many decisions of the entry write it.
    pub writers: usize,
}

/// A decision that does not count any more: its handler was reset after it.
#[derive(Debug, Clone)]
pub struct BeforeReset {
    pub decided: TracedDecision,
    /// When it was reset.
    pub reset_ms: u64,
}

/// What is known, and what besides belongs to it.
pub struct Told {
    pub word: Word,
    pub before_resets: Vec<BeforeReset>,
    /// What of that could not be found out.
    pub note: Option<&'static str>,
}

impl From<Word> for Told {
    fn from(word: Word) -> Told {
        Told {
            word,
            before_resets: Vec::new(),
            note: None,
        }
    }
}

const RESET_UNKNOWN: &str = "the limit of what is read was reached: whether its handler was reset since is not known";

/// How an event is decided.
pub enum Word {
    Decided(Box<TracedDecision>),
    /// Its entry is collected; how it ended is known from the record of its death, if it has one.
    Collected(Option<DecisionKind>),
    Undecided,
    /// The bound was reached before it was found.
    Bound {
        /// It is decided, says the handler's floor.
        decided: bool,
    },
}

impl TracedDecision {
    fn of(entry: &Entry, handler: &str, event: &str, at_ms: u64) -> Option<TracedDecision> {
        let is = |d: &&Decision| d.handler == handler && d.event == event;
        let decision = entry.decisions.iter().find(is)?.clone();
        let written = |place: &usize| {
            let write = entry.writes.get(*place)?.clone();
            let writers = entry.decisions.iter().filter(|d| d.writes.contains(place)).count();
            Some(WrittenKey { write, writers })
        };
        Some(TracedDecision {
            writes: decision.writes.iter().filter_map(written).collect(),
            decision,
            entry: entry.n,
            host: entry.host.clone(),
            at_ms,
            append: entry.append.clone(),
        })
    }
}

/// What the entries contain about one event of one handler, read one after the other.
#[derive(Default)]
struct EventHistory {
    found: Option<TracedDecision>,
    before: Vec<BeforeReset>,
}

impl EventHistory {
    fn apply(&mut self, entry: &Entry, handler: &str, event: &str, at_ms: u64) {
        if entry.reset.iter().any(|name| name == handler)
            && let Some(decided) = self.found.take()
        {
            self.before.push(BeforeReset {
                decided,
                reset_ms: at_ms,
            });
        }
        if self.found.is_none() {
            self.found = TracedDecision::of(entry, handler, event, at_ms);
        }
    }
}

/// A reset removes the consumer first: a decision that is younger than the consumer stands. `made_ms`: when that was
/// made, by the clock of another server; `None`: it is not there.
fn stands(decided: &TracedDecision, made_ms: Option<u64>) -> bool {
    made_ms.is_some_and(|made| made + CLOCKS_MS <= decided.at_ms)
}

impl Tracer<'_> {
    /// Looks for the decision: by the record of a death, else in the entries since the event was stored. And for those
    /// that it had before its handler was reset.
    pub(super) async fn word(
        &mut self,
        (handler, ledger): (&Handler, &str),
        event: &EventId,
        message: Option<&TracedMessage>,
    ) -> Result<Told, Error> {
        let (stream, subjects) = (kv_stream(ledger), Subjects::new(ledger));
        let Some(head) = self.head(ledger).await? else {
            return Ok(Word::Undecided.into());
        };
        let below = head
            .floors
            .get(&handler.name)
            .is_some_and(|f| event.sequence <= f.of(&event.incarnation));
        let name = event.to_string();
        if let Some(word) = self.of_death(ledger, handler, &name).await? {
            return Ok(word.into());
        }
        let Some(info) = self.reading.connection.stream(&stream).await? else {
            return Ok(Word::Undecided.into());
        };
        let made_ms = self.made(handler).await?;
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
        let (mut account, mut unreadable) = (EventHistory::default(), None);
        let extent = self
            .reading
            .range(&range, |seen| {
                let entry = match read::entry(&seen.subject, &seen.payload) {
                    Ok(entry) => entry,
                    Err(error) => {
                        unreadable = Some(error);
                        return ControlFlow::Break(());
                    }
                };
                account.apply(&entry, &handler.name, &name, seen.time_ms);
                match &account.found {
                    Some(decided) if stands(decided, made_ms) => ControlFlow::Break(()),
                    Some(_) | None => ControlFlow::Continue(()),
                }
            })
            .await?;
        if let Some(error) = unreadable {
            return Err(error);
        }
        let note = (account.found.is_some() && extent == Extent::Bound).then_some(RESET_UNKNOWN);
        let word = match (account.found, extent) {
            (Some(decided), _) => Word::Decided(Box::new(decided)),
            (None, Extent::Bound) => Word::Bound { decided: below },
            (None, Extent::Whole | Extent::Enough) if below => Word::Collected(None),
            (None, Extent::Whole | Extent::Enough) => Word::Undecided,
        };
        Ok(Told {
            word,
            before_resets: account.before,
            note,
        })
    }

    /// What the record of an event's death tells of, if there is one.
    async fn of_death(&self, ledger: &str, handler: &Handler, name: &str) -> Result<Option<Word>, Error> {
        let (stream, subjects) = (kv_stream(ledger), Subjects::new(ledger));
        let subject = subjects.death(&handler.name, name);
        let connection = &self.reading.connection;
        let Some(stored) = connection.stored(&stream, By::Last(&subject)).await? else {
            return Ok(None);
        };
        let death: Death = parse(&subject, &stored.payload)?;
        let subject = subjects.entry(death.n);
        let decided = match connection.stored(&stream, By::Last(&subject)).await? {
            Some(entry) => TracedDecision::of(&parse(&subject, &entry.payload)?, &handler.name, name, entry.time_ms),
            None => None,
        };
        let word = decided.map_or(Word::Collected(Some(death.verdict)), |d| Word::Decided(Box::new(d)));
        Ok(Some(word))
    }

    /// When a handler's consumer was made.
    async fn made(&mut self, handler: &Handler) -> Result<Option<u64>, Error> {
        if let Some(known) = self.made.get(&handler.name) {
            return Ok(*known);
        }
        let consumer = self
            .reading
            .connection
            .consumer(&handler.stream, &handler.consumer)
            .await?;
        let made = consumer.and_then(|info| parse_rfc3339(&info.created));
        self.made.insert(handler.name.clone(), made);
        Ok(made)
    }

    /// The event that a handler has decided under an emitted event's id.
    pub(super) async fn decided_by_id(
        &mut self,
        handler: &Handler,
        subject: &str,
        id: &str,
        since_ms: u64,
    ) -> Result<(Option<EventId>, Extent), Error> {
        let (Some(ledger), Some(known)) = (&handler.ledger, identity::emitted(handler, subject, id, 0)) else {
            return Ok((None, Extent::Whole));
        };
        let (stream, subjects) = (kv_stream(ledger), Subjects::new(ledger));
        let Some(info) = self.reading.connection.stream(&stream).await? else {
            return Ok((None, Extent::Whole));
        };
        let range = Range {
            stream: &stream,
            info: &info,
            filters: &[subjects.entries()],
            first: self.reading.since(&stream, &info, since_ms).await?,
            last: info.state.last_seq,
            headers_only: false,
        };
        let is = |d: &&Decision| {
            d.handler == handler.name && d.same_as.is_none() && d.id.as_ref().is_some_and(|id| id.hash == known.hash)
        };
        let mut found = Ok(None);
        let extent = self
            .reading
            .range(&range, |seen| {
                let entry = read::entry(&seen.subject, &seen.payload);
                let decided = entry.map(|entry| {
                    let decision = entry.decisions.iter().find(is);
                    decision.and_then(|decision| EventId::parse(&decision.event))
                });
                match decided {
                    Ok(None) => ControlFlow::Continue(()),
                    decided => {
                        found = decided;
                        ControlFlow::Break(())
                    }
                }
            })
            .await?;
        Ok((found?, extent))
    }

    /// What a decision's event was to be followed by, each with the sequence of the ledger's message that it is in. `None`:
    /// the ledger does not know any more.
    pub(super) async fn consequences(
        &self,
        ledger: &str,
        decided: &TracedDecision,
    ) -> Result<Option<Vec<(u64, Consequence<'static>)>>, Error> {
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
                let of_it = out.consequences.into_iter().filter(|c| match c {
                    Consequence::Event { id, .. } | Consequence::Delayed { id, .. } => id.starts_with(&mine),
                    Consequence::Letter { .. } | Consequence::Settle { .. } => false,
                });
                found.extend(of_it.map(|consequence| (stored.sequence, consequence)));
            }
        }
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(n: u64, decisions: &[Decision], reset: &[&str]) -> Entry {
        let entry = json!({ "n": n, "append": "a", "host": "h", "at": "", "min_reader": 1, "decisions": decisions,
                            "reset": reset });
        serde_json::from_value(entry).unwrap()
    }

    #[test]
    fn a_decision_counts_until_its_own_handler_is_reset() {
        let decision = [Decision::of_test("h", "k.1", DecisionKind::Done)];
        let mut account = EventHistory::default();
        let mut apply = |entry: &Entry| {
            account.apply(entry, "h", "k.1", entry.n * 1000);
            let before: Vec<(u64, u64)> = account
                .before
                .iter()
                .map(|before| (before.decided.entry, before.reset_ms))
                .collect();
            (account.found.as_ref().map(|found| found.entry), before)
        };
        assert_eq!(apply(&entry(1, &[], &["h"])), (None, vec![]), "nothing to forget");
        assert_eq!(apply(&entry(2, &decision, &[])), (Some(2), vec![]));
        assert_eq!(apply(&entry(3, &[], &["other"])), (Some(2), vec![]));
        assert_eq!(apply(&entry(4, &[], &["h"])), (None, vec![(2, 4000)]));
        assert_eq!(apply(&entry(5, &decision, &[])), (Some(5), vec![(2, 4000)]));
    }

    #[test]
    fn only_a_decision_that_is_younger_than_the_consumer_by_any_clock_needs_no_further_reading() {
        let decision = [Decision::of_test("h", "k.1", DecisionKind::Done)];
        let decided = TracedDecision::of(&entry(1, &decision, &[]), "h", "k.1", 1_000_000).unwrap();
        assert!(stands(&decided, Some(1_000_000 - CLOCKS_MS)));
        assert!(!stands(&decided, Some(1_000_001 - CLOCKS_MS)));
        assert!(!stands(&decided, None), "its consumer is gone, as a reset leaves it");
    }
}
