//! Rehearsals that a viewer makes: what would become of dead letters, told letter by letter while nothing happens. They run on the
//! thread of the console, so all together take one core from the events at most.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc::{self, UnboundedSender};

use super::Console;
use super::conditions::LetterSelection;
use super::letters::there;
use super::session::ViewerSession;
use super::site::{BODY_MAX, of_json};
use super::trouble::ConsoleError;
use crate::broker::Connection;
use crate::dlq::meant::{FoundLetters, Selected};
use crate::dlq::rehearse::Rehearsed;
use crate::dlq::rehearse::stage::{self, Came, ChosenLetter, OnTrial, Share, StageError, Stages};
use crate::http::{self, Answer};
use crate::plan::Plan;
use crate::report::rehearsal::RehearsalLine;
use crate::report::rehearsal::account::{RehearsalAccount, verdict};
use crate::text::shell::quoted;
use crate::wasm::compile::Priority;
use crate::wasm::source::MODULE_BYTES_MAX;

/// Rehearsals at a time; each can hold a module that a viewer has given.
pub const REHEARSALS_MAX: usize = 2;
/// Letters of one: the newest that are meant.
const LETTERS_MAX: usize = 1_000;
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

/// What a viewer wants rehearsed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RehearsalOrder {
    selection: LetterSelection,
    /// The name of a file that the viewer gives; its content follows the order. null: the modules of the configuration.
    module: Option<String>,
}

impl RehearsalOrder {
    /// The command that does the same.
    pub fn command(&self) -> String {
        let module = self
            .module
            .iter()
            .flat_map(|name| ["--module".to_owned(), quoted(name)]);
        let limit = ["--limit".to_owned(), LETTERS_MAX.to_string()];
        // Of ids all are meant.
        let limit = limit.into_iter().filter(|_| !self.selection.has_ids());
        self.selection
            .command("rehearse", &module.chain(limit).collect::<Vec<_>>())
    }
}

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
    let (order, module) = read(request).await?;
    let selected = order.selection.selected()?;
    let connection = session.connection().await?;
    there(&connection).await?;
    let (tell, told) = mpsc::unbounded_channel();
    let job = async move {
        let rehearsal = ViewerRehearsal {
            session: &session,
            connection,
            selected,
            tell: &tell,
        };
        let signs = async {
            loop {
                tokio::time::sleep(SIGN_EVERY).await;
                let _ = tell.send(Bytes::from_static(b"\n"));
            }
        };
        tokio::select! {
            () = rehearsal.run(module) => {}
            () = session.ended.wait() => {}
            // The viewer has stopped it, or has gone.
            () = tell.closed() => {}
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

/// The first line is the order, and the rest the module that it names.
async fn read(request: Request<Incoming>) -> Result<(RehearsalOrder, OnTrial), ConsoleError> {
    let mut body = request.into_body();
    let (mut head, mut rest): (Vec<u8>, Option<Vec<u8>>) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ConsoleError::wrong("the order was cut"))?;
        let Ok(data) = frame.into_data() else { continue };
        match &mut rest {
            Some(rest) => rest.extend_from_slice(&data),
            None => {
                let end = data.iter().position(|byte| *byte == b'\n');
                head.extend_from_slice(&data[..end.unwrap_or(data.len())]);
                rest = end.map(|end| data[end + 1..].to_vec());
            }
        }
        if head.len() > BODY_MAX {
            return Err(ConsoleError::wrong(format!(
                "the order is longer than {BODY_MAX} bytes"
            )));
        }
        if rest.as_ref().is_some_and(|rest| rest.len() as u64 > MODULE_BYTES_MAX) {
            let most = MODULE_BYTES_MAX / (1024 * 1024);
            return Err(ConsoleError::wrong(format!(
                "the module is larger than {most} MiB, which is the most that a module may be"
            )));
        }
    }
    let order: RehearsalOrder = of_json(&head)?;
    let module = match (&order.module, rest) {
        (Some(name), Some(bytes)) if name.len() <= 255 => OnTrial::Given(PathBuf::from(name), bytes),
        (Some(_), _) => {
            return Err(ConsoleError::wrong(
                "the module does not follow the order, or its name is too long",
            ));
        }
        (None, _) => OnTrial::Configured,
    };
    Ok((order, module))
}

struct ViewerRehearsal<'a> {
    session: &'a ViewerSession,
    connection: Connection,
    selected: Selected,
    tell: &'a UnboundedSender<Bytes>,
}

impl ViewerRehearsal<'_> {
    async fn run(&self, module: OnTrial) {
        let rehearsed = self.rehearsed(module).await;
        if let Err(error) = rehearsed {
            self.line(&json!({ "error": error.told() }));
        }
    }

    fn line(&self, value: &impl Serialize) {
        self.text(serde_json::to_string(value).unwrap_or_default());
    }

    fn text(&self, mut text: String) {
        text.push('\n');
        // A viewer who has gone ends this at once.
        let _ = self.tell.send(text.into());
    }

    async fn rehearsed(&self, module: OnTrial) -> Result<(), ConsoleError> {
        let connection = &self.connection;
        let found = stage::choose(connection, &self.selected, LETTERS_MAX).await?;
        let given = match &module {
            OnTrial::Given(name, _) => Some(name.display().to_string()),
            OnTrial::Configured | OnTrial::File(_) => None,
        };
        let letters = &found.letters[..found.letters.len().min(LETTERS_MAX)];
        self.line(&json!({ "begun": self.begun(&found, letters.len()) }));
        let handlers = stage::handlers(letters);
        let most = if given.is_some() { 1 } else { HANDLERS_MAX };
        if handlers.len() > most {
            let names: Vec<&str> = handlers.into_iter().take(HANDLERS_MAX).collect();
            return Err(ConsoleError::wrong(format!(
                "the letters are of {} and more; {}: select letters of one handler",
                names.join(", "),
                match given {
                    Some(_) => "a module is one handler's".to_owned(),
                    None => format!("a rehearsal here is of {HANDLERS_MAX} handlers at most"),
                }
            )));
        }
        let share = Share {
            at_once: AT_ONCE,
            compile: Priority::Lowest,
        };
        let plan: &Plan = &self.session.plan;
        let stages = Stages::new(connection, plan, &handlers, module, share).await;
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
        Ok(())
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
                let named = plan.handlers.iter().filter(|handler| handler.module == error.path);
                let keys: String = named
                    .map(|handler| format!("handlers.{}.module: ", handler.name))
                    .collect();
                format!("{keys}{error}")
            };
            ConsoleError::wrong(errors.into_iter().map(one).collect::<Vec<_>>().join("; "))
        }
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
