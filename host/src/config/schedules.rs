//! `[schedules]`: events that the mesh emits by itself at certain times.

use std::time::Duration;

use super::names::check_name;
use super::reader::{Reader, Section};
use super::values::format_duration;
use crate::calendar::{Calendar, Wrong};
use crate::event::clock::now_ms;
use crate::event::effects::check_subject;
use crate::event::{parse_rfc3339, rfc3339};
use crate::plan::{CatchUp, Dst, Overlap, Schedule, Timetable, When};

/// Most that a payload may be: it is stored with the schedule, and read with it.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
const HEADER_BYTES_MAX: usize = 4 * 1024;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// For how long a due time may have passed unheeded and still have an event, by default.
const CATCH_UP_WINDOW: Duration = Duration::from_secs(365 * 24 * 3600);

/// `None`: the configuration has no table of schedules.
pub fn read(root: &mut Section, reader: &mut Reader) -> Option<Vec<Schedule>> {
    let said = root.has("schedules");
    let sections = root.sections(reader, "schedules");
    let found = sections.into_iter().map(|(name, section)| one(name, section, reader));
    let found: Vec<Schedule> = found.collect();
    said.then_some(found)
}

fn one(name: String, mut section: Section, reader: &mut Reader) -> Schedule {
    check_name(reader, &format!("schedules.{name}"), &name);
    let timetable = timetable(&name, &mut section, reader);
    let jitter = section.duration(reader, "jitter", Duration::ZERO, Duration::ZERO);
    if let When::Every(seconds) = timetable.when
        && jitter >= Duration::from_secs(seconds)
    {
        let what = format!("{} is not below the period", format_duration(jitter));
        reader.problem(section.key("jitter"), what, "make it shorter than `every`");
    } else if jitter > DAY {
        reader.problem(
            section.key("jitter"),
            format!("{} is over a day", format_duration(jitter)),
            "",
        );
    }
    let subject = subject(&mut section, reader);
    let payload = section.text(reader, "payload").unwrap_or_default();
    if payload.len() > PAYLOAD_BYTES_MAX {
        let what = format!("{} bytes are over the limit of {PAYLOAD_BYTES_MAX}", payload.len());
        reader.problem(
            section.key("payload"),
            what,
            "store it elsewhere, and name the place in the payload",
        );
    }
    let headers = headers(&mut section, reader);
    let words = [("all", Overlap::All), ("skip", Overlap::Skip), ("one", Overlap::One)];
    let overlap = section.word(reader, "overlap", &words, Overlap::All);
    let words = [("last", CatchUp::Last), ("all", CatchUp::All), ("none", CatchUp::None)];
    let catch_up = section.word(reader, "catch_up", &words, CatchUp::Last);
    let window = section.duration(reader, "catch_up_window", Duration::from_secs(1), CATCH_UP_WINDOW);
    let max_runs = section.number_or(reader, "max_runs", 1..=1_000_000_000, None);
    section.finish(reader);
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Schedule {
        name,
        timetable,
        jitter_ms: ms(jitter),
        subject,
        payload,
        headers,
        overlap,
        catch_up,
        catch_up_window_ms: ms(window),
        max_runs,
    }
}

fn timetable(name: &str, section: &mut Section, reader: &mut Reader) -> Timetable {
    let cron = section.text(reader, "cron");
    let said = section.has("every");
    let every = section.duration_or(reader, "every", Duration::from_secs(1));
    let at = time(section, "at", reader);
    let zone = section.text(reader, "zone");
    let says_dst = section.has("dst");
    let dst = section.word(reader, "dst", &[("once", Dst::Once), ("clock", Dst::Clock)], Dst::Once);
    let start_ms = time(section, "start", reader).flatten();
    let end_ms = time(section, "end", reader).flatten();
    let key = format!("schedules.{name}");
    let given: Vec<&str> = [(cron.is_some(), "cron"), (said, "every"), (at.is_some(), "at")]
        .iter()
        .filter_map(|(given, name)| given.then_some(*name))
        .collect();
    if given.len() != 1 {
        let what = match given.is_empty() {
            true => "it is never due".to_owned(),
            false => format!("it has {}: one of them says when it is due", given.join(" and ")),
        };
        let hint = "one of cron = \"0 2 * * *\", every = \"30s\" and at = \"2030-01-01T00:00:00Z\"";
        reader.problem(&key, what, hint);
    }
    if cron.is_none() {
        for (given, of) in [(zone.is_some(), "zone"), (says_dst, "dst")] {
            if given {
                reader.problem(section.key(of), "it goes with cron only", "leave it out");
            }
        }
    }
    if let Some(period) = every.filter(|period| period.subsec_nanos() != 0) {
        let what = format!("{} is no whole number of seconds", format_duration(period));
        reader.problem(section.key("every"), what, "for instance \"30s\"");
    }
    let when = match (cron, every, at) {
        (Some(expression), _, _) => When::Cron {
            expression,
            zone: zone.unwrap_or_else(|| "UTC".to_owned()),
            dst,
        },
        (None, Some(period), _) => When::Every(period.as_secs()),
        (None, None, at) => When::At(at.flatten().unwrap_or(0)),
    };
    let timetable = Timetable { when, start_ms, end_ms };
    if given.len() == 1 && (given[0] != "at" || at.flatten().is_some()) {
        judge(&key, &timetable, reader);
    }
    timetable
}

