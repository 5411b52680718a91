//! Messages as their stream holds them, read one by one: from the leader and without the client's parser, or at a glance.

use std::time::Duration;

use async_nats::{HeaderMap, Message};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::time::timeout;

use super::connection::Connection;
use super::error::{Code, Error};
use super::wire;
use crate::event::{Headers, parse_rfc3339};

/// How long a replica may take to answer. A caller that must be certain asks the leader.
const GLANCE: Duration = Duration::from_millis(500);
/// What many may be together, about; the rest is asked for one by one.
const GLANCE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Which stored message.
#[derive(Debug, Clone)]
pub enum By<'a> {
    Sequence(u64),
    /// The last one on a subject.
    Last(&'a str),
}

/// A message as its stream holds it, read without the client's parser: whatever bytes it has, it can be had.
#[derive(Debug, Clone)]
pub struct Stored {
    pub subject: String,
    pub sequence: u64,
    pub time_ms: u64,
    /// As they are on the wire, `NATS/1.0\r\n…`; empty if there are none.
    pub raw_headers: Bytes,
    pub payload: Bytes,
}

impl Stored {
    /// The headers, or why the client library would refuse them: such a message breaks the connection on which it is delivered.
    pub fn headers(&self) -> Result<Headers, String> {
        // JSON tells it so.
        if self.subject.contains('\u{fffd}') {
            return Err("its subject is not UTF-8".to_owned());
        }
        wire::headers(self.subject.as_bytes(), &self.raw_headers)
    }
}

/// A message as some replica of its stream holds it.
#[derive(Debug, Clone)]
pub struct Glanced {
    pub sequence: u64,
    /// With those that tell of its place.
    pub headers: HeaderMap,
    pub payload: Bytes,
}

impl Glanced {
    fn of(answer: Message) -> Option<Glanced> {
        let headers = answer.headers?;
        Some(Glanced {
            sequence: headers.get("Nats-Sequence")?.as_str().parse().ok()?,
            headers,
            payload: answer.payload,
        })
    }

    pub fn subject(&self) -> Option<&str> {
        self.headers.get("Nats-Subject").map(|subject| subject.as_str())
    }
}

#[derive(Deserialize)]
struct GetAnswer {
    message: RawMessage,
}

#[derive(Deserialize)]
struct RawMessage {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: String,
}

impl Connection {
    /// A stored message, from the stream's leader (a direct get may be answered by a replica that is behind).
    pub async fn stored(&self, stream: &str, by: By<'_>) -> Result<Option<Stored>, Error> {
        let body = match by {
            By::Sequence(seq) => serde_json::json!({ "seq": seq }),
            By::Last(subject) => serde_json::json!({ "last_by_subj": subject }),
        };
        self.get(stream, body).await
    }

    /// The next stored message at or after a sequence that matches a subject.
    pub async fn stored_next(&self, stream: &str, sequence: u64, subject: &str) -> Result<Option<Stored>, Error> {
        self.get(stream, serde_json::json!({ "seq": sequence, "next_by_subj": subject }))
            .await
    }

    /// The last message on a subject, as some replica of the stream has it. The replica may be behind, or have a message that
    /// was removed since. It costs the server a fraction of a read from the leader, and suits a caller that checks again before
    /// anything depends on the answer. `None` also if no replica answers.
    pub async fn glance(&self, stream: &str, last: &str) -> Option<Glanced> {
        let subject = format!("{}.DIRECT.GET.{stream}.{last}", self.api_prefix());
        let answer = timeout(GLANCE, self.client.request(subject, Bytes::new()))
            .await
            .ok()?
            .ok()?;
        Glanced::of(answer)
    }

    /// The same of many subjects at once, in no order: what some replica holds of them, as far as it comes in time.
    ///
    /// `multi_last` is that of ADR-31; an answer without a message is the end.
    pub async fn glance_all(&self, stream: &str, lasts: &[&str]) -> Vec<Glanced> {
        let mut found = Vec::with_capacity(lasts.len());
        let inbox = self.client.new_inbox();
        let Ok(mut answers) = self.client.subscribe(inbox.clone()).await else {
            return found;
        };
        let body = serde_json::json!({ "multi_last": lasts, "max_bytes": GLANCE_BYTES_MAX });
        let subject = format!("{}.DIRECT.GET.{stream}", self.api_prefix());
        let asked = self.client.publish_with_reply(subject, inbox, body.to_string().into());
        if asked.await.is_ok() {
            while let Ok(Some(answer)) = timeout(GLANCE, answers.next()).await {
                let Some(glanced) = Glanced::of(answer) else { break };
                found.push(glanced);
            }
        }
        found
    }

    async fn get(&self, stream: &str, body: serde_json::Value) -> Result<Option<Stored>, Error> {
        let subject = format!("STREAM.MSG.GET.{stream}");
        let message = match self.api::<GetAnswer>(&subject, &body).await {
            Ok(answer) => answer.message,
            Err(Error::Api {
                code: Code::NO_MESSAGE_FOUND,
                ..
            }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = |text: &str| {
            BASE64.decode(text).map(Bytes::from).map_err(|e| Error::Answer {
                what: format!("JetStream {subject}"),
                why: e.to_string(),
            })
        };
        Ok(Some(Stored {
            sequence: message.seq,
            time_ms: parse_rfc3339(&message.time).ok_or_else(|| Error::Answer {
                what: format!("JetStream {subject}"),
                why: format!("`{}` is no time", message.time),
            })?,
            raw_headers: bytes(&message.hdrs)?,
            payload: bytes(&message.data)?,
            subject: message.subject,
        }))
    }
}
