//! What was seen while it was there: entries before they are collected, events before their stream is emptied or removed,
//! advisories before theirs is.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::Context;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, interval};

use super::BUCKETS;
use super::tail::Tail;
use crate::found::Emitted;
use crate::mesh::Found;

/// Often enough: nothing is collected before it is a minute old.
const EVERY: Duration = Duration::from_secs(5);

pub struct Seen {
    events: Tail,
    /// With the last sequence that was read.
    full: Mutex<(Tail, u64)>,
    /// `None`: the stream is not there.
    gone: Mutex<Option<Tail>>,
    ledgers: Vec<(&'static str, Tail)>,
    advisories: RefCell<Subscriber>,
    pub emitted: RefCell<Vec<Emitted>>,
    /// By bucket.
    pub entries: RefCell<BTreeMap<&'static str, Vec<(u64, Bytes)>>>,
    /// Sequences that the server gave up on, by handler.
    pub given_up: RefCell<BTreeMap<String, Vec<u64>>>,
}

impl Seen {
    pub async fn start(client: &async_nats::Client, js: &Context) -> Self {
        let mut ledgers = Vec::new();
        for bucket in BUCKETS {
            let filter = format!("$MESH.state.{bucket}.ledger.>");
            ledgers.push((bucket, Tail::of(js, &format!("KV_{bucket}"), &filter).await));
        }
        let advisories = client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>").await;
        Self {
            events: Tail::of(js, "EVENTS", ">").await,
            full: Mutex::new((Tail::of(js, "FULL", ">").await, 0)),
            gone: Mutex::new(Some(Tail::of(js, "GONE", ">").await)),
            ledgers,
            advisories: RefCell::new(advisories.expect("connected")),
            emitted: RefCell::default(),
            entries: RefCell::default(),
            given_up: RefCell::default(),
        }
    }

    /// Reads what comes, until `time` is over.
    pub async fn follow(&self, time: Duration) {
        let mut pace = interval(EVERY);
        let began = Instant::now();
        while began.elapsed() < time {
            pace.tick().await;
            self.read().await;
        }
    }

    /// What has come of everything.
    pub async fn read(&self) {
        for (bucket, tail) in &self.ledgers {
            let found = tail.read().await;
            let entries = found.into_iter().map(|entry| (entry.sequence, entry.payload));
            self.entries.borrow_mut().entry(bucket).or_default().extend(entries);
        }
        self.emitted(&self.events.read().await);
        self.read_full().await;
        self.read_gone().await;
        let mut advisories = self.advisories.borrow_mut();
        while let Some(Some(advisory)) = advisories.next().now_or_never() {
            let advisory: Value = serde_json::from_slice(&advisory.payload).expect("an advisory is JSON");
            let consumer = advisory["consumer"].as_str().unwrap_or_default().to_owned();
            let sequence = advisory["stream_seq"].as_u64().unwrap_or(0);
            self.given_up.borrow_mut().entry(consumer).or_default().push(sequence);
        }
    }

    /// Up to this sequence all has been read.
    pub async fn read_full(&self) -> u64 {
        let mut full = self.full.lock().await;
        let found = full.0.read().await;
        self.emitted(&found);
        full.1 = found.last().map_or(full.1, |event| event.sequence);
        full.1
    }

    async fn read_gone(&self) {
        if let Some(tail) = &*self.gone.lock().await {
            self.emitted(&tail.read().await);
        }
    }

    /// The target is removed, and nothing comes there any more.
    pub async fn remove_gone(&self, js: &Context) {
        let mut gone = self.gone.lock().await;
        if let Some(tail) = gone.take() {
            self.emitted(&tail.read().await);
        }
        js.delete_stream("GONE").await.expect("it is there");
    }

    /// The target is there again.
    pub async fn follow_gone(&self, js: &Context) {
        *self.gone.lock().await = Some(Tail::of(js, "GONE", ">").await);
    }

    fn emitted(&self, found: &[Found]) {
        self.emitted.borrow_mut().extend(found.iter().map(Emitted::of));
    }
}
