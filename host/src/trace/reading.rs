//! Reading ranges of streams within one bound for a whole trace, whatever lies in them.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::broker::scan::{CLOCKS_MS, From, Scan, Scanned, first_since};
use crate::broker::{self, Connection, Error, Stored, StreamInfo};
use crate::event::subject::subject_matches;
use crate::event::{DeliveryInfo, Headers, headers_of};
use crate::plan::Nats;

/// A message that was read.
#[derive(Debug, Clone)]
pub struct Seen {
    pub sequence: u64,
    pub subject: String,
    pub time_ms: u64,
    /// None, if no client can read them.
    pub headers: Headers,
    pub payload: Bytes,
}

impl Seen {
    pub fn of(stored: Stored) -> Seen {
        Seen {
            headers: stored.headers().unwrap_or_default(),
            sequence: stored.sequence,
            subject: stored.subject,
            time_ms: stored.time_ms,
            payload: stored.payload,
        }
    }

    fn scanned(scanned: Scanned) -> Seen {
        let message = scanned.message;
        let info = message.reply.as_deref().and_then(DeliveryInfo::parse);
        let (subject, headers, payload) = match scanned.malformed {
            Some(bytes) => (
                String::from_utf8_lossy(&bytes.subject).into_owned(),
                Headers::new(),
                bytes.payload,
            ),
            None => (
                message.subject.into_string(),
                headers_of(message.headers.as_ref()),
                message.payload,
            ),
        };
        Seen {
            sequence: scanned.sequence,
            subject,
            time_ms: info.map_or(0, |info| info.time_ms),
            headers,
            payload,
        }
    }
}

/// Which messages are wanted.
pub struct Range<'a> {
    pub stream: &'a str,
    pub info: &'a StreamInfo,
    /// Empty: all.
    pub filters: &'a [String],
    pub first: u64,
    pub last: u64,
    pub headers_only: bool,
}

/// How far a range was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Whole,
    /// The caller had seen enough.
    Enough,
    /// The bound was reached.
    Bound,
}

/// One connection to ask on, one to scan on, and what may still be read.
pub struct Reading<'a> {
    nats: &'a Nats,
    pub connection: Connection,
    scanning: Option<Connection>,
    until: Instant,
    left: u64,
    /// Cancelled when the caller wants no more of it; this counts as reaching the bound.
    stop: CancellationToken,
    /// Messages that were read.
    pub read: u64,
    /// The bound was reached before a range's end.
    pub stopped: bool,
}

impl<'a> Reading<'a> {
    pub fn new(
        nats: &'a Nats,
        connection: &Connection,
        time: Duration,
        messages: u64,
        stop: CancellationToken,
    ) -> Reading<'a> {
        Reading {
            nats,
            connection: connection.clone(),
            scanning: None,
            until: Instant::now() + time,
            left: messages,
            stop,
            read: 0,
            stopped: false,
        }
    }

    /// The same with one connection for both, which is guarded.
    pub fn over(nats: &'a Nats, guarded: &Connection, time: Duration, messages: u64) -> Reading<'a> {
        let reading = Reading::new(nats, guarded, time, messages, CancellationToken::new());
        Reading {
            scanning: Some(guarded.clone()),
            ..reading
        }
    }

    pub fn is_spent(&self) -> bool {
        self.left == 0 || self.stop.is_cancelled() || Instant::now() >= self.until
    }

    /// The first sequence at or after a time by the clock of any server. A stream that allows no further consumer is read from
    /// its beginning: it holds only what is not acked.
    pub async fn since(&self, stream: &str, info: &StreamInfo, time_ms: u64) -> Result<u64, Error> {
        match info.retention() {
            "limits" => first_since(&self.connection, stream, From::Time(time_ms.saturating_sub(CLOCKS_MS))).await,
            _ => Ok(info.state.first_seq),
        }
    }

    /// Reads a range in stream order.
    pub async fn range(
        &mut self,
        range: &Range<'_>,
        mut see: impl FnMut(Seen) -> ControlFlow<()>,
    ) -> Result<Extent, Error> {
        let first = range.first.max(range.info.state.first_seq);
        if first > range.last {
            return Ok(Extent::Whole);
        }
        if self.is_spent() {
            self.stopped = true;
            return Ok(Extent::Bound);
        }
        let extent = match range.info.retention() {
            "limits" => self.scan(range, first, &mut see).await?,
            _ => self.one_by_one(range, first, &mut see).await?,
        };
        self.stopped |= extent == Extent::Bound;
        Ok(extent)
    }

    async fn scan(
        &mut self,
        range: &Range<'_>,
        first: u64,
        see: &mut impl FnMut(Seen) -> ControlFlow<()>,
    ) -> Result<Extent, Error> {
        let connection = match self.scanning.take().filter(|c| !c.is_closed()) {
            Some(connection) => connection,
            None => broker::open_guarded(self.nats, "jetmesh trace").await?,
        };
        self.scanning = Some(connection.clone());
        let from = From::Sequence(first);
        let Range { stream, filters, .. } = range;
        let mut scan = Scan::start(&connection, stream, filters, from, range.last, range.headers_only).await?;
        let extent = loop {
            let next = tokio::select! {
                next = scan.next() => next?,
                () = self.stop.cancelled() => break Extent::Bound,
            };
            let Some(scanned) = next else {
                break Extent::Whole;
            };
            self.count();
            if see(Seen::scanned(scanned)).is_break() {
                break Extent::Enough;
            }
            if self.is_spent() {
                break Extent::Bound;
            }
        };
        scan.end().await?;
        Ok(extent)
    }

    /// For streams that allow no further consumer.
    async fn one_by_one(
        &mut self,
        range: &Range<'_>,
        first: u64,
        see: &mut impl FnMut(Seen) -> ControlFlow<()>,
    ) -> Result<Extent, Error> {
        let mut next = first;
        loop {
            let stored = self.connection.stored_next(range.stream, next, ">").await?;
            let Some(stored) = stored.filter(|stored| stored.sequence <= range.last) else {
                return Ok(Extent::Whole);
            };
            next = stored.sequence + 1;
            self.count();
            let wanted = |filter: &String| subject_matches(filter, &stored.subject);
            if (range.filters.is_empty() || range.filters.iter().any(wanted)) && see(Seen::of(stored)).is_break() {
                return Ok(Extent::Enough);
            }
            if self.is_spent() {
                return Ok(Extent::Bound);
            }
        }
    }

    fn count(&mut self) {
        self.read += 1;
        self.left = self.left.saturating_sub(1);
    }
}
