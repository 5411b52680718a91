//! `jetmesh dlq ls`: which dead letters there are, or which faults.

use super::note;
use super::selection::Conditions;
use crate::broker::Connection;
use crate::cli::table::{self, Narrow};
use crate::cli::text::{self, in_time, json_line};
use crate::cli::{Error, OK};
use crate::dlq::group::LetterGroup;
use crate::dlq::select::{LookedBack, Newest};
use crate::dlq::{Filter, Groups};
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::mesh_streams::dead_letter::{self, Letter};
use crate::plan::Plan;
use crate::redrive::rule::{RedriveTurn, of_letter};
use crate::report::letters::{GroupJson, LetterJson};

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
        super::each(connection, filter, |letter| {
            println!("{}", json_line(&LetterJson::from(&letter)))
        })
        .await?;
        return Ok(OK);
    }
    let newest = match limit {
        0 => {
            let mut all = Newest::default();
            super::each(connection, filter, |letter| all.letters.push_back(letter)).await?;
            all.looked.meant = all.letters.len() as u64;
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
    let LookedBack {
        at: looked_at,
        meant,
        back_to_ms,
        ..
    } = &newest.looked;
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
            rfc3339(*back_to_ms)
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
    super::each(connection, filter, |letter| groups.add(&letter)).await?;
    let uncounted = groups.uncounted;
    let groups = groups.sorted();
    let limit = ls.limit.filter(|limit| *limit > 0).unwrap_or(groups.len());
    let shown = &groups[..limit.min(groups.len())];
    let notes = note::all(connection).await;
    if ls.json {
        let groups = shown.iter().map(|group| GroupJson::of(group, &notes));
        groups.for_each(|group| println!("{}", json_line(&group)));
    } else if groups.is_empty() {
        none(filter);
    } else {
        let now = now_ms();
        let row = |group: &&LetterGroup| {
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
        let noted = shown.iter().filter_map(|group| notes.get_key_value(&group.key.id()));
        let noted: Vec<String> = noted.map(|(group, note)| format!("{group}: {}", note.told())).collect();
        if !noted.is_empty() {
            println!("\nNOTES\n{}", noted.join("\n"));
        }
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
