//! The auditor. It checks event by event whether each was done once or dead-lettered once, and whether everything that is there
//! is the sum of that and of nothing else. It replays the ledgers with its own idea of what the steps do.

use std::collections::BTreeMap;

use crate::event::{Event, Malformed};
use crate::found::{Emitted, Held};
use crate::orders::{HANDLERS, Order};
use crate::timers::Timers;
use crate::world::{Look, Put};

mod acks;
mod letters;
mod replay;

/// What the generator knows.
pub struct Known<'a> {
    pub orders: &'a [Order],
    /// By order, its sequence in the stream.
    pub published: &'a [u64],
    pub malformed: &'a [Malformed],
    /// The handler without a ledger is there as well.
    pub plain: bool,
    pub puts: &'a [Put],
    pub looks: &'a [Look],
    /// How often the mesh replays a dead letter by itself, if it does.
    pub redrives_max: Option<usize>,
}

/// An event's decision.
struct Decided {
    entry: u64,
    event: String,
    fate: EventFate,
    cause: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventFate {
    Done,
    Dead,
    /// Dead at first, and then done in a replay.
    Revived,
}

/// What is wrong; each problem is one line.
pub fn judge(known: &Known<'_>, held: &Held) -> Vec<String> {
    let mut audit = Audit {
        known,
        published: published(known),
        decided: BTreeMap::new(),
        open: [0; HANDLERS.len()],
        events: BTreeMap::new(),
        timers: Timers::default(),
        problems: Vec::new(),
    };
    for (bucket, ledger) in &held.ledgers {
        audit.replay(bucket, ledger);
    }
    audit.problems.extend(audit.timers.lost());
    audit.each_event_is_decided();
    audit.emitted(held);
    audit.letters(held);
    audit.acks(held);
    audit.problems
}

/// By sequence.
fn published<'a>(known: &Known<'a>) -> BTreeMap<u64, Event<'a>> {
    let orders = known
        .published
        .iter()
        .copied()
        .zip(known.orders.iter().map(Event::Order));
    let malformed = known.malformed.iter().map(|one| (one.sequence, Event::Malformed(one)));
    orders.chain(malformed).collect()
}

struct Audit<'a> {
    known: &'a Known<'a>,
    published: BTreeMap<u64, Event<'a>>,
    /// By handler and sequence.
    decided: BTreeMap<(usize, u64), Decided>,
    /// By handler: below this everything is decided, as far as the ledger has been replayed.
    open: [u64; HANDLERS.len()],
    /// What ought to be emitted, and how often.
    events: BTreeMap<Emitted, i64>,
    timers: Timers,
    problems: Vec<String>,
}

impl Audit<'_> {
    fn wrong(&mut self, text: String) {
        self.problems.push(text);
    }

    fn each_event_is_decided(&mut self) {
        for (handler, (name, _)) in HANDLERS.iter().enumerate() {
            for (sequence, event) in self.published.clone() {
                if !self.decided.contains_key(&(handler, sequence)) {
                    let what = match event {
                        Event::Order(order) => format!("order {}", order.number),
                        Event::Malformed(_) => "a malformed message".to_owned(),
                    };
                    self.wrong(format!("{name}: {what}, event {sequence}, is neither done nor dead"));
                }
            }
        }
    }

    /// Each event that is done has emitted what its run at its place emits, once, and nothing else was emitted. What its target
    /// does not take is a letter instead, and never both.
    fn emitted(&mut self, held: &Held) {
        let mut missing = std::mem::take(&mut self.events);
        for event in &held.emitted {
            *missing.entry(event.clone()).or_default() -= 1;
        }
        for letter in &held.undeliverable {
            let emit = Emitted::of_letter(letter);
            if !["full.x", "small.x", "gone.x"].contains(&emit.subject.as_str()) {
                self.wrong(format!(
                    "{} is undeliverable, and its target takes everything",
                    letter.subject
                ));
            }
            *missing.entry(emit).or_default() -= 1;
        }
        for (emit, count) in missing.into_iter().filter(|(_, count)| *count != 0) {
            let what = if count > 0 {
                "is missing"
            } else {
                "is there, but ought not to be"
            };
            let times = count.abs();
            self.wrong(format!("{emit:?} {what}, {times} times"));
        }
    }
}
