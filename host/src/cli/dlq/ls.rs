//! `jetmesh dlq ls`: which dead letters there are, or which faults.

use schemars::JsonSchema;
use serde::Serialize;

use super::selection::Conditions;
use crate::broker::Connection;
use crate::cli::table::{self, Narrow};
use crate::cli::text::{self, in_time, json_line};
use crate::cli::{Error, OK};
use crate::dlq::group::LetterGroup;
use crate::dlq::select::Newest;
use crate::dlq::{Filter, Groups};
use crate::event::clock::now_ms;
use crate::event::outcome::Cause;
use crate::event::rfc3339;
use crate::mesh_streams::dead_letter::{self, Letter};
use crate::plan::Plan;
use crate::redrive::rule::{RedriveTurn, of_letter};

#[derive(Debug, clap::Args)]
pub struct Ls {
    /// List groups of dead letters with the same handler, cause, code and module, whose errors differ only in names and
    /// numbers; with the ID of a group, list its dead letters
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    pub group: Option<String>,
    /// List only the newest NUMBER dead letters, or the largest NUMBER groups; 0: all [default: 100 dead letters, with --json
    /// all]
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<usize>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub conditions: Conditions,
}

/// How many letters a table shows if nothing is said.
const TABLE_LIMIT: usize = 100;

/// Without attempts, subject and cause it fits 80 columns.
const NARROW_LETTERS: Narrow<'_> = Narrow {
    leave_out: &[4, 5, 2],
    cut: &[3],
};
/// Without module, cause, first and handler it fits 80 columns.
const NARROW_GROUPS: Narrow<'_> = Narrow {
    leave_out: &[8, 6, 3, 5],
    cut: &[7, 5],
};

pub async fn run(connection: &Connection, plan: &Plan, ls: &Ls) -> Result<u8, Error> {
    let group = ls.group.as_deref().filter(|id| !id.is_empty());
    let filter = ls.conditions.filter(group);
    match &ls.group {
        Some(id) if id.is_empty() => groups(connection, &filter, ls).await,
        _ => letters(connection, plan, &filter, ls).await,
    }
}

async fn letters(connection: &Connection, plan: &Plan, filter: &Filter, ls: &Ls) -> Result<u8, Error> {
    let limit = ls.limit.unwrap_or(if ls.json { 0 } else { TABLE_LIMIT });
    if ls.json && limit == 0 {
        super::each(connection, filter, false, |letter| {
            println!("{}", json_line(&LetterJson::from(&letter)))
        })
        .await?;
        return Ok(OK);
    }
    let newest = match limit {
        0 => {
            let mut all = Newest::default();
            super::each(connection, filter, false, |letter| all.letters.push_back(letter)).await?;
            all.meant = all.letters.len() as u64;
            all
        }
        limit => super::newest(connection, filter, limit).await?,
    };
    if ls.json {
        let letters = newest.letters.iter().map(LetterJson::from);
        letters.for_each(|letter| println!("{}", json_line(&letter)));
    } else if newest.letters.is_empty() {
        none(filter);
    } else {
        let rows: Vec<Vec<String>> = newest.letters.iter().map(row).collect();
        let header = ["ID", "DEAD SINCE", "CAUSE", "CODE", "ATTEMPTS", "SUBJECT", "ERROR"];
        table::print_narrow(&header, &rows, &NARROW_LETTERS);
        if let Some(rest) = rest(&newest, filter) {
            println!("\n{rest}");
        }
        left_to_person(plan, &newest);
    }
    Ok(OK)
}

/// Those that the mesh has replayed by itself as often as it may.
fn left_to_person(plan: &Plan, newest: &Newest) {
    let now = now_ms();
    let left = |letter: &&Letter| matches!(of_letter(plan, letter, now), Some((_, RedriveTurn::Left)));
    match newest.letters.iter().filter(left).count() {
        0 => {}
        left => println!("\n{left} of these were redriven as often as `max_times` allows: they wait for a person"),
    }
}

/// What a table of the newest letters leaves out.
fn rest(newest: &Newest, filter: &Filter) -> Option<String> {
    let Newest { looked_at, meant, .. } = newest;
    let shown = newest.letters.len();
    let more = "all of them with --limit 0, by fault with --group";
    let only_handler = Filter {
        handler: filter.handler.clone(),
        ..Filter::default()
    };
    match newest.in_stream {
        None if shown as u64 == *meant => None,
        None => Some(format!("the newest {shown} of {meant}; {more}")),
        Some(all) if *filter == only_handler => Some(format!(
            "the newest {shown} of {all}, including those that were resolved in the last three days; {more}"
        )),
        Some(all) => Some(format!(
            "the newest {shown} of this kind: of {all} in the stream {looked_at} were looked at, back to {}; {more}",
            rfc3339(newest.back_to_ms)
        )),
    }
}

fn none(filter: &Filter) {
    println!(
        "no dead letters{}",
        if filter.is_empty() { "" } else { " of this kind" }
    );
}

fn row(letter: &Letter) -> Vec<String> {
    let of = |name: &str| letter.header(name).to_owned();
    vec![
        letter.id().to_owned(),
        rfc3339(letter.dead_since_ms()),
        of(dead_letter::CAUSE),
        of(dead_letter::CODE),
        of(dead_letter::ATTEMPTS),
        of(dead_letter::SUBJECT),
        of(dead_letter::ERROR),
    ]
}

