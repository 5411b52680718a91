//! Delayed events, as the stream `MESH_DELAYED` holds them until they are published. `<id>` is the event's own id:
//!
//! | subject | what lies there |
//! |---|---|
//! | `$MESH.delay.<id>` | the event, as a schedule of the server, which fires it with no host up |
//! | `$MESH.due.<id>` | the event, put there by the server when it is due, until a host has published it (`due`) |
//! | `$MESH.fired.<id>` | a note that a host has begun to publish it, or has published it |
//!
//! From the moment it is scheduled until three days after it is published there is always one of the three: so a relay
//! that repeats itself, however late, schedules nothing twice.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::broker::connection::EXPECTED;
use crate::broker::error::Code;
use crate::broker::provision::DELAYED;
use crate::broker::{By, Connection, Error, StreamInfo};
use crate::event::{Headers, header, writable};
use crate::mesh_streams::dead_letter::{SETTLED, SETTLED_TTL};
use crate::text::display::clean;

/// Headers of the waiting event that the published one does not have begin with this.
const WAITING: &str = "Mesh-Delayed-";
/// Where it is to be published.
pub const TO: &str = "Mesh-Delayed-To";
/// When it is due, for a person who looks at the stream: the server removes its own header when the event is due.
pub const UNTIL: &str = "Mesh-Delayed-Until";
/// Stream of the ledger that it follows from.
pub const LEDGER: &str = "Mesh-Delayed-Ledger";

/// What a timer of a schedule has as [`TO`], and then the schedule's name. Nothing is published there: the timer itself is what is
/// wanted (`schedule`).
pub const TIMER_TO: &str = "$MESH.schedule.";

/// What a timer of a handler has as [`TO`], and then the bucket that knows it. It is no event before a transaction of this bucket has
/// taken its firing in.
pub const HANDLER_TIMER_TO: &str = "$MESH.timer.";
/// Of such a timer: its key in the bucket.
pub const TIMER_KEY: &str = "Mesh-Delayed-Timer";
/// Of such a timer: where its event is to be published.
pub const TIMER_SUBJECT: &str = "Mesh-Delayed-Subject";

/// Before the id of an event that waits for its time.
pub const WAITS: &str = "$MESH.delay.";
/// Where the server puts what is due.
pub const DUE: &str = "$MESH.due.";
/// Where a host notes what it publishes.
pub const FIRED: &str = "$MESH.fired.";

/// An event that is not due yet.
#[derive(Debug, Clone, Copy)]
pub struct Delayed<'a> {
    pub id: &'a str,
    /// RFC 3339.
    pub due: &'a str,
    pub subject: &'a str,
    /// Those that it will have when it is published.
    pub headers: &'a Headers,
    /// Stream of the ledger that it follows from.
    pub ledger: &'a str,
}

/// The message that hands an event over to the server, once: one that waits, is due, or has been published is left as it
/// is. Subject and headers.
///
/// Format: <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-51.md>.
pub fn scheduled(event: &Delayed<'_>) -> (String, HeaderMap) {
    let id = event.id;
    let mut map = writable(event.headers);
    map.insert(TO, event.subject);
    map.insert(UNTIL, event.due);
    map.insert(LEDGER, event.ledger);
    schedule(&mut map, id, event.due);
    map.insert("Nats-Expected-Last-Subject-Sequence-Subject", format!("$MESH.*.{id}"));
    map.insert(EXPECTED, "0");
    (format!("{WAITS}{id}"), map)
}

/// How much a message takes beside its payload, at most: its headers have room for themselves in the last tenth.
const BESIDE: u64 = 1024;
/// How long what is known of the room is believed.
const KNOWN: Duration = Duration::from_secs(1);

/// Whether the stream of delayed events has room. With schedules in it, a full stream refuses nothing: it would remove its
/// oldest events. So nothing is added to one that is filled to nine tenths; the rest is for what several relays add at a time,
/// and for what becomes due.
#[derive(Default)]
pub struct DelayedRoom {
    /// When the stream was asked, and how many bytes more it takes.
    known: Option<(Instant, u64)>,
}

