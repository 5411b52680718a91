//! The relay's consumer: the server keeps in it up to where a ledger's consequences are published. If it is ahead of its
//! stream, or the server leaves something undelivered, it is deleted and created again where it has to continue.

use std::time::Duration;

use rand::RngExt as _;
use serde_json::json;
use tokio::time::Instant;

use super::{ACK_WAIT, CONSUMER, GROUP, PIN_TTL, UNCONFIRMED_MAX};
use crate::broker::consumer::{ConsumerInfo, differs, nanos};
use crate::broker::error::Code;
use crate::broker::kv::kv_stream;
use crate::broker::{By, Connection, Error, StreamInfo};
use crate::event::parse_rfc3339;
use crate::failpoint;
use crate::ledger::core::entry::Subjects;

/// Metadata of the consumer: consequences up to this sequence of the stream may have been published before it was created.
const META_CARRIED: &str = "jetmesh.carried";
/// Metadata of a consumer that was created again because the stream had lost its end: since when the lost consequences may have
/// been published, in milliseconds since the Unix epoch. Their events are decided again, in other entries.
const META_LOST_SINCE: &str = "jetmesh.lost-since";

/// What may have been published by relays that used an earlier consumer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Up to this sequence.
    pub until: u64,
    /// Also by entries that are lost, since this time.
    pub lost_since_ms: Option<u64>,
}

impl Carried {
    pub fn of(consumer: &ConsumerInfo) -> Carried {
        let number = |key| consumer.metadata(key).and_then(|text| text.parse().ok());
        Carried {
            until: number(META_CARRIED).unwrap_or(0),
            lost_since_ms: number(META_LOST_SINCE),
        }
    }
}

/// The consumer of a ledger's relay: created if it is missing, brought up to date, and created again if it is ahead of its
/// stream.
pub async fn bind(connection: &Connection, ledger: &str) -> Result<(), Error> {
    let stream = kv_stream(ledger);
    let info = connection.stream(&stream).await?.ok_or_else(|| Error::Missing {
        what: format!("stream {stream}"),
    })?;
    let mut config = json!({
        "durable_name": CONSUMER,
        "description": "carries the consequences of the ledger out",
        "ack_policy": "all",
        "ack_wait": nanos(ACK_WAIT),
        "max_ack_pending": UNCONFIRMED_MAX,
        "filter_subject": Subjects::new(ledger).outs(),
        "deliver_policy": "all",
        "replay_policy": "instant",
        "priority_policy": "pinned_client",
        "priority_groups": [GROUP],
        "priority_timeout": nanos(PIN_TTL),
        // An earlier consumer may have been deleted; how far it had come is not recorded then.
        "metadata": { META_CARRIED: info.state.last_seq.to_string() },
    });
    let Some(found) = reconcile(connection, ledger, &info).await? else {
        return match connection.put_consumer(&stream, &config, "create").await {
            // Another host was faster.
            Err(error) if error.code() == Some(Code::CONSUMER_ALREADY_EXISTS) => Ok(()),
            made => made.map(drop),
        };
    };
    for key in ["deliver_policy", "opt_start_seq", "metadata"] {
        config[key] = found.config[key].clone();
    }
    match differs(&config, &found.config) {
        true => connection.put_consumer(&stream, &config, "update").await.map(drop),
        false => Ok(()),
    }
}

