//! `[redrive]` and `[handlers.NAME.redrive]`: dead letters that are replayed by themselves.

use std::time::Duration;

use super::reader::{Reader, Section};
use super::values::{format_duration, rate};
use crate::event::outcome::Cause;
use crate::plan::Redrive;

/// Causes of dead letters whose events can be run again by their handler.
const CAUSES: [Cause; 4] = [Cause::Exhausted, Cause::Rejected, Cause::MaxDeliver, Cause::Terminated];

/// What `[redrive]` says of all handlers.
#[derive(Debug, Clone)]
pub struct RedriveKeys {
    enabled: bool,
    redrive: Redrive,
}

fn built_in() -> RedriveKeys {
    RedriveKeys {
        enabled: false,
        redrive: Redrive {
            causes: vec![Cause::Exhausted.name().to_owned()],
            codes: Vec::new(),
            every: Duration::from_secs(60),
            after: Duration::from_secs(60),
            backoff: Duration::from_secs(300),
            backoff_max: Duration::from_secs(6 * 3600),
            times_max: 5,
            per_second: None,
        },
    }
}

/// Of all handlers.
pub fn read(root: &mut Section, reader: &mut Reader) -> RedriveKeys {
    one(root, &built_in(), reader)
}

/// Of one handler. `None`: its dead letters wait for a person.
pub fn of_handler(section: &mut Section, below: &RedriveKeys, reader: &mut Reader) -> Option<Redrive> {
    let keys = one(section, below, reader);
    keys.enabled.then_some(keys.redrive)
}

/// A table switches it on, unless it says otherwise.
fn one(outer: &mut Section, below: &RedriveKeys, reader: &mut Reader) -> RedriveKeys {
    let said = outer.has("redrive");
    let mut section = outer.section(reader, "redrive");
    let under = &below.redrive;
    let enabled = section.boolean(reader, "enabled", said || below.enabled);
    let redrive = Redrive {
        causes: causes(&mut section, &under.causes, reader),
        codes: or_below(section.has("codes"), section.list(reader, "codes"), &under.codes),
        every: section.duration(reader, "every", Duration::from_secs(1), under.every),
        after: section.duration(reader, "after", Duration::ZERO, under.after),
        backoff: section.duration(reader, "backoff", Duration::from_secs(1), under.backoff),
        backoff_max: section.duration(reader, "backoff_max", Duration::from_secs(1), under.backoff_max),
        times_max: u32::try_from(section.number(reader, "max_times", 1..=1000, under.times_max.into()))
            .unwrap_or(u32::MAX),
        per_second: per_second(&mut section, under.per_second, reader),
    };
    if redrive.every.subsec_nanos() != 0 {
        let what = format!("{} is no whole number of seconds", format_duration(redrive.every));
        reader.problem(section.key("every"), what, "for instance \"30s\"");
    }
    let delays = |redrive: &Redrive| (redrive.backoff_max, redrive.backoff);
    if redrive.backoff_max < redrive.backoff && delays(&redrive) != delays(under) {
        let (most, first) = (format_duration(redrive.backoff_max), format_duration(redrive.backoff));
        let what = format!("{most} is below backoff, {first}");
        reader.problem(section.key("backoff_max"), what, "");
    }
    section.finish(reader);
    RedriveKeys { enabled, redrive }
}

fn or_below(said: bool, list: Vec<String>, below: &[String]) -> Vec<String> {
    match said {
        true => list,
        false => below.to_vec(),
    }
}

fn causes(section: &mut Section, below: &[String], reader: &mut Reader) -> Vec<String> {
    let said = section.has("causes");
    let causes = or_below(said, section.list(reader, "causes"), below);
    let known = CAUSES.map(Cause::name);
    for cause in causes.iter().filter(|cause| !known.contains(&cause.as_str())) {
        let what = match Cause::parse(cause) {
            Some(Cause::Lost) => "\"lost\": the payloads of these dead letters are gone".to_owned(),
            Some(_) => format!("\"{cause}\": an event that no stream takes is published again by a person only"),
            None => format!("\"{}\" is no cause", cause.escape_debug()),
        };
        reader.problem(section.key("causes"), what, format!("known here: {}", known.join(", ")));
    }
    if causes.is_empty() {
        reader.problem(
            section.key("causes"),
            "no dead letter has none of the causes",
            "leave it out for [\"exhausted\"]",
        );
    }
    causes
}

fn per_second(section: &mut Section, below: Option<f64>, reader: &mut Reader) -> Option<f64> {
    let Some(text) = section.text(reader, "rate") else {
        return below;
    };
    let rate = rate(&text);
    if let Err(why) = &rate {
        let what = format!("\"{}\": {why}", text.escape_debug());
        reader.problem(section.key("rate"), what, "leave it out for no limit");
    }
    rate.ok()
}
