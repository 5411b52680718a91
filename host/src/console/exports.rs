//! Exports: dead letters as a file that the browser downloads, line by line as `jetmesh dlq export` writes it.

use std::io;
use std::sync::Arc;

use hyper::header::{CONTENT_DISPOSITION, HeaderValue};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Console;
use super::conditions::LetterSelection;
use super::letters::there;
use super::runs::Lines;
use super::session::{ViewerSession, secret};
use super::trouble::ConsoleError;
use crate::broker::Connection;
use crate::dlq::export::LetterExport;
use crate::dlq::meant::Selected;
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::http::Answer;
use crate::text::secret::same;

/// Exports at a time.
pub const EXPORTS_MAX: usize = 4;

/// What a viewer wants to have as a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportOrder {
    selection: LetterSelection,
}

/// What a session has ordered, until it is fetched: a browser writes to a file only what it fetches by an address.
#[derive(Default)]
pub struct OrderedExport(Mutex<Option<(String, Selected)>>);

impl OrderedExport {
    fn take(&self, ticket: &str) -> Option<Selected> {
        let mut ordered = self.0.lock();
        let (_, selected) = ordered.take_if(|(own, _)| same(own, ticket))?;
        Some(selected)
    }
}

/// Takes an order; the answer names the ticket by which the file is fetched, once.
pub async fn order(session: &ViewerSession, order: ExportOrder) -> Result<Value, ConsoleError> {
    let selected = order.selection.selected()?;
    there(&session.connection().await?).await?;
    let ticket = secret();
    *session.export.0.lock() = Some((ticket.clone(), selected));
    Ok(json!({ "ticket": ticket, "command": order.selection.command("export", &[]) }))
}

/// The file that a ticket stands for.
pub async fn file(console: &Console, session: Arc<ViewerSession>, ticket: &str) -> Result<Answer, ConsoleError> {
    let place = Arc::clone(&console.exports).try_acquire_owned().map_err(|_| {
        ConsoleError::refused(format!(
            "{EXPORTS_MAX} exports run at this console: wait until one has ended, or use the command"
        ))
    })?;
    let selected = session.export.take(ticket);
    let selected = selected.ok_or_else(|| ConsoleError::missing("this export was fetched before: order it again"))?;
    let connection = session.connection().await?;
    let mut answer = console.runs.lines(async move |tell| {
        tokio::select! {
            () = export(&connection, &session, &selected, &tell) => {}
            () = session.ended.wait() => broken(&tell, "the session has ended").await,
        }
        drop(place);
    });
    let time = rfc3339(now_ms()).replace([':', '.'], "-");
    let name = format!("attachment; filename=\"dead-letters-{time}.jsonl\"");
    if let Ok(name) = HeaderValue::from_str(&name) {
        answer.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    Ok(answer)
}

/// The browser must not take what it has for the whole file.
async fn broken(tell: &Lines, why: &str) {
    let _ = tell.send(Err(io::Error::other(why.to_owned()))).await;
}

async fn export(connection: &Connection, session: &ViewerSession, selected: &Selected, tell: &Lines) {
    let mut count = 0u64;
    let sent = async {
        let mut letters = LetterExport::start(connection, selected).await?;
        while let Some(mut line) = letters.next().await? {
            line.push('\n');
            count += 1;
            if tell.send(Ok(line.into())).await.is_err() {
                break;
            }
        }
        Ok::<_, crate::broker::Error>(letters.missing.len())
    };
    let (by, what) = (&session.who, selected.told());
    match sent.await {
        Ok(missing) => tracing::info!(
            by,
            what,
            letters = count,
            missing,
            "a viewer of the console has exported dead letters"
        ),
        Err(error) => {
            tracing::warn!(by, what, letters = count, %error, "an export of a viewer of the console has broken off");
            broken(tell, &error.to_string()).await;
        }
    }
}
