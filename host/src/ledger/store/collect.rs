//! Removes the oldest part of a ledger, which is no longer needed: floors cover its decisions, its consequences are published,
//! and it is older than `ledger_keep`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bucket::Bucket;
use super::read;
use crate::broker::scan::{From, first_since};
use crate::broker::{By, Error};
use crate::failpoint;
use crate::failpoint::mistake::Mistake;
use crate::ledger::core::entry::Head;
use crate::ledger::relay::CONSUMER;

/// Any of the handlers of a ledger collects it, but not sooner after the last time.
const EVERY: Duration = Duration::from_secs(40);
/// The same of one to which nothing was appended since then.
const IDLE_EVERY: Duration = Duration::from_secs(600);

impl Bucket {
    /// Removes what is no longer needed, unless this was checked lately.
    pub async fn collect(&self, keep: Duration) -> Result<(), Error> {
        let newest = self.newest();
        {
            let mut last = self.collected.lock();
            let pause = |n| if n == newest { IDLE_EVERY } else { EVERY };
            if last.is_some_and(|(at, n)| at.elapsed() < pause(n)) {
                return Ok(());
            }
            *last = Some((Instant::now(), newest));
        }
        let collected = self.collect_now(keep).await;
        if collected.is_err() {
            *self.collected.lock() = None;
        }
        collected.map(|_| ())
    }

    /// Removes entries and consequences from the beginning. `keep`: how old they must be at least, by the stream's time.
    /// Returns how many messages were removed. Any host may do it, at any time, and several at once.
    async fn collect_now(&self, keep: Duration) -> Result<u64, Error> {
        let connection = self.connection().await?;
        let subject = self.subjects.head();
        let Some(stored) = connection.stored(&self.stream, By::Last(&subject)).await? else {
            return Ok(0);
        };
        // The head in the bucket, not the one known here: a host that starts now begins to read where that head says.
        let head: Head = read::parse(&subject, &stored.payload)?;
        let mut until = stored.sequence;
        if head.index_from <= head.n && !failpoint::planted().is(Mistake::CollectAbove) {
            let first = self.subjects.entry(head.index_from);
            match connection.stored(&self.stream, By::Last(&first)).await? {
                Some(first) => until = until.min(first.sequence),
                None => return Ok(0),
            }
        }
        let last = connection.stored(&self.stream, By::Last(&self.subjects.outs())).await?;
        let Some(relay) = connection.consumer(&self.stream, CONSUMER).await? else {
            return Ok(0);
        };
        // Its count of what is pending will not do: the server counts a message some time after it has confirmed it, and not at all
        // what it leaves lying.
        if last.is_some_and(|last| relay.ack_floor.stream_seq < last.sequence) {
            until = until.min(relay.ack_floor.stream_seq + 1);
        }
        let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        let young = From::Time(stored.time_ms.saturating_sub(keep));
        until = until.min(first_since(&connection, &self.stream, young).await?);
        if until <= 1 {
            // Nothing lies below; and some servers, 2.12.5 among them, take a purge below 1, as all do one below 0, for one of
            // everything (`PurgeEx` in nats-server's `server/filestore.go`).
            return Ok(0);
        }
        let mut gone = 0;
        for filter in [self.subjects.outs(), self.subjects.entries()] {
            // Everything of the filter below the sequence.
            let body = json!({ "filter": filter, "seq": until });
            let answer: Value = connection.api(&format!("STREAM.PURGE.{}", self.stream), &body).await?;
            gone += answer["purged"].as_u64().unwrap_or(0);
        }
        if gone > 0 {
            tracing::debug!(bucket = %self.name, messages = gone, below = until, "the ledger's beginning is collected");
        }
        Ok(gone)
    }
}
