//! Reading what a stream holds, once through, by a short-lived consumer on a connection of its own. What holds events of
//! others is read over a guarded one: a message that the client library cannot read would break it.

use std::ops::ControlFlow;
use std::time::Duration;

use async_nats::Subscriber;
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::Semaphore;

use super::connection::Connection;
use super::consumer::{ConsumerInfo, nanos};
use super::error::Error;
use super::screen::Malformed;
use crate::event::subject::subject_matches;
use crate::event::{DeliveryInfo, rfc3339};
use crate::plan::Nats;

const BATCH: usize = 500;
/// Bytes of a request: what has come and is not read yet is in memory. A message larger than this has a request of its own.
const BATCH_BYTES: usize = 16 * 1024 * 1024;
/// How long the server keeps the consumer after the last request.
const INACTIVE: Duration = Duration::from_secs(30);

/// How many streams are read at a time for what relays and publishers of delayed events have published before.
pub const LOOKS_MAX: usize = 4;
/// Held by each of them: it has a connection of its own.
pub static LOOKS: Semaphore = Semaphore::const_new(LOOKS_MAX);

/// Where a scan begins.
#[derive(Debug, Clone, Copy)]
pub enum From {
    Sequence(u64),
    /// Milliseconds since the Unix epoch.
    Time(u64),
}

/// What is read, in stream order, until everything has been seen that was there at the beginning.
pub struct Scan {
    connection: Connection,
    messages: Subscriber,
    inbox: String,
    stream: String,
    name: String,
    /// The first sequence that it would read.
    first: u64,
    next: String,
    /// Requests till now: each has a reply subject of its own, so that what ends one is not taken for the end of the next.
    requests: u64,
    /// Of the open request, those that have not come, and all.
    asked: usize,
    batch: usize,
    /// How many messages there were to read when it began.
    pub pending: u64,
    /// The last sequence that was seen.
    seen: u64,
    /// The last sequence that is to be seen; what comes after it is not waited for.
    until: u64,
    done: bool,
}

/// One message of a scan.
pub struct Scanned {
    pub sequence: u64,
    pub message: async_nats::Message,
    /// The client could not read it (over a guarded connection; it breaks any other): then `message` is not it.
    pub malformed: Option<Malformed>,
}

impl Scan {
    /// `filters` empty: all subjects. With `headers_only`, payloads are left out by the server.
    pub async fn start(
        connection: &Connection,
        stream: &str,
        filters: &[String],
        first: From,
        until: u64,
        headers_only: bool,
    ) -> Result<Scan, Error> {
        let mut config = json!({
            "name": format!("mesh-scan-{}", super::connection::token()),
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": true,
            "num_replicas": 1,
            "inactive_threshold": nanos(INACTIVE),
            "headers_only": headers_only,
        });
        match first {
            From::Sequence(sequence) => {
                config["deliver_policy"] = json!("by_start_sequence");
                config["opt_start_seq"] = json!(sequence.max(1));
            }
            From::Time(ms) => {
                config["deliver_policy"] = json!("by_start_time");
                config["opt_start_time"] = json!(rfc3339(ms));
            }
        }
        match filters {
            [] => {}
            [one] => config["filter_subject"] = json!(one),
            many => config["filter_subjects"] = json!(many),
        }
        let info: ConsumerInfo = connection.put_consumer(stream, &config, "create").await?;
        let inbox = connection.client.new_inbox();
        let messages = connection
            .client
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|_| Error::Gone {
                what: format!("reading {stream}"),
            })?;
        let prefix = connection.api_prefix();
        let next = format!("{prefix}.CONSUMER.MSG.NEXT.{stream}.{}", info.name);
        let done = info.num_pending == 0;
        Ok(Scan {
            connection: connection.clone(),
            messages,
            inbox,
            stream: stream.to_owned(),
            first: info.delivered.stream_seq + 1,
            pending: info.num_pending,
            seen: info.delivered.stream_seq,
            name: info.name,
            next,
            requests: 0,
            asked: 0,
            batch: 0,
            until,
            done,
        })
    }

    /// The next message, also of those that come later, however long that takes.
    pub async fn wait(&mut self) -> Result<Scanned, Error> {
        self.done = false;
        self.until = u64::MAX;
        loop {
            if let Some(scanned) = self.next().await? {
                return Ok(scanned);
            }
            // Nothing is left for now: the next request waits for more.
            self.done = false;
        }
    }

    /// `None`: all has been seen.
    pub async fn next(&mut self) -> Result<Option<Scanned>, Error> {
        let gone = || Error::Gone {
            what: "reading a stream".to_owned(),
        };
        while !self.done {
            if self.asked == 0 {
                // No more than can be wanted.
                let left = self.until.saturating_sub(self.seen);
                let batch = usize::try_from(left).unwrap_or(BATCH).clamp(1, BATCH);
                let bytes = BATCH_BYTES.max(2 * self.connection.client.max_payload());
                let body = json!({ "batch": batch, "max_bytes": bytes, "expires": nanos(Duration::from_secs(5)) });
                self.requests += 1;
                self.connection
                    .client
                    .publish_with_reply(self.next.clone(), self.reply(), body.to_string().into())
                    .await
                    .map_err(|_| gone())?;
                (self.asked, self.batch) = (batch, batch);
            }
            let message = tokio::select! {
                message = tokio::time::timeout(Duration::from_secs(10), self.messages.next()) => match message {
                    Ok(Some(message)) => message,
                    Ok(None) => return Err(gone()),
                    Err(_) => return Err(Error::Timeout { what: "reading a stream".to_owned() }),
                },
                () = self.connection.closed() => return Err(gone()),
            };
            if message.status.is_some() && message.reply.is_none() {
                if message.subject.as_str() != self.reply() {
                    continue;
                }
                // What was to come may have been removed meanwhile.
                let nothing = self.asked == self.batch;
                self.asked = 0;
                if nothing {
                    let info = self.connection.consumer(&self.stream, &self.name).await?;
                    let info = info.ok_or_else(|| Error::Missing {
                        what: format!("a scan of stream {}", self.stream),
                    })?;
                    self.done = info.num_pending == 0;
                }
                continue;
            }
            self.asked -= 1;
            let reply = message.reply.as_deref().unwrap_or_default();
            let Some(info) = DeliveryInfo::parse(reply) else {
                continue;
            };
            self.seen = info.stream_sequence;
            if info.stream_sequence >= self.until || info.pending == 0 {
                self.done = true;
            }
            if info.stream_sequence <= self.until {
                return Ok(Some(Scanned {
                    sequence: info.stream_sequence,
                    malformed: self.connection.malformed(&message),
                    message,
                }));
            }
        }
        Ok(None)
    }
}

