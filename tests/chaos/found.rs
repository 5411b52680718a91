//! What streams and buckets hold when a round is over.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::mesh::{Found, Mesh};
use crate::orders::{HANDLERS, SHARED};

/// Everything that the auditor looks at, beside the generator's list.
pub struct Held {
    /// By bucket.
    pub ledgers: BTreeMap<&'static str, Ledger>,
    pub emitted: Vec<Found>,
    /// The letters of emitted events that their targets do not take.
    pub undeliverable: Vec<Found>,
    pub letters: Vec<Found>,
    /// Sequences that the server gave up on, by handler.
    pub given_up: BTreeMap<String, Vec<u64>>,
    /// What the server says of each handler's consumer, in the order of [`HANDLERS`].
    pub consumers: Vec<Value>,
}

/// What a bucket's stream holds.
pub struct Ledger {
    /// With their sequences, in that order.
    pub entries: Vec<(u64, Value)>,
    pub head: Value,
    /// `<handler>.<event>` of each death record.
    pub deaths: Vec<String>,
    /// Keys with revision and value; `None`: deleted.
    pub keys: BTreeMap<String, (u64, Option<String>)>,
}

impl Held {
    pub async fn read(mesh: &Mesh) -> Self {
        let mut ledgers = BTreeMap::new();
        for bucket in [SHARED, "mesh"] {
            ledgers.insert(bucket, Ledger::read(mesh, bucket).await);
        }
        let mut given_up: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for advisory in mesh.messages("MESH_ADVISORIES", "*.*.*.*.MAX_DELIVERIES.>").await {
            let advisory = advisory.json();
            let (consumer, sequence) = (advisory["consumer"].as_str(), advisory["stream_seq"].as_u64());
            let consumer = consumer.unwrap_or_default().to_owned();
            given_up.entry(consumer).or_default().push(sequence.unwrap_or(0));
        }
        let mut consumers = Vec::new();
        for (name, _) in HANDLERS {
            consumers.push(mesh.consumer("ORDERS", name).await);
        }
        let mut emitted = Vec::new();
        for stream in ["EVENTS", "FULL", "SMALL"] {
            emitted.extend(mesh.messages(stream, ">").await);
        }
        let letters = mesh.messages("MESH_DEAD", ">").await.into_iter();
        let (undeliverable, letters) =
            letters.partition(|letter: &Found| letter.header("Mesh-Cause") == Some("undeliverable"));
        Self {
            ledgers,
            emitted,
            undeliverable,
            letters,
            given_up,
            consumers,
        }
    }
}

impl Ledger {
    async fn read(mesh: &Mesh, bucket: &str) -> Self {
        let (mut entries, mut heads, mut deaths, mut keys) = (vec![], vec![], vec![], BTreeMap::new());
        let state = format!("$MESH.state.{bucket}.");
        let key = format!("$KV.{bucket}.");
        for message in mesh.messages(&format!("KV_{bucket}"), ">").await {
            if let Some(key) = message.subject.strip_prefix(&key) {
                // What the mesh knows of source streams is no handler's state.
                if key.starts_with("incarnation.") {
                    continue;
                }
                let deleted = message.header("KV-Operation").is_some();
                let value = String::from_utf8_lossy(&message.payload).into_owned();
                keys.insert(key.to_owned(), (message.sequence, (!deleted).then_some(value)));
                continue;
            }
            let name = message.subject.strip_prefix(&state).expect("the stream has no others");
            match name.split_once('.') {
                None if name == "head" => heads.push(message.json()),
                Some(("ledger", _)) => entries.push((message.sequence, message.json())),
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
