//! Where an event is: by its id, or by what a person knows of it.

use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::query::Query;
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::dlq::condition::{pattern, time};
use crate::event::clock::Moment;
use crate::report::trace::TraceJson;
use crate::report::whereabouts::{WhereError, absent, explain, follow, place, said};
use crate::trace::Tracer;
use crate::trace::reading::Reading;
use crate::trace::sought::{Key, Sought, trace_id};

/// What one question reads at most. The command reads more.
const MESSAGES_MAX: u64 = 500_000;
const TIME_MAX: Duration = Duration::from_secs(20);
/// Events that are told of, if several are found.
const EVENTS_MAX: usize = 10;
const SINCE: Moment = Moment::Ago(Duration::from_secs(24 * 3600));

pub async fn trace(session: &ViewerSession, query: &Query) -> Result<Value, ConsoleError> {
    let since = query.get("since").map(time).transpose();
    let since = since
        .map_err(|why| ConsoleError::wrong(format!("since: {why}")))?
        .unwrap_or(SINCE);
    let (connection, plan) = (session.connection().await?, &session.plan);
    let reading = Reading::new(
        &plan.nats,
        &connection,
        TIME_MAX,
        MESSAGES_MAX,
        CancellationToken::new(),
    );
    let mut tracer = Tracer::new(plan, reading);
    let (places, searched) = match (sought(query)?, query.get("id")) {
        (Some(sought), _) => {
            let (found, searched) = tracer.search(&sought, since, EVENTS_MAX).await?;
            (found.into_iter().map(|(_, place)| place).collect(), searched)
        }
        (None, Some(id)) => (vec![place(&mut tracer, id, since).await?], Vec::new()),
        (None, None) => {
            return Err(ConsoleError::wrong(
                "name an event, a field of its payload, its trace or its subject",
            ));
        }
    };
    let mut events = follow(&mut tracer, places).await?;
    let warning = explain(&connection, &plan.mesh, &mut events).await;
    if let (Some(id), [event]) = (query.get("id"), &*events)
        && let Some(absent) = absent(&mut tracer, id, event).await?
    {
        return Err(absent.into());
    }
    let told: Vec<String> = searched.iter().map(said).collect();
    let trace = TraceJson::of(&events, &searched, &tracer.reading);
    Ok(serde_json::json!({ "trace": trace, "searched": told, "warning": warning }))
}

fn sought(query: &Query) -> Result<Option<Sought>, ConsoleError> {
    let key = query.get("key").map(|key| Key::parse(key).map(Sought::Key));
    let trace = || query.get("trace_id").map(|id| trace_id(id).map(Sought::Trace));
    let subject = || {
        query
            .get("subject")
            .map(|subject| pattern(subject).map(Sought::Subject))
    };
    let sought = key.or_else(trace).or_else(subject);
    sought.transpose().map_err(ConsoleError::wrong)
}

impl From<WhereError> for ConsoleError {
    fn from(error: WhereError) -> ConsoleError {
        match error {
            WhereError::Broker(error) => error.into(),
            WhereError::NoName(text) => ConsoleError::wrong(text),
            WhereError::Unknown(text) => ConsoleError::missing(text),
        }
    }
}
