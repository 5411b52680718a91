//! What was published, promoted and emitted, by the server's clock.

use std::collections::HashSet;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures_util::TryStreamExt;

/// Of all runs: when each order came, and when and by which version its event.
pub struct Everything {
    orders: Vec<u64>,
    events: Vec<(u64, u8)>,
    /// When something was promoted, and the version.
    promoted: Vec<(u64, u8)>,
}

/// One run; times in nanoseconds, sorted.
pub struct Run {
    /// From an order to its event.
    pub took: Vec<u64>,
    /// From a promotion to the first event on it.
    pub first_after: Vec<u64>,
}

/// One message, as it is read.
pub struct Read {
    pub at: u64,
    /// Of the order that caused it.
    cause: Option<u64>,
    id: Option<String>,
    pub payload: Vec<u8>,
}

pub async fn messages(js: &Context, stream: &str) -> Vec<Read> {
    let stream = js.get_stream(stream).await.expect("the stream is there");
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.expect("it is made");
    let count = usize::try_from(consumer.cached_info().num_pending).expect("it fits");
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let batch = consumer
            .fetch()
            .max_messages(5_000)
            .messages()
            .await
            .expect("it answers");
        let batch: Vec<_> = batch.try_collect().await.expect("they come");
        for message in &batch {
            let info = message.info().expect("it was delivered");
            let header = |name: &str| Some(message.headers.as_ref()?.get(name)?.as_str().to_owned());
            let cause = header("Mesh-Cause-Event");
            all.push(Read {
                at: u64::try_from(info.published.unix_timestamp_nanos()).expect("after 1970"),
                cause: cause.and_then(|cause| cause.rsplit('.').next()?.parse().ok()),
                id: header("Mesh-Event-Id"),
                payload: message.payload.to_vec(),
            });
        }
    }
    all
}

/// Reads all of it. `promoted`: when, and which version.
///
/// # Panics
/// If an order has no event, or two.
pub async fn read(js: &Context, orders: u64, promoted: Vec<(u64, u8)>) -> Everything {
    let all = messages(js, "ORDERS").await;
    let mut ids = HashSet::new();
    let mut events = vec![None; all.len()];
    for event in messages(js, "EVENTS").await {
        assert!(ids.insert(event.id), "an event is there twice");
        let place = usize::try_from(event.cause.expect("it has a cause")).expect("it fits") - 1;
        let version = event
            .payload
            .iter()
            .copied()
            .find(u8::is_ascii_digit)
            .expect("a version");
        let before = events[place].replace((event.at, version));
        assert!(before.is_none(), "order {place} has two events");
    }
    let events: Option<Vec<_>> = events.into_iter().collect();
    let events = events.expect("each order has an event");
    assert_eq!(events.len() as u64, orders);
    Everything {
        orders: all.into_iter().map(|order| order.at).collect(),
        events,
        promoted,
    }
}

impl Everything {
    /// Those orders, by their places.
    pub fn part(&self, from: u64, until: u64) -> Run {
        let range = usize::try_from(from).expect("it fits")..usize::try_from(until).expect("it fits");
        let events = &self.events[range.clone()];
        let mut took: Vec<u64> = self.orders[range]
            .iter()
            .zip(events)
            .map(|(order, (event, _))| event - order)
            .collect();
        took.sort_unstable();
        let mut by_time = events.to_vec();
        by_time.sort_unstable();
        let (begin, end) = (by_time[0].0, by_time[by_time.len() - 1].0);
        let within = self.promoted.iter().filter(|(at, _)| (begin..end).contains(at));
        let first = |(at, version): &(u64, u8)| {
            let after = by_time.partition_point(|(event, _)| event < at);
            let found = by_time[after..].iter().find(|(_, by)| by == version)?;
            Some(found.0 - at)
        };
        let mut first_after: Vec<u64> = within.filter_map(first).collect();
        first_after.sort_unstable();
        Run { took, first_after }
    }
}
