//! Consumers that are ahead of their stream. A stream can lose its end: its disk is lost, or an older copy of its files is
//! restored. The state of its consumers is stored separately and stays. To the server, what is stored afterwards under the same
//! sequences counts as delivered: it is never delivered, and no figure of the consumer shows it. Such a consumer is deleted and
//! created again, from the sequence where it has to continue.

use std::time::Duration;

use serde_json::{Value, json};

use super::connection::Connection;
use super::consumer::ConsumerInfo;
use super::error::{Code, Error};
use super::stream::StreamInfo;

/// In a cluster, the leader of a stream may be behind the leader of its consumer for this time.
pub const CERTAIN: Duration = Duration::from_secs(1);

impl ConsumerInfo {
    /// Whether it has been given messages that its stream does not have.
    pub fn is_ahead_of(&self, stream: &StreamInfo) -> bool {
        self.delivered.stream_seq > stream.state.last_seq
    }
}

impl Connection {
    /// The stream, if it ends before a message that it had, for certain. `known`: what was last heard of it.
    ///
    /// Sends no request if `known` already answers the question; otherwise it takes two requests and a second.
    pub async fn ends_before(
        &self,
        stream: &str,
        sequence: u64,
        known: &StreamInfo,
    ) -> Result<Option<StreamInfo>, Error> {
        if sequence <= known.state.last_seq {
            return Ok(None);
        }
        for certain in [false, true] {
            let info = self.stream(stream).await?;
            let Some(info) = info.filter(|info| sequence > info.state.last_seq) else {
                return Ok(None);
            };
            if certain {
                return Ok(Some(info));
            }
            tokio::time::sleep(CERTAIN).await;
        }
        Ok(None)
    }

    /// The stream, if a consumer on it is ahead of it for certain.
    pub async fn left_behind(&self, stream: &str, consumer: &ConsumerInfo) -> Result<Option<StreamInfo>, Error> {
        // Asked for later than the consumer: what has been stored in between makes no difference.
        match self.stream(stream).await? {
            Some(info) => self.ends_before(stream, consumer.delivered.stream_seq, &info).await,
            None => Ok(None),
        }
    }

    /// A message that the server says it has nothing to do for any more and that was never given to this consumer: its
    /// sequence. `info`: the stream as it was before the consumer was asked.
    ///
    /// Costs nothing as long as something is under way, else one request for each of the consumer's filters.
    pub async fn passed_over(&self, info: &StreamInfo, consumer: &ConsumerInfo) -> Result<Option<u64>, Error> {
        let given = consumer.delivered.stream_seq;
        if consumer.num_pending > 0 || given >= info.state.last_seq {
            return Ok(None);
        }
        let stream = info.config["name"].as_str().unwrap_or_default();
        for filter in filters(&consumer.config) {
            let next = self.stored_next(stream, given + 1, &filter).await?;
            if let Some(next) = next.filter(|next| next.sequence <= info.state.last_seq) {
                return Ok(Some(next.sequence));
            }
        }
        Ok(None)
    }

    /// When the oldest message was stored that a consumer has not been acked for, in milliseconds since the Unix epoch. One request for
    /// each of its filters.
    pub async fn oldest_unsettled(&self, stream: &str, consumer: &ConsumerInfo) -> Result<Option<u64>, Error> {
        let mut oldest: Option<u64> = None;
        for filter in filters(&consumer.config) {
            let next = self.stored_next(stream, consumer.settled_floor() + 1, &filter).await?;
            let times = oldest.into_iter().chain(next.map(|next| next.time_ms));
            oldest = times.min();
        }
        Ok(oldest)
    }

