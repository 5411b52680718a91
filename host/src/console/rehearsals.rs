//! Rehearsals that a viewer makes: what would become of dead letters, told letter by letter while nothing happens. They run on the
//! thread of the console, so all together take one core from the events at most.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use hyper::Request;
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc::{self, UnboundedSender};

use super::Console;
use super::audit::{actor, intent, warn};
use super::letters::there;
use super::rehearsal_order::{ModuleUpload, RehearsalOrder, read};
use super::rights;
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::broker::Connection;
use crate::control::audit::ended;
use crate::dlq::meant::{FoundLetters, Selected};
use crate::dlq::rehearse::Rehearsed;
use crate::dlq::rehearse::stage::{self, Came, ChosenLetter, OnTrial, Share, StageError, Stages};
use crate::http::{self, Answer};
use crate::mesh_streams::audit::{AuditAction, AuditEnd, OpenAudit};
use crate::mesh_streams::modules::named;
use crate::plan::Plan;
use crate::report::rehearsal::RehearsalLine;
use crate::report::rehearsal::account::{RehearsalAccount, verdict};
use crate::wasm::compile::Priority;

/// Rehearsals at a time; each can hold a module that a viewer has given.
pub const REHEARSALS_MAX: usize = 2;
/// Letters of one: the newest that are meant.
pub const LETTERS_MAX: usize = 1_000;
/// Handlers of one: each needs its module compiled.
const HANDLERS_MAX: usize = 16;
/// Letters that run at a time.
const AT_ONCE: usize = 4;
/// How long letters are run.
const RUN_MAX: Duration = Duration::from_secs(300);
/// How long all of it may take, with the way of a module to here, and the compiler's limit.
pub const PATIENCE: Duration = Duration::from_secs(900);
/// A viewer who has gone is noticed by a line that cannot be sent.
const SIGN_EVERY: Duration = Duration::from_secs(1);
/// Of one value; the command tells it whole.
const VALUE_MAX: usize = 4 * 1024;
/// Of one letter, and of all: beyond it, only the verdict is told.
const LINE_MAX: usize = 128 * 1024;
const TOLD_MAX: usize = 16 * 1024 * 1024;

/// One letter, as a viewer is told of it.
#[derive(Serialize)]
struct RehearsalTold<'a> {
    verdict: &'static str,
    /// Something is left out: the command tells all.
    cut: bool,
    #[serde(flatten)]
    line: RehearsalLine<'a>,
}

/// Rehearses what a request wants; the answer is a JSON text a line: `begun`, then each letter, then `summary`, or `error`.
pub async fn begin(
    console: &Console,
    session: Arc<ViewerSession>,
    request: Request<Incoming>,
) -> Result<Answer, ConsoleError> {
    let own = Arc::clone(&session.rehearses).try_acquire_owned();
    let own = own
        .map_err(|_| ConsoleError::refused("a rehearsal of this session runs: stop it, or wait until it has ended"))?;
    let place = Arc::clone(&console.rehearsals).try_acquire_owned();
    let place = place.map_err(|_| {
        ConsoleError::refused(format!(
            "{REHEARSALS_MAX} rehearsals run at this console: wait until one has ended, or use the command"
        ))
    })?;
    let (order, upload) = read(request, console.takes_uploads()).await?;
    let selected = order.selection.selected()?;
    let connection = session.connection().await?;
    there(&connection).await?;
    let (tell, told) = mpsc::unbounded_channel();
    let job = async move {
        let rehearsal = ViewerRehearsal {
            session: &session,
            connection,
            selected,
            order,
            tell: &tell,
        };
        let signs = async {
            loop {
                tokio::time::sleep(SIGN_EVERY).await;
                let _ = tell.send(Bytes::from_static(b"\n"));
            }
        };
        tokio::select! {
            () = rehearsal.run(upload) => {}
            () = signs => {}
        }
        drop((own, place));
    };
    console.runs.take(job.boxed());
    let lines = stream::unfold(told, |mut told| async {
        told.recv().await.map(|line| (Ok(line), told))
    });
    Ok(http::pieces(http::JSON_LINES, lines))
}

struct ViewerRehearsal<'a> {
    session: &'a ViewerSession,
    connection: Connection,
    selected: Selected,
    order: RehearsalOrder,
    tell: &'a UnboundedSender<Bytes>,
}

