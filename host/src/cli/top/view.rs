//! What `jetmesh top` shows, for a screen of a given size.

use std::iter::Sum;

use super::alone::{alone, wrapped};
use super::rates::{HandlerRates, MeshRates};
use super::terminal::{Look, ScreenLine};
use crate::cli::status::{known, of_handlers_and_ledgers, of_the_rest, per_second, word};
use crate::cli::table::{Narrow, cut, fit};
use crate::cli::text::span;
use crate::event::parse_rfc3339;
use crate::event::rfc3339;
use crate::report::status::json::{HandlerStatus, MeshStatus};
use crate::text::display::shown;

/// What is known at this moment.
pub struct TopView<'a> {
    pub status: &'a MeshStatus,
    pub rates: &'a MeshRates,
    /// How old it is, if it is not news.
    pub stale_ms: Option<u64>,
    /// What keeps news from coming, or a part of it.
    pub trouble: Option<&'a str>,
    pub now_ms: u64,
}

/// What a person has chosen.
#[derive(Debug, Default)]
pub struct Choice {
    pub sort: Sort,
    /// The handler, by its name: others may move while it is looked at.
    pub handler: Option<String>,
    /// The handler alone.
    pub alone: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// As the configuration has them.
    #[default]
    Configuration,
    Rate,
    Failing,
    Pending,
    Retrying,
    Dead,
    Oldest,
}

impl Sort {
    const ALL: [Sort; 7] = [
        Sort::Configuration,
        Sort::Rate,
        Sort::Failing,
        Sort::Pending,
        Sort::Retrying,
        Sort::Dead,
        Sort::Oldest,
    ];

    pub fn next(self) -> Sort {
        let at = Sort::ALL.iter().position(|one| *one == self).unwrap_or(0);
        Sort::ALL[(at + 1) % Sort::ALL.len()]
    }

    fn word(self) -> &'static str {
        match self {
            Sort::Configuration => "configuration",
            Sort::Rate => "rate",
            Sort::Failing => "failing",
            Sort::Pending => "pending",
            Sort::Retrying => "retrying",
            Sort::Dead => "dead",
            Sort::Oldest => "oldest",
        }
    }

    /// The largest first.
    fn key(self, seen: &TopView<'_>, one: &HandlerStatus) -> f64 {
        let rates = seen.rates.handlers.get(&one.handler);
        let number = |number: Option<u64>| number.map_or(-1.0, |number| number as f64);
        match self {
            Sort::Configuration => 0.0,
            Sort::Rate => rates.and_then(HandlerRates::rate).unwrap_or(-1.0),
            Sort::Failing => rates.and_then(|rates| rates.failing).unwrap_or(-1.0),
            Sort::Pending => number(one.pending),
            Sort::Retrying => number(one.retrying.map(|count| count as u64)),
            Sort::Dead => number(one.dead),
            Sort::Oldest => number(age_ms(one, seen.now_ms)),
        }
    }
}

impl Choice {
    /// The handlers in the order in which they are shown.
    pub fn sorted<'a>(&self, seen: &TopView<'a>) -> Vec<&'a HandlerStatus> {
        let mut all: Vec<&HandlerStatus> = seen.status.handlers.iter().collect();
        all.sort_by(|a, b| self.sort.key(seen, b).total_cmp(&self.sort.key(seen, a)));
        all
    }

    /// Goes so many handlers down; up, if it is negative.
    pub fn step(&mut self, seen: &TopView<'_>, by: isize) {
        let all = self.sorted(seen);
        let at = self.at(&all).saturating_add_signed(by).min(all.len().saturating_sub(1));
        self.handler = all.get(at).map(|one| one.handler.clone());
    }

    fn at(&self, all: &[&HandlerStatus]) -> usize {
        let is = |one: &&HandlerStatus| Some(&one.handler) == self.handler.as_ref();
        all.iter().position(is).unwrap_or(0)
    }
}

