//! `jetmesh dlq show`: everything that is known of one dead letter, for a person who was woken up by it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::note;
use crate::broker::Connection;
use crate::broker::provision::DEAD;
use crate::cli::pretty;
use crate::cli::table::{self, terminal_columns};
use crate::cli::text::json_page;
use crate::cli::{Error, OK};
use crate::dlq::group;
use crate::event::clock::now_ms;
use crate::event::outcome::Cause;
use crate::event::rfc3339;
use crate::mesh_streams::attempts::history;
use crate::mesh_streams::attempts::{Attempt, RUNNING};
use crate::mesh_streams::dead_letter::{self, Letter};
use crate::mesh_streams::notes::GroupNote;
use crate::mesh_streams::replay_queue::is_redrive;
use crate::outbox;
use crate::report::letters::ShowJson;
use crate::text::display::shown;

/// A payload's lines beyond this are left to `--json`.
const LINES_MAX: usize = 200;
/// And so are its lines beyond this.
const COLUMNS_MAX: usize = 2000;
/// How much of a payload that is no text is shown.
const HEX_BYTES_MAX: usize = 256;

#[derive(Debug, clap::Args)]
pub struct Show {
    /// ID that `dlq ls` prints: HANDLER.INCARNATION.SEQUENCE
    pub id: String,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

pub async fn run(connection: &Connection, letter: &Letter, as_json: bool) -> Result<u8, Error> {
    let note = note::all(connection).await.remove(&group::FaultKey::of(letter).id());
    if as_json {
        println!("{}", json_page(&ShowJson::of(letter, note)));
    } else {
        let kept = dead_letter::versions(connection, letter).await?;
        print!("{}", page(letter, note.as_ref(), &kept, now_ms(), terminal_columns()));
    }
    Ok(OK)
}

/// `kept`: where versions of its payload lie.
fn page(
    letter: &Letter,
    note: Option<&GroupNote>,
    kept: &BTreeSet<String>,
    now_ms: u64,
    columns: Option<usize>,
) -> String {
    let mut page = format!("{}\n\n", letter.id());
    let mut facts = facts(letter, now_ms);
    facts.extend(note.map(|note| ("note", note.told())));
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, fact) in facts {
        let _ = writeln!(page, "  {name:width$}  {fact}");
    }
    let history = history::of(&letter.headers);
    if let Some(first) = history.iter().find(|attempt| !attempt.replay) {
        page.push_str("\nATTEMPTS\n");
        if first.attempt > 1 {
            let _ = writeln!(page, "  those before attempt {} are not kept", first.attempt);
        }
        let header = ["#", "BEGAN", "HOST", "MODULE", "OUTCOME", "CODE", "ERROR"];
        let died = rfc3339(letter.dead_since_ms());
        let mut replays = BTreeMap::new();
        let mut numbered = |attempt: &Attempt| match kind(attempt) {
            "" => attempt.attempt.to_string(),
            kind => {
                let number = replays.entry(kind).or_insert(0);
                *number += 1;
                format!("{kind} {number}")
            }
        };
        let rows: Vec<Vec<String>> = history
            .iter()
            .map(|attempt| row(attempt, numbered(attempt), &died))
            .collect();
        indent(
            &mut page,
            &table::render(&header, &rows, columns.map(|c| c.saturating_sub(2))),
        );
    }
    if let Some(last) = history.last() {
        section(&mut page, "LOG OF THE LAST ATTEMPT", &last.log);
        section(
            &mut page,
            "FUNCTIONS OF THE LAST ATTEMPT, innermost first",
            &last.backtrace,
        );
    }
    section(&mut page, "EDITS of the payload", &edits(letter, kept));
    section(&mut page, "HEADERS", &headers(letter));
    match letter.payload.is_empty() {
        true if letter.header(dead_letter::CAUSE) == Cause::Lost.name() => {}
        true => page.push_str("\nPAYLOAD, empty\n"),
        false => payload(&mut page, &letter.payload),
    }
    section(&mut page, "WHAT NEXT", &next(letter));
    page
}

fn section(page: &mut String, title: &str, lines: &[String]) {
    if !lines.is_empty() {
        let _ = writeln!(page, "\n{title}");
        lines.iter().for_each(|line| indent(page, &shown(line)));
    }
}

fn indent(page: &mut String, text: &str) {
    for line in text.lines() {
        let _ = writeln!(page, "{}", format!("  {line}").trim_end());
    }
}

