//! What streams and buckets hold when a round is over.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use crate::mesh::{Found, Mesh};
use crate::orders::{HANDLERS, PLAIN, SHARED};
use crate::redrives;
use crate::rows;
use crate::ticks;
use crate::timers;

/// Everything that the auditor looks at, beside the generator's list.
pub struct Held {
    /// By bucket.
    pub ledgers: BTreeMap<&'static str, Ledger>,
    pub emitted: Vec<Emitted>,
    /// The letters of emitted events that their targets do not take.
    pub undeliverable: Vec<Found>,
    pub letters: Vec<Found>,
    /// Sequences that the server gave up on, by handler.
    pub given_up: BTreeMap<String, Vec<u64>>,
    /// The server's information about each handler's consumer.
    pub consumers: BTreeMap<&'static str, Value>,
}

/// An event that a handler has emitted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Emitted {
    /// Of which handler's event it is a consequence.
    pub handler: String,
    pub event: String,
    pub subject: String,
    pub payload: String,
}

impl Emitted {
    pub fn of(event: &Found) -> Self {
        let header = |name: &str| event.header(name).unwrap_or_default().to_owned();
        Self {
            handler: header("Mesh-Cause-Handler"),
            event: header("Mesh-Cause-Event"),
            subject: event.subject.clone(),
            payload: String::from_utf8_lossy(&event.payload).into_owned(),
        }
    }

    /// Of the letter of one that its target does not take.
    pub fn of_letter(letter: &Found) -> Self {
        let header = |name: &str| letter.header(name).unwrap_or_default().to_owned();
        Self {
            handler: header("Mesh-Original-Mesh-Cause-Handler"),
            event: header("Mesh-Original-Mesh-Cause-Event"),
            subject: header("Mesh-Subject"),
            payload: String::from_utf8_lossy(&letter.payload).into_owned(),
        }
    }
}

/// What a bucket's stream holds.
pub struct Ledger {
    /// With their sequences, in that order.
    pub entries: Vec<(u64, Bytes)>,
    pub head: Value,
    /// `<handler>.<event>` of each death record.
    pub deaths: Vec<String>,
    /// Keys with revision and value; `None`: deleted.
    pub keys: BTreeMap<String, (u64, Option<String>)>,
}

impl Held {
    pub async fn read(mesh: &Mesh) -> Self {
        let mut given_up: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for advisory in mesh.messages("MESH_ADVISORIES", "*.*.*.*.MAX_DELIVERIES.>").await {
            let advisory = advisory.json();
            let (consumer, sequence) = (advisory["consumer"].as_str(), advisory["stream_seq"].as_u64());
            let consumer = consumer.unwrap_or_default().to_owned();
            given_up.entry(consumer).or_default().push(sequence.unwrap_or(0));
        }
        let mut emitted = Vec::new();
        for stream in ["EVENTS", "FULL", "SMALL"] {
            emitted.extend(mesh.messages(stream, ">").await.iter().map(Emitted::of));
        }
        Self {
            emitted,
            given_up,
            ..Self::rest(mesh).await
        }
    }

    /// All but what is emitted and what the server gave up on.
    pub async fn rest(mesh: &Mesh) -> Self {
        let mut ledgers = BTreeMap::new();
        for bucket in [SHARED, "mesh"] {
            ledgers.insert(bucket, Ledger::read(mesh, bucket).await);
        }
        let mut consumers = BTreeMap::new();
        for name in HANDLERS.map(|(name, _)| name).into_iter().chain([PLAIN]) {
            consumers.insert(name, mesh.consumer("ORDERS", name).await);
        }
        let letters = mesh.messages("MESH_DEAD", ">").await.into_iter();
        // Those of an outbox have an auditor of their own.
        let letters = letters.filter(|letter| letter.header("Mesh-Handler") != Some(rows::NAME));
        let (undeliverable, letters) =
            letters.partition(|letter: &Found| letter.header("Mesh-Cause") == Some("undeliverable"));
        Self {
            ledgers,
            emitted: Vec::new(),
            undeliverable,
            letters,
            given_up: BTreeMap::new(),
            consumers,
        }
    }
}

/// Whether a schedule, or a redrive, which is one, has this key.
fn is_of_schedules(key: &str) -> bool {
    key == ticks::KEY || key.starts_with(redrives::KEYS)
}

/// An entry without what schedules have in it, which have auditors of their own, and with plain values of timers. No handler writes
/// keys of the bucket of schedules in the same round.
fn entry_of_handlers(entry: Bytes) -> Bytes {
    let mut json: Value = serde_json::from_slice(&entry).expect("an entry is JSON");
    let is_tick = |value: &Value| value.as_str().is_some_and(is_of_schedules);
    for (list, name) in [("decisions", "handler"), ("writes", "key")] {
        if let Some(list) = json[list].as_array_mut() {
            list.retain(|one| !is_tick(&one[name]));
        }
    }
    for write in json["writes"].as_array_mut().into_iter().flatten() {
        let key = write["key"].as_str().unwrap_or_default();
        if let Some(value) = write["value"]["text"].as_str()
            && let Some(plain) = timers::plain(key, value)
        {
            write["value"]["text"] = plain.into();
        }
    }
    json.to_string().into()
}

impl Ledger {
    /// How many decisions its entries have.
    pub fn decisions(&self) -> usize {
        let count = self.entries.iter().map(|(_, entry)| {
            let entry: Value = serde_json::from_slice(entry).expect("an entry is JSON");
            entry["decisions"].as_array().map_or(0, Vec::len)
        });
        count.sum()
    }

    async fn read(mesh: &Mesh, bucket: &str) -> Self {
        let (mut entries, mut heads, mut deaths, mut keys) = (vec![], vec![], vec![], BTreeMap::new());
        let state = format!("$MESH.state.{bucket}.");
        let key = format!("$KV.{bucket}.");
        for message in mesh.messages(&format!("KV_{bucket}"), ">").await {
            if let Some(key) = message.subject.strip_prefix(&key) {
                // What the mesh knows of source streams is no handler's state.
                if key.starts_with("incarnation.") || is_of_schedules(key) {
                    continue;
                }
                let deleted = message.header("KV-Operation").is_some();
                let value = String::from_utf8_lossy(&message.payload).into_owned();
                let value = (!deleted).then(|| timers::plain(key, &value).unwrap_or(value));
                keys.insert(key.to_owned(), (message.sequence, value));
                continue;
            }
            let name = message.subject.strip_prefix(&state).expect("the stream has no others");
            match name.split_once('.') {
                None if name == "head" => heads.push(message.json()),
                Some(("ledger", _)) => entries.push((message.sequence, entry_of_handlers(message.payload))),
                Some(("dead", rest)) => deaths.push(rest.to_owned()),
                _ => {}
            }
        }
        assert!(heads.len() <= 1, "a subject has one message in a bucket");
        Self {
            entries,
            head: heads.pop().unwrap_or(Value::Null),
            deaths,
            keys,
        }
    }
}
