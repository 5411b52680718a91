//! A service asks the hosts where an event of its own is: a request on `<service>.trace`, which one of them answers. What both are
//! made of is published as a schema, and in `docs/trace.md`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Host, service};
use crate::broker::{Connection, Error};
use crate::event::outcome::Cause;
use crate::event::{header_map, parse_rfc3339, rfc3339};
use crate::mesh_streams::attempts::{AttemptRecord, RUNNING};
use crate::plan::Plan;
use crate::trace::find::{Named, Place};
use crate::trace::ledger::TracedDecision;
use crate::trace::reading::Reading;
use crate::trace::stand::{Stand, TracedLetter};
use crate::trace::{ALONE, Part, Traced, Tracer};

/// How many requests a host answers at a time; the others wait.
const AT_ONCE_MAX: usize = 16;
/// How much is read for one answer: no more than a service waits for.
const READ_WITHIN: Duration = Duration::from_secs(4);
const MESSAGES_MAX: u64 = 200_000;

/// A question: where is this event? It has `id`, or `message_id` and `since`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "A request to `jetmesh.trace`", description = "")]
pub struct TraceRequest {
    /// The event's id as an earlier answer told it, INCARNATION.SEQUENCE, or its place, STREAM:SEQUENCE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Its header Nats-Msg-Id; that of a row of an outbox is outbox.NAME.ID.UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    /// When it was published or written, or earlier. It is looked for from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    since: Option<String>,
}

/// Where an event is.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "The answer of `jetmesh.trace`", description = "")]
pub struct TraceAnswer {
    stream: String,
    /// In its stream.
    sequence: u64,
    /// Its id, INCARNATION.SEQUENCE, by which it is found faster, and also when its stream has removed it; null: no handler
    /// reads its stream.
    event: Option<String>,
    /// null: its stream does not hold it any more.
    subject: Option<String>,
    /// When it was stored; null: its stream does not hold it any more.
    #[schemars(extend("format" = "date-time"))]
    stored: Option<String>,
    /// Each handler that reads it.
    handlers: Vec<HandlerAnswer>,
}

/// What a handler has made of the event.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "handler")]
struct HandlerAnswer {
    handler: String,
    state: EventState,
    /// When it was decided; null: it is not, or that is not known any more.
    #[schemars(extend("format" = "date-time"))]
    decided: Option<String>,
    /// How many attempts were begun, as far as that is known.
    attempts: u32,
    /// When the next attempt begins, if it waits for one.
    #[schemars(extend("format" = "date-time"))]
    next: Option<String>,
    /// Why it is dead.
    cause: Option<Cause>,
    /// The code of its last failure.
    code: Option<String>,
    /// Its last failure in words.
    error: Option<String>,
    /// The id of its dead letter, if one waits for a person.
    dead_letter: Option<String>,
}

/// How an event stands with a handler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "state")]
enum EventState {
    /// It is done.
    Done,
    /// It is dead: no attempt follows, unless a person replays it.
    Dead,
    /// It is dead, and a replay of it was asked for.
    Replaying,
    /// It failed, and waits for its next attempt.
    Retrying,
    /// An attempt was begun after a failure.
    Running,
    /// A host has it: it runs, or waits there. Of a handler without a ledger it may be answered already.
    Delivered,
    /// No host has it yet.
    Waiting,
    /// It is decided; the ledger has removed how.
    Decided,
    /// The server is through with it; a handler without a ledger leaves nothing else behind.
    Answered,
    /// It was stored before the handler began.
    BeforeStart,
    /// Nothing tells of it.
    #[default]
    Unknown,
}

/// Why there is no answer: a code, and the reason in words.
type Refused = (u16, String);

/// On which subject the hosts of a mesh are asked.
fn subject(mesh: &str) -> String {
    format!("{}.trace", service(mesh))
}

/// Of the hosts that have the same handlers, one answers a request: each knows its own handlers only.
fn queue(plan: &Plan) -> String {
    format!("trace-{}", plan.handlers_digest())
}