impl DelayedRoom {
    /// Whether this number of bytes of payload can be added; if so, they count as added.
    pub async fn takes(&mut self, connection: &Connection, bytes: u64) -> Result<bool, Error> {
        let known = self.known.filter(|(at, _)| at.elapsed() < KNOWN);
        let (at, left) = match known {
            Some(known) => known,
            None => match connection.stream(DELAYED).await {
                Ok(Some(info)) => (Instant::now(), left(&info)),
                Err(error @ Error::Gone { .. }) => return Err(error),
                // Publishing tells.
                Ok(None) | Err(_) => return Ok(true),
            },
        };
        let after = left.checked_sub(bytes + BESIDE);
        self.known = Some((at, after.unwrap_or(left)));
        Ok(after.is_some())
    }
}

fn left(info: &StreamInfo) -> u64 {
    match info.config["max_bytes"].as_u64() {
        Some(most) if most > 0 => (most - most / 10).saturating_sub(info.state.bytes),
        _ => u64::MAX,
    }
}

/// How a due event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// No host had begun to publish it, and from now on other hosts see that this one has.
    Ours,
    /// A host had begun at this time, in milliseconds since the Unix epoch; how far it came is not known.
    Begun(u64),
    /// It is published.
    Fired,
}

/// Notes that a due event is being published: a host that ends in between leaves that much behind.
pub async fn claim(connection: &Connection, id: &str) -> Result<Claim, Error> {
    let subject = format!("{FIRED}{id}");
    let ours = connection.publish_upon(&subject, 0, HeaderMap::new(), Bytes::new());
    if ours.await?.is_some() {
        return Ok(Claim::Ours);
    }
    let Some(found) = connection.stored(DELAYED, By::Last(&subject)).await? else {
        return Err(Error::Timeout { what: subject });
    };
    let settled = found.headers().is_ok_and(|headers| header(&headers, SETTLED).is_some());
    Ok(match settled {
        true => Claim::Fired,
        false => Claim::Begun(found.time_ms),
    })
}

/// Notes that a due event is published, or has become a dead letter, for longer than any late copy of it can live.
pub async fn settle(connection: &Connection, id: &str, reason: &str) -> Result<(), Error> {
    let mut map = HeaderMap::new();
    map.insert(SETTLED, reason);
    map.insert("Nats-TTL", SETTLED_TTL);
    connection.publish(&format!("{FIRED}{id}"), map, Bytes::new()).await?;
    Ok(())
}

/// What the note of an event that a person has cancelled begins with.
const CANCELLED: &str = "cancelled ";

/// Cancels an event that waits: notes first that nothing is to be published, and then removes it. An event that becomes due in between
/// finds the note. `false`: it is published, or a host has begun to. `why`: by whom, and the reason.
pub async fn cancel(connection: &Connection, id: &str, why: &str) -> Result<bool, Error> {
    let subject = format!("{FIRED}{id}");
    let mut map = HeaderMap::new();
    map.insert(SETTLED, clean(&format!("{CANCELLED}{why}")).as_str());
    map.insert("Nats-TTL", SETTLED_TTL);
    let noted = connection.publish_upon(&subject, 0, map, Bytes::new()).await;
    // A command that was interrupted may have noted it.
    if noted.map_err(|error| error.in_stream(DELAYED))?.is_none() && cancelled(connection, id).await?.is_none() {
        return Ok(false);
    }
    let what = json!({ "filter": format!("{WAITS}{id}") });
    let _: Value = connection.api(&format!("STREAM.PURGE.{DELAYED}"), &what).await?;
    Ok(true)
}

