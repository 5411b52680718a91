//! Those who are there beside the hosts: the publisher, a person who writes to the bucket, and one who looks on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use base64::Engine as _;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::mesh::PATIENT;
use crate::orders::{HANDLERS, Order, SHARED};
use crate::redrives;
use crate::support::eventually;

/// Between two writes of the person, and two looks.
pub const PUT_EVERY: Duration = Duration::from_millis(40);
const LOOK_EVERY: Duration = Duration::from_millis(60);

/// Shared by all who take part in a round.
#[derive(Default)]
pub struct World {
    /// By order, its sequence in the stream.
    pub published: Mutex<Vec<u64>>,
    pub puts: Mutex<Vec<Put>>,
    pub looks: Mutex<Vec<Look>>,
    pub all_published: AtomicBool,
    pub over: AtomicBool,
}

/// A person's write.
#[derive(Debug, Clone)]
pub struct Put {
    pub key: String,
    pub value: String,
    pub sequence: u64,
}

/// At a moment the server believed every event up to `acked` to be settled; the ledger had `entries`, or fewer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// In the order of [`HANDLERS`].
    pub handler: usize,
    pub acked: u64,
    pub entries: u64,
}

/// A message by its subject, from its stream's leader: its sequence and payload. `None`: there is none, or no answer.
pub async fn last(js: &jetstream::Context, stream: &str, subject: &str) -> Option<(u64, Vec<u8>)> {
    let request = json!({ "last_by_subj": subject });
    let answer: Value = js.request(format!("STREAM.MSG.GET.{stream}"), &request).await.ok()?;
    let payload = answer["message"]["data"].as_str().unwrap_or_default();
    let payload = base64::engine::general_purpose::STANDARD.decode(payload).ok()?;
    Some((answer["message"]["seq"].as_u64()?, payload))
}

/// The server's information about a consumer. `None`: there is none, or no answer.
pub async fn consumer(js: &jetstream::Context, stream: &str, name: &str) -> Option<Value> {
    let answer: Value = js
        .request(format!("CONSUMER.INFO.{stream}.{name}"), &json!({}))
        .await
        .ok()?;
    answer["error"].is_null().then_some(answer)
}

/// The head of a bucket's ledger.
pub async fn head(js: &jetstream::Context, bucket: &str) -> Option<Value> {
    let (_, head) = last(js, &format!("KV_{bucket}"), &format!("$MESH.state.{bucket}.head")).await?;
    serde_json::from_slice(&head).ok()
}

/// Publishes until the stream has it; its sequence. Published again after a lost answer, it is the same message by its id.
async fn publish_once(js: &jetstream::Context, subject: &str, id: &str, payload: &str) -> u64 {
    loop {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        let sent = js.publish_with_headers(subject.to_owned(), headers, payload.to_owned().into());
        if let Ok(answer) = sent.await
            && let Ok(ack) = answer.await
        {
            return ack.sequence;
        }
    }
}

impl World {
    /// Publishes the orders of a range, each until the stream has it.
    pub async fn publish(&self, js: &jetstream::Context, orders: &[Order], every: Duration) {
        // A pace, not a wait: so that something is under way whenever the point is hit.
        let mut pace = interval(every);
        for order in orders {
            pace.tick().await;
            let sequence = publish_once(js, "orders.chaos", &order.number.to_string(), &order.payload()).await;
            self.published.lock().expect("no holder panics").push(sequence);
        }
    }

    /// Writes to keys that handlers read and write, as `nats kv put` and `nats kv update` do, until all is published.
    pub async fn write(&self, js: &jetstream::Context, seed: u64, every: Duration) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut pace = interval(every);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0.. {
            pace.tick().await;
            if self.all_published.load(Ordering::Relaxed) {
                return;
            }
            let key = ["rate", "hot", "stock.0", "stock.1"][rng.random_range(0..4)].to_owned();
            let subject = format!("$KV.{SHARED}.{key}");
            let before = last(js, &format!("KV_{SHARED}"), &subject).await;
            let text = before
                .as_ref()
                .map(|(_, text)| String::from_utf8_lossy(text).into_owned());
            let value = match (key.as_str(), text.filter(|text| !text.is_empty())) {
                ("rate", _) => number.to_string(),
                ("hot", None) => format!("person:{number}"),
                ("hot", Some(list)) => format!("{list} person:{number}"),
                (_, stock) => (stock.and_then(|s| s.parse::<i64>().ok()).unwrap_or(0) + 2).to_string(),
            };
            let mut headers = HeaderMap::new();
            if key != "rate" {
                let revision = before.map_or(0, |(sequence, _)| sequence);
                headers.insert("Nats-Expected-Last-Subject-Sequence", revision.to_string());
            }
            let sent = js.publish_with_headers(subject, headers, value.clone().into());
            match sent.await.expect("the server takes it").await {
                Ok(ack) => {
                    let sequence = ack.sequence;
                    self.puts
                        .lock()
                        .expect("no holder panics")
                        .push(Put { key, value, sequence });
                }
                // Another writer was quicker.
                Err(error) if error.kind() == jetstream::context::PublishErrorKind::WrongLastSequence => {}
                Err(error) => panic!("a person's write of {key}, whose fate is unknown now: {error}"),
            }
        }
    }

    /// Writes the key that orders wait for, when half of them are published.
    pub async fn fix(&self, js: &jetstream::Context, orders: &[Order]) {
        eventually("half of the orders", PATIENT, async || {
            let published = self.published.lock().expect("no holder panics").len();
            (published >= orders.len() / 2).then_some(())
        })
        .await;
        let (key, value) = (redrives::FIX.to_owned(), "yes".to_owned());
        let subject = format!("$KV.{SHARED}.{key}");
        let sequence = publish_once(js, &subject, &key, &value).await;
        let mut puts = self.puts.lock().expect("no holder panics");
        puts.push(Put { key, value, sequence });
    }

    /// Looks at what is acked, and then at how much is decided, until the round is over.
    pub async fn look(&self, js: &jetstream::Context) {
        let mut pace = interval(LOOK_EVERY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.over.load(Ordering::Relaxed) {
            pace.tick().await;
            for (handler, (name, bucket)) in HANDLERS.iter().enumerate() {
                let Some(info) = consumer(js, "ORDERS", name).await else {
                    continue;
                };
                let Some(head) = head(js, bucket).await else { continue };
                let acked = info["ack_floor"]["stream_seq"].as_u64().unwrap_or(0);
                let entries = head["n"].as_u64().expect("a head has a number");
                let look = Look {
                    handler,
                    acked,
                    entries,
                };
                let mut looks = self.looks.lock().expect("no holder panics");
                // The same floor with more entries says less.
                let before = looks.iter().rev().find(|l| l.handler == handler);
                if before.is_none_or(|l| l.acked != acked) {
                    looks.push(look);
                }
            }
        }
    }
}