/// The consumer as it is, created again if it is ahead of its stream. `None`: there is none. `info`: the stream as it was just
/// now.
///
/// A host that appends asks this first over each connection: what is appended afterwards could take the sequences of what was
/// lost, and then it would no longer be visible that the consumer has passed them over.
pub async fn reconcile(
    connection: &Connection,
    ledger: &str,
    info: &StreamInfo,
) -> Result<Option<ConsumerInfo>, Error> {
    let stream = kv_stream(ledger);
    let Some(found) = connection.consumer(&stream, CONSUMER).await? else {
        return Ok(None);
    };
    let delivered = found.delivered.stream_seq;
    let Some(info) = connection.ends_before(&stream, delivered, info).await? else {
        return Ok(Some(found));
    };
    let last = info.state.last_seq;
    tracing::warn!(
        ledger,
        delivered,
        last,
        "the stream of a ledger has lost its last messages: the relay's consumer was ahead of it and is created again"
    );
    // What was lost is decided again, beside as much that is new.
    let until = delivered + (delivered - last);
    let since = info.state.last_ts.as_deref().and_then(parse_rfc3339).unwrap_or(0);
    let told = [(META_CARRIED, until.to_string()), (META_LOST_SINCE, since.to_string())];
    let from = found.ack_floor.stream_seq.min(last) + 1;
    connection.recreate(&stream, &found, (from, &told)).await.map(Some)
}

/// Whether the server leaves consequences lying: it has nothing to give and waits for nothing, and one is stored that was
/// not confirmed. Its sequence.
async fn left_lying(connection: &Connection, ledger: &str) -> Result<Option<u64>, Error> {
    let (stream, outs) = (kv_stream(ledger), Subjects::new(ledger).outs());
    // First the newest: what is stored afterwards makes no difference.
    let Some(last) = connection.stored(&stream, By::Last(&outs)).await? else {
        return Ok(None);
    };
    let found = connection.consumer(&stream, CONSUMER).await?;
    let idle = found.filter(|found| found.num_pending == 0 && found.num_ack_pending == 0);
    let lies = idle.is_some_and(|found| found.ack_floor.stream_seq < last.sequence);
    Ok(lies.then_some(last.sequence))
}

/// Deletes the consumer and creates it again from where it has confirmed everything.
async fn begin_anew(connection: &Connection, ledger: &str) -> Result<(), Error> {
    let stream = kv_stream(ledger);
    let Some(info) = connection.stream(&stream).await? else {
        return Ok(());
    };
    let Some(found) = connection.consumer(&stream, CONSUMER).await? else {
        return Ok(());
    };
    if found.is_ahead_of(&info) {
        return reconcile(connection, ledger, &info).await.map(drop);
    }
    let told = [(META_CARRIED, info.state.last_seq.to_string())];
    let from = found.ack_floor.stream_seq + 1;
    connection.recreate(&stream, &found, (from, &told)).await.map(drop)
}

/// How often an idle relay looks whether the server leaves something lying: two requests.
const EVERY: Duration = Duration::from_secs(60);

fn every() -> Duration {
    failpoint::number("relay-look-ms").map_or(EVERY, Duration::from_millis)
}

/// Looks for consequences that the server leaves lying.
pub struct ConsumerWatch {
    next: Instant,
    /// What seemed to lie there a moment ago: between storing a message and telling a consumer of it, it may be so.
    suspected: Option<u64>,
}

impl ConsumerWatch {
    /// Those of thousands of relays do not look at the same moment.
    pub fn new() -> ConsumerWatch {
        let first = every().mul_f64(rand::rng().random_range(0.1..1.0));
        ConsumerWatch {
            next: Instant::now() + first,
            suspected: None,
        }
    }

    /// To be asked every second while nothing is under way. `true`: the consumer was created again.
    pub async fn finds(&mut self, connection: &Connection, ledger: &str) -> Result<bool, Error> {
        if Instant::now() < self.next {
            return Ok(false);
        }
        let lies = left_lying(connection, ledger).await?;
        let certain = lies.is_some() && lies == self.suspected;
        self.suspected = lies;
        if lies.is_none() {
            self.next = Instant::now() + every().mul_f64(rand::rng().random_range(0.75..1.0));
        }
        if certain {
            tracing::warn!(
                ledger,
                sequence = lies,
                "the server does not deliver consequences: the relay's consumer is created again"
            );
            begin_anew(connection, ledger).await?;
        }
        Ok(certain)
    }
}
