//! Dead letters: by fault, as a list, and one whole.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::Console;
use super::conditions::LetterConditions;
use super::query::Query;
use super::runs::{Lines, line};
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::broker::provision::DEAD;
use crate::broker::{Connection, Error};
use crate::dlq::Filter;
use crate::dlq::group::{FaultKey, HOURS};
use crate::dlq::select::{self, LookedBack, Newest};
use crate::dlq::survey::{Survey, SurveyLimits};
use crate::event::rfc3339;
use crate::http::Answer;
use crate::mesh_streams::notes::{self, GroupNote};
use crate::report::letters::{GroupJson, LetterJson, ShowJson};

/// What one look at the groups reads at most, and for how long.
const LOOK_LIMITS: SurveyLimits = SurveyLimits {
    letters: 1_000_000,
    time: Duration::from_secs(60),
};
/// How often it is told how far a look is.
const TOLD_EVERY: Duration = Duration::from_millis(700);
/// How long one answer with letters looks for them.
const LETTERS_MAX: Duration = Duration::from_millis(700);
/// Groups that are told: the largest.
const GROUPS_MAX: usize = 500;
/// Letters in one answer.
const PAGE: usize = 100;
/// Bytes of a payload that are told. The commands tell all.
const PAYLOAD_MAX: usize = 256 * 1024;

/// How far it was looked.
#[derive(Debug, Serialize)]
struct LettersLooked {
    looked_at: u64,
    /// How many of those the conditions mean.
    meant: u64,
    /// Back to when; null: to the beginning.
    back_to: Option<String>,
    /// Letters that the stream holds, with resolved ones; null: all were looked at.
    in_stream: Option<u64>,
    /// What could not be read.
    unread: Option<String>,
}

impl LettersLooked {
    fn of(looked: &LookedBack, in_stream: Option<u64>) -> LettersLooked {
        LettersLooked {
            looked_at: looked.at,
            meant: looked.meant,
            back_to: in_stream.map(|_| rfc3339(looked.back_to_ms)),
            in_stream,
            unread: looked.unread.told(),
        }
    }
}

/// A group as the commands tell it, with its last hours.
#[derive(Debug, Serialize)]
struct GroupTold<'a> {
    #[serde(flatten)]
    group: GroupJson<'a>,
    hours: [u64; HOURS],
}

/// The groups, as a JSON text a line: soon those of the newest letters, then again and again those of all that were read till then.
pub async fn groups(console: &Console, session: &ViewerSession, query: &Query) -> Result<Answer, ConsoleError> {
    let filter = LetterConditions::of(query)?.filter()?;
    let connection = session.connection().await?;
    there(&connection).await?;
    Ok(console.runs.lines(async move |tell| {
        let counted = count(&connection, &filter, &tell).await;
        if let Err(error) = counted {
            let _ = tell
                .send(line(&json!({ "error": ConsoleError::from(error).told() })))
                .await;
        }
    }))
}

async fn count(connection: &Connection, filter: &Filter, tell: &Lines) -> Result<(), Error> {
    let mut survey = Survey::start(connection, filter, LOOK_LIMITS).await?;
    // Who may not read them sees the groups all the same.
    let loaded = notes::load(connection).await;
    let unread = loaded.as_ref().err().map(ToString::to_string);
    let notes = loaded.unwrap_or_default();
    let mut told: Option<Instant> = None;
    loop {
        let goes_on = survey.go_on().await?;
        if goes_on && told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            continue;
        }
        told = Some(Instant::now());
        let mut page = groups_told(&survey, &notes);
        page["notes_unread"] = json!(unread);
        page["over"] = json!(!goes_on);
        if tell.send(line(&page)).await.is_err() || !goes_on {
            return Ok(());
        }
    }
}

fn groups_told(survey: &Survey<'_>, notes: &BTreeMap<String, GroupNote>) -> Value {
    let all = survey.groups.sorted();
    let mut told = Vec::new();
    for group in all.iter().take(GROUPS_MAX) {
        let hours = group.hours;
        told.push(GroupTold {
            group: GroupJson::of(group, notes),
            hours,
        });
    }
    let in_stream = (!survey.is_whole()).then_some(survey.in_stream);
    let looked = LettersLooked::of(survey.looked(), in_stream);
    json!({ "groups": told, "groups_in_all": all.len(), "uncounted": survey.groups.uncounted, "looked": looked })
}

/// A part of the newest letters that are meant: as many as are found in a moment. `before` is from where the next answer goes on.
pub async fn letters(session: &ViewerSession, query: &Query) -> Result<Value, ConsoleError> {
    let filter = LetterConditions::of(query)?.filter()?;
    let before = query.number("before")?;
    let connection = session.connection().await?;
    there(&connection).await?;
    let newest = select::newest(&connection, &filter, PAGE, (before, Some(LETTERS_MAX))).await?;
    let Newest {
        letters,
        looked,
        in_stream,
    } = &newest;
    let left_out = looked.meant > letters.len() as u64;
    let next = match letters.front() {
        Some(oldest) if letters.len() == PAGE && (left_out || in_stream.is_some()) => Some(oldest.sequence),
        _ => in_stream.map(|_| looked.from),
    };
    let told: Vec<LetterJson<'_>> = letters.iter().rev().map(LetterJson::from).collect();
    Ok(json!({ "letters": told, "before": next, "looked": LettersLooked::of(looked, *in_stream) }))
}

pub async fn letter(session: &ViewerSession, id: &str) -> Result<Value, ConsoleError> {
    if !select::is_id(id) {
        return Err(ConsoleError::wrong(format!(
            "`{id}` is not HANDLER.INCARNATION.SEQUENCE"
        )));
    }
    let connection = session.connection().await?;
    let Some(mut letter) = select::find(&connection, id).await? else {
        return Err(match select::settled(&connection, id).await? {
            Some(reason) => ConsoleError::missing(format!("dead letter {id} is resolved: {reason}")),
            None => ConsoleError::missing(format!("there is no dead letter {id}")),
        });
    };
    let loaded = notes::of(&connection, &FaultKey::of(&letter).id()).await;
    let unread = loaded.as_ref().err().map(ToString::to_string);
    let note = loaded.unwrap_or_default();
    let bytes = letter.payload.len();
    if bytes > PAYLOAD_MAX {
        // Text is cut between two characters.
        let end =
            std::str::from_utf8(&letter.payload).map_or(PAYLOAD_MAX, |text| text.floor_char_boundary(PAYLOAD_MAX));
        letter.payload.truncate(end);
    }
    Ok(json!({
        "letter": ShowJson::of(&letter, note), "note_unread": unread, "payload_bytes": bytes, "payload_cut": bytes > PAYLOAD_MAX,
    }))
}

/// Without the stream there are no letters, and it is not said that there are none.
pub async fn there(connection: &Connection) -> Result<(), ConsoleError> {
    match connection.stream(DEAD).await? {
        Some(_) => Ok(()),
        None => Err(ConsoleError::missing(format!(
            "there is no stream {DEAD}: no host of this mesh has run here, or it was removed; a running host creates it again within \
             a minute"
        ))),
    }
}
