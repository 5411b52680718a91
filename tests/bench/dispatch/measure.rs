//! One turn: publish, let a taker drain it, then publish at a steady pace and watch the acks.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use async_nats::{Client, Subject};
use futures_util::StreamExt;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::shared::{self, cpu};
use crate::support::NatsServer;
use crate::support::server::round_trip;
use crate::{Running, Taker, baseline, mesh};

pub const STREAM: &str = "BENCH";
pub const SUBJECT: &str = "orders.created";
/// The handler, and so its consumer.
pub const CONSUMER: &str = "parse";

/// The size of an order.
pub const ORDER_BYTES: usize = 300;
/// How fast orders come while times are taken: well below what any taker does.
pub const PACE_PER_SECOND: usize = 5_000;
/// For how long.
const PACED: Duration = Duration::from_secs(3);
/// The pace is kept by the millisecond, which is as fine as a timer is.
const TICK: Duration = Duration::from_millis(1);
/// A turn that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at the consumer.
const LOOK: Duration = Duration::from_millis(5);

/// What a turn came to.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub per_second: f64,
    /// From publish to ack, in milliseconds.
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Microseconds of processor time for an event.
    pub host_us: f64,
    pub server_us: f64,
}

/// The place where turns are taken.
pub struct Bench<'a> {
    server: &'a NatsServer,
    client: Client,
    js: jetstream::Context,
    events: usize,
    dir: TempDir,
}

#[derive(Deserialize)]
struct Answer {
    num_pending: Option<usize>,
    num_ack_pending: Option<usize>,
}

impl<'a> Bench<'a> {
    pub async fn new(server: &'a NatsServer, events: usize) -> Self {
        let client = server.client().await;
        let dir = TempDir::with_prefix("jetmesh-bench-").expect("a temporary folder");
        Self {
            server,
            js: jetstream::new(client.clone()),
            client,
            events,
            dir,
        }
    }

    pub fn server_version(&self) -> String {
        self.client.server_info().version
    }

    /// Lets one taker take the orders.
    pub async fn turn(&self, taker: Taker, concurrency: usize) -> Measured {
        self.fill().await;
        let url = self.server.url();
        let running = match taker {
            Taker::Empty | Taker::Native => baseline::start(&url, taker, concurrency),
            Taker::Fresh | Taker::Reused => mesh::start(&url, taker, concurrency, self.dir.path()),
        };
        let drained = timeout(LIMIT, self.drain(&running)).await;
        let (per_second, host_us, server_us) = drained.unwrap_or_else(|_| panic!("{} hangs", taker.name()));
        let times = timeout(LIMIT, self.pace()).await;
        let mut times = times.unwrap_or_else(|_| panic!("{} has not acked all in time", taker.name()));
        drop(running);
        self.js.delete_stream(STREAM).await.expect("the stream is there");
        times.sort_unstable();
        let percentile = |p: usize| shared::percentile(&times, p).as_secs_f64() * 1e3;
        Measured {
            per_second,
            p50_ms: percentile(50),
            p99_ms: percentile(99),
            host_us,
            server_us,
        }
    }

    /// A new stream with all the orders in it.
    async fn fill(&self) {
        let config = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec!["orders.>".to_owned()],
            storage: stream::StorageType::File,
            ..Default::default()
        };
        self.js.create_stream(config).await.expect("the stream can be made");
        let body = |number| order(number as usize);
        shared::publish(&self.client, &self.js, SUBJECT, 0..self.events as u64, body).await;
    }

    /// From the first look that finds an ack to the first that finds all: how many a second, and what one costs the
    /// taker and the server.
    async fn drain(&self, running: &Running) -> (f64, f64, f64) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let look = || (Instant::now(), cpu(running.pid()), cpu(self.server.pid()));
        let mut began = None;
        loop {
            looks.tick().await;
            let Some(left) = self.unacked().await else { continue };
            match began {
                None if left < self.events => began = Some((left, look())),
                Some((at_first, (since, host, server))) if left == 0 => {
                    let (now, host_now, server_now) = look();
                    let events = at_first as f64;
                    let us = |time: Duration| time.as_secs_f64() * 1e6 / events;
                    return (
                        events / (now - since).as_secs_f64(),
                        us(host_now - host),
                        us(server_now - server),
                    );
                }
                None | Some(_) => {}
            }
        }
    }

    /// Orders that the consumer has not acked. `None`: there is no consumer yet.
    async fn unacked(&self) -> Option<usize> {
        let subject = format!("$JS.API.CONSUMER.INFO.{STREAM}.{CONSUMER}");
        let answer = self
            .client
            .request(subject, "".into())
            .await
            .expect("JetStream answers");
        let answer: Answer = serde_json::from_slice(&answer.payload).expect("JetStream answers in JSON");
        Some(answer.num_pending? + answer.num_ack_pending?)
    }

    /// The time from publish to ack of each order, while they come at a steady pace.
    async fn pace(&self) -> Vec<Duration> {
        let mut acks = self
            .client
            .subscribe(format!("$JS.ACK.{STREAM}.{CONSUMER}.>"))
            .await
            .expect("connected");
        round_trip(&self.client).await;
        let per_tick = PACE_PER_SECOND * TICK.as_micros() as usize / 1_000_000;
        let count = per_tick * (PACED.as_micros() / TICK.as_micros()) as usize;
        let sent = RefCell::new(Vec::with_capacity(count));
        let publish = async {
            let mut ticks = interval(TICK);
            for number in 0..count {
                if number % per_tick == 0 {
                    ticks.tick().await;
                }
                sent.borrow_mut().push(Instant::now());
                self.client
                    .publish(SUBJECT, order(number).into())
                    .await
                    .expect("connected");
            }
        };
        let watch = async {
            let mut times = Vec::with_capacity(count);
            while times.len() < count {
                let ack = acks.next().await.expect("connected");
                let number = stream_sequence(&ack.subject) - self.events - 1;
                times.push(sent.borrow()[number].elapsed());
            }
            times
        };
        tokio::join!(publish, watch).1
    }
}

/// An order of 300 bytes.
fn order(number: usize) -> Vec<u8> {
    let user = number % 1000;
    let mut text = format!(
        concat!(
            r#"{{"order_id":"o-{:08}","user_id":"u-{:04}","currency":"EUR","total_cents":4750,"#,
            r#""created_at":"2026-01-31T12:34:56.789Z","locale":"en-GB","items":["#,
            r#"{{"sku":"sku-1001","quantity":2,"price_cents":1250}},"#,
            r#"{{"sku":"sku-2002","quantity":1,"price_cents":2250}}],"note":""#
        ),
        number, user
    );
    while text.len() < ORDER_BYTES - 2 {
        text.push('x');
    }
    text.push_str("\"}");
    assert_eq!(text.len(), ORDER_BYTES);
    text.into_bytes()
}

/// Which message an ack is for; the subject is described in JetStream's ADR-15.
fn stream_sequence(subject: &Subject) -> usize {
    let sequence = subject.split('.').nth(5).and_then(|token| token.parse().ok());
    sequence.unwrap_or_else(|| panic!("{subject} is not an ack's subject"))
}
