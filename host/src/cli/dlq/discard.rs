//! `jetmesh dlq discard`: resolves dead letters that are no longer needed. Their decisions stay: the events are dead.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use schemars::JsonSchema;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::broker::Connection;
use crate::cli::dlq::selection::{Selected, Selection};
use crate::cli::stop::Stop;
use crate::cli::{Error, FAILED, OK, ask, text};
use crate::dlq::select;
use crate::mesh_streams::dead_letter::{self, Letter};

/// How many requests are on their way at a time.
const AT_ONCE: usize = 64;

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

/// What has become of what was selected.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(title = "What `jetmesh dlq discard --json` has done", description = "")]
pub struct Discarded {
    /// How many were resolved.
    discarded: u64,
    /// Ids of those that changed meanwhile and were left as they are.
    changed: Vec<String>,
    /// Ids that name no dead letter, or a resolved one.
    missing: Vec<String>,
    /// How many the server has refused to resolve.
    failed: u64,
    /// How many were not tried, because a signal or a refusal ended it before.
    left: u64,
}

pub async fn run(connection: &Connection, discard: &Discard, stop: &Stop) -> Result<u8, Error> {
    let mut account = Discarded::default();
    let letters = letters(connection, &discard.selection, &mut account.missing).await?;
    if letters.is_empty() {
        account.print(discard.json);
        return Ok(account.code());
    }
    if !discard.yes {
        println!("{}", summary(&letters));
        ask::confirmed("Discard?", "nothing is discarded")?;
    }
    stop.heed();
    let reason = match &discard.reason {
        Some(reason) => format!("discarded: {reason}"),
        None => "discarded".to_owned(),
    };
    let one = async |letter: &Letter| dead_letter::discard(connection, letter, &reason).await;
    // What is on its way is waited for. What one letter is refused for, the others would be as well.
    let refused = CancellationToken::new();
    let mut answers = stream::iter(&letters)
        .take_until(Box::pin(async {
            tokio::select! {
                () = stop.asked() => {}
                () = refused.cancelled() => {}
            }
        }))
        .map(|letter| async move { (letter, one(letter).await) })
        .buffer_unordered(AT_ONCE);
    let mut failed = None;
    account.left = letters.len() as u64;
    while let Some((letter, answer)) = answers.next().await {
        account.left -= 1;
        match answer {
            Ok(true) => account.discarded += 1,
            Ok(false) => account.changed.push(letter.id().to_owned()),
            Err(error) => {
                account.failed += 1;
                failed = failed.or(Some(error));
                refused.cancel();
            }
        }
    }
    account.print(discard.json);
    match (failed, stop.code()) {
        (_, Some(code)) => Ok(code),
        (Some(error), None) => Err(error.into()),
        (None, None) => Ok(account.code()),
    }
}

/// The letters that are meant, without what takes memory and is not needed.
async fn letters(
    connection: &Connection,
    selection: &Selection,
    missing: &mut Vec<String>,
) -> Result<Vec<Letter>, Error> {
    let mut letters = Vec::new();
    let mut keep = |mut letter: Letter| {
        letter.payload = bytes::Bytes::new();
        let needed = [dead_letter::HANDLER, dead_letter::PARTS];
        letter.headers.retain(|(name, _)| needed.contains(&name.as_str()));
        letters.push(letter);
    };
    match selection.selected()? {
        Selected::Filter(filter) => super::each(connection, &filter, false, keep).await?,
        Selected::Ids(ids) => {
            for id in ids {
                match select::find(connection, &id).await? {
                    Some(letter) => keep(letter),
                    None => missing.push(id),
                }
            }
        }
    }
    Ok(letters)
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

impl Discarded {
    fn print(&self, as_json: bool) {
        if as_json {
            println!("{}", text::json_line(self));
            return;
        }
        println!("discarded {}", text::letters(self.discarded));
        for id in &self.changed {
            note!("{id} has changed since the command started, and is not discarded");
        }
        for id in &self.missing {
            note!("no dead letter `{id}`, or it is already resolved");
        }
        if self.failed > 0 {
            note!("{} could not be discarded", text::letters(self.failed));
        }
        if self.left > 0 {
            let why = if self.failed > 0 { "" } else { "interrupted: " };
            note!(
                "{why}{} not tried; the same command again continues with them",
                self.left
            );
        }
    }

    fn code(&self) -> u8 {
        let whole = self.changed.is_empty() && self.missing.is_empty();
        if whole { OK } else { FAILED }
    }
}
