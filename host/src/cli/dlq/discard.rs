//! `jetmesh dlq discard`: resolves dead letters that are no longer needed. Their decisions stay: the events are dead.

use std::collections::BTreeMap;

use crate::broker::{self, Connection};
use crate::cli::audit::{actor, intent};
use crate::cli::dlq::selection::Selection;
use crate::cli::stop::Stop;
use crate::cli::{Error, FAILED, OK, ask, text};
use crate::dlq::discard::{self as dlq, Discarded};
use crate::dlq::meant;
use crate::mesh_streams::audit::AuditAction;
use crate::mesh_streams::dead_letter::{self, Letter};
use crate::plan::Plan;

#[derive(Debug, clap::Args)]
pub struct Discard {
    /// Reason, which is stored with the resolved dead letters
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Do not ask for confirmation
    #[arg(long)]
    pub yes: bool,
    /// Print the result as JSON; requires --yes
    #[arg(long, requires = "yes")]
    pub json: bool,
    #[command(flatten)]
    pub selection: Selection,
}

pub async fn run(connection: &Connection, plan: &Plan, discard: &Discard, stop: &Stop) -> Result<u8, Error> {
    let selected = discard.selection.selected()?;
    let found = meant::bare(connection, &selected).await?;
    if let Some(told) = found.unread {
        note!("warning: {told}");
    }
    let letters = found.letters;
    let resolved = found.resolved.into_iter().map(|(id, _)| id);
    let missing: Vec<String> = found.unknown.into_iter().chain(resolved).collect();
    if letters.is_empty() {
        let account = Discarded {
            missing,
            ..Discarded::default()
        };
        print(&account, discard.json);
        return Ok(code(&account));
    }
    if !discard.yes {
        println!("{}", summary(&letters));
        ask::confirmed("Discard?", "nothing is discarded")?;
    }
    stop.heed();
    let reason = discard.reason.as_deref();
    let act = async {
        let (mut account, failed) = dlq::discard(connection, &letters, reason, stop.asked()).await;
        account.missing = missing;
        Ok::<_, Error>((account, failed))
    };
    let handlers = meant::handlers(&letters);
    let intent = intent(AuditAction::DlqDiscard, &handlers, selected.told(), reason);
    let told = |(account, failed): &(Discarded, Option<broker::Error>)| account.recorded(failed.as_ref());
    let (account, failed) = actor(connection, plan).acts(intent, act, told).await?;
    print(&account, discard.json);
    match (failed, stop.code()) {
        (_, Some(code)) => Ok(code),
        (Some(error), None) => Err(error.into()),
        (None, None) => Ok(code(&account)),
    }
}

fn summary(letters: &[Letter]) -> String {
    let mut handlers: BTreeMap<&str, u64> = BTreeMap::new();
    for letter in letters {
        *handlers.entry(letter.header(dead_letter::HANDLER)).or_default() += 1;
    }
    let handlers: Vec<String> = handlers
        .iter()
        .map(|(name, count)| format!("{count} of {name}"))
        .collect();
    format!(
        "{}: {}. Their events stay dead, and no replay brings them back; `jetmesh dlq export` saves a copy first.",
        text::letters(letters.len() as u64),
        handlers.join(", ")
    )
}

fn print(account: &Discarded, as_json: bool) {
    if as_json {
        println!("{}", text::json_line(account));
        return;
    }
    println!("discarded {}", text::letters(account.discarded));
    for id in &account.changed {
        note!("{id} has changed since the command started, and is not discarded");
    }
    for id in &account.missing {
        note!("no dead letter `{id}`, or it is already resolved");
    }
    if account.failed > 0 {
        note!("{} could not be discarded", text::letters(account.failed));
    }
    if account.left > 0 {
        let why = if account.failed > 0 { "" } else { "interrupted: " };
        note!(
            "{why}{} not tried; the same command again continues with them",
            text::letters(account.left)
        );
    }
}

fn code(account: &Discarded) -> u8 {
    let whole = account.changed.is_empty() && account.missing.is_empty();
    if whole { OK } else { FAILED }
}
