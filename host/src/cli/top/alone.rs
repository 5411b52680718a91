//! One handler alone: its figures, what a person should know of it, and the commands that follow. A low screen does without the
//! rest; the commands are there on every one.

use unicode_width::UnicodeWidthStr as _;

use super::rates::HandlerRates;
use super::terminal::ScreenLine;
use super::view::{TopView, age_ms, bold, curve, first_of, micros, plain};
use crate::cli::status::{decided, known, of_handler, per_second, word};
use crate::cli::table::cut;
use crate::cli::text::span;
use crate::report::status::json::HandlerStatus;

/// From this width on, two figures have room on a line.
const TWO_FROM: usize = 72;

/// All of one handler, in so many columns and lines.
pub fn alone(seen: &TopView<'_>, one: &HandlerStatus, (columns, lines): (usize, usize)) -> Vec<ScreenLine> {
    let rates = seen.rates.handlers.get(&one.handler);
    let title = format!("{}: {}", one.handler, word(&one.state));
    let facts = facts(seen, one, rates);
    let chart = rates.map(|rates| format!("  {}  done in the last minute", curve(rates, columns.min(60))));
    let told = of_handler(seen.status, one);
    let told: Vec<String> = told.iter().flat_map(|line| wrapped(line, columns)).collect();
    let commands = commands(one);
    let title = vec![bold(title)];
    let whole = [
        [title.clone(), lines_of(facts.iter().map(fact))].concat(),
        lines_of(chart),
        lines_of(told.clone()),
        lines_of(commands.clone()),
    ];
    let whole = with_gaps(&whole);
    if whole.len() <= lines {
        return whole;
    }
    // No gaps, two figures on a line, no chart. What is still too much is what a person should know, and then figures.
    let mut figures: Vec<String> = match columns >= TWO_FROM {
        true => facts.chunks(2).map(|two| pair(two, columns)).collect(),
        false => facts.iter().map(fact).collect(),
    };
    let room = lines.saturating_sub(title.len() + commands.len());
    let for_told = told.len().min(room.saturating_sub(figures.len()).max(room / 2));
    figures.truncate(room - for_told);
    let told = first_of(told, for_told);
    [title, lines_of(figures), lines_of(told), lines_of(commands)].concat()
}

fn lines_of(texts: impl IntoIterator<Item = String>) -> Vec<ScreenLine> {
    texts.into_iter().map(plain).collect()
}

/// An empty line before each part that has something.
fn with_gaps(parts: &[Vec<ScreenLine>]) -> Vec<ScreenLine> {
    let parts = parts.iter().filter(|part| !part.is_empty());
    parts
        .flat_map(|part| [vec![plain(String::new())], part.clone()].concat())
        .collect()
}

type Fact = (&'static str, String);

/// The most important ones first.
fn facts(seen: &TopView<'_>, one: &HandlerStatus, rates: Option<&HandlerRates>) -> Vec<Fact> {
    let oldest = age_ms(one, seen.now_ms).map(|age| ("oldest", format!("stored {} ago", span(age))));
    let runs = match rates.map(|rates| (rates.p50_us, rates.p99_us)) {
        Some((Some(half), Some(most))) => format!("half {}, 99 % {}", micros(half), micros(most)),
        Some(_) => "-".to_owned(),
        None => known(None::<u64>),
    };
    let first = [
        ("done/s", per_second(rates.and_then(HandlerRates::rate))),
        ("failed/s", per_second(rates.and_then(|rates| rates.failing))),
        ("pending", known(one.pending)),
        ("in flight", known(one.in_flight)),
        ("retrying", known(one.retrying)),
        ("dead", known(one.dead)),
    ];
    let last = [
        ("runs", runs),
        ("decided", decided(one)),
        ("stream", format!("{}, consumer {}", one.stream, one.consumer)),
        ("module", one.module.clone().unwrap_or_else(|| "-".to_owned())),
    ];
    first.into_iter().chain(oldest).chain(last).collect()
}

fn fact((what, fact): &Fact) -> String {
    format!("  {what:9}  {fact}")
}

/// One or two on a line.
fn pair(two: &[Fact], columns: usize) -> String {
    let half = columns / 2;
    let [left, right] = two else {
        return two.iter().map(fact).collect();
    };
    let left = cut(&fact(left), half - 1);
    let gap = half - left.width();
    format!("{left}{:gap$}{}", "", fact(right))
}

fn commands(one: &HandlerStatus) -> Vec<String> {
    let name = &one.handler;
    let mut commands = Vec::new();
    if one.dead.is_some_and(|dead| dead > 0) {
        commands.push(format!("jetmesh dlq ls --group --handler {name}"));
    }
    if one.retrying.is_some_and(|count| count > 0) {
        commands.push(format!("jetmesh retrying --handler {name}"));
    }
    commands.push(match &one.paused {
        Some(_) => format!("jetmesh resume {name}"),
        None => format!("jetmesh pause {name} --reason WHY"),
    });
    commands.iter().map(|command| format!("  $ {command}")).collect()
}

/// A text in lines of at most so many columns, broken between words.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}
