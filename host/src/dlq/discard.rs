//! Dead letters that are no longer needed are resolved. Their decisions stay: the events are dead.

use futures_util::{StreamExt as _, stream};
use schemars::JsonSchema;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::broker::{Connection, Error};
use crate::mesh_streams::audit::AuditEnd;
use crate::mesh_streams::dead_letter::{self, Letter};

/// How many requests are on their way at a time.
const AT_ONCE: usize = 64;

/// What has become of what was selected.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(title = "What `jetmesh dlq discard --json` has done", description = "")]
pub struct Discarded {
    /// How many were resolved.
    pub discarded: u64,
    /// Ids of those that changed meanwhile and were left as they are.
    pub changed: Vec<String>,
    /// Ids that name no dead letter, or a resolved one.
    pub missing: Vec<String>,
    /// How many the server has refused to resolve.
    pub failed: u64,
    /// How many were not tried, because a signal or a refusal ended it before.
    pub left: u64,
}

impl Discarded {
    /// As it is recorded. `failed`: the first refusal.
    pub fn recorded(&self, failed: Option<&Error>) -> AuditEnd {
        let counts = [
            ("discarded", self.discarded),
            ("changed", self.changed.len() as u64),
            ("missing", self.missing.len() as u64),
            ("failed", self.failed),
            ("left", self.left),
        ];
        AuditEnd::done(&counts).but(failed.map(ToString::to_string).as_deref())
    }
}

/// Resolves letters until `stop` completes, or one is refused: what one is refused for, the others would be as well. The error is the
/// first refusal.
pub async fn discard(
    connection: &Connection,
    letters: &[Letter],
    reason: Option<&str>,
    stop: impl Future<Output = ()> + Send,
) -> (Discarded, Option<Error>) {
    let reason = match reason {
        Some(reason) => format!("discarded: {reason}"),
        None => "discarded".to_owned(),
    };
    let reason = reason.as_str();
    let refused = CancellationToken::new();
    // What is on its way is waited for.
    let mut answers = stream::iter(0..letters.len())
        .take_until(Box::pin(async {
            tokio::select! {
                () = stop => {}
                () = refused.cancelled() => {}
            }
        }))
        .map(|at| async move { (at, dead_letter::discard(connection, &letters[at], reason).await) })
        .buffer_unordered(AT_ONCE);
    let mut account = Discarded {
        left: letters.len() as u64,
        ..Discarded::default()
    };
    let mut failed = None;
    while let Some((at, answer)) = answers.next().await {
        account.left -= 1;
        match answer {
            Ok(true) => account.discarded += 1,
            Ok(false) => account.changed.push(letters[at].id().to_owned()),
            Err(error) => {
                account.failed += 1;
                failed = failed.or(Some(error));
                refused.cancel();
            }
        }
    }
    drop(answers);
    (account, failed)
}
