//! Atomic batches of messages with any headers (ADR-50): the stream stores all of them or none.
//! <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md>

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;

use super::connection::{Connection, PubAck, pub_ack, token};
use super::error::{Code, Error};
use crate::failpoint;

/// How long a denial is waited for after a batch that did not arrive whole.
const DENIED_WITHIN: Duration = Duration::from_millis(500);

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
            return match answer {
                Err(error @ Error::Api { .. }) => Err(self.denied(&subjects, began, &error).await.unwrap_or(error)),
                answer => answer,
            };
        }
        Err(Error::Refused("a batch has no message".to_owned()))
    }

    /// Which message of a batch the server has not let in, if that is why it is refused. The server's word on it takes another
    /// way than the answer, and may come after it.
    async fn denied(&self, subjects: &[String], since: Instant, error: &Error) -> Option<Error> {
        let denied = || self.denied_of("a batch", subjects.iter().map(String::as_str), since);
        if error.code() != Some(Code::ATOMIC_PUBLISH_INCOMPLETE_BATCH) {
            return denied();
        }
        tokio::time::timeout(DENIED_WITHIN, self.denials.until(denied))
            .await
            .ok()
    }

    /// The first of these subjects to which the server has refused a publish since then, as an error. `what` could not be
    /// published.
    pub fn denied_of<'a>(
        &self,
        what: &str,
        mut subjects: impl Iterator<Item = &'a str>,
        since: Instant,
    ) -> Option<Error> {
        let subject = subjects.find(|subject| self.denials.publish_since(&self.place(subject), since))?;
        Some(Error::Denied {
            what: what.to_owned(),
            right: "publish to",
            subject: subject.to_owned(),
        })
    }
}
