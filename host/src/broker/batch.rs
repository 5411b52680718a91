//! Atomic batches of messages with any headers (ADR-50): the stream stores all of them or none.
//! <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md>

use std::time::Instant;

use async_nats::HeaderMap;
use bytes::Bytes;

use super::connection::{Connection, PubAck, pub_ack, token};
use super::error::Error;
use crate::failpoint;

/// One message of a batch.
pub struct BatchMessage {
    pub subject: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Connection {
    /// Stores all of the messages, or none; the answer is that of the last one.
    ///
    /// # Errors
    /// [`Error::Denied`] names a message that the server has not let in. After [`Error::Timeout`] and [`Error::Gone`] the batch
    /// may be stored.
    pub async fn publish_batch(&self, messages: Vec<BatchMessage>) -> Result<PubAck, Error> {
        let (id, began, count) = (token(), Instant::now(), messages.len());
        let mut subjects = Vec::with_capacity(count);
        for (
            i,
            BatchMessage {
                subject,
                mut headers,
                body,
            },
        ) in messages.into_iter().enumerate()
        {
            headers.insert("Nats-Batch-Id", id.as_str());
            headers.insert("Nats-Batch-Sequence", (i + 1).to_string());
            let place = self.place(&subject).into_owned();
            subjects.push(subject);
            if i + 1 < count {
                let sent = self.client.publish_with_headers(place, headers, body).await;
                sent.map_err(|_| Error::Gone {
                    what: "a batch".to_owned(),
                })?;
                failpoint::point("batch-part-sent");
                continue;
            }
            headers.insert("Nats-Batch-Commit", "1");
            let last = &subjects[i];
            let answer = self.request(last, Some(headers), body).await;
            let answer = answer.and_then(|answer| pub_ack(last, &answer));
            let denied = |subject: &&String| self.denials.publish_since(&self.place(subject), began);
            return match (answer, subjects.iter().find(denied)) {
                (Err(Error::Api { .. }), Some(subject)) => Err(Error::Denied {
                    what: "a batch".to_owned(),
                    right: "publish to",
                    subject: subject.clone(),
                }),
                (answer, _) => answer,
            };
        }
        Err(Error::Refused("a batch has no message".to_owned()))
    }
}