impl ViewerRehearsal<'_> {
    async fn run(&self, upload: Option<ModuleUpload>) {
        if let Err(error) = self.rehearsed(upload).await {
            self.line(&json!({ "error": error.told() }));
        }
    }

    /// The viewer has stopped it, or has gone.
    async fn gone(&self) -> ConsoleError {
        tokio::select! {
            () = self.session.ended.wait() => {}
            () = self.tell.closed() => {}
        }
        ConsoleError::refused("its viewer has stopped it, or has gone")
    }

    fn line(&self, value: &impl Serialize) {
        self.text(serde_json::to_string(value).unwrap_or_default());
    }

    fn text(&self, mut text: String) {
        text.push('\n');
        // A viewer who has gone ends this at once.
        let _ = self.tell.send(text.into());
    }

    async fn rehearsed(&self, upload: Option<ModuleUpload>) -> Result<(), ConsoleError> {
        let (found, open) = tokio::select! {
            prepared = self.prepared(upload.as_ref()) => prepared?,
            gone = self.gone() => return Err(gone),
        };
        let letters = &found.letters[..found.letters.len().min(LETTERS_MAX)];
        // Without a record of it, because no letter can be run, it is not even compiled.
        let upload = upload.filter(|_| open.is_some());
        let done = tokio::select! {
            done = self.on_stage(letters, upload) => done,
            gone = self.gone() => Err(gone),
        };
        if let Some(open) = open {
            let end = match &done {
                Ok(verdicts) => AuditEnd::done(&verdicts.iter().map(|(name, n)| (*name, *n)).collect::<Vec<_>>()),
                Err(error) => AuditEnd::failed(&error.told()),
            };
            ended(open, end, warn).await;
        }
        done.map(|_| ())
    }

    /// The letters, and the record of a module that the viewer gives.
    async fn prepared(
        &self,
        upload: Option<&ModuleUpload>,
    ) -> Result<(FoundLetters<Vec<ChosenLetter>>, Option<OpenAudit>), ConsoleError> {
        let found = stage::choose(&self.connection, &self.selected, LETTERS_MAX).await?;
        let letters = &found.letters[..found.letters.len().min(LETTERS_MAX)];
        self.line(&json!({ "begun": self.begun(&found, letters.len()) }));
        let handlers = stage::handlers(letters);
        let own = upload.is_some() || self.order.version.is_some();
        let most = if own { 1 } else { HANDLERS_MAX };
        if handlers.len() > most {
            let names: Vec<&str> = handlers.into_iter().take(HANDLERS_MAX).collect();
            return Err(ConsoleError::wrong(format!(
                "the letters are of {} and more; {}: select letters of one handler",
                names.join(", "),
                match own {
                    true => "a module is one handler's".to_owned(),
                    false => format!("a rehearsal here is of {HANDLERS_MAX} handlers at most"),
                }
            )));
        }
        let open = match (upload, handlers.first()) {
            (Some(upload), Some(handler)) => Some(self.recorded(upload, handler, letters.len()).await?),
            _ => None,
        };
        Ok((found, open))
    }

    /// Code of a viewer's runs only for one who may replay the letters, and never without a record.
    async fn recorded(&self, upload: &ModuleUpload, handler: &str, letters: usize) -> Result<OpenAudit, ConsoleError> {
        let (session, connection) = (self.session, &self.connection);
        if let Some(subject) = rights::lacks(connection, &session.plan, rights::UPLOAD, handler).await {
            return Err(ConsoleError::refused(format!(
                "a rehearsal on a file of yours needs the right to replay letters of {handler}: your user of NATS is not allowed to \
                 publish to {subject}"
            )));
        }
        let what = format!(
            "{letters} dead letter(s): {}; on {}, sha256:{}",
            self.selected.told(),
            upload.name.display(),
            upload.sha256
        );
        let intent = intent(
            AuditAction::DlqRehearse,
            &[handler],
            what,
            None,
            Some(self.order.command()),
        );
        Ok(actor(session, connection).begins(intent).await?)
    }

    /// Runs the letters; returns how many of each outcome there were.
    async fn on_stage(
        &self,
        letters: &[ChosenLetter],
        upload: Option<ModuleUpload>,
    ) -> Result<BTreeMap<&'static str, u64>, ConsoleError> {
        let given = upload.as_ref().map(|upload| upload.name.display().to_string());
        let module = self.module(letters, upload).await?;
        let share = Share {
            at_once: AT_ONCE,
            compile: Priority::Lowest,
        };
        let plan: &Plan = &self.session.plan;
        let stages = Stages::new(&self.connection, plan, &stage::handlers(letters), module, share).await;
        let stages = stages.map_err(|error| not_staged(error, plan))?;
        let account = self.letters(letters, &stages).await?;
        let summary = account.summary(stages.modules());
        let whole = summary.rehearsed + summary.skipped == letters.len() as u64;
        tracing::info!(
            by = self.session.who,
            what = self.selected.told(),
            given,
            modules = ?summary.modules,
            rehearsed = summary.rehearsed,
            "a viewer of the console has rehearsed dead letters"
        );
        self.line(&json!({ "summary": summary, "whole": whole, "seconds": RUN_MAX.as_secs() }));
        Ok(summary.verdicts.clone())
    }

    /// What the letters run on.
    async fn module(&self, letters: &[ChosenLetter], upload: Option<ModuleUpload>) -> Result<OnTrial, ConsoleError> {
        let handlers = stage::handlers(letters);
        let (text, handler) = match (upload, &self.order.version, handlers.first()) {
            (Some(upload), ..) => return Ok(OnTrial::Given(upload.name, upload.bytes)),
            (None, Some(text), Some(handler)) => (text, handler),
            (None, ..) => return Ok(OnTrial::Configured),
        };
        let versions = stage::versions(&self.connection, &self.session.plan, handler).await?;
        let (name, versions) = versions.map_err(ConsoleError::wrong)?;
        let version = named(&versions, &name, text).map_err(ConsoleError::wrong)?;
        Ok(OnTrial::Registered(name, version.digest.clone()))
    }

    fn begun(&self, found: &FoundLetters<Vec<ChosenLetter>>, letters: usize) -> serde_json::Value {
        // Of more than the limit the newest were read, and not all were counted.
        let full = letters == LETTERS_MAX;
        json!({
            "letters": letters, "most": full.then_some(LETTERS_MAX), "resolved": found.resolved.len(), "unknown": found.unknown,
            "unread": found.unread,
        })
    }

    async fn letters(&self, letters: &[ChosenLetter], stages: &Stages<'_>) -> Result<RehearsalAccount, ConsoleError> {
        // By their places: a future of any thread must not borrow from what it is given.
        let runs = (0..letters.len()).map(|at| stages.rehearse(&self.connection, &letters[at]));
        let mut runs = stream::iter(runs)
            .take_until(Box::pin(tokio::time::sleep(RUN_MAX)))
            .buffered(AT_ONCE);
        let mut account = RehearsalAccount::default();
        let mut told = 0;
        while let Some(run) = runs.next().await {
            let (id, came) = run?;
            account.add(&id, &came);
            let line = line(&id, came, told > TOLD_MAX);
            told += line.len();
            self.text(line);
        }
        Ok(account)
    }
}

