//! Reading streams from end to end, after a run.

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use bytes::Bytes;
use futures_util::StreamExt;

use crate::support::eventually;
use crate::support::wait::SOON;

/// A stored message.
pub struct Stored {
    pub subject: String,
    pub sequence: u64,
    /// When the server stored it, in nanoseconds since the Unix epoch.
    pub at_ns: u64,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What is wanted of a stream.
pub struct Wanted<'a> {
    pub stream: &'a str,
    pub subject: &'a str,
    pub from: u64,
    /// Fetched at a time: few, where messages are large.
    pub batch: usize,
    pub headers_only: bool,
}

/// Shows each message, in order.
pub async fn each(js: &Context, wanted: Wanted<'_>, mut look: impl FnMut(Stored)) {
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: wanted.from,
        },
        ack_policy: AckPolicy::None,
        filter_subject: wanted.subject.to_owned(),
        headers_only: wanted.headers_only,
        memory_storage: true,
        num_replicas: 1,
        ..Default::default()
    };
    let consumer = js.create_consumer_on_stream(config, wanted.stream).await;
    let consumer = consumer.expect("the consumer can be made");
    let mut left = consumer.cached_info().num_pending as usize;
    let what = format!("{left} messages of {}", wanted.stream);
    while left > 0 {
        // In a cluster there may be no answer for a consumer that has just been made.
        let batch = eventually(&what, SOON, async || {
            let batch = consumer.fetch().max_messages(left.min(wanted.batch)).messages().await;
            let good = batch.expect("connected").filter_map(async |message| message.ok());
            let batch: Vec<_> = good.collect().await;
            (!batch.is_empty()).then_some(batch)
        });
        for message in batch.await {
            let message = message.message;
            let (sequence, at_ns) = position(message.reply.as_deref().unwrap_or_default());
            left -= 1;
            look(Stored {
                subject: message.subject.to_string(),
                sequence,
                at_ns,
                headers: message.headers.unwrap_or_default(),
                body: message.payload,
            });
        }
    }
}

/// Sequence in the stream and time of a delivery, which its reply subject tells (JetStream's ADR-15).
fn position(reply: &str) -> (u64, u64) {
    let mut tokens = reply.split('.').skip(5);
    let mut next = |skip: usize| tokens.nth(skip).and_then(|token| token.parse().ok());
    let position = next(0).zip(next(1));
    position.unwrap_or_else(|| panic!("{reply} is not an ack's subject"))
}