/// What died, when, why and where.
fn facts(letter: &Letter, now_ms: u64) -> Vec<(&'static str, String)> {
    let of = |name: &str| letter.header(name);
    let cause = of(dead_letter::CAUSE);
    let why = Cause::parse(cause).map_or("", |cause| match cause {
        Cause::Exhausted => ": all of its attempts failed",
        Cause::Rejected => ": the handler rejected the event, or the host found that no attempt can succeed",
        Cause::MaxDeliver => ": the server gave up delivering it",
        Cause::Terminated => ": a person or a program terminated it",
        Cause::Lost => ": its stream had removed it before it was decided",
        Cause::GaveUp => ": a person gave it up between two attempts",
        Cause::Undeliverable => ": its target stream does not accept it, or there is none",
    });
    let mut facts = vec![
        (
            "dead since",
            format!(
                "{}, {} ago",
                rfc3339(letter.dead_since_ms()),
                age(now_ms.saturating_sub(letter.dead_since_ms()))
            ),
        ),
        ("cause", format!("{cause}{why}")),
        ("code", of(dead_letter::CODE).to_owned()),
        ("error", of(dead_letter::ERROR).to_owned()),
        (
            "handler",
            with(of(dead_letter::HANDLER), ", module ", of(dead_letter::MODULE)),
        ),
        ("event", event(letter)),
        ("row", row_of_outbox(letter)),
        ("attempts", attempts(letter)),
    ];
    if letter.redriven() > 0 {
        facts.push(("redriven", format!("{} time(s) by the mesh itself", letter.redriven())));
    }
    if !of(dead_letter::DEATH).is_empty() {
        let (entry, ledger) = (of(dead_letter::DEATH), of(dead_letter::LEDGER));
        facts.push(("decided", format!("by entry {entry} of ledger {ledger}")));
    }
    facts.push((
        "letter",
        format!("{}, message {} of stream {DEAD}", letter.subject, letter.sequence),
    ));
    facts.push(("same fault", format!("group {}", group::FaultKey::of(letter).id())));
    facts.retain(|(_, fact)| !fact.is_empty());
    facts
}

fn with(text: &str, before: &str, more: &str) -> String {
    if more.is_empty() {
        text.to_owned()
    } else {
        format!("{text}{before}{more}")
    }
}

/// The row of an outbox that it was.
fn row_of_outbox(letter: &Letter) -> String {
    match (letter.header(outbox::ROW), letter.header(outbox::UID)) {
        ("", _) => String::new(),
        (place, _) if place.contains('/') => format!("the message at {place} of the log"),
        (id, uid) => with(&format!("id {id}"), ", uid ", uid),
    }
}

fn event(letter: &Letter) -> String {
    let of = |name: &str| letter.header(name);
    let (subject, stream, time) = (of(dead_letter::SUBJECT), of(dead_letter::STREAM), of(dead_letter::TIME));
    match of(dead_letter::SEQUENCE) {
        "" => with(of(dead_letter::EVENT), " for ", subject),
        sequence if subject.is_empty() => format!("message {sequence} of stream {stream}, which is gone"),
        sequence => with(
            &format!("{subject}, message {sequence} of stream {stream}"),
            ", from ",
            time,
        ),
    }
}

fn attempts(letter: &Letter) -> String {
    let of = |name: &str| letter.header(name);
    let (first, last) = (of(dead_letter::FIRST_ATTEMPT), of(dead_letter::LAST_ATTEMPT));
    match of(dead_letter::ATTEMPTS) {
        "" => String::new(),
        "0" => "none that is known".to_owned(),
        "1" => with("1", ", at ", last),
        number => with(&with(number, ", from ", first), " to ", last),
    }
}

/// The two largest units of a time.
fn age(ms: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(ms / 1000)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// What made it, if it was not the event's own delivery.
fn kind(attempt: &Attempt) -> &'static str {
    match &attempt.asked_by {
        Some(run) if is_redrive(run) => "redrive",
        _ if attempt.replay => "replay",
        _ => "",
    }
}

/// The day of an attempt is told only if it is not that of the death.
fn row(attempt: &Attempt, number: String, died: &str) -> Vec<String> {
    let day = |time: &str| time.split('T').next().map(str::to_owned);
    let began = match attempt.at.split_once('T') {
        Some((_, time)) if day(&attempt.at) == day(died) => time,
        _ => &attempt.at,
    };
    let outcome = match attempt.outcome.as_str() {
        RUNNING => "host ended",
        outcome => outcome,
    };
    vec![
        number,
        began.to_owned(),
        attempt.host.clone(),
        attempt.module.clone(),
        outcome.to_owned(),
        attempt.code.clone(),
        attempt.message.clone(),
    ]
}

