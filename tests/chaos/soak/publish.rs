//! The steady flow: orders, and now and then a message that no client can read.

use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::Client;
use futures_util::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::{interval, timeout};

use crate::event::Malformed;
use crate::mesh::Mesh;
use crate::orders::{self, Order, Step};
use crate::support::wait::SOON;
use crate::support::{NatsServer, Raw};
use crate::world::World;

/// Between two orders.
pub const ORDER_EVERY: Duration = Duration::from_millis(33);
/// How many orders come before a malformed message.
const MALFORMED_EVERY: usize = 100;
/// Keys of the orders' own are used again: no key and no subject is left behind for each order.
const OWN: usize = 500;
/// Nine in ten orders have their keys among this number of each kind: two hosts that always want the same keys would do little
/// else than run again.
const SPREAD: usize = 40;

const KINDS: [(&[u8], &[u8]); 4] = [
    (b"orders.chaos", b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n"),
    (b"orders.chaos", b"NATS/1.0\r\nno colon here\r\n\r\n"),
    (b"orders.chaos", b"NATS/1.0\r\na name: with a space\r\n\r\n"),
    (b"orders.\xff\xfe", b"NATS/1.0\r\nA: b\r\n\r\n"),
];

/// What was published, and what is wanted of the publisher.
#[derive(Default)]
pub struct Flow {
    pub orders: Vec<Order>,
    pub malformed: Vec<Malformed>,
}

/// Whether orders may ask for delayed events: `MESH_DELAYED` is removed only while it holds none.
#[derive(Default)]
pub struct Later {
    pub held: AtomicBool,
    /// The sequence of the last order that does.
    pub last: AtomicU64,
}

impl Flow {
    /// Publishes for this time.
    pub async fn publish(&mut self, mesh: &Mesh, world: &World, later: &Later, time: Duration) {
        let mut rng = StdRng::seed_from_u64(1);
        let mut pace = interval(ORDER_EVERY);
        let began = Instant::now();
        for number in 0.. {
            pace.tick().await;
            if began.elapsed() > time {
                return;
            }
            let order = order(&mut rng, number, !later.held.load(Ordering::Relaxed));
            world.publish(&mesh.js, slice::from_ref(&order), ORDER_EVERY).await;
            if order.asks_for_delayed() {
                let published = world.published.lock().expect("no holder panics");
                later
                    .last
                    .store(published.last().copied().unwrap_or(0), Ordering::Relaxed);
            }
            self.orders.push(order);
            if number % MALFORMED_EVERY == MALFORMED_EVERY - 1 {
                self.malformed
                    .push(malformed(&mesh.client, &mesh.server, self.malformed.len()).await);
            }
        }
    }
}

/// One that no client can read; the stream's answer says which place it got.
async fn malformed(client: &Client, server: &NatsServer, number: usize) -> Malformed {
    let (subject, headers) = KINDS[number % KINDS.len()];
    let payload = format!("{{\"bad\":{number}}}").into_bytes();
    let reply = client.new_inbox();
    let mut answers = client.subscribe(reply.clone()).await.expect("connected");
    crate::support::server::round_trip(client).await;
    let mut raw = Raw::default();
    raw.add_with_reply(subject, &reply, headers, &payload);
    raw.publish(server);
    let answer = timeout(SOON, answers.next()).await.expect("the stream answers");
    let answer: Value = serde_json::from_slice(&answer.expect("connected").payload).expect("JSON");
    Malformed {
        sequence: answer["seq"].as_u64().expect("it is stored"),
        headers: headers.to_vec(),
        payload,
    }
}

/// An order of the kill matrix, made fit for many: failures are rarer, and no value grows for ever.
fn order(rng: &mut StdRng, number: usize, may_delay: bool) -> Order {
    let mut order = orders::one(rng, number);
    let own = format!("own.{number}");
    for steps in &mut order.steps {
        if !rng.random_ratio(1, 10) {
            steps.retain(|step| !step.is_failure());
        }
        for step in steps.iter_mut().filter(|_| !number.is_multiple_of(10)) {
            if let Some(key) = step.written() {
                *key = format!("{key}.{}", number % SPREAD);
            }
        }
        for step in steps {
            if matches!(step, Step::Append { key, .. } if *key == own) {
                *step = Step::Set {
                    key: format!("own.{}", number % OWN),
                    value: number.to_string(),
                };
            }
        }
    }
    let emit = |subject: &str, payload: Value| Step::Emit {
        subject: subject.to_owned(),
        payload,
    };
    let [ant, bee, cat] = &mut order.steps;
    match number % 40 {
        0 => ant.insert(0, Step::Delete { key: "hot".to_owned() }),
        1 => {
            let key = format!("hot.{}", number / 40 % SPREAD);
            ant.insert(0, Step::Delete { key });
        }
        10 => cat.insert(0, emit("full.x", json!(number))),
        20 => cat.insert(0, emit("gone.x", json!(number))),
        30 => order.plain.push(Step::Sleep { ms: 5 }),
        _ => {}
    }
    if may_delay && number % 50 == 5 {
        for steps in [bee, cat] {
            steps.insert(
                0,
                Step::EmitLater {
                    subject: "events.later".to_owned(),
                    payload: json!(number),
                    after_ms: 1500,
                },
            );
        }
    }
    if number % 200 == 7 {
        order.plain = vec![Step::Reject {
            code: "bad".to_owned(),
            message: "as ordered".to_owned(),
        }];
    }
    if number % 1000 == 9 {
        order.plain = vec![Step::Trap];
    }
    order
}
