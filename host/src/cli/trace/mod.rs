//! `jetmesh trace`: where an event is.

mod show;
mod tree;

use std::time::Duration;

use super::dlq::time;
use super::stop::Stop;
use super::text::json_page;
use super::{Args, Error, OK, table};
use crate::broker::stream::StreamState;
use crate::broker::{self, Connection};
use crate::event::clock::{Moment, now_ms};
use crate::event::rfc3339;
use crate::mesh_streams::pauses::{self, Pauses};
use crate::micro::{self, told};
use crate::plan::Outbox;
use crate::report::trace::TraceJson;
use crate::trace::find::{Named, Place};
use crate::trace::message_id::is_message_id;
use crate::trace::reading::Reading;
use crate::trace::search::{Key, Removed, Searched};
use crate::trace::stand::Stand;
use crate::trace::{Part, Traced, Tracer};

/// Show what each handler has made of an event, and what followed from it, as a tree
///
/// A ledger keeps the details of a decision for at least `ledger_keep`. Of an older event it keeps only that it is decided.
/// If several events of one commit wrote the same key, the ledger has only the last value. The command changes nothing. If
/// --max-messages or --max-time did not allow it to read everything, it says so.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 if the event is found, 1 otherwise.")]
pub struct Trace {
    /// INCARNATION.SEQUENCE (in logs and in the header Mesh-Event), STREAM:SEQUENCE, the ID of a dead letter or of an
    /// emitted event, which begins with HANDLER, or the ID of an event of a schedule or of an outbox, which begins with
    /// `schedule.` or `outbox.` and is searched for
    #[arg(value_name = "ID", required_unless_present = "key", conflicts_with = "key")]
    pub id: Option<String>,
    /// Find the newest events of the handlers' streams with this value in a field of their JSON payload, such as
    /// order_id=42; the field can be a path, such as user.id or lines.0.sku
    #[arg(long, value_name = "FIELD=VALUE", value_parser = Key::parse)]
    pub key: Option<Key>,
    /// How far back is searched, with --key or for an ID of a schedule or of an outbox: RFC 3339, or a duration before now,
    /// such as 90m or 2days
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time)]
    pub since: Moment,
    /// Trace at most NUMBER of the events that --key finds
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub limit: u16,
    /// Read at most NUMBER messages, of all streams together
    #[arg(long, value_name = "NUMBER", default_value_t = 2_000_000)]
    pub max_messages: u64,
    /// Read for at most this long
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub max_time: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub async fn run(args: &Args, trace: &Trace, stop: &Stop) -> Result<u8, Error> {
    let loaded = args.look()?;
    let plan = &loaded.plan;
    let connection = broker::open(&plan.nats, "jetmesh trace").await?;
    stop.heed();
    let (time, messages) = (trace.max_time, trace.max_messages);
    let reading = Reading::new(&plan.nats, &connection, time, messages, stop.token());
    let mut tracer = Tracer::new(plan, reading);
    let (places, searched) = match (&trace.key, &trace.id) {
        (Some(key), _) => {
            let (found, searched) = tracer.search(key, trace.since, usize::from(trace.limit)).await?;
            if found.is_empty() {
                let searched: Vec<String> = searched.iter().map(said).collect();
                if let Some(code) = stop.code() {
                    note!(
                        "interrupted: no event with {key} was found until then\n{}",
                        searched.join("\n")
                    );
                    return Ok(code);
                }
                return Err(Error::Failed(format!("no event has {key}\n{}", searched.join("\n"))));
            }
            (found.into_iter().map(|(_, place)| place).collect(), searched)
        }
        (None, Some(id)) if is_message_id(id) => (vec![published(&mut tracer, id, trace.since).await?], Vec::new()),
        (None, Some(id)) => (vec![named(&mut tracer, &plan.outboxes, id).await?], Vec::new()),
        (None, None) => return Err(Error::Usage("give an ID or --key".to_owned())),
    };
    let mut events = Vec::new();
    // The oldest first: what has followed from one of them is told with it, and not again.
    for place in places.into_iter().rev() {
        if !tracer.has_told(&place) {
            events.push(tracer.trace(place, 0).await?);
        }
    }
    events.reverse();
    if stop.code().is_none() {
        explain(&connection, &plan.mesh, &mut events).await;
    }
    let nothing = !tracer.reading.stopped && events.iter().all(|event| !event.is_known());
    if let (Some(id), [event], true) = (&trace.id, &*events, nothing) {
        let held = tracer.stream(&event.stream).await?.map(|info| info.state);
        return Err(absent(id, event, held.as_ref()));
    }
    if trace.json {
        let all = TraceJson::of(&events, &searched, &tracer.reading);
        println!("{}", json_page(&all));
        return Ok(stop.code().unwrap_or(OK));
    }
    print(&events, &searched);
    if let Some(code) = stop.code() {
        note!("interrupted: not everything was read");
        return Ok(code);
    }
    if tracer.reading.stopped {
        println!(
            "\nnot everything was read: the limit was reached after {} messages; --max-messages and --max-time raise it",
            tracer.reading.read
        );
    }
    Ok(OK)
}

