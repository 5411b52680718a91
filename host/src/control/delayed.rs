//! Events that wait for their time: which there are, and what a person does with them. One that is to come now gets another time
//! at the server. One that is cancelled is first noted as published, so that no host publishes it, and is then removed.

use std::collections::BTreeSet;
use std::pin::pin;

use futures_util::StreamExt;
use futures_util::stream;
use schemars::JsonSchema;
use serde::Serialize;

use crate::broker::error::Code;
use crate::broker::provision::DELAYED;
use crate::broker::{By, Connection, Error};
use crate::event::clock::now_ms;
use crate::event::{Headers, header, rfc3339};
use crate::mesh_streams::audit::{AuditAction, AuditEnd};
use crate::mesh_streams::delayed::{self, HANDLER_TIMER_TO, TIMER_SUBJECT, TIMER_TO, TO, UNTIL, WAITS};

/// Events that one look reads at most.
pub const LOOKED_MAX: usize = 50_000;
/// Of these at a time.
const READS_MAX: usize = 64;

/// An event that waits for its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(
    title = "An event that waits for its time, a line of `jetmesh delayed --json`",
    description = ""
)]
pub struct DelayedEvent {
    /// The event's own: HANDLER.INCARNATION.SEQUENCE.NUMBER
    pub id: String,
    /// The handler that has emitted it, or has set the timer.
    pub handler: String,
    /// Where it is published.
    pub subject: String,
    /// When it is due.
    #[schemars(extend("format" = "date-time"))]
    pub due: String,
    /// It is a timer of the handler, which the handler can cancel or set again.
    pub timer: bool,
}

/// What a person wants of such events.
#[derive(Debug, Clone)]
pub enum DelayedOrder {
    /// They are due now.
    Now,
    /// They never come.
    Cancel { by: String, reason: Option<String> },
}

/// What has become of an order.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(
    title = "What `jetmesh delayed now --json` or `jetmesh delayed cancel --json` has done",
    description = ""
)]
pub struct DelayedActed {
    /// Events that are due now, or that were cancelled.
    pub acted: u64,
    /// Ids of events that do not wait: they are due or published already, were cancelled, or there never were such events.
    pub missing: Vec<String>,
    /// Ids of timers, which only their handlers can cancel.
    pub timers: Vec<String>,
}

impl DelayedEvent {
    /// `None`: it is a timer of a schedule.
    fn of(subject: &str, headers: &Headers) -> Option<DelayedEvent> {
        let id = subject.strip_prefix(WAITS)?;
        let to = header(headers, TO)?;
        let timer = to.starts_with(HANDLER_TIMER_TO);
        let published = if timer { header(headers, TIMER_SUBJECT)? } else { to };
        (!to.starts_with(TIMER_TO)).then(|| DelayedEvent {
            id: id.to_owned(),
            handler: handler_of(id).to_owned(),
            subject: published.to_owned(),
            due: header(headers, UNTIL).unwrap_or_default().to_owned(),
            timer,
        })
    }
}

impl DelayedOrder {
    pub fn action(&self) -> AuditAction {
        match self {
            DelayedOrder::Now => AuditAction::DelayedNow,
            DelayedOrder::Cancel { .. } => AuditAction::DelayedCancel,
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            DelayedOrder::Now => None,
            DelayedOrder::Cancel { reason, .. } => reason.as_deref(),
        }
    }
}

impl DelayedActed {
    /// As it is recorded.
    pub fn recorded(&self, order: &DelayedOrder) -> AuditEnd {
        let verb = match order {
            DelayedOrder::Now => "due now",
            DelayedOrder::Cancel { .. } => "cancelled",
        };
        let (missing, timers) = (self.missing.len() as u64, self.timers.len() as u64);
        AuditEnd::done(&[(verb, self.acted), ("missing", missing), ("timers", timers)])
    }
}

/// The handlers of these events, for a record.
pub fn handlers(ids: &[String]) -> Vec<&str> {
    let handlers = ids.iter().map(|id| handler_of(id));
    handlers.collect::<BTreeSet<_>>().into_iter().collect()
}

fn handler_of(id: &str) -> &str {
    id.split('.').next().unwrap_or_default()
}

/// These events, in a few words.
pub fn told(ids: &[String]) -> String {
    match ids {
        [one] => one.clone(),
        ids => format!("{} events", ids.len()),
    }
}

/// Calls `seen` for each event that waits for its time; timers of schedules are left out. Returns how many more there are: at most
/// [`LOOKED_MAX`] are looked at. The stream is a work queue, which takes no second consumer, so each is read by itself.
pub async fn each(
    connection: &Connection,
    handler: Option<&str>,
    mut seen: impl FnMut(DelayedEvent),
) -> Result<usize, Error> {
    let of = handler.map_or_else(String::new, |handler| format!("{handler}."));
    let subjects = match connection.subjects(DELAYED, &format!("{WAITS}{of}>")).await {
        // No event of this mesh was ever delayed.
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => return Ok(0),
        subjects => subjects?,
    };
    let more = subjects.len().saturating_sub(LOOKED_MAX);
    let read = |subject: String| async move {
        let stored = connection.stored(DELAYED, By::Last(&subject)).await?;
        let headers = stored.and_then(|stored| stored.headers().ok());
        Ok::<_, Error>(headers.and_then(|headers| DelayedEvent::of(&subject, &headers)))
    };
    let reads = stream::iter(subjects.into_iter().take(LOOKED_MAX).map(read));
    let mut reads = pin!(reads.buffered(READS_MAX));
    while let Some(event) = reads.next().await {
        event?.map(&mut seen);
    }
    Ok(more)
}

/// Does what a person wants with the events of these ids.
///
/// # Errors
/// What was done until then is done, and the same order continues it.
pub async fn act(connection: &Connection, ids: &[String], order: &DelayedOrder) -> Result<DelayedActed, Error> {
    let mut acted = DelayedActed::default();
    for id in ids {
        let subject = format!("{WAITS}{id}");
        let stored = match connection.stored(DELAYED, By::Last(&subject)).await {
            Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => None,
            stored => stored?,
        };
        let Some(stored) = stored else {
            acted.missing.push(id.clone());
            continue;
        };
        let unreadable = |why| Error::Answer {
            what: subject.clone(),
            why,
        };
        let headers = stored.headers().map_err(unreadable)?;
        let event = DelayedEvent::of(&subject, &headers);
        let done = match (order, event) {
            (_, None) | (DelayedOrder::Cancel { .. }, Some(DelayedEvent { timer: true, .. })) => {
                acted.timers.push(id.clone());
                continue;
            }
            (DelayedOrder::Now, Some(_)) => {
                let now = rfc3339(now_ms());
                delayed::move_to(connection, (id, stored.sequence), (&headers, stored.payload), &now).await?
            }
            (DelayedOrder::Cancel { by, reason }, Some(_)) => {
                let why = reason
                    .as_ref()
                    .map_or_else(|| format!("by {by}"), |reason| format!("by {by}: {reason}"));
                delayed::cancel(connection, id, &why).await?
            }
        };
        match done {
            true => acted.acted += 1,
            false => acted.missing.push(id.clone()),
        }
    }
    Ok(acted)
}

/// Whether a text has the form of an id of a delayed event. It becomes a part of a subject.
pub fn is_delayed_id(text: &str) -> bool {
    let is_token = |token: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !token.is_empty() && token.bytes().all(plain)
    };
    let tokens = text.split('.').count();
    (3..=8).contains(&tokens) && text.len() <= 255 && text.split('.').all(is_token)
}
