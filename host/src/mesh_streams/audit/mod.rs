//! Who has changed what in the mesh, and why. A record is written before an action begins, and another message when it has ended:
//! an action without a record is not taken. `decisions/0032-audit.md` says why.

mod action;
mod read;

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::action::AuditAction;
pub use self::read::{AuditFilter, AuditLooked, newest};
use crate::broker::connection::token;
use crate::broker::error::Code;
use crate::broker::provision::{AUDIT, restore};
use crate::broker::{Connection, Error};
use crate::event::clock::now_ms;
use crate::event::{Headers, rfc3339, writable};
use crate::plan::Plan;
use crate::text::secret::hide;

const FORMAT: u64 = 1;
/// Longest texts, in characters. The stream takes 64 KiB in a message.
const COMMAND_MAX: usize = 4_000;
const TEXT_MAX: usize = 1_000;
/// Names that one record has, and the longest of them.
const NAMES_MAX: usize = 30;
const NAME_MAX: usize = 64;

/// Where an order was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum AuditFrom {
    Cli,
    Console,
}

/// Who acts.
pub struct AuditActor<'a> {
    /// As the command or the console says.
    pub by: &'a str,
    /// As the server says.
    pub user: Option<String>,
    pub from: AuditFrom,
}

/// An action that is about to be taken.
#[derive(Debug)]
pub struct AuditIntent {
    pub action: AuditAction,
    /// Handlers, or the outbox, the schedule or the group of dead letters.
    pub on: Vec<String>,
    /// What is meant, in a few words.
    pub what: String,
    pub reason: Option<String>,
    /// The command that does the same. `None`: no command does.
    pub command: Option<String>,
}

