//! Reading ranges of streams within one bound for a whole trace, whatever lies in them.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::broker::scan::{CLOCKS_MS, From, STEP, Scan, first_since};
use crate::broker::{self, Connection, Error, Stored, StreamInfo};
use crate::effects::subject_matches;
use crate::message::{DeliveryInfo, Headers, headers_of};
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
    /// Whoever looked had seen enough.
    Enough,
    /// The bound was reached.
    Bound,
}

/// One connection to ask on, one to scan on, and what may still be read.
pub struct Reading<'a> {
    nats: &'a Nats,
    pub connection: Connection,
    /// A message that no client can read breaks the connection that it comes over.
    scanning: Option<Connection>,
    until: Instant,
    left: u64,
    /// Messages that were read.
    pub read: u64,
    /// The bound was reached before a range's end.
    pub stopped: bool,
}

impl<'a> Reading<'a> {
    pub fn new(nats: &'a Nats, connection: &Connection, time: Duration, messages: u64) -> Reading<'a> {
        Reading {
            nats,
            connection: connection.clone(),
            scanning: None,
            until: Instant::now() + time,
            left: messages,
            read: 0,
            stopped: false,
        }
    }

    pub fn is_spent(&self) -> bool {
        self.left == 0 || Instant::now() >= self.until
    }

    /// The first sequence at or after a time by the clock of any server. A stream that lets nobody look on is read from
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
        let mut next = range.first.max(range.info.state.first_seq);
        let scans = range.info.retention() == "limits";
        while next <= range.last {
            if self.is_spent() {
                self.stopped = true;
                return Ok(Extent::Bound);
            }
            let scanned = match scans {
                true => self.scan(range, &mut next, &mut see).await?,
                false => None,
            };
            let extent = match scanned {
                Some(extent) => Some(extent),
                None => self.one_by_one(range, &mut next, &mut see).await?,
            };
            if let Some(extent) = extent {
                self.stopped |= extent == Extent::Bound;
                return Ok(extent);
            }
        }
        Ok(Extent::Whole)
    }

    /// `None`: a message broke it, at or after `next`.
    async fn scan(
        &mut self,
        range: &Range<'_>,
        next: &mut u64,
        see: &mut impl FnMut(Seen) -> ControlFlow<()>,
    ) -> Result<Option<Extent>, Error> {
        let connection = match self.scanning.take().filter(|c| !c.is_closed()) {
            Some(connection) => connection,
            None => broker::open(self.nats, "jetmesh trace").await?,
        };
        self.scanning = Some(connection.clone());
        let from = From::Sequence(*next);
        let Range { stream, filters, .. } = range;
        let mut scan = Scan::start(&connection, stream, filters, from, range.last, range.headers_only).await?;
        let extent = loop {
            match scan.next().await {
                Ok(Some(scanned)) => {
                    *next = scanned.sequence + 1;
                    let info = scanned.message.reply.as_deref().and_then(DeliveryInfo::parse);
                    let seen = Seen {
                        sequence: scanned.sequence,
                        subject: scanned.message.subject.to_string(),
                        time_ms: info.map_or(0, |info| info.time_ms),
                        headers: headers_of(scanned.message.headers.as_ref()),
                        payload: scanned.message.payload,
                    };
                    self.count();
                    if see(seen).is_break() {
                        break Extent::Enough;
                    }
                    if self.is_spent() {
                        break Extent::Bound;
                    }
                }
                Ok(None) => break Extent::Whole,
                Err(Error::Gone { .. }) if !self.connection.is_closed() => return Ok(None),
                Err(error) => return Err(error),
            }
        };
        scan.end().await?;
        Ok(Some(extent))
    }

    /// `None`: there is more.
    async fn one_by_one(
        &mut self,
        range: &Range<'_>,
        next: &mut u64,
        see: &mut impl FnMut(Seen) -> ControlFlow<()>,
    ) -> Result<Option<Extent>, Error> {
        for _ in 0..STEP {
            let stored = self.connection.stored_next(range.stream, *next, ">").await?;
            let Some(stored) = stored.filter(|stored| stored.sequence <= range.last) else {
                return Ok(Some(Extent::Whole));
            };
            *next = stored.sequence + 1;
            self.count();
            let wanted = |filter: &String| subject_matches(filter, &stored.subject);
            if (range.filters.is_empty() || range.filters.iter().any(wanted)) && see(Seen::of(stored)).is_break() {
                return Ok(Some(Extent::Enough));
            }
            if self.is_spent() {
                return Ok(Some(Extent::Bound));
            }
        }
        Ok(None)
    }

    fn count(&mut self) {
        self.read += 1;
        self.left = self.left.saturating_sub(1);
    }
}