    /// Deletes a consumer and creates it again with the same settings and metadata, so that the server delivers what is stored
    /// from a sequence on. `metadata`: entries to add.
    pub async fn recreate(
        &self,
        stream: &str,
        found: &ConsumerInfo,
        (from, metadata): (u64, &[(&str, String)]),
    ) -> Result<ConsumerInfo, Error> {
        let mut config = found.config.clone();
        let info = self.stream(stream).await?;
        let Some(fields) = config.as_object_mut() else {
            return Ok(found.clone());
        };
        for start in ["opt_start_seq", "opt_start_time"] {
            fields.remove(start);
        }
        // A work queue takes no other; and it holds only what is not acked.
        config["deliver_policy"] = json!("all");
        if info.is_some_and(|info| info.retention() != "workqueue") {
            config["deliver_policy"] = json!("by_start_sequence");
            config["opt_start_seq"] = json!(from.max(1));
        }
        if let Some(told) = config["metadata"].as_object_mut() {
            // The server's own entries.
            told.retain(|key, _| !key.starts_with("_nats."));
        }
        for (key, value) in metadata {
            config["metadata"][*key] = json!(value);
        }
        self.remove_consumer(stream, &found.name).await?;
        match self.put_consumer(stream, &config, "create").await {
            // Another host was faster.
            Err(Error::Api {
                code: Code::CONSUMER_ALREADY_EXISTS,
                ..
            }) => {
                let there = self.consumer(stream, &found.name).await?;
                there.ok_or_else(|| Error::Missing {
                    what: format!("consumer {} on stream {stream}", found.name),
                })
            }
            made => made,
        }
    }

    /// The first message of a work queue that counts as acked, so that the server never delivers it: its sequence was that of a
    /// message which the stream has lost. `None`: there is none, for certain or because the stream is no work queue.
    ///
    /// Takes one request for each of the consumer's filters if there is none; otherwise also a second.
    async fn counts_as_acked(&self, info: &StreamInfo, consumer: &ConsumerInfo) -> Result<Option<u64>, Error> {
        if info.retention() != "workqueue" {
            return Ok(None);
        }
        let stream = info.config["name"].as_str().unwrap_or_default();
        let floor = consumer.ack_floor.stream_seq;
        for filter in filters(&consumer.config) {
            let Some(first) = self.stored_up_to(stream, &filter, floor).await? else {
                continue;
            };
            // Between an ack and the removal of the message, it may be so.
            tokio::time::sleep(CERTAIN).await;
            if self.stored_up_to(stream, &filter, floor).await? == Some(first) {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    async fn stored_up_to(&self, stream: &str, filter: &str, last: u64) -> Result<Option<u64>, Error> {
        let first = self.stored_next(stream, 1, filter).await?;
        Ok(first.map(|first| first.sequence).filter(|first| *first <= last))
    }

    /// Makes or changes a consumer that may be given anything twice: one that is ahead of its stream, or was so before the stream
    /// grew again, begins from the start.
    pub async fn put_whole(&self, stream: &str, config: &Value) -> Result<ConsumerInfo, Error> {
        let found = self.put_consumer(stream, config, "").await?;
        // Asked for later than the consumer: what has been stored in between makes no difference.
        let Some(info) = self.stream(stream).await? else {
            return Ok(found);
        };
        let (consumer, delivered) = (&found.name, found.delivered.stream_seq);
        if let Some(info) = self.ends_before(stream, delivered, &info).await? {
            let last = info.state.last_seq;
            tracing::warn!(
                stream,
                consumer,
                delivered,
                last,
                "a stream has lost its last messages: its consumer was ahead of it and is created again"
            );
        } else if let Some(sequence) = self.counts_as_acked(&info, &found).await? {
            tracing::warn!(
                stream,
                consumer,
                delivered,
                sequence,
                "a stream has lost its last messages: the server does not deliver those that took their sequences, and its \
                 consumer is created again"
            );
        } else {
            return Ok(found);
        }
        self.recreate(stream, &found, (1, &[])).await
    }
}

/// What a consumer is given of its stream.
fn filters(config: &Value) -> Vec<String> {
    let many = config["filter_subjects"].as_array().into_iter().flatten();
    let all = many.chain(config.get("filter_subject")).filter_map(Value::as_str);
    let filters: Vec<String> = all.map(str::to_owned).collect();
    match filters.is_empty() {
        true => vec![">".to_owned()],
        false => filters,
    }
}
