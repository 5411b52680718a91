//! What viewers change is recorded as what commands change, and what was recorded is shown.

use serde_json::{Value, json};

use super::query::Query;
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::broker::Connection;
use crate::broker::provision::AUDIT;
use crate::control::audit::Actor;
use crate::dlq::condition::time;
use crate::event::clock::Moment;
use crate::mesh_streams::audit::{self, AuditAction, AuditFilter, AuditFrom, AuditIntent};
use crate::text::shell::quoted;

/// Records in one answer, and how many messages are read for it: an action has two.
const RECORDS_MAX: usize = 200;
const MESSAGES_MAX: u64 = 20_000;

/// The viewer who acts.
pub fn actor<'a>(session: &'a ViewerSession, connection: &'a Connection) -> Actor<'a> {
    Actor {
        connection,
        plan: &session.plan,
        by: session.who.clone(),
        from: AuditFrom::Console,
        warn,
    }
}

pub fn warn(text: &str) {
    tracing::warn!("an order of a viewer of the console: {text}");
}

/// What a viewer is about to do, with the command that does the same.
pub fn intent(
    action: AuditAction,
    on: &[&str],
    what: impl Into<String>,
    reason: Option<&str>,
    command: Option<String>,
) -> AuditIntent {
    AuditIntent {
        action,
        on: on.iter().map(|&name| name.to_owned()).collect(),
        what: what.into(),
        reason: reason.map(str::to_owned),
        command,
    }
}

/// A command and its options; those without a value are left out.
pub fn command(words: &[&str], options: &[(&str, Option<&str>)]) -> String {
    let mut line = vec!["jetmesh".to_owned()];
    line.extend(words.iter().map(|word| quoted(word)));
    for (name, value) in options {
        if let Some(value) = value {
            line.extend([(*name).to_owned(), quoted(value)]);
        }
    }
    line.join(" ")
}

pub async fn records(session: &ViewerSession, query: &Query) -> Result<Value, ConsoleError> {
    let since = query.get("since").map(time).transpose();
    let since = since.map_err(|why| ConsoleError::wrong(format!("since: {why}")))?;
    let of = |name: &str| query.get(name).map(str::to_owned);
    let filter = AuditFilter {
        since_ms: since.map(Moment::ms),
        by: of("by"),
        action: of("action"),
        on: of("on"),
    };
    let connection = session.connection().await?;
    let looked = audit::newest(&connection, &filter, RECORDS_MAX, MESSAGES_MAX).await?;
    let looked = looked.ok_or_else(|| {
        ConsoleError::missing(format!(
            "there is no stream {AUDIT}: no host of this version has run here, and no person has changed anything with it"
        ))
    })?;
    let ended: Vec<String> = looked.records.iter().rev().map(|record| record.ended()).collect();
    let records: Vec<_> = looked.records.iter().rev().collect();
    Ok(json!({
        "records": records, "ended": ended, "actions": AuditAction::NAMES,
        "looked": {
            "looked_at": looked.looked_at, "meant": looked.meant, "back_to": looked.back_to, "more": looked.more,
            "unreadable": looked.unreadable,
        },
    }))
}
