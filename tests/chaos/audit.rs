//! The auditor. It checks event by event whether each was done once or dead-lettered once, and whether everything that is there
//! is the sum of that and of nothing else. It replays the ledgers with its own idea of what the steps do.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::event::{Event, MALFORMED, Malformed};
use crate::found::{Emitted, Held, Ledger};
use crate::mesh::Found;
use crate::model::{self, Failure, State};
use crate::orders::{HANDLERS, Order, PLAIN, SHARED};
use crate::world::{Look, Put};

/// What the generator knows.
pub struct Known<'a> {
    pub orders: &'a [Order],
    /// By order, its sequence in the stream.
    pub published: &'a [u64],
    pub malformed: &'a [Malformed],
    /// [`PLAIN`] is there as well.
    pub plain: bool,
    pub puts: &'a [Put],
    pub looks: &'a [Look],
}

/// An event's decision.
struct Decided {
    entry: u64,
    event: String,
    dead: bool,
    cause: String,
}

/// What is wrong; each problem is one line.
pub fn judge(known: &Known<'_>, held: &Held) -> Vec<String> {
    let mut audit = Audit {
        known,
        published: published(known),
        decided: BTreeMap::new(),
        open: [0; HANDLERS.len()],
        events: BTreeMap::new(),
        problems: Vec::new(),
    };
    for (bucket, ledger) in &held.ledgers {
        audit.replay(bucket, ledger);
    }
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
    problems: Vec<String>,
}

impl<'a> Audit<'a> {
    fn wrong(&mut self, text: String) {
        self.problems.push(text);
    }

    /// Runs every transaction of a ledger in its order, with the person's writes between them, and compares: verdicts,
    /// values, revisions, and what the bucket holds in the end.
    fn replay(&mut self, bucket: &str, ledger: &Ledger) {
        let mut state = State::default();
        let mut puts = match bucket {
            SHARED => self.known.puts.to_vec(),
            _ => Vec::new(),
        };
        puts.sort_by_key(|put| put.sequence);
        let mut puts = puts.into_iter().peekable();
        let mut deaths = BTreeSet::new();
        for (i, (sequence, entry)) in ledger.entries.iter().enumerate() {
            let entry: Value = serde_json::from_slice(entry).expect("an entry is JSON");
            let n = entry["n"].as_u64().unwrap_or(0);
            if n != i as u64 + 1 {
                self.wrong(format!("{bucket}: entry {n} stands at place {}", i + 1));
            }
            while let Some(put) = puts.next_if(|put| put.sequence < *sequence) {
                state.put(&put.key, Some(put.value), put.sequence);
            }
            let mut written: BTreeMap<String, Option<String>> = BTreeMap::new();
            for decision in entry["decisions"].as_array().into_iter().flatten() {
                self.decision(bucket, n, decision, &state, &mut written, &mut deaths);
            }
            self.writes(bucket, (*sequence, &entry), &written, &mut state);
            self.floors(bucket, n, &entry["floors"]);
        }
        for put in puts {
            state.put(&put.key, Some(put.value), put.sequence);
        }
        if ledger.head["n"].as_u64().unwrap_or(0) != ledger.entries.len() as u64 {
            let (head, entries) = (&ledger.head["n"], ledger.entries.len());
            self.wrong(format!(
                "{bucket}: the head says {head}, and there are {entries} entries"
            ));
        }
        let found: BTreeSet<_> = ledger.deaths.iter().cloned().collect();
        if found != deaths {
            self.wrong(format!("{bucket}: death records {found:?}, deaths {deaths:?}"));
        }
        let told = state.values();
        let live = ledger.keys.iter().filter(|(_, (_, value))| value.is_some());
        let names: BTreeSet<&String> = told.keys().chain(live.map(|(key, _)| key)).collect();
        for key in names {
            let there = ledger.keys.get(key).cloned().unwrap_or_default();
            let told = state.key(key);
            if (told.revision, &told.value) != (there.0, &there.1) {
                self.wrong(format!(
                    "{bucket}: {key} is {there:?}, and the ledger makes it {told:?}"
                ));
            }
        }
    }