/// What a person has changed, or tried to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "A line of `jetmesh audit --json`", description = "")]
pub struct AuditRecord {
    pub id: String,
    /// When it began.
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    /// Such as `dlq-replay`; newer versions of jetmesh can have more.
    pub action: String,
    /// Who: the user of NATS if it has a name, and for a command the user and name of the machine.
    pub by: String,
    /// The user of NATS that the server has authenticated, a name or a public key; null: the server says none, and `by` is only claimed.
    #[serde(default)]
    pub user: Option<String>,
    pub from: AuditFrom,
    /// The command that does the same; null: no command does.
    pub command: Option<String>,
    /// Handlers, or the outbox, the schedule or the group of dead letters.
    pub on: Vec<String>,
    /// What was meant, in a few words.
    pub what: String,
    pub reason: Option<String>,
    /// null: it goes on, or what has begun it was ended before it could tell.
    #[serde(default)]
    pub end: Option<AuditEnd>,
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct AuditEnd {
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    /// false: it was not done, or not all of it.
    pub ok: bool,
    /// What was done, counted.
    pub counts: BTreeMap<String, u64>,
    /// Why it was not done, or not all of it.
    pub error: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredBegin {
    format: u64,
    record: AuditRecord,
}

#[derive(Serialize, Deserialize)]
struct StoredEnd {
    format: u64,
    id: String,
    end: AuditEnd,
}

impl AuditRecord {
    /// Who, and how far that is more than what the command or the console says.
    pub fn who(&self) -> String {
        let by = &self.by;
        match &self.user {
            None => format!("{by}, as claimed"),
            Some(user) if by == user || by.starts_with(&format!("{user} (")) => by.clone(),
            Some(user) => format!("{by}, user {user}"),
        }
    }

    /// How it ended, in a few words.
    pub fn ended(&self) -> String {
        let Some(end) = &self.end else {
            return "not known".to_owned();
        };
        let counts = end.counts.iter().map(|(name, count)| format!("{count} {name}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        match (&end.error, counts.is_empty()) {
            (Some(error), true) => format!("failed: {error}"),
            (Some(error), false) => format!("{counts}; failed: {error}"),
            (None, true) => "done".to_owned(),
            (None, false) => counts,
        }
    }
}

impl AuditEnd {
    /// Counts that are zero are left out.
    pub fn done(counts: &[(&str, u64)]) -> AuditEnd {
        let some = counts.iter().filter(|(_, count)| *count > 0);
        AuditEnd {
            at: rfc3339(now_ms()),
            ok: true,
            counts: some.map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            error: None,
        }
    }

    pub fn failed(error: &str) -> AuditEnd {
        AuditEnd::done(&[]).but(Some(error))
    }

    /// The same, if it is not all of what was to be done, with the reason.
    pub fn but(self, error: Option<&str>) -> AuditEnd {
        AuditEnd {
            ok: self.ok && error.is_none(),
            error: error.map(|error| short(error, TEXT_MAX)).or(self.error),
            ..self
        }
    }
}

impl AuditIntent {
    fn record(self, actor: AuditActor<'_>) -> AuditRecord {
        AuditRecord {
            id: token(),
            at: rfc3339(now_ms()),
            action: self.action.name().to_owned(),
            by: short(actor.by, TEXT_MAX),
            user: actor.user.map(|user| short(&user, TEXT_MAX)),
            from: actor.from,
            command: self.command.map(|command| short(&command, COMMAND_MAX)),
            on: self
                .on
                .iter()
                .take(NAMES_MAX)
                .map(|name| short(name, NAME_MAX))
                .collect(),
            what: short(&self.what, TEXT_MAX),
            reason: self.reason.map(|reason| short(&reason, TEXT_MAX)),
            end: None,
        }
    }
}

/// Without what looks like a secret, and cut.
fn short(text: &str, most: usize) -> String {
    let text = hide(text);
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// An action that has begun.
#[must_use = "how it ends is recorded as well"]
pub struct OpenAudit {
    connection: Connection,
    id: String,
    subject: String,
}

/// Records that an action begins.
///
/// # Errors
/// It cannot be recorded: then it must not begin.
pub async fn begin(
    connection: &Connection,
    plan: &Plan,
    actor: AuditActor<'_>,
    intent: AuditIntent,
) -> Result<OpenAudit, Error> {
    let record = intent.record(actor);
    let open = OpenAudit {
        connection: connection.clone(),
        id: record.id.clone(),
        subject: subject(&record),
    };
    let begun = StoredBegin { format: FORMAT, record };
    let body = Bytes::from(serde_json::to_vec(&begun).expect("a record serialises"));
    let subject = format!("{}.begin", open.subject);
    let mut written = write(connection, &subject, body.clone()).await;
    if matches!(&written, Err(error) if is_missing(error)) {
        // No host of this version has made the stream, or it was removed.
        written = match restore(connection, plan, AUDIT).await {
            Ok(_) => write(connection, &subject, body).await,
            Err(error) => Err(error),
        };
    }
    written.map(|()| open).map_err(|error| unrecorded(&error))
}

impl OpenAudit {
    /// Records how it has ended.
    ///
    /// # Errors
    /// It cannot be recorded; what was done is done.
    pub async fn end(self, end: AuditEnd) -> Result<(), Error> {
        let ended = StoredEnd {
            format: FORMAT,
            id: self.id,
            end,
        };
        let body = serde_json::to_vec(&ended).expect("an end serialises");
        write(&self.connection, &format!("{}.end", self.subject), body.into()).await
    }
}

/// By action and, if it is about one thing, by its name.
fn subject(record: &AuditRecord) -> String {
    let is_token = |name: &str| {
        name.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let on = match record.on.as_slice() {
        [one] if !one.is_empty() && is_token(one) => one,
        _ => "-",
    };
    format!("$MESH.audit.{}.{on}.{}", record.action, record.id)
}

async fn write(connection: &Connection, subject: &str, body: Bytes) -> Result<(), Error> {
    let written = connection.publish(subject, writable(&Headers::new()), body).await;
    written.map(|_| ()).map_err(|error| error.in_stream(AUDIT))
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::NoResponders { .. }) || error.code() == Some(Code::STREAM_NOT_FOUND)
}

fn unrecorded(error: &Error) -> Error {
    let why = match error {
        Error::Denied { right, subject, .. } => format!(
            "this user is not allowed to {right} `{subject}`: grant it; docs/nats.md lists what an operator needs"
        ),
        other => other.to_string(),
    };
    Error::Refused(format!(
        "nothing is done, because it cannot be recorded in stream {AUDIT}: {why}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(on: &[&str], command: &str) -> AuditIntent {
        AuditIntent {
            action: AuditAction::DlqDiscard,
            on: on.iter().map(|&name| name.to_owned()).collect(),
            what: "3 dead letters".to_owned(),
            reason: Some("old".to_owned()),
            command: Some(command.to_owned()),
        }
    }

    fn actor(by: &str) -> AuditActor<'_> {
        AuditActor {
            by,
            user: None,
            from: AuditFrom::Cli,
        }
    }

    #[test]
    fn who_has_acted_is_told_as_claimed_unless_the_server_says_it() {
        let who = |by: &str, user: Option<&str>| {
            let user = user.map(str::to_owned);
            intent(&[], "").record(AuditActor { user, ..actor(by) }).who()
        };
        assert_eq!(who("anna", None), "anna, as claimed");
        assert_eq!(who("anna", Some("anna")), "anna");
        assert_eq!(who("anna (me@laptop)", Some("anna")), "anna (me@laptop)");
        assert_eq!(who("anna (me@laptop)", Some("bob")), "anna (me@laptop), user bob");
        assert_eq!(who("annabel", Some("anna")), "annabel, user anna");
    }

    #[test]
    fn no_name_of_others_becomes_a_part_of_a_subject() {
        for (on, token) in [
            (&["inventory"][..], "inventory"),
            (&["a", "b"], "-"),
            (&[], "-"),
            (&["a.b"], "-"),
            (&["*"], "-"),
            (&[">"], "-"),
            (&["a b"], "-"),
            (&[""], "-"),
        ] {
            let record = intent(on, "").record(actor("anna"));
            assert_eq!(
                subject(&record),
                format!("$MESH.audit.dlq-discard.{token}.{}", record.id)
            );
        }
    }

    #[test]
    fn a_record_holds_no_secret_and_fits_a_message_whatever_is_typed() {
        let seed = format!("SU{}", "A".repeat(56));
        let record = intent(&[], &format!("jetmesh dlq discard --reason {seed}")).record(actor("anna"));
        let text = serde_json::to_string(&record).unwrap();
        assert!(!text.contains(&seed), "{text}");
        let worst = "\u{1}".repeat(100_000);
        let names: Vec<String> = vec![worst.clone(); 50];
        let mut intent = intent(&[], &worst);
        (intent.what, intent.reason, intent.on) = (worst.clone(), Some(worst.clone()), names);
        let begun = StoredBegin {
            format: FORMAT,
            record: intent.record(actor(&worst)),
        };
        assert!(serde_json::to_vec(&begun).unwrap().len() < 60 * 1024);
        assert!(serde_json::to_vec(&AuditEnd::failed(&worst)).unwrap().len() < 60 * 1024);
    }

    #[test]
    fn an_end_counts_what_was_done_and_says_what_was_not() {
        let end = AuditEnd::done(&[("discarded", 3), ("changed", 0)]);
        assert!(end.ok && end.counts == BTreeMap::from([("discarded".to_owned(), 3)]));
        let end = end.but(None).but(Some("the disk is full"));
        assert_eq!(
            (end.ok, end.counts.len(), end.error.as_deref()),
            (false, 1, Some("the disk is full"))
        );
    }
}