impl Scan {
    /// Where the server answers the open request.
    fn reply(&self) -> String {
        format!("{}.{}", self.inbox, self.requests)
    }

    /// Leaves nothing of it in the server; one that is only dropped is forgotten there after half a minute.
    pub async fn end(self) -> Result<(), Error> {
        match self.connection.remove_consumer(&self.stream, &self.name).await {
            // One who may only look may not remove consumers.
            Err(Error::Denied { .. }) => Ok(()),
            removed => removed,
        }
    }
}

/// How many messages a stream holds on such subjects.
pub async fn count(connection: &Connection, stream: &str, filters: &[String]) -> Result<u64, Error> {
    let scan = Scan::start(connection, stream, filters, From::Sequence(1), 0, true).await?;
    let pending = scan.pending;
    scan.end().await?;
    Ok(pending)
}

/// The first sequence of a stream at or after a time; the one after the last, if there is none.
pub async fn first_since(connection: &Connection, stream: &str, from: From) -> Result<u64, Error> {
    let scan = Scan::start(connection, stream, &[], from, 0, true).await?;
    let first = scan.first;
    scan.end().await?;
    Ok(first)
}

/// How far the clocks of two servers may lie apart.
pub const CLOCKS_MS: u64 = 60_000;

/// Calls `see` for each message of a range whose subject matches, without its payload, in order, until it breaks off.
pub async fn survey(
    nats: &Nats,
    stream: &str,
    filters: &[String],
    (first, until): (From, u64),
    mut see: impl FnMut(Scanned) -> ControlFlow<()>,
) -> Result<(), Error> {
    let connection = super::open_guarded(nats, "jetmesh survey").await?;
    let mut scan = Scan::start(&connection, stream, filters, first, until, true).await?;
    while let Some(scanned) = scan.next().await? {
        if see(scanned).is_break() {
            break;
        }
    }
    // Left to the server's own patience, those of thousands of handlers would lie there side by side.
    scan.end().await
}

/// The sequences of a range whose subjects match, read from the leader message by message. For streams on which no further
/// consumer can be created.
pub async fn one_by_one(
    reader: &Connection,
    stream: &str,
    filters: &[String],
    first: u64,
    until: u64,
) -> Result<Vec<u64>, Error> {
    let (mut next, mut found) = (first, Vec::new());
    while let Some(stored) = reader.stored_next(stream, next, ">").await? {
        if stored.sequence > until {
            break;
        }
        next = stored.sequence + 1;
        if filters.is_empty() || filters.iter().any(|filter| subject_matches(filter, &stored.subject)) {
            found.push(stored.sequence);
        }
    }
    Ok(found)
}