/// Each with the subject on which its version of the payload is kept, unless a person has removed it.
fn edits(letter: &Letter, kept: &BTreeSet<String>) -> Vec<String> {
    let edits = dead_letter::edits(&letter.headers);
    let version = |number| {
        let subject = dead_letter::version(&letter.subject, number);
        kept.get(&subject)
            .map_or("its payload is not kept any more", String::as_str)
    };
    let mut lines: Vec<String> = edits
        .iter()
        .map(|edit| {
            let sizes = format!("{} bytes before, {} bytes after", edit.bytes_before, edit.bytes);
            format!("{}; {sizes}; {}", edit.told(), version(edit.number))
        })
        .collect();
    if !lines.is_empty() {
        lines.push(format!("before the first edit; {}", version(0)));
    }
    lines
}

fn headers(letter: &Letter) -> Vec<String> {
    let list = dead_letter::originals(&letter.headers);
    let mut lines: Vec<String> = list.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    if let Ok(raw) = BASE64.decode(letter.header(dead_letter::RAW_HEADERS)) {
        lines.extend(String::from_utf8_lossy(&raw).lines().map(str::to_owned));
    }
    if !letter.header(dead_letter::CUT).is_empty() {
        lines.push(format!(
            "(not all: they took {} bytes)",
            letter.header(dead_letter::CUT)
        ));
    }
    lines.retain(|line| !line.is_empty());
    lines
}

fn payload_title(bytes: &[u8], text: Option<&str>, json: Option<&String>) -> String {
    let kind = match (json, text) {
        (Some(_), _) => "JSON",
        (None, Some(_)) => "text",
        (None, None) => "not text",
    };
    format!("PAYLOAD, {} bytes, {kind}", bytes.len())
}

fn payload(page: &mut String, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).ok();
    let json = text.and_then(pretty::json);
    let title = payload_title(bytes, text, json.as_ref());
    let mut lines: Vec<String> = match json.as_deref().or(text) {
        Some(text) => text.lines().map(str::to_owned).collect(),
        None => hex(bytes),
    };
    if lines.len() > LINES_MAX {
        let more = lines.len() - LINES_MAX;
        lines.truncate(LINES_MAX);
        lines.push(format!("… and {more} lines more, with --json"));
    }
    let long = lines.iter().any(|line| line.len() > COLUMNS_MAX);
    if long {
        lines = lines.iter().map(|line| table::cut(line, COLUMNS_MAX)).collect();
        lines.push(format!(
            "(lines are cut after {COLUMNS_MAX} columns; they are whole with --json)"
        ));
    }
    section(page, &title, &lines);
}

/// As `hexdump -C` shows them.
fn hex(bytes: &[u8]) -> Vec<String> {
    let line = |(at, chunk): (usize, &[u8])| {
        let hex: Vec<String> = chunk.iter().map(|b| format!("{b:02x}")).collect();
        let shown = chunk.iter().map(|b| match b {
            0x20..0x7f => char::from(*b),
            _ => '.',
        });
        format!("{:08x}  {:47}  |{}|", at * 16, hex.join(" "), shown.collect::<String>())
    };
    let shown = &bytes[..bytes.len().min(HEX_BYTES_MAX)];
    let mut lines: Vec<String> = shown.chunks(16).enumerate().map(line).collect();
    if bytes.len() > shown.len() {
        lines.push(format!("… and {} bytes more, with --json", bytes.len() - shown.len()));
    }
    lines
}

/// The commands that follow, ready to be copied, each below what it is for.
fn next(letter: &Letter) -> Vec<String> {
    let (id, handler) = (letter.id(), letter.header(dead_letter::HANDLER));
    let group = group::FaultKey::of(letter).id();
    let mut lines = vec![
        "# see all that died of the same fault".to_owned(),
        format!("jetmesh dlq ls --group {group}"),
    ];
    match Cause::parse(letter.header(dead_letter::CAUSE)) {
        Some(Cause::Lost) => lines.push("# its payload is gone, so there is nothing to replay".to_owned()),
        Some(Cause::Undeliverable) => lines.extend([
            "# correct its payload".to_owned(),
            format!("jetmesh dlq edit {id}"),
            format!("# publish it on {}", letter.header(dead_letter::SUBJECT)),
            format!("jetmesh dlq replay {id}"),
        ]),
        Some(Cause::Exhausted | Cause::Rejected | Cause::MaxDeliver | Cause::Terminated | Cause::GaveUp) | None => {
            lines.extend([
                "# correct its payload".to_owned(),
                format!("jetmesh dlq edit {id}"),
                "# see what a fixed module would do with it; changes nothing".to_owned(),
                format!("jetmesh dlq rehearse {id} --module FIXED.wasm"),
                format!("# give it back to handler {handler}, and to no other"),
                format!("jetmesh dlq replay {id}"),
            ])
        }
    }
    lines.extend([
        "# or resolve it without running it".to_owned(),
        format!("jetmesh dlq discard {id} --reason WHY"),
    ]);
    lines
}
