//! Targets that do not take what handlers emit, in some rounds.

use async_nats::jetstream::{self, stream};
use serde_json::{Value, json};

use crate::orders::{Order, Step};

/// Larger than what the stream on `small.>` takes.
const LARGE: usize = 2_000;

/// One stream that is soon full, and one that takes nothing large.
pub async fn make(js: &jetstream::Context) {
    for (name, subject, max_messages, max_message_size) in [("FULL", "full.>", 3, -1), ("SMALL", "small.>", -1, 1_500)]
    {
        let config = stream::Config {
            name: name.to_owned(),
            subjects: vec![subject.to_owned()],
            max_messages,
            max_message_size,
            discard: stream::DiscardPolicy::New,
            ..stream::Config::default()
        };
        js.create_stream(config).await.expect("the stream is made");
    }
}

/// Lets the handler without state emit to the one, and now and then something that is too large for the other.
pub fn spoil(orders: &mut [Order]) {
    for order in orders {
        let emit = |subject: &str, payload: Value| Step::Emit {
            subject: subject.to_owned(),
            payload,
        };
        if order.number.is_multiple_of(3) {
            order.steps[2].insert(0, emit("full.x", json!(order.number)));
        }
        if order.number.is_multiple_of(10) {
            let large = format!("{}{}", order.number, "x".repeat(LARGE));
            order.steps[2].insert(0, emit("small.x", json!(large)));
        }
    }
}