/// The page, of at most so many lines.
pub fn page(seen: &TopView<'_>, choice: &Choice, (columns, lines): (usize, usize)) -> Vec<ScreenLine> {
    let all = choice.sorted(seen);
    let mut page = vec![bold(headline(seen))];
    page.extend(wrong(seen).map(bold));
    match all.get(choice.at(&all)).filter(|_| choice.alone) {
        Some(one) => {
            let room = lines.saturating_sub(page.len() + 1);
            page.extend(alone(seen, one, (columns, room)));
        }
        None => table(seen, choice, &all, (columns, lines), &mut page),
    }
    page.truncate(lines.saturating_sub(1));
    while page.len() + 1 < lines {
        page.push(plain(String::new()));
    }
    let keys = match choice.alone {
        true => "Esc back   ↑↓ another handler   q quit".to_owned(),
        false => format!(
            "↑↓ choose   Enter details   s sort (by {})   q quit",
            choice.sort.word()
        ),
    };
    page.push(bold(keys));
    for line in &mut page {
        line.text = cut(&shown(&line.text), columns);
    }
    page
}

/// That what is shown is not how it is now.
fn wrong(seen: &TopView<'_>) -> Option<String> {
    let old = seen.stale_ms.map(|ms| format!("what is shown is {} old", span(ms)));
    match (old, seen.trouble) {
        (Some(old), Some(trouble)) => Some(format!("{old}: {trouble}")),
        (Some(old), None) => Some(format!("{old}: NATS or the hosts have not answered since")),
        (None, Some(trouble)) => Some(format!("error: {trouble}")),
        (None, None) => None,
    }
}

fn headline(seen: &TopView<'_>) -> String {
    let (status, rates) = (seen.status, &seen.rates.handlers);
    let rate = |one: &HandlerStatus| rates.get(&one.handler).and_then(HandlerRates::rate);
    let time = rfc3339(seen.now_ms);
    let time = time.get(11..19).unwrap_or_default();
    format!(
        "{time}Z  mesh {}  {} host(s)  {} done/s  {} pending  {} dead",
        status.mesh,
        known(status.hosts.as_ref().map(Vec::len)),
        total(status, rate, |rate| per_second(Some(rate))),
        total(status, |one| one.pending, |count: u64| count.to_string()),
        total(status, |one| one.dead, |count: u64| count.to_string())
    )
}

/// A figure of all handlers: `?` if it is known of none of them, and with a `+` if it is not known of some.
fn total<T: Sum>(status: &MeshStatus, of: impl Fn(&HandlerStatus) -> Option<T>, text: impl Fn(T) -> String) -> String {
    let known: Vec<T> = status.handlers.iter().filter_map(of).collect();
    let (count, all) = (known.len(), status.handlers.len());
    match text(known.into_iter().sum()) {
        _ if count == 0 && all > 0 => "?".to_owned(),
        text if count < all => format!("{text}+"),
        text => text,
    }
}

/// Without module, in flight, median and failing it fits 80 columns.
const NARROW: Narrow<'_> = Narrow {
    leave_out: &[10, 6, 3, 5],
    cut: &[0],
};
const HEADER: [&str; 12] = [
    "HANDLER",
    "STATE",
    "DONE/S",
    "P50",
    "P99",
    "FAILED/S",
    "IN FLIGHT",
    "PENDING",
    "RETRYING",
    "DEAD",
    "MODULE",
    "DONE, LAST MINUTE",
];