fn not_staged(error: StageError, plan: &Plan) -> ConsoleError {
    match error {
        StageError::Engine(error) => ConsoleError::wrong(error.to_string()),
        StageError::Modules(errors) => {
            let one = |error: crate::wasm::library::Error| {
                let named = plan
                    .handlers
                    .iter()
                    .filter(|handler| handler.module.file() == Some(&error.path));
                let keys: String = named
                    .map(|handler| format!("handlers.{}.module: ", handler.name))
                    .collect();
                format!("{keys}{error}")
            };
            ConsoleError::wrong(errors.into_iter().map(one).collect::<Vec<_>>().join("; "))
        }
        StageError::Registry(error) => error.into(),
    }
}

/// What a viewer is told of a letter; if `bare`, or if it would be long, without what it does.
fn line(id: &str, mut came: Came, bare: bool) -> String {
    let (mut verdict_told, mut cut) = ("skipped", false);
    if let Came::Ran(run) = &mut came {
        verdict_told = verdict(&run.outcome);
        cut = shorten(run);
    }
    let told = |came: &Came, cut| {
        let line = RehearsalTold {
            verdict: verdict_told,
            cut,
            line: RehearsalLine::of(id, came),
        };
        serde_json::to_string(&line).unwrap_or_default()
    };
    if !bare {
        let text = told(&came, cut);
        if text.len() <= LINE_MAX {
            return text;
        }
    }
    if let Came::Ran(run) = &mut came {
        (run.writes, run.emits, run.log) = (Vec::new(), Vec::new(), Vec::new());
    }
    told(&came, true)
}

/// Cuts long values; whether there were any.
fn shorten(run: &mut Rehearsed) -> bool {
    let olds = run
        .writes
        .iter_mut()
        .flat_map(|change| [&mut change.old, &mut change.new]);
    let emits = run.emits.iter_mut().map(|held| &mut held.emit.payload);
    let mut cut = false;
    for value in olds.flatten().chain(emits) {
        if value.len() > VALUE_MAX {
            cut = true;
            // Text is cut between two characters.
            let end = std::str::from_utf8(value).map_or(VALUE_MAX, |text| text.floor_char_boundary(VALUE_MAX));
            value.truncate(end);
        }
    }
    cut
}