fn print(events: &[Traced], searched: &[Searched]) {
    let columns = table::terminal_columns();
    for (before, event) in events.iter().enumerate() {
        if before > 0 {
            println!();
        }
        show::event(event)
            .lines(columns)
            .iter()
            .for_each(|line| println!("{line}"));
    }
    if !searched.is_empty() {
        println!();
        searched.iter().for_each(|one| println!("{}", said(one)));
    }
}

/// Adds what keeps events from continuing: pauses, and what the hosts report. The hosts count those events and do not name them.
async fn explain(connection: &Connection, mesh: &str, events: &mut [Traced]) {
    let mut waits = false;
    events
        .iter_mut()
        .for_each(|event| event.each_waiting(&mut |_| waits = true));
    if !waits {
        return;
    }
    let hosts = micro::hosts(connection, mesh, "STATS").await;
    let hindered = told::hindered_by_handler(&hosts);
    let pauses = pauses::load(connection, now_ms()).await.unwrap_or_else(|error| {
        note!("warning: {error}");
        Pauses::new()
    });
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
}

async fn named(tracer: &mut Tracer<'_>, outboxes: &[Outbox], id: &str) -> Result<Place, Error> {
    let of_letter = |outbox: &&Outbox| id.split('.').next() == Some(outbox.name.as_str());
    if let Some(Outbox { name, .. }) = outboxes.iter().find(of_letter) {
        return Err(Error::Failed(format!(
            "{id} is no event, but a dead letter of outbox {name}: `jetmesh dlq show {id}` shows it. An event of the outbox has the id \
             outbox.{name}.ID.UID, with both numbers of its row"
        )));
    }
    let named = Named::parse(id).ok_or_else(|| {
        Error::Usage(format!(
            "`{id}` is not INCARNATION.SEQUENCE, STREAM:SEQUENCE or HANDLER.INCARNATION.SEQUENCE; to find an event by its \
             payload: --key field=value"
        ))
    })?;
    tracer.find(&named).await?.ok_or_else(|| {
        Error::Failed(format!(
            "no event {id} is known: no stream that a configured handler reads has, or had, this incarnation"
        ))
    })
}

/// An event of a schedule or of an outbox.
async fn published(tracer: &mut Tracer<'_>, id: &str, since: Moment) -> Result<Place, Error> {
    let since = since.ms();
    tracer.by_message_id(id, since).await?.ok_or_else(|| {
        let read = match tracer.reading.stopped {
            true => "; not everything was read: --max-messages and --max-time raise the limit",
            false => "",
        };
        Error::Failed(format!(
            "no event in a stream of the configuration has message id {id} since {}, and --since goes further back{read}",
            rfc3339(since)
        ))
    })
}

/// Nothing tells of an event. `held`: what its stream holds; `None`: there is no such stream.
fn absent(id: &str, event: &Traced, held: Option<&StreamState>) -> Error {
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
    Error::Failed(format!(
        "no event {id} is known: {why}, and no ledger, attempt record or dead letter of a configured handler \
         mentions it"
    ))
}

/// What was searched, in words.
fn said(searched: &Searched) -> String {
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