/// Answers until the connection is closed.
pub async fn answer(connection: &Connection, host: &Host) -> Result<(), Error> {
    let asked = connection
        .client
        .queue_subscribe(subject(&host.plan.mesh), queue(&host.plan));
    let mut asked = asked.await.map_err(|_| Error::Gone {
        what: "answering where events are".to_owned(),
    })?;
    let mut answers = FuturesUnordered::new();
    loop {
        tokio::select! {
            request = asked.next(), if answers.len() < AT_ONCE_MAX => {
                let Some(request) = request else { return Ok(()) };
                // What no client can read asks for nothing.
                if connection.malformed(&request).is_some() {
                    continue;
                }
                if let Some(reply) = request.reply {
                    answers.push(async move { (reply, found(connection, host, &request.payload).await) });
                }
            }
            Some((reply, found)) = answers.next() => {
                // This fails only when the connection is closed.
                let _ = match found {
                    Ok(answer) => connection.client.publish(reply, answer).await,
                    Err((code, why)) => {
                        let headers = vec![
                            ("Nats-Service-Error-Code".to_owned(), code.to_string()),
                            ("Nats-Service-Error".to_owned(), why.replace(['\r', '\n'], " ")),
                        ];
                        let headers = header_map(&headers).unwrap_or_default();
                        connection.client.publish_with_headers(reply, headers, Bytes::new()).await
                    }
                };
            }
            () = connection.closed() => return Ok(()),
        }
    }
}

async fn found(connection: &Connection, host: &Host, request: &[u8]) -> Result<Bytes, Refused> {
    let request: TraceRequest =
        serde_json::from_slice(request).map_err(|error| (400, format!("the request is not valid: {error}")))?;
    let plan = &host.plan;
    let reading = Reading::over(&plan.nats, connection, READ_WITHIN, MESSAGES_MAX);
    let mut tracer = Tracer::new(plan, reading);
    let place = place(&mut tracer, &request).await?;
    let traced = tracer.trace(place, ALONE).await.map_err(failed)?;
    if !traced.is_known() {
        return Err((404, "no such event is known".to_owned()));
    }
    let answer = serde_json::to_vec(&TraceAnswer::of(&traced)).expect("an answer serialises");
    match answer.len() <= connection.client.max_payload() {
        true => Ok(answer.into()),
        false => Err((
            500,
            format!("the answer of {} bytes is larger than a message may be", answer.len()),
        )),
    }
}

async fn place(tracer: &mut Tracer<'_>, request: &TraceRequest) -> Result<Place, Refused> {
    let found = match (&request.id, &request.message_id, &request.since) {
        (Some(id), None, None) => {
            let named = Named::parse(id);
            let named = named.ok_or((
                400,
                format!("`id`: {id} is not INCARNATION.SEQUENCE or STREAM:SEQUENCE"),
            ))?;
            tracer.find(&named).await
        }
        (None, Some(id), Some(since)) => {
            let since = parse_rfc3339(since);
            let since = since.ok_or((400, "`since` is not a time as in RFC 3339".to_owned()))?;
            tracer.by_message_id(id, since).await
        }
        _ => return Err((400, "give `id`, or `message_id` and `since`".to_owned())),
    };
    found.map_err(failed)?.ok_or_else(|| match tracer.reading.stopped {
        true => (
            504,
            "it was not found within what is read for one answer: give a later `since`".to_owned(),
        ),
        false => (404, "no such event is known".to_owned()),
    })
}

fn failed(error: Error) -> Refused {
    (500, error.to_string())
}

impl TraceAnswer {
    fn of(traced: &Traced) -> TraceAnswer {
        TraceAnswer {
            stream: traced.stream.clone(),
            sequence: traced.sequence,
            event: traced.event.clone(),
            subject: traced.message.as_ref().map(|message| message.subject.clone()),
            stored: traced.message.as_ref().map(|message| rfc3339(message.time_ms)),
            handlers: traced.handlers.iter().map(HandlerAnswer::of).collect(),
        }
    }
}

