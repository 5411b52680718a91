//! Which event a person means, and what is told of it.

use crate::broker::stream::StreamState;
use crate::broker::{Connection, Error};
use crate::event::clock::{Moment, now_ms};
use crate::event::rfc3339;
use crate::mesh_streams::pauses;
use crate::micro::{self, told};
use crate::plan::Outbox;
use crate::trace::find::{Named, Place};
use crate::trace::message_id::is_message_id;
use crate::trace::search::{Removed, Searched};
use crate::trace::stand::Stand;
use crate::trace::{Part, Traced, Tracer};

/// Why an event cannot be told of.
#[derive(Debug, thiserror::Error)]
pub enum WhereError {
    #[error(transparent)]
    Broker(#[from] Error),
    /// It is no name of an event.
    #[error("{0}")]
    NoName(String),
    /// Nothing tells of it.
    #[error("{0}")]
    Unknown(String),
}

/// Where the event lies that an id names. `since`: how far back one of a schedule or of an outbox is searched.
pub async fn place(tracer: &mut Tracer<'_>, id: &str, since: Moment) -> Result<Place, WhereError> {
    match is_message_id(id) {
        true => published(tracer, id, since).await,
        false => {
            let plan = tracer.plan;
            named(tracer, &plan.outboxes, id).await
        }
    }
}

/// The events at these places, the newest first as they are given, with what has followed from them.
pub async fn follow(tracer: &mut Tracer<'_>, places: Vec<Place>) -> Result<Vec<Traced>, Error> {
    let mut events = Vec::new();
    // The oldest first: what has followed from one of them is told with it, and not again.
    for place in places.into_iter().rev() {
        if !tracer.has_told(&place) {
            events.push(tracer.trace(place, 0).await?);
        }
    }
    events.reverse();
    Ok(events)
}

/// Adds what keeps events from continuing: pauses, and what the hosts report. The hosts count those events and do not name them.
/// Returns what of it could not be asked.
pub async fn explain(connection: &Connection, mesh: &str, events: &mut [Traced]) -> Option<String> {
    let mut waits = false;
    events
        .iter_mut()
        .for_each(|event| event.each_waiting(&mut |_| waits = true));
    if !waits {
        return None;
    }
    let mut unasked = Vec::new();
    let asked = micro::hosts(connection, mesh).await;
    unasked.extend(asked.as_ref().err().map(ToString::to_string));
    let hosts = asked.unwrap_or_default();
    let hindered = told::hindered_by_handler(&hosts);
    let loaded = pauses::load(connection, now_ms()).await;
    unasked.extend(loaded.as_ref().err().map(ToString::to_string));
    let pauses = loaded.unwrap_or_default();
    let mut add = |part: &mut Part| {
        let all = hindered.get(part.handler.as_str()).into_iter().flatten();
        // A sweep that fails keeps lost events waiting, and no others.
        let lost = matches!(part.stand, Stand::Lost);
        part.paused = pauses.get(&part.handler).cloned();
        if let (Some(_), Stand::Waiting { held_up, .. }) = (&part.paused, &mut part.stand) {
            // The server holds its consumer for that.
            *held_up = None;
        }
        part.hindered = all.filter(|one| lost || one["events"] != 0).cloned().collect();
    };
    events.iter_mut().for_each(|event| event.each_waiting(&mut add));
    (!unasked.is_empty()).then(|| unasked.join("; "))
}

async fn named(tracer: &mut Tracer<'_>, outboxes: &[Outbox], id: &str) -> Result<Place, WhereError> {
    let of_letter = |outbox: &&Outbox| id.split('.').next() == Some(outbox.name.as_str());
    if let Some(Outbox { name, .. }) = outboxes.iter().find(of_letter) {
        return Err(WhereError::Unknown(format!(
            "{id} is no event, but a dead letter of outbox {name}: `jetmesh dlq show {id}` shows it. An event of the outbox has the id \
             outbox.{name}.ID.UID, with both numbers of its row"
        )));
    }
    let named = Named::parse(id).ok_or_else(|| {
        WhereError::NoName(format!(
            "`{id}` is not INCARNATION.SEQUENCE, STREAM:SEQUENCE or HANDLER.INCARNATION.SEQUENCE; to find an event by its \
             payload: --key field=value"
        ))
    })?;
    tracer.find(&named).await?.ok_or_else(|| {
        WhereError::Unknown(format!(
            "no event {id} is known: no stream that a configured handler reads has, or had, this incarnation"
        ))
    })
}

/// An event of a schedule or of an outbox.
async fn published(tracer: &mut Tracer<'_>, id: &str, since: Moment) -> Result<Place, WhereError> {
    let since = since.ms();
    tracer.by_message_id(id, since).await?.ok_or_else(|| {
        let read = match tracer.reading.stopped {
            true => "; not everything was read: --max-messages and --max-time raise the limit",
            false => "",
        };
        WhereError::Unknown(format!(
            "no event in a stream of the configuration has message id {id} since {}, and --since goes further back{read}",
            rfc3339(since)
        ))
    })
}

/// That nothing tells of an event. `None`: something does, or not everything was read.
pub async fn absent(tracer: &mut Tracer<'_>, id: &str, event: &Traced) -> Result<Option<WhereError>, Error> {
    if tracer.reading.stopped || event.is_known() {
        return Ok(None);
    }
    let held = tracer.stream(&event.stream).await?.map(|info| info.state);
    Ok(Some(unknown(id, event, held.as_ref())))
}

/// `held`: what its stream holds; `None`: there is no such stream.
fn unknown(id: &str, event: &Traced, held: Option<&StreamState>) -> WhereError {
    let Traced { stream, sequence, .. } = event;
    let why = match held {
        None => format!("there is no stream {stream}"),
        Some(_) if event.former => format!("stream {stream} was deleted and created again since"),
        Some(state) if *sequence > state.last_seq => {
            format!("the last message of stream {stream} is {}", state.last_seq)
        }
        Some(StreamState { messages: 0, .. }) => format!("stream {stream} is empty"),
        Some(state) => format!(
            "stream {stream} holds messages from {} to {} and has removed this one",
            state.first_seq, state.last_seq
        ),
    };
    WhereError::Unknown(format!(
        "no event {id} is known: {why}, and no ledger, attempt record or dead letter of a configured handler \
         mentions it"
    ))
}

/// What was searched, in words.
pub fn said(searched: &Searched) -> String {
    let Searched {
        stream,
        messages,
        unreadable,
        since,
        whole,
        missing,
        removed,
    } = searched;
    if *missing {
        return format!("not searched: there is no stream {stream}");
    }
    let unread = match unreadable {
        0 => String::new(),
        1 => ", of which 1 is not JSON and was not searched".to_owned(),
        some => format!(", of which {some} are not JSON and were not searched"),
    };
    let read = format!("searched {stream}, messages read: {messages}{unread}");
    match (whole, since, removed) {
        (true, _, None) => format!("{read}; everything within the time of --since"),
        (true, _, Some(removed)) => format!("{read}; {}", gone(removed)),
        (false, Some(since), _) => format!("{read}; back to {since}, and nothing older"),
        (false, None, _) => format!("{read}; then the limit was reached, so not all that is new was read"),
    }
}

/// What could not be searched, because it is not there any more.
fn gone(removed: &Removed) -> String {
    let Removed {
        before,
        oldest,
        between,
        by,
    } = removed;
    let by = match by.is_empty() {
        true => "by a purge or a deletion".to_owned(),
        false => by.join(", "),
    };
    let begin = match (before, oldest) {
        (0, _) => "everything within the time of --since that the stream holds".to_owned(),
        (before, Some(oldest)) => {
            format!("back to sequence {before}, stored at {oldest}: the stream has removed all older messages ({by})")
        }
        (before, None) => format!("the stream is empty: it has removed all messages before sequence {before} ({by})"),
    };
    match (before, between) {
        (_, 0) => begin,
        (0, between) => format!("{begin}; it has removed {between} of its messages ({by})"),
        (_, between) => format!("{begin}, and {between} newer ones"),
    }
}
