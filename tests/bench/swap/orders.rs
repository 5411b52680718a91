//! Orders at a steady pace.

use std::cell::Cell;
use std::time::Duration;

use async_nats::jetstream::Context;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::support::eventually;

const TICK: Duration = Duration::from_millis(10);

fn body(more: &[Value]) -> String {
    let tells = [json!({ "op": "version", "subject": "events.version" })];
    let steps = [&tells, more].concat();
    json!({ "do": steps }).to_string()
}

pub struct Orders {
    js: Context,
    /// In a tick.
    each: u64,
    body: String,
    published: Cell<u64>,
}

impl Orders {
    /// `rate`: a second.
    pub fn new(js: Context, rate: u64) -> Orders {
        Orders {
            js,
            each: (rate / 100).max(1),
            body: body(&[]),
            published: Cell::new(0),
        }
    }

    /// The second version fails on each of them from now on.
    pub fn spoilt(self) -> Orders {
        let fails = json!({ "op": "reject", "code": "bad", "message": "as ordered" });
        let body = body(&[json!({ "op": "in_version", "version": "2", "do": [fails] })]);
        Orders { body, ..self }
    }

    pub async fn for_some_time(&self, time: Duration) {
        self.while_it_lasts(tokio::time::sleep(time)).await;
    }

    pub async fn while_it_lasts(&self, other: impl Future<Output = ()>) {
        let mut pace = interval(TICK);
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        tokio::pin!(other);
        let mut told = Instant::now();
        loop {
            tokio::select! {
                () = &mut other => break,
                _ = pace.tick() => {
                    for _ in 0..self.each {
                        let sent = self.js.client().publish("orders.probe", self.body.clone().into()).await;
                        sent.expect("connected");
                    }
                    self.published.set(self.published.get() + self.each);
                    if told.elapsed() > Duration::from_secs(10) {
                        told = Instant::now();
                        eprintln!("{} orders", self.published.get());
                    }
                }
            }
        }
    }

    /// Waits until each order has an event; returns how many there are.
    pub async fn settled(&self, limit: Duration) -> u64 {
        let published = self.published.get();
        eventually("an event for each order", limit, async || {
            let mut counts = Vec::new();
            for stream in ["ORDERS", "EVENTS"] {
                let found = self.js.get_stream(stream).await.ok()?;
                counts.push(found.cached_info().state.messages);
            }
            assert!(counts[1] <= published, "{counts:?}: an event is there twice");
            (counts == [published, published]).then_some(published)
        })
        .await
    }
}
