//! `jetmesh trace`: where an event is.

mod show;
mod tree;

use std::time::Duration;

use clap::ArgGroup;

use super::dlq::{pattern, time};
use super::stop::Stop;
use super::text::json_page;
use super::{Args, Error, OK, table};
use crate::broker;
use crate::event::clock::Moment;
use crate::report::trace::TraceJson;
use crate::report::whereabouts::{WhereError, absent, explain, follow, place, said};
use crate::spans::context::TraceId;
use crate::trace::reading::Reading;
use crate::trace::search::Searched;
use crate::trace::sought::{Key, Sought, trace_id};
use crate::trace::{Traced, Tracer};

/// Show what each handler has made of an event, and what followed from it, as a tree
///
/// A ledger keeps the details of a decision for at least `ledger_keep`. Of an older event it keeps only that it is decided.
/// If several events of one commit wrote the same key, the ledger has only the last value. The command changes nothing. If
/// --max-messages or --max-time did not allow it to read everything, it says so.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 if the event is found, 1 otherwise.",
    override_usage = "jetmesh trace [OPTIONS] <ID>\n       jetmesh trace [OPTIONS] --key <FIELD=VALUE>\n       \
                      jetmesh trace [OPTIONS] --subject <SUBJECT>\n       jetmesh trace [OPTIONS] --trace-id <ID>",
    group(ArgGroup::new("what").args(["id", "key", "trace_id", "subject"]).required(true))
)]
pub struct Trace {
    /// INCARNATION.SEQUENCE (in logs and in the header Mesh-Event), STREAM:SEQUENCE, the ID of a dead letter or of an
    /// emitted event, which begins with HANDLER, or the ID of an event of a schedule or of an outbox, which begins with
    /// `schedule.` or `outbox.` and is searched for
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    /// Find the newest events of the handlers' streams with this value in a field of their JSON payload, such as
    /// order_id=42; the field can be a path, such as user.id or lines.0.sku
    #[arg(long, value_name = "FIELD=VALUE", value_parser = Key::parse)]
    pub key: Option<Key>,
    /// Find the newest events of the handlers' streams that belong to this trace of OpenTelemetry, by their header
    /// `traceparent`
    #[arg(long, value_name = "ID", value_parser = trace_id)]
    pub trace_id: Option<TraceId>,
    /// Find the newest events of the handlers' streams with a subject that matches this pattern; `*` and `>` as in NATS
    #[arg(long, value_name = "SUBJECT", value_parser = pattern)]
    pub subject: Option<String>,
    /// How far back is searched, without an ID or for an ID of a schedule or of an outbox: RFC 3339, or a duration before
    /// now, such as 90m or 2days
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time)]
    pub since: Moment,
    /// Trace at most NUMBER of the events that are found
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

impl Trace {
    /// What is searched for; `None`: the event is named.
    fn sought(&self) -> Option<Sought> {
        let key = self.key.clone().map(Sought::Key);
        let trace = self.trace_id.map(Sought::Trace);
        key.or(trace).or_else(|| self.subject.clone().map(Sought::Subject))
    }
}

pub async fn run(args: &Args, trace: &Trace, stop: &Stop) -> Result<u8, Error> {
    let loaded = args.look()?;
    let plan = &loaded.plan;
    let connection = broker::open(&plan.nats, "jetmesh trace").await?;
    stop.heed();
    let (time, messages) = (trace.max_time, trace.max_messages);
    let reading = Reading::new(&plan.nats, &connection, time, messages, stop.token());
    let mut tracer = Tracer::new(plan, reading);
    let (places, searched) = match (trace.sought(), &trace.id) {
        (Some(sought), _) => {
            let (found, searched) = tracer.search(&sought, trace.since, usize::from(trace.limit)).await?;
            if found.is_empty() {
                let searched: Vec<String> = searched.iter().map(said).collect();
                if let Some(code) = stop.code() {
                    note!(
                        "interrupted: no event with {sought} was found until then\n{}",
                        searched.join("\n")
                    );
                    return Ok(code);
                }
                return Err(Error::Failed(format!("no event has {sought}\n{}", searched.join("\n"))));
            }
            (found.into_iter().map(|(_, place)| place).collect(), searched)
        }
        (None, Some(id)) => (vec![place(&mut tracer, id, trace.since).await?], Vec::new()),
        (None, None) => return Err(Error::Usage("give an ID, --key, --trace-id or --subject".to_owned())),
    };
    let mut events = follow(&mut tracer, places).await?;
    if stop.code().is_none()
        && let Some(warning) = explain(&connection, &plan.mesh, &mut events).await
    {
        note!("warning: {warning}");
    }
    if let (Some(id), [event]) = (&trace.id, &*events)
        && let Some(absent) = absent(&mut tracer, id, event).await?
    {
        return Err(absent.into());
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

impl From<WhereError> for Error {
    fn from(error: WhereError) -> Error {
        match error {
            WhereError::Broker(error) => Error::Broker(error),
            WhereError::NoName(text) => Error::Usage(text),
            WhereError::Unknown(text) => Error::Failed(text),
        }
    }
}