/// By whom and why an event was cancelled. `None`: it was not, or that is longer ago than notes are kept.
pub async fn cancelled(connection: &Connection, id: &str) -> Result<Option<String>, Error> {
    let Some(found) = connection.stored(DELAYED, By::Last(&format!("{FIRED}{id}"))).await? else {
        return Ok(None);
    };
    let headers = found.headers().unwrap_or_default();
    let why = header(&headers, SETTLED).and_then(|reason| reason.strip_prefix(CANCELLED));
    Ok(why.map(str::to_owned))
}

/// Gives an event that waits another time. `at`: where it lies; `due`: RFC 3339. `false`: it does not lie there any more.
pub async fn move_to(
    connection: &Connection,
    (id, at): (&str, u64),
    (headers, payload): (&Headers, Bytes),
    due: &str,
) -> Result<bool, Error> {
    let kept = |name: &str| !name.starts_with("Nats-") && name != UNTIL;
    let kept: Headers = headers.iter().filter(|(name, _)| kept(name)).cloned().collect();
    let mut map = writable(&kept);
    map.insert(UNTIL, due);
    schedule(&mut map, id, due);
    let moved = connection.publish_upon(&format!("{WAITS}{id}"), at, map, payload).await;
    moved
        .map(|moved| moved.is_some())
        .map_err(|error| error.in_stream(DELAYED))
}

/// The headers by which the server fires a message.
fn schedule(map: &mut HeaderMap, id: &str, due: &str) {
    map.insert("Nats-Schedule", format!("@at {due}"));
    map.insert("Nats-Schedule-Target", format!("{DUE}{id}"));
}

/// The headers of the event itself, out of those that it has when it is due.
pub fn originals(due: &Headers) -> Headers {
    let own = |name: &str| !name.starts_with(WAITING) && !name.starts_with("Nats-");
    due.iter().filter(|(name, _)| own(name)).cloned().collect()
}

/// How many events wait for their time, and how many are due and not published yet.
pub async fn waiting(connection: &Connection) -> Result<(u64, u64), Error> {
    let none = |counted: Result<u64, Error>| match counted {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => Ok(0),
        counted => counted,
    };
    Ok((
        none(subjects(connection, "$MESH.delay.>").await)?,
        none(subjects(connection, "$MESH.due.>").await)?,
    ))
}

/// How many events wait for their time: those that a handler has emitted, or all.
pub async fn count(connection: &Connection, handler: Option<&str>) -> Result<u64, Error> {
    let of = handler.map_or_else(String::new, |handler| format!("{handler}."));
    subjects(connection, &format!("$MESH.delay.{of}>")).await
}

/// How many subjects there are. The server lists none of them, because the list would begin beyond its end.
async fn subjects(connection: &Connection, filter: &str) -> Result<u64, Error> {
    let body = json!({ "subjects_filter": filter, "offset": i32::MAX });
    let info: Value = connection.api(&format!("STREAM.INFO.{DELAYED}"), &body).await?;
    Ok(info["total"].as_u64().unwrap_or(0))
}

/// When the first of the due events that are not published became due, in milliseconds since the Unix epoch. `None`: there is
/// none.
pub async fn oldest_due(connection: &Connection) -> Result<Option<u64>, Error> {
    let first = connection.stored_next(DELAYED, 1, &format!("{DUE}>")).await?;
    Ok(first.map(|first| first.time_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_due_event_has_the_headers_of_one_that_was_never_delayed() {
        let headers = |list: &[(&str, &str)]| -> Headers {
            list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
        };
        let own = [("Mesh-Event-Id", "h.k.7.0"), ("Trace", "a"), ("Trace", "b")];
        let added = [
            (LEDGER, "KV_b"),
            (TO, "events.x"),
            (UNTIL, "2026-01-01T00:00:00.000Z"),
            ("Nats-Schedule-Next", "purge"),
            ("Nats-Scheduler", "$MESH.delay.h.k.7.0"),
        ];
        assert_eq!(originals(&headers(&[&own[..], &added[..]].concat())), headers(&own));
    }
}
