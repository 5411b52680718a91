//! Where what is published on a subject is stored. An account can map subjects (`mappings`): what is published on one of them
//! arrives under another. JetStream's API knows nothing of that: it answers for the subject that it is asked about. So the server is
//! asked to trace a message that it delivers to no subscriber.
//!
//! Format: <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-41.md>.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;

use super::connection::{Connection, token};
use super::error::Error;

/// The server answers as soon as it has the message.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// What captures a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    pub stream: String,
    /// Under which subject the stream receives what is published.
    pub subject: String,
}

#[derive(Deserialize)]
struct MessageTrace {
    events: Vec<TraceStep>,
}

#[derive(Deserialize)]
struct TraceStep {
    #[serde(rename = "type")]
    step: String,
    /// Of an arrival: from which kind of connection. 0: from a client.
    kind: Option<u8>,
    /// Of a mapping.
    to: Option<String>,
}

impl MessageTrace {
    /// What the account makes of the subject. `None`: it is not the server to which the client is connected that tells this.
    fn arrives_on(self, subject: &str) -> Option<String> {
        let from_client = |step: &TraceStep| step.step == "in" && step.kind == Some(0);
        self.events.first().filter(|step| from_client(step))?;
        let mapped = self.events.into_iter().find(|step| step.step == "sm");
        Some(mapped.and_then(|step| step.to).unwrap_or_else(|| subject.to_owned()))
    }
}

impl Connection {
    /// The stream that captures what is published on a subject, also if the account maps the subject.
    pub async fn captured(&self, subject: &str) -> Result<Option<Captured>, Error> {
        let subject = self.arrives_on(subject).await?;
        let stream = self.stream_of(&subject).await?;
        Ok(stream.map(|stream| Captured { stream, subject }))
    }

    /// Under which subject it arrives what is published on this one. Without an answer, or without the permission to ask, it is
    /// taken for the same.
    async fn arrives_on(&self, subject: &str) -> Result<String, Error> {
        if subject.contains(['*', '>']) {
            return Ok(subject.to_owned());
        }
        let gone = |_| Error::Gone {
            what: format!("where {subject} is stored"),
        };
        // On this subject a host may publish and listen anyway, and no other client listens there.
        let answers_on = format!("$SRV.INFO.{}", token());
        let mut answers = self
            .client
            .subscribe(answers_on.clone())
            .await
            .map_err(|error| gone(error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Trace-Dest", answers_on.as_str());
        headers.insert("Nats-Trace-Only", "true");
        // If a server took no notice of that: a name that no stream has, so no stream would store the message.
        headers.insert("Nats-Expected-Stream", "no.stream");
        let began = Instant::now();
        let sent = self
            .client
            .publish_with_headers(subject.to_owned(), headers, Bytes::new())
            .await;
        sent.map_err(|error| gone(error.to_string()))?;
        let answer = async {
            loop {
                let message = answers.next().await?;
                let trace: Option<MessageTrace> = serde_json::from_slice(&message.payload).ok();
                if let Some(arrives) = trace.and_then(|trace| trace.arrives_on(subject)) {
                    return Some(arrives);
                }
            }
        };
        let arrives = tokio::select! {
            answer = tokio::time::timeout(ANSWERED_WITHIN, answer) => answer.ok().flatten(),
            () = self.denials.publish_refused(&answers_on, began) => None,
            () = self.denials.publish_refused(subject, began) => None,
            () = self.closed() => return Err(gone(String::new())),
        };
        Ok(arrives.unwrap_or_else(|| subject.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_of_the_client_says_what_the_account_makes_of_a_subject() {
        let arrives = |events: &str| {
            let trace: MessageTrace =
                serde_json::from_str(&format!(r#"{{"server":{{}},"events":[{events}]}}"#)).expect("a trace");
            trace.arrives_on("a.b")
        };
        let client = r#"{"type":"in","ts":"2026-01-01T00:00:00Z","kind":0,"cid":13,"acc":"A","subj":"a.b"}"#;
        let mapped =
            r#"{"type":"sm","ts":"2026-01-01T00:00:00Z","to":"c.d"},{"type":"js","stream":"C","subject":"c.d"}"#;
        assert_eq!(arrives(client).as_deref(), Some("a.b"));
        assert_eq!(arrives(&format!("{client},{mapped}")).as_deref(), Some("c.d"));
        let router = r#"{"type":"in","ts":"2026-01-01T00:00:00Z","kind":1,"cid":7,"subj":"c.d"}"#;
        assert_eq!(arrives(router), None, "another server of the cluster");
    }
}
