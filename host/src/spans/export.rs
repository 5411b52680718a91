//! What exports spans: it collects them to batches, and tries each for a limited time.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use super::otlp::{Collector, KeptConnection, SpansRefused, SpansTaken};
use super::span::SpanRecord;
use super::{EXPORTED, NO_ROOM, Queued, REFUSED};
use crate::plan::{Otlp, SpanBatch};
use crate::trouble::{self, Weight};

/// The first pause after a request that failed; it doubles up to the second.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

const NOT_TAKEN: &str = "spans are lost: the collector does not take them";

/// The task that exports spans.
pub struct SpanExport {
    collector: Collector,
    batch: SpanBatch,
    /// Held for as long as it runs.
    spans: Mutex<SpanQueue>,
}

struct SpanQueue {
    queue: mpsc::Receiver<Queued>,
    /// Drops that have been told.
    told: u64,
}

impl SpanExport {
    /// # Errors
    /// The certificates cannot be read.
    pub(super) fn new(otlp: &Otlp, queue: mpsc::Receiver<Queued>) -> io::Result<SpanExport> {
        Ok(SpanExport {
            collector: Collector::new(otlp)?,
            batch: otlp.batch,
            spans: Mutex::new(SpanQueue { queue, told: 0 }),
        })
    }

    /// Exports for as long as it is polled.
    pub async fn run(&self) {
        let mut spans = self.spans.lock().await;
        let mut kept = None;
        loop {
            let (batch, flushed) = tokio::select! {
                collected = self.collect(&mut spans.queue) => collected,
                never = closed(&mut kept) => match never {},
            };
            if !batch.is_empty() {
                self.export(&mut kept, batch).await;
            }
            if let Some(flushed) = flushed {
                let _ = flushed.send(());
            }
            spans.tell();
        }
    }

    /// The next batch: as soon as it is full, or its first span has waited long enough, or a flush is asked for.
    async fn collect(&self, queue: &mut mpsc::Receiver<Queued>) -> (Vec<SpanRecord>, Option<oneshot::Sender<()>>) {
        let mut batch = Vec::new();
        let mut due = None;
        while batch.len() < self.batch.export_max {
            let next = match due {
                None => queue.recv().await,
                Some(due) => match tokio::time::timeout_at(due, queue.recv()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            match next {
                Some(Queued::Span(span)) => batch.push(*span),
                Some(Queued::Flush(flushed)) => return (batch, Some(flushed)),
                // The recorder lives as long as the process.
                None => std::future::pending().await,
            }
            due.get_or_insert_with(|| Instant::now() + self.batch.delay);
        }
        (batch, None)
    }

    /// Sends a batch until the collector takes it, or for as long as it may take.
    async fn export(&self, kept: &mut Option<KeptConnection>, batch: Vec<SpanRecord>) {
        let count = batch.len() as u64;
        let body = self.collector.encode(&batch);
        drop(batch);
        let until = Instant::now() + self.batch.timeout;
        let mut pause = PAUSE;
        loop {
            let sent = tokio::time::timeout_at(until, self.collector.send(kept, body.clone())).await;
            let refused = match sent {
                Ok(Ok(taken)) => return took(count, &taken),
                Ok(Err(refused)) => refused,
                Err(_) => return lost(count, "no answer in time"),
            };
            let wait = refused.after.unwrap_or(pause);
            if !refused.passes || Instant::now() + wait >= until {
                return lost(count, &refused.why);
            }
            retried(&refused);
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Keeps a connection alive that is not used, and lets go of one that the collector closes.
async fn closed(kept: &mut Option<KeptConnection>) -> Infallible {
    if let Some(connection) = kept {
        connection.closed().await;
        *kept = None;
    }
    std::future::pending().await
}

impl SpanQueue {
    fn tell(&mut self) {
        let dropped = NO_ROOM.load(Ordering::Relaxed);
        let spans = dropped - self.told;
        if spans > 0 {
            self.told = dropped;
            let hint = "make OTEL_BSP_MAX_QUEUE_SIZE larger, or sample fewer traces";
            trouble!(Weight::Aside, "", "the queue was full", { spans, hint }, "spans are lost: the queue was full");
        }
    }
}

fn took(count: u64, taken: &SpansTaken) {
    let rejected = taken.rejected.min(count);
    EXPORTED.fetch_add(count - rejected, Ordering::Relaxed);
    if rejected > 0 {
        REFUSED.fetch_add(rejected, Ordering::Relaxed);
        let why = &taken.why;
        trouble!(Weight::Aside, "", why, { spans = rejected, why }, "the collector rejects spans");
    }
    if let Some(times) = trouble::over(NOT_TAKEN, "") {
        tracing::info!(times, "the collector takes spans again");
    }
}

fn lost(count: u64, why: &str) {
    REFUSED.fetch_add(count, Ordering::Relaxed);
    trouble!(Weight::Aside, "", why, { spans = count, why }, "spans are lost: the collector does not take them");
}

fn retried(refused: &SpansRefused) {
    tracing::debug!(why = refused.why, "spans are sent again");
}