/// Whether it is due at all.
fn judge(key: &str, timetable: &Timetable, reader: &mut Reader) {
    let calendar = match (Calendar::of(timetable), &timetable.when) {
        (Ok(calendar), _) => calendar,
        (Err(Wrong::Cron(why)), When::Cron { expression, .. }) => {
            let what = format!("\"{}\": {why}", expression.escape_debug());
            return reader.problem(
                format!("{key}.cron"),
                what,
                "for instance \"0 2 * * *\": every night at two",
            );
        }
        (Err(Wrong::Zone(why)), When::Cron { zone, .. }) => {
            let what = format!("\"{}\": {why}", zone.escape_debug());
            return reader.problem(format!("{key}.zone"), what, "for instance \"Asia/Shanghai\" or \"UTC\"");
        }
        (Err(Wrong::Cron(why) | Wrong::Zone(why)), _) => return reader.problem(key, why, ""),
    };
    let bounds = (timetable.start_ms, timetable.end_ms);
    if let (Some(start), Some(end)) = bounds
        && end < start
    {
        let what = format!("{} is before start, {}", rfc3339(end), rfc3339(start));
        return reader.problem(format!("{key}.end"), what, "");
    }
    if calendar.after(0).is_none() {
        return reader.problem(
            key,
            "it is never due between start and end",
            "widen them, or leave them out",
        );
    }
    if calendar.after(now_ms()).is_none() {
        let what = "it is not due any more: no event comes of it, unless it is armed and waits for a host";
        reader.warning(key, what);
    }
}

/// A time. `Some(None)`: it is there, and wrong.
fn time(section: &mut Section, name: &'static str, reader: &mut Reader) -> Option<Option<u64>> {
    let text = section.text(reader, name)?;
    let time = parse_rfc3339(&text);
    if time.is_none() {
        let what = format!("\"{}\" is not a time", text.escape_debug());
        reader.problem(
            section.key(name),
            what,
            "RFC 3339, for instance \"2030-01-01T00:00:00Z\"",
        );
    }
    Some(time)
}

fn subject(section: &mut Section, reader: &mut Reader) -> String {
    let (key, subject) = (
        section.key("subject"),
        section.text(reader, "subject").unwrap_or_default(),
    );
    if subject.is_empty() {
        reader.problem(
            key,
            "it is missing",
            "the subject of its events, e.g. \"orders.nightly\"",
        );
    } else if let Err(why) = check_subject(&subject) {
        reader.problem(key, why, "");
    } else if subject.starts_with('$') || subject.starts_with("_INBOX") {
        reader.problem(
            key,
            format!("`{subject}` is the server's or the mesh's"),
            "use a subject of yours",
        );
    }
    subject
}

fn headers(section: &mut Section, reader: &mut Reader) -> Vec<(String, String)> {
    let key = section.key("headers");
    let headers = section.texts(reader, "headers");
    for (name, value) in &headers {
        if let Err(why) = crate::event::check_header(name, value) {
            reader.problem(format!("{key}.{name}"), why, "");
        }
    }
    let bytes: usize = headers.iter().map(crate::event::bytes_of).sum();
    if bytes > HEADER_BYTES_MAX {
        reader.problem(
            key,
            format!("{bytes} bytes are over the limit of {HEADER_BYTES_MAX}"),
            "",
        );
    }
    headers
}
