//! A stream, read while it grows: what is collected, purged or deleted later has been seen.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, Context};
use futures_util::TryStreamExt;

use crate::mesh::Found;

const AT_A_TIME: usize = 1000;

pub struct Tail {
    consumer: PullConsumer,
}

impl Tail {
    pub async fn of(js: &Context, stream: &str, filter: &str) -> Self {
        let config = pull::Config {
            ack_policy: AckPolicy::None,
            filter_subject: filter.to_owned(),
            inactive_threshold: Duration::from_secs(3600),
            ..pull::Config::default()
        };
        let stream = js.get_stream(stream).await.expect("the stream is there");
        let consumer = stream.create_consumer(config).await;
        Self {
            consumer: consumer.expect("it can be read"),
        }
    }

    /// What has come since the last time.
    pub async fn read(&self) -> Vec<Found> {
        let mut found = Vec::new();
        loop {
            let batch = self.consumer.fetch().max_messages(AT_A_TIME).messages().await;
            let batch: Vec<jetstream::Message> = batch
                .expect("it can be read")
                .try_collect()
                .await
                .expect("it can be read");
            if batch.is_empty() {
                return found;
            }
            found.extend(batch.iter().map(Found::of));
        }
    }
}
