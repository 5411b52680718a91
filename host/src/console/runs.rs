//! What viewers have begun and this console does, such as replays. Their progress is told over NATS, so that every viewer sees it, at whatever host.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::audit::{actor, intent, warn};
use super::conditions::LetterSelection;
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::broker::Connection;
use crate::broker::connection::token;
use crate::control::audit::ended;
use crate::dlq::course::Course;
use crate::dlq::meant::{self, Selected};
use crate::dlq::pace::PaceLimits;
use crate::dlq::replay;
use crate::dlq::telling::{Telling, recorded};
use crate::dlq::unserved::{self, Unserved, WhyUnserved};
use crate::dlq::watch::Watch;
use crate::event::clock::now_ms;
use crate::http::{self, Answer};
use crate::mesh_streams::audit::{AuditAction, OpenAudit};
use crate::mesh_streams::pauses;
use crate::report::replay::{AccountJson, DryRunJson, Ended};

/// Replays at a time. Each remembers the ids of its letters.
const RUNS_MAX: usize = 8;
/// What a job tells. After an error, the browser does not take what it has for all.
pub type Lines = mpsc::Sender<io::Result<Bytes>>;
/// A line.
pub fn line(value: &serde_json::Value) -> io::Result<Bytes> {
    Ok(format!("{value}\n").into())
}

/// Lines that wait until the browser takes them.
const LINES_AHEAD: usize = 4;
/// As `dlq replay` has them.
const BATCH: usize = 4_000;

/// The replays that run here.
pub struct Runs {
    jobs: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
    taken: tokio::sync::Mutex<mpsc::UnboundedReceiver<BoxFuture<'static, ()>>>,
    running: Mutex<BTreeMap<String, CancellationToken>>,
}

impl Default for Runs {
    fn default() -> Runs {
        let (jobs, taken) = mpsc::unbounded_channel();
        Runs {
            jobs,
            taken: tokio::sync::Mutex::new(taken),
            running: Mutex::default(),
        }
    }
}

impl Runs {
    /// Does what was begun, for as long as it is polled.
    pub async fn work(&self) {
        let mut taken = self.taken.lock().await;
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(()) = open.next() => {}
                Some(job) = taken.recv() => open.push(job),
            }
        }
    }

    /// Takes a job, to do it beside the others.
    pub fn take(&self, job: BoxFuture<'static, ()>) {
        // The receiver is a part of the same.
        let _ = self.jobs.send(job);
    }

    /// An answer of lines that a job makes. It ends when the one who has asked is gone.
    pub fn lines<J>(&self, job: impl FnOnce(Lines) -> J) -> Answer
    where
        J: Future<Output = ()> + Send + 'static,
    {
        let (tell, told) = mpsc::channel(LINES_AHEAD);
        let (own, job) = (tell.clone(), job(tell));
        self.take(
            async move {
                tokio::select! {
                    () = job => {}
                    () = own.closed() => {}
                }
            }
            .boxed(),
        );
        let lines = stream::unfold(told, |mut told| async { told.recv().await.map(|line| (line, told)) });
        http::pieces(http::JSON_LINES, lines)
    }

    pub fn stop(&self, run: &str) -> Result<(), ConsoleError> {
        match self.running.lock().get(run) {
            Some(token) => {
                token.cancel();
                Ok(())
            }
            None => Err(ConsoleError::missing(format!(
                "replay {run} does not run at this console: it has ended, or another console or command makes it"
            ))),
        }
    }
}

/// What a viewer wants replayed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayOrder {
    selection: LetterSelection,
    /// Per second at most; null: as fast as the handlers are.
    rate: Option<f64>,
    /// In percent.
    max_failures: f64,
}

impl ReplayOrder {
    fn limits(&self) -> Result<PaceLimits, ConsoleError> {
        if !(0.0..=100.0).contains(&self.max_failures) {
            return Err(ConsoleError::wrong(
                "the share of failures is a percentage from 0 to 100",
            ));
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            return Err(ConsoleError::wrong("the rate is a number above 0"));
        }
        Ok(PaceLimits {
            batch_max: BATCH,
            per_second: self.rate,
            failures_max: self.max_failures / 100.0,
        })
    }

    fn command(&self) -> String {
        let mut more = Vec::new();
        more.extend(self.rate.map(|rate| format!("--rate {rate}/s")));
        if self.max_failures.to_string() != "10" {
            more.push(format!("--max-failures {}", self.max_failures));
        }
        more.push("--yes".to_owned());
        self.selection.command("replay", &more)
    }
}

