//! Exports: dead letters as a file that the browser downloads, line by line as `jetmesh dlq export` writes it.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hyper::header::{CONTENT_DISPOSITION, HeaderValue};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Console;
use super::conditions::LetterSelection;
use super::letters::there;
use super::query::Query;
use super::runs::Lines;
use super::session::{ViewerSession, secret};
use super::trouble::ConsoleError;
use crate::broker::{Connection, Error};
use crate::dlq::archive::Lacking;
use crate::dlq::export::{ExportedLine, LetterExport};
use crate::dlq::meant::Selected;
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::http::Answer;
use crate::text::secret::same;

/// Exports at a time.
pub const EXPORTS_MAX: usize = 4;
/// Exports of a session that are known: the newest.
const KNOWN_MAX: usize = 8;
/// Ids that are told of those that are missing. The file has all.
const MISSING_TOLD: usize = 10;

/// What a viewer wants to have as a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportOrder {
    selection: LetterSelection,
}

impl ExportOrder {
    fn command(&self) -> String {
        self.selection.command("export", &[])
    }
}

/// What a session has ordered: a browser writes to a file only what it fetches by an address.
#[derive(Default)]
pub struct OrderedExports(Mutex<VecDeque<Arc<ViewerExport>>>);

/// One export: what is meant, and how far it is.
struct ViewerExport {
    ticket: String,
    selected: Selected,
    fetched: AtomicBool,
    letters: AtomicU64,
    end: OnceLock<ExportEnd>,
}

/// How an export has ended.
#[derive(Debug, Default, Serialize)]
struct ExportEnd {
    /// Why the file is not whole.
    broken: Option<String>,
    /// How many ids name no letter.
    missing: usize,
    first_missing: Vec<String>,
    /// What could not be read.
    unread: Option<String>,
}

impl ExportEnd {
    fn lacks(lacking: &Lacking) -> ExportEnd {
        ExportEnd {
            broken: None,
            missing: lacking.missing.len(),
            first_missing: lacking.missing.iter().take(MISSING_TOLD).cloned().collect(),
            unread: lacking.unread.clone(),
        }
    }

    fn broken(why: &str) -> ExportEnd {
        ExportEnd {
            broken: Some(why.to_owned()),
            ..ExportEnd::default()
        }
    }
}

impl OrderedExports {
    fn find(&self, ticket: &str) -> Option<Arc<ViewerExport>> {
        let known = self.0.lock();
        known.iter().find(|one| same(&one.ticket, ticket)).map(Arc::clone)
    }
}

/// The command that does the same.
pub fn plan(order: &ExportOrder) -> Value {
    json!({ "command": order.command() })
}

/// Takes an order; the answer names the ticket by which the file is fetched, once.
pub async fn order(session: &ViewerSession, order: ExportOrder) -> Result<Value, ConsoleError> {
    let selected = order.selection.selected()?;
    there(&session.connection().await?).await?;
    let ticket = secret();
    let mut known = session.exports.0.lock();
    known.push_back(Arc::new(ViewerExport {
        ticket: ticket.clone(),
        selected,
        fetched: AtomicBool::new(false),
        letters: AtomicU64::new(0),
        end: OnceLock::new(),
    }));
    while known.len() > KNOWN_MAX {
        known.pop_front();
    }
    Ok(json!({ "ticket": ticket }))
}

/// How far an export is.
pub fn state(session: &ViewerSession, query: &Query) -> Result<Value, ConsoleError> {
    let export = session.exports.find(query.get("ticket").unwrap_or_default());
    let export = export.ok_or_else(|| ConsoleError::missing("this export is not known any more"))?;
    Ok(json!({ "letters": export.letters.load(Ordering::Relaxed), "end": export.end.get() }))
}

/// The file that a ticket stands for.
pub async fn file(console: &Console, session: Arc<ViewerSession>, ticket: &str) -> Result<Answer, ConsoleError> {
    let export = session.exports.find(ticket);
    let export = export.filter(|one| !one.fetched.load(Ordering::Relaxed));
    let export = export.ok_or_else(|| ConsoleError::missing("this export was fetched before: order it again"))?;
    let place = Arc::clone(&console.exports).try_acquire_owned().map_err(|_| {
        let why = format!("{EXPORTS_MAX} exports run at this console: wait until one has ended, or use the command");
        let _ = export.end.set(ExportEnd::broken(&why));
        ConsoleError::refused(why)
    })?;
    let connection = session.connection().await?;
    export.fetched.store(true, Ordering::Relaxed);
    let mut answer = console.runs.lines(async move |tell| {
        let export = FetchedExport(export);
        let end = tokio::select! {
            written = write(&connection, &export.0, &tell) => ended(&session, &export.0, written),
            () = session.ended.wait() => ExportEnd::broken("the session has ended"),
        };
        if let Some(why) = &end.broken {
            broken(&tell, why).await;
        }
        let _ = export.0.end.set(end);
        drop(place);
    });
    let time = rfc3339(now_ms()).replace([':', '.'], "-");
    let name = format!("attachment; filename=\"dead-letters-{time}.jsonl\"");
    if let Ok(name) = HeaderValue::from_str(&name) {
        answer.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    Ok(answer)
}

/// An export that is written. Where it is dropped without an end, the browser has stopped it.
struct FetchedExport(Arc<ViewerExport>);

impl Drop for FetchedExport {
    fn drop(&mut self) {
        let _ = self.0.end.set(ExportEnd::broken("the browser has stopped it"));
    }
}

/// The browser must not take what it has for the whole file.
async fn broken(tell: &Lines, why: &str) {
    let _ = tell.send(Err(io::Error::other(why.to_owned()))).await;
}

/// Writes all lines; returns what the export lacks.
async fn write(connection: &Connection, export: &ViewerExport, tell: &Lines) -> Result<Lacking, Error> {
    let mut letters = LetterExport::start(connection, &export.selected).await?;
    while let Some(line) = letters.next().await? {
        let mut text = match &line {
            ExportedLine::Letter(text) | ExportedLine::Lacks(text) => text.clone(),
        };
        text.push('\n');
        if tell.send(Ok(text.into())).await.is_err() {
            break;
        }
        let is_letter = matches!(line, ExportedLine::Letter(_));
        export.letters.fetch_add(u64::from(is_letter), Ordering::Relaxed);
    }
    Ok(letters.lacks)
}

fn ended(session: &ViewerSession, export: &ViewerExport, written: Result<Lacking, Error>) -> ExportEnd {
    let (by, what) = (&session.who, export.selected.told());
    let letters = export.letters.load(Ordering::Relaxed);
    match written {
        Ok(lacks) => {
            tracing::info!(
                by,
                what,
                letters,
                missing = lacks.missing.len(),
                "a viewer of the console has exported dead letters"
            );
            ExportEnd::lacks(&lacks)
        }
        Err(error) => {
            tracing::warn!(by, what, letters, %error, "an export of a viewer of the console has broken off");
            ExportEnd::broken(&error.to_string())
        }
    }
}
