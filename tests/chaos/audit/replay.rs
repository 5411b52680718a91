//! A ledger, replayed with the auditor's own idea of what the steps do.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Audit, Decided, EventFate};
use crate::event::{Event, MALFORMED};
use crate::found::{Emitted, Ledger};
use crate::model::{self, Failure, State};
use crate::orders::{HANDLERS, SHARED};
use crate::timers;

impl Audit<'_> {
    /// Runs every transaction of a ledger in its order, with the person's writes between them, and compares: verdicts,
    /// values, revisions, and what the bucket holds in the end.
    pub(super) fn replay(&mut self, bucket: &str, ledger: &Ledger) {
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
                match decision["handler"] == timers::FIRINGS {
                    true => self.firing(bucket, &entry, decision, &mut written),
                    false => self.decision(bucket, n, decision, &state, &mut written, &mut deaths),
                }
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

    /// One decision: the event is known, it is its first or a replay of its death, and the steps give this verdict here.
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
            return self.wrong(format!("{here}: that was not published"));
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
                        for (timer, set) in effects.timers {
                            written.extend([self.timers.commit(bucket, (&name, &event), &timer, set)]);
                        }
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
        let fate = if dead { EventFate::Dead } else { EventFate::Done };
        let decided = Decided {
            entry,
            event,
            fate,
            cause: text("cause"),
        };
        match (
            self.decided.get_mut(&(handler, sequence)),
            decision["follows_death"].as_u64(),
        ) {
            (None, None) => drop(self.decided.insert((handler, sequence), decided)),
            (Some(first), follows)
                if (first.fate, follows, fate) == (EventFate::Dead, Some(first.entry), EventFate::Done) =>
            {
                first.fate = EventFate::Revived;
            }
            (first, follows) => {
                let first = first.map(|first| first.entry);
                self.wrong(format!(
                    "{here} follows the death of entry {follows:?}, and is decided by entry {first:?}"
                ));
            }
        }
    }

    /// The firing of a timer: it is set at this place, and it is no more after it.
    fn firing(
        &mut self,
        bucket: &str,
        entry: &Value,
        decision: &Value,
        written: &mut BTreeMap<String, Option<String>>,
    ) {
        let places = decision["writes"].as_array().into_iter().flatten();
        let places = places.filter_map(|place| usize::try_from(place.as_u64()?).ok());
        let keys: Vec<&str> = places
            .filter_map(|place| entry["writes"][place]["key"].as_str())
            .collect();
        let event = decision["event"].as_str().unwrap_or_default();
        match self.timers.fire(bucket, event, &keys) {
            Ok((emit, writes)) => {
                written.extend(writes);
                *self.events.entry(emit).or_default() += 1;
            }
            Err(why) => self.wrong(format!("{bucket} entry {}: {event} {why}", entry["n"])),
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
        // Each death has a record in the batch, which a replay that succeeds overwrites.
        let recorded = |one: &&Value| one["verdict"] == "dead" || !one["follows_death"].is_null();
        let deaths = decisions.filter(recorded).count() as u64;
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
}