async fn groups(connection: &Connection, filter: &Filter, ls: &Ls) -> Result<u8, Error> {
    let mut groups = Groups::default();
    super::each(connection, filter, false, |letter| groups.add(&letter)).await?;
    let uncounted = groups.uncounted;
    let groups = groups.sorted();
    let limit = ls.limit.filter(|limit| *limit > 0).unwrap_or(groups.len());
    let shown = &groups[..limit.min(groups.len())];
    if ls.json {
        let groups = shown.iter().map(GroupJson::from);
        groups.for_each(|group| println!("{}", json_line(&group)));
    } else if groups.is_empty() {
        none(filter);
    } else {
        let now = now_ms();
        let row = |group: &LetterGroup| {
            vec![
                group.key.id(),
                group.count.to_string(),
                group.failed_again.to_string(),
                in_time(group.first_ms, now),
                in_time(group.last_ms, now),
                group.key.handler.clone(),
                group.key.cause.clone(),
                group.key.code.clone(),
                group.key.module.clone(),
                group.error.clone(),
            ]
        };
        let rows: Vec<Vec<String>> = shown.iter().map(row).collect();
        let header = [
            "GROUP",
            "COUNT",
            "FAILED AGAIN",
            "FIRST",
            "LAST",
            "HANDLER",
            "CAUSE",
            "CODE",
            "MODULE",
            "NEWEST ERROR",
        ];
        table::print_narrow(&header, &rows, &NARROW_GROUPS);
        let all: u64 = groups.iter().map(|g| g.count).sum();
        let mut all = text::letters(all);
        if shown.len() < groups.len() {
            all += &format!(" in {} groups", groups.len());
        }
        println!("\n{all}; those of one group with `jetmesh dlq ls --group ID`");
    }
    if uncounted > 0 {
        note!("{uncounted} more are of groups beyond the first {}", groups.len());
    }
    Ok(OK)
}

/// A dead letter.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "A dead letter, a line of `jetmesh dlq ls --json`", description = "")]
pub struct LetterJson<'a> {
    /// What people call the letter by: HANDLER.INCARNATION.SEQUENCE.
    id: &'a str,
    /// Where the letter lies.
    subject: &'a str,
    /// Of the letter in the stream MESH_DEAD.
    sequence: u64,
    /// When the event died.
    #[schemars(extend("format" = "date-time"))]
    dead_since: String,
    /// The handler that failed on it.
    handler: &'a str,
    /// Why the event is dead.
    #[schemars(with = "Cause")]
    cause: &'a str,
    /// Of the last failure.
    code: &'a str,
    /// Of the last failure.
    error: &'a str,
    /// How often it was tried; 0 if that is not known.
    attempts: u32,
    /// How many of its failed replays the mesh has begun by itself.
    redriven: u32,
    /// Digest of the module of the last attempt; empty if there was none.
    module: &'a str,
    /// The event: INCARNATION.SEQUENCE; of an undeliverable one its own id.
    event: &'a str,
    /// The event's subject; empty if it was lost.
    event_subject: &'a str,
    /// When the first attempt began; empty if it is not known.
    first_attempt: &'a str,
    /// When the last attempt began; empty if it is not known.
    last_attempt: &'a str,
}

impl<'a> From<&'a Letter> for LetterJson<'a> {
    fn from(letter: &'a Letter) -> LetterJson<'a> {
        let of = |name: &str| letter.header(name);
        LetterJson {
            id: letter.id(),
            subject: &letter.subject,
            sequence: letter.sequence,
            dead_since: rfc3339(letter.dead_since_ms()),
            handler: of(dead_letter::HANDLER),
            cause: of(dead_letter::CAUSE),
            code: of(dead_letter::CODE),
            error: of(dead_letter::ERROR),
            attempts: of(dead_letter::ATTEMPTS).parse().unwrap_or(0),
            redriven: letter.redriven(),
            module: of(dead_letter::MODULE),
            event: of(dead_letter::EVENT),
            event_subject: of(dead_letter::SUBJECT),
            first_attempt: of(dead_letter::FIRST_ATTEMPT),
            last_attempt: of(dead_letter::LAST_ATTEMPT),
        }
    }
}

/// A group of dead letters.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(
    title = "A group of dead letters, a line of `jetmesh dlq ls --group --json`",
    description = ""
)]
pub struct GroupJson<'a> {
    /// The group's id.
    #[schemars(regex(pattern = "^[0-9a-f]{8}$"))]
    group: String,
    /// How many letters it has.
    #[schemars(range(min = 1))]
    count: u64,
    /// Of these: were replayed, and have failed again.
    failed_again: u64,
    /// When the first of them died.
    #[schemars(extend("format" = "date-time"))]
    first: String,
    /// When the last of them died.
    #[schemars(extend("format" = "date-time"))]
    last: String,
    handler: &'a str,
    /// Why the event is dead.
    #[schemars(with = "Cause")]
    cause: &'a str,
    code: &'a str,
    /// The error without what differs from event to event.
    message: &'a str,
    /// The module's digest.
    module: &'a str,
    /// The id of the newest letter.
    sample: &'a str,
    /// The newest letter's error, word for word.
    error: &'a str,
}

impl<'a> From<&'a LetterGroup> for GroupJson<'a> {
    fn from(group: &'a LetterGroup) -> GroupJson<'a> {
        GroupJson {
            group: group.key.id(),
            count: group.count,
            failed_again: group.failed_again,
            first: rfc3339(group.first_ms),
            last: rfc3339(group.last_ms),
            handler: &group.key.handler,
            cause: &group.key.cause,
            code: &group.key.code,
            message: &group.key.message,
            module: &group.key.module,
            sample: &group.sample,
            error: &group.error,
        }
    }
}