    /// One decision: the event is known, it is its first, and the steps give this verdict here.
    fn decision(
        &mut self,
        bucket: &str,
        entry: u64,
        decision: &Value,
        before: &State,
        written: &mut BTreeMap<String, Option<String>>,
        deaths: &mut BTreeSet<String>,
    ) {
        let text = |name: &str| decision[name].as_str().unwrap_or_default().to_owned();
        let (name, event) = (text("handler"), text("event"));
        let here = format!("{bucket} entry {entry}: {name} {event}");
        let handler = HANDLERS.iter().position(|(known, _)| *known == name);
        let sequence = event.rsplit_once('.').and_then(|(_, sequence)| sequence.parse().ok());
        let found = sequence.and_then(|sequence: u64| Some((sequence, *self.published.get(&sequence)?)));
        let (Some(handler), Some((sequence, found))) = (handler, found) else {
            return self.wrong(format!("{here}: nobody has published that"));
        };
        let attempt = decision["attempt"]
            .as_u64()
            .and_then(|a| u32::try_from(a).ok())
            .unwrap_or(0);
        let dead = decision["verdict"] == "dead";
        let is_malformed = (dead, &*text("cause"), &*text("code")) == (true, "rejected", MALFORMED);
        match found {
            Event::Malformed(_) if is_malformed => {}
            Event::Malformed(_) => self.wrong(format!("{here} is {decision}, and no client can read it")),
            Event::Order(order) => {
                let steps = &order.steps[handler];
                let read = |key: &str| written.get(key).cloned().unwrap_or_else(|| before.key(key).value);
                match (model::run(&name, attempt, steps, read), dead) {
                    (Ok(effects), false) => {
                        written.extend(effects.writes);
                        for (subject, payload) in effects.emits {
                            let emit = Emitted {
                                handler: name.clone(),
                                event: event.clone(),
                                subject,
                                payload: payload.to_string(),
                            };
                            *self.events.entry(emit).or_default() += 1;
                        }
                    }
                    (Err(Failure::Rejected(code)), true) if text("cause") == "rejected" && text("code") == code => {}
                    (_, true) if text("cause") == "exhausted" && model::may_exhaust(steps) => {}
                    (told, _) => self.wrong(format!(
                        "{here} is {decision}, and order {} at this place is {told:?}",
                        order.number
                    )),
                }
            }
        }
        if dead {
            deaths.insert(format!("{name}.{event}"));
        }
        let decided = Decided {
            entry,
            event,
            dead,
            cause: text("cause"),
        };
        if let Some(first) = self.decided.insert((handler, sequence), decided) {
            self.wrong(format!("{here}: entry {} has decided it already", first.entry));
        }
    }

    /// The keys that an entry says it wrote are those that its transactions write, upon what was there.
    fn writes(
        &mut self,
        bucket: &str,
        (sequence, entry): (u64, &Value),
        written: &BTreeMap<String, Option<String>>,
        state: &mut State,
    ) {
        let decisions = entry["decisions"].as_array().into_iter().flatten();
        let deaths = decisions.filter(|decision| decision["verdict"] == "dead").count() as u64;
        let mut said = BTreeSet::new();
        let writes = entry["writes"].as_array().into_iter().flatten();
        for (write, revision) in writes.zip(sequence + 2 + deaths..) {
            let key = write["key"].as_str().unwrap_or_default();
            let value = write["value"]["text"].as_str().map(str::to_owned);
            // An entry writes each key once.
            let base = state.key(key).revision;
            if write["base"] != base {
                let (n, found) = (&entry["n"], &write["base"]);
                self.wrong(format!(
                    "{bucket} entry {n}: {key} is written upon {found}, and was {base}"
                ));
            }
            if written.get(key) != Some(&value) {
                let (n, told) = (&entry["n"], written.get(key));
                self.wrong(format!(
                    "{bucket} entry {n}: {key} becomes {value:?}, and ought to be {told:?}"
                ));
            }
            said.insert(key.to_owned());
            state.put(key, value, revision);
        }
        for key in written.keys().filter(|key| !said.contains(*key)) {
            let n = &entry["n"];
            self.wrong(format!("{bucket} entry {n}: {key} ought to be written, and is not"));
        }
    }

    /// A floor that an entry tells passes no event that is not decided by then.
    fn floors(&mut self, bucket: &str, n: u64, floors: &Value) {
        for (name, floor) in floors.as_object().into_iter().flatten() {
            let Some(handler) = HANDLERS.iter().position(|(known, _)| known == name) else {
                continue;
            };
            let floor = floor["floor"].as_u64().unwrap_or(0);
            let open = self.first_open(handler);
            if open <= floor {
                self.wrong(format!(
                    "{bucket} entry {n}: the floor of {name} is {floor}, and {open} is not decided"
                ));
            }
        }
    }