impl HandlerAnswer {
    fn of(part: &Part) -> HandlerAnswer {
        let answer = match &part.stand {
            Stand::Done { decided } => HandlerAnswer::decided(EventState::Done, decided),
            Stand::Dead {
                decided,
                letter,
                replay,
            } => {
                let state = if *replay {
                    EventState::Replaying
                } else {
                    EventState::Dead
                };
                let decided = decided.as_deref().map(|decided| HandlerAnswer::decided(state, decided));
                decided.unwrap_or_else(|| state.into()).with_letter(letter.as_ref())
            }
            Stand::Replayed { at } => HandlerAnswer {
                decided: Some(at.clone()),
                ..EventState::Done.into()
            },
            Stand::Retrying { record, .. } => HandlerAnswer::retrying(record),
            Stand::Delivered { .. } => EventState::Delivered.into(),
            // Lost events are run again by a host's sweep.
            Stand::Waiting { .. } | Stand::NoConsumer | Stand::Lost => EventState::Waiting.into(),
            Stand::BeforeStart { .. } => EventState::BeforeStart.into(),
            Stand::Forgotten { .. } | Stand::NotFound { decided: true } => EventState::Decided.into(),
            Stand::Answered => EventState::Answered.into(),
            Stand::Unknown | Stand::NotFound { decided: false } => EventState::Unknown.into(),
        };
        HandlerAnswer {
            handler: part.handler.clone(),
            ..answer
        }
    }

    fn decided(state: EventState, decided: &TracedDecision) -> HandlerAnswer {
        let decision = &decided.decision;
        HandlerAnswer {
            state,
            decided: Some(rfc3339(decided.at_ms)),
            attempts: decision.attempt,
            cause: decision.cause,
            code: decision.code.clone(),
            error: decision.message.clone(),
            ..HandlerAnswer::default()
        }
    }

    fn with_letter(mut self, letter: Option<&TracedLetter>) -> HandlerAnswer {
        let Some(letter) = letter else { return self };
        if letter.settled.is_some() {
            // It tells no more than that.
            return self;
        }
        self.dead_letter = Some(letter.id.clone());
        if self.decided.is_none() {
            self.decided = Some(letter.since.clone());
            self.attempts = letter.attempts;
            self.cause = Cause::parse(&letter.cause);
            self.code = Some(letter.code.clone()).filter(|code| !code.is_empty());
            self.error = Some(letter.error.clone());
        }
        self
    }

    fn retrying(record: &AttemptRecord) -> HandlerAnswer {
        let runs = record.history.last().is_some_and(|last| last.outcome == RUNNING);
        let failed = record.history.iter().rev().find(|attempt| attempt.outcome != RUNNING);
        HandlerAnswer {
            state: if runs {
                EventState::Running
            } else {
                EventState::Retrying
            },
            attempts: record.attempts,
            next: record.next.clone(),
            code: failed.map(|failed| failed.code.clone()).filter(|code| !code.is_empty()),
            error: failed.map(|failed| failed.message.clone()),
            ..HandlerAnswer::default()
        }
    }
}

impl From<EventState> for HandlerAnswer {
    fn from(state: EventState) -> HandlerAnswer {
        HandlerAnswer {
            state,
            ..HandlerAnswer::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::mesh_streams::attempts::Attempt;

    use super::*;

    fn attempt(attempt: u32, outcome: &str, message: &str) -> Attempt {
        Attempt {
            attempt,
            at: "2026-11-30T00:00:00Z".to_owned(),
            host: "h".to_owned(),
            module: String::new(),
            outcome: outcome.to_owned(),
            code: if outcome == RUNNING { "" } else { "busy" }.to_owned(),
            message: message.to_owned(),
            log: Vec::new(),
            backtrace: Vec::new(),
            seed: None,
            replay: false,
            asked_by: None,
        }
    }

    #[test]
    fn an_event_that_failed_waits_or_runs_again_and_tells_its_last_failure() {
        let failed = [attempt(1, "retry", "first"), attempt(2, "retry", "second")];
        let mut record = AttemptRecord {
            attempts: 2,
            history: failed.to_vec(),
            next: Some("2026-11-30T00:01:00Z".to_owned()),
            ..AttemptRecord::default()
        };
        let waits = HandlerAnswer::retrying(&record);
        assert_eq!((waits.state, waits.attempts), (EventState::Retrying, 2));
        assert_eq!(waits.next, record.next);
        assert_eq!(
            (waits.code.as_deref(), waits.error.as_deref()),
            (Some("busy"), Some("second"))
        );
        record.history.push(attempt(3, RUNNING, ""));
        (record.attempts, record.next) = (3, None);
        let runs = HandlerAnswer::retrying(&record);
        assert_eq!((runs.state, runs.attempts, runs.next), (EventState::Running, 3, None));
        assert_eq!(
            (runs.code.as_deref(), runs.error.as_deref()),
            (Some("busy"), Some("second"))
        );
    }
}