fn table(
    seen: &TopView<'_>,
    choice: &Choice,
    all: &[&HandlerStatus],
    (columns, lines): (usize, usize),
    page: &mut Vec<ScreenLine>,
) {
    let at = choice.at(all);
    // What a person should know has a third of the screen, and what the handlers leave.
    let mut told = of_handlers_and_ledgers(seen.status);
    told.extend(of_the_rest(seen.status));
    let told: Vec<String> = told.iter().flat_map(|line| wrapped(line, columns)).collect();
    let room = lines.saturating_sub(page.len() + 2);
    let left = room.saturating_sub(all.len() + 1);
    let for_told = told.len().min(left.max(room / 3));
    let rows_max = room.saturating_sub(for_told + usize::from(for_told > 0)).max(1);
    let first = (at + 1).saturating_sub(rows_max);
    let part = &all[first..all.len().min(first + rows_max)];
    let rows: Vec<Vec<String>> = part.iter().map(|one| row(seen, one)).collect();
    let text = fit(&HEADER, &rows, &NARROW, Some(columns));
    // The last line may name what has no room, and how else that is seen: not here.
    for (line, text) in text.lines().take(rows.len() + 1).enumerate() {
        let look = match line {
            0 => Look::Bold,
            line if first + line - 1 == at => Look::Reverse,
            _ => Look::Plain,
        };
        let text = text.to_owned();
        page.push(ScreenLine { text, look });
    }
    if for_told > 0 {
        page.push(plain(String::new()));
        page.extend(first_of(told, for_told).into_iter().map(plain));
    }
}

/// The first lines of all, and how many more there are.
pub fn first_of(mut all: Vec<String>, most: usize) -> Vec<String> {
    if most < 2 {
        all.truncate(most);
    } else if all.len() > most {
        let more = all.len() - most + 1;
        all.truncate(most - 1);
        all.push(format!("and {more} more lines: `jetmesh status` has all"));
    }
    all
}

fn row(seen: &TopView<'_>, one: &HandlerStatus) -> Vec<String> {
    let rates = seen.rates.handlers.get(&one.handler);
    let time = |of| took(rates, of);
    vec![
        one.handler.clone(),
        word(&one.state),
        per_second(rates.and_then(HandlerRates::rate)),
        time(|rates| rates.p50_us),
        time(|rates| rates.p99_us),
        per_second(rates.and_then(|rates| rates.failing)),
        known(one.in_flight),
        known(one.pending),
        known(one.retrying),
        known(one.dead),
        one.module.clone().unwrap_or_else(|| "-".to_owned()),
        rates.map_or_else(String::new, |rates| curve(rates, 20)),
    ]
}

/// How old the oldest event is that is not settled.
pub fn age_ms(one: &HandlerStatus, now_ms: u64) -> Option<u64> {
    let at = one.oldest.as_deref().and_then(parse_rfc3339)?;
    Some(now_ms.saturating_sub(at))
}

/// Rates as blocks of eight heights, the newest last.
pub fn curve(rates: &HandlerRates, width: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let largest = rates.done.iter().flatten().fold(0.0, |a: f64, b| a.max(*b));
    let first = rates.done.len().saturating_sub(width);
    let block = |rate: &Option<f64>| match rate {
        None => ' ',
        Some(rate) if largest > 0.0 => BLOCKS[((rate / largest * 7.0).round() as usize).min(7)],
        Some(_) => BLOCKS[0],
    };
    rates.done.iter().skip(first).map(block).collect()
}

/// What runs took; `-`: there were none.
fn took(rates: Option<&HandlerRates>, of: fn(&HandlerRates) -> Option<u64>) -> String {
    let Some(rates) = rates else {
        return known(None::<u64>);
    };
    of(rates).map_or_else(|| "-".to_owned(), micros)
}

/// A time in the unit that suits it.
pub fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us}µs"),
        1000..10_000 => format!("{:.1}ms", us as f64 / 1000.0),
        10_000..1_000_000 => format!("{}ms", us / 1000),
        _ => format!("{:.1}s", us as f64 / 1e6),
    }
}

pub fn plain(text: String) -> ScreenLine {
    let look = Look::Plain;
    ScreenLine { text, look }
}

pub fn bold(text: String) -> ScreenLine {
    let look = Look::Bold;
    ScreenLine { text, look }
}
