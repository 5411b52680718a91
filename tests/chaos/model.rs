//! What the probe's steps do to a bucket, told once more and without jetmesh: the auditor's own idea of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::orders::Step;
use crate::timers::TimerSet;

/// A bucket's keys. A key that was deleted keeps its revision.
#[derive(Debug, Clone, Default)]
pub struct State(BTreeMap<String, Key>);

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Key {
    pub value: Option<String>,
    /// 0: it never was.
    pub revision: u64,
}

/// What a run that succeeds does.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    pub writes: BTreeMap<String, Option<String>>,
    /// Subject and payload.
    pub emits: Vec<(String, Value)>,
    /// By name.
    pub timers: BTreeMap<String, TimerSet>,
}

/// How a run fails.
#[derive(Debug, PartialEq)]
pub enum Failure {
    /// For good, with this code.
    Rejected(String),
    /// It is to be tried again.
    Retry,
}

impl State {
    pub fn key(&self, key: &str) -> Key {
        self.0.get(key).cloned().unwrap_or_default()
    }

    pub fn put(&mut self, key: &str, value: Option<String>, revision: u64) {
        self.0.insert(key.to_owned(), Key { value, revision });
    }

    /// The keys that have a value.
    pub fn values(&self) -> BTreeMap<String, Key> {
        let live = self.0.iter().filter(|(_, key)| key.value.is_some());
        live.map(|(name, key)| (name.clone(), key.clone())).collect()
    }
}

/// What an attempt of a handler does. `read`: the value of a key before it.
pub fn run(
    handler: &str,
    attempt: u32,
    steps: &[Step],
    read: impl Fn(&str) -> Option<String>,
) -> Result<Effects, Failure> {
    let mut effects = Effects::default();
    for step in steps {
        let get = |key: &str| match effects.writes.get(key) {
            Some(own) => own.clone(),
            None => read(key),
        };
        let number = |key: &str| get(key).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        let (key, value) = match step {
            Step::Append { key, text, with } => {
                let with = with
                    .as_deref()
                    .map(|with| format!("={}", get(with).unwrap_or_default()));
                let word = format!("{handler}:{text}{}", with.unwrap_or_default());
                (
                    key,
                    Some(get(key).map_or(word.clone(), |list| format!("{list} {word}"))),
                )
            }
            Step::Add { key, by } => (key, Some((number(key) + by).to_string())),
            Step::Take { key } if number(key) <= 0 => return Err(Failure::Rejected("sold-out".to_owned())),
            Step::Take { key } => (key, Some((number(key) - 1).to_string())),
            Step::Set { key, value } => (key, Some(value.clone())),
            Step::Delete { key } => (key, None),
            Step::Tell { key, subject } => {
                effects.emits.push((subject.clone(), json!(get(key))));
                continue;
            }
            Step::Emit { subject, payload } | Step::EmitLater { subject, payload, .. } => {
                effects.emits.push((subject.clone(), payload.clone()));
                continue;
            }
            Step::TimerSet {
                name, subject, payload, ..
            } => {
                let set = (subject.clone(), payload.clone());
                effects.timers.insert(name.clone(), Some(set));
                continue;
            }
            Step::TimerCancel { name } => {
                effects.timers.insert(name.clone(), None);
                continue;
            }
            Step::Reject { code, .. } => return Err(Failure::Rejected(code.clone())),
            Step::Retry { .. } | Step::Trap => return Err(Failure::Retry),
            Step::FailUntil { attempt: first } if attempt < *first => return Err(Failure::Retry),
            Step::Need { key } if get(key).is_none() => return Err(Failure::Retry),
            Step::FailUntil { .. } | Step::Need { .. } | Step::Sleep { .. } | Step::InVersion { .. } => continue,
        };
        effects.writes.insert(key.clone(), value);
    }
    Ok(effects)
}

/// Whether attempts of these steps fail, at the first or always, so that the event may end as exhausted.
pub fn may_exhaust(steps: &[Step]) -> bool {
    let fails = |step: &Step| step.is_failure() && !matches!(step, Step::Reject { .. });
    steps.iter().any(fails)
}