    /// The first event that is not decided, as far as the ledger has been replayed.
    fn first_open(&mut self, handler: usize) -> u64 {
        let from = self.published.range(self.open[handler]..);
        let mut open = from.map(|(sequence, _)| *sequence);
        let open = open.find(|sequence| !self.decided.contains_key(&(handler, *sequence)));
        self.open[handler] = open.unwrap_or(u64::MAX);
        self.open[handler]
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

    /// Each event that is dead has one letter with its bytes and its cause, and no other event has one.
    fn letters(&mut self, held: &Held) {
        let mut letters: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
        for letter in &held.letters {
            letters.entry(&letter.subject).or_default().push(letter);
        }
        let mut problems = Vec::new();
        let mut owed = |name: &str, event: &str, sequence: u64, cause: &str| {
            let subject = format!("$MESH.dead.ORDERS.{name}.{event}");
            let found = letters.remove(subject.as_str()).unwrap_or_default();
            let [letter] = found[..] else {
                problems.push(format!("{name} {event} is dead, and has {} letters", found.len()));
                return;
            };
            let whole = self.published.get(&sequence).is_some_and(|event| event.is_of(letter));
            if !whole || letter.header("Mesh-Cause") != Some(cause) || letter.header("Mesh-Settled").is_some() {
                problems.push(format!("{name} {event} has a letter that is not its own: {letter:?}"));
            }
        };
        for ((handler, sequence), decided) in self.decided.iter().filter(|(_, decided)| decided.dead) {
            owed(HANDLERS[*handler].0, &decided.event, *sequence, &decided.cause);
        }
        if self.known.plain {
            let any = self.decided.values().next().map_or("", |decided| &decided.event);
            let incarnation = any.split('.').next().unwrap_or_default();
            for (sequence, event) in &self.published {
                if let Some(cause) = event.dies_without_ledger() {
                    owed(PLAIN, &format!("{incarnation}.{sequence}"), *sequence, cause);
                }
            }
        }
        problems.extend(
            letters
                .keys()
                .map(|subject| format!("{subject} is a letter of nobody dead")),
        );
        self.problems.extend(problems);
    }

    /// Nothing was acked before it was decided, and in the end everything is.
    fn acks(&mut self, held: &Held) {
        let decided_by: Vec<_> = (0..HANDLERS.len()).map(|handler| self.decided_by(handler)).collect();
        for look in self.known.looks {
            let Look {
                handler,
                acked,
                entries,
            } = *look;
            let name = HANDLERS[handler].0;
            let below = decided_by[handler].range(..=acked).next_back();
            if below.is_none_or(|(_, entry)| *entry <= entries) {
                continue;
            }
            let late = |event: &&u64| {
                let decided = self.decided.get(&(handler, **event));
                decided.is_none_or(|decided| decided.entry > entries)
            };
            let open = self.published.keys().find(late).copied().unwrap_or(0);
            let given_up = held.given_up.get(name);
            if !given_up.is_some_and(|given_up| given_up.contains(&open)) {
                self.wrong(format!(
                    "{name}: {acked} was acked, and {open} was not decided by entry {entries}"
                ));
            }
        }
        let last = self.published.keys().max().copied().unwrap_or(0);
        let plain = self.known.plain.then_some(PLAIN);
        for name in HANDLERS.map(|(name, _)| name).into_iter().chain(plain) {
            let info = &held.consumers[name];
            let acked = &info["ack_floor"]["stream_seq"];
            let waits = (&info["num_pending"], &info["num_ack_pending"]);
            if *acked != last || *waits.0 != 0 || *waits.1 != 0 {
                let (pending, unacked) = waits;
                self.wrong(format!(
                    "{name}: acked up to {acked} of {last}, {pending} not delivered, {unacked} not acked"
                ));
            }
        }
    }

    /// By event, the entry by which it and all before it were decided; those that are not: never.
    fn decided_by(&self, handler: usize) -> BTreeMap<u64, u64> {
        let mut by = 0;
        let events = self.published.keys().map(|event| {
            let decided = self.decided.get(&(handler, *event));
            by = by.max(decided.map_or(u64::MAX, |decided| decided.entry));
            (*event, by)
        });
        events.collect()
    }
}