/// What would be replayed, and by which command.
pub async fn plan(session: &ViewerSession, order: &ReplayOrder) -> Result<serde_json::Value, ConsoleError> {
    order.limits()?;
    let connection = session.connection().await?;
    let found = meant::course(&connection, &order.selection.selected()?).await?;
    let pauses = pauses::load(&connection, now_ms()).await?;
    let unserved = unserved::of(&connection, &session.plan, &found.letters, &pauses).await;
    let unserved: Vec<String> = unserved.iter().map(waits).collect();
    let plan = DryRunJson::from(&found.letters);
    Ok(serde_json::json!({
        "plan": plan, "unserved": unserved, "resolved": found.resolved.len(), "unknown": found.unknown, "command": order.command(),
    }))
}

fn waits(one: &Unserved) -> String {
    let Unserved { handler, letters, why } = one;
    let wait = match letters {
        1 => "its letter waits".to_owned(),
        more => format!("its {more} letters wait"),
    };
    match why {
        WhyUnserved::Paused(pause) => {
            format!(
                "handler {handler} is paused since {} {}: {wait} until it is resumed",
                pause.since,
                pause.told()
            )
        }
        WhyUnserved::NoHost(Some(why)) => {
            format!("no host serves handler {handler} ({why}): {wait} for one")
        }
        WhyUnserved::NoHost(None) => format!("no host serves handler {handler}: {wait} for one"),
    }
}

/// Begins to replay; returns the run's name.
pub async fn begin(runs: &Arc<Runs>, session: Arc<ViewerSession>, order: ReplayOrder) -> Result<String, ConsoleError> {
    let limits = order.limits()?;
    let connection = session.connection().await?;
    let name = token();
    // Before the letters are read, so that nothing that is written to them is missed.
    let watch = Watch::start(&connection, &name).await?;
    let selected = order.selection.selected()?;
    let course = meant::course(&connection, &selected).await?.letters;
    if course.is_empty() {
        return Err(ConsoleError::missing("no such dead letters: nothing to replay"));
    }
    let stop = CancellationToken::new();
    {
        let mut running = runs.running.lock();
        if running.len() >= RUNS_MAX {
            return Err(ConsoleError::refused(format!(
                "{RUNS_MAX} replays run at this console: wait until one has ended"
            )));
        }
        running.insert(name.clone(), stop.clone());
    }
    let begun = recorded_begin(&session, &connection, &course, &selected, order.command()).await;
    let open = begun.inspect_err(|_| {
        runs.running.lock().remove(&name);
    })?;
    let told = (session.who.clone(), selected.told());
    let telling = Telling::new(&connection, &name, told, Some(order.command()));
    telling.saw(&course);
    let (own, run) = (Arc::clone(runs), name.clone());
    let job = async move {
        replayed(&connection, &session, (&telling, open), watch, course, limits, stop).await;
        own.running.lock().remove(&run);
    };
    runs.take(job.boxed());
    Ok(name)
}

async fn recorded_begin(
    session: &ViewerSession,
    connection: &Connection,
    course: &Course,
    selected: &Selected,
    command: String,
) -> Result<OpenAudit, ConsoleError> {
    let on: Vec<&str> = course.handlers().into_iter().collect();
    let what = format!("{} dead letter(s): {}", course.len(), selected.told());
    let intent = intent(AuditAction::DlqReplay, &on, what, None, Some(command));
    Ok(actor(session, connection).begins(intent).await?)
}

async fn replayed(
    connection: &Connection,
    session: &ViewerSession,
    (telling, open): (&Telling, OpenAudit),
    watch: Watch,
    mut course: Course,
    limits: PaceLimits,
    stop: CancellationToken,
) {
    let (asked, plan) = (connection.clone(), Arc::clone(&session.plan));
    // With nothing borrowed, so that it can go to another thread.
    let served = move |handler: &str| {
        let (asked, plan, handler) = (asked.clone(), Arc::clone(&plan), handler.to_owned());
        async move { unserved::takes_replays(&asked, &plan, &handler).await }.boxed()
    };
    let seen = |course: &Course, _| telling.saw(course);
    let run = replay::run(
        connection,
        (&telling.run, watch),
        &mut course,
        limits,
        stop.cancelled(),
        served,
        seen,
    );
    let end = tokio::select! {
        end = run => end,
        () = telling.go_on() => return,
    };
    telling.end(&course, &end).await;
    ended(open, recorded(course.counts(), &end), warn).await;
    let account = AccountJson::of(&course, Ended::from(&end), telling.took());
    tracing::info!(run = telling.run, by = telling.by, what = telling.what, account = %serde_json::to_string(&account).unwrap_or_default(),
        "a viewer of the console has replayed dead letters");
}
