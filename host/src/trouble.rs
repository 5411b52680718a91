//! What goes wrong again and again is logged once and then counted. The first line says all of it; while it comes again,
//! a line a minute says how often; and when it is over, or has not come for a minute, a last one does.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};

use crate::failpoint::wall_clock;
use crate::text::normalise::normalise;

/// Logs a trouble that may come again, if it is new. `about`: what it concerns, such as a handler. Two are the same if they
/// concern the same, and say the same but for names and numbers.
macro_rules! trouble {
    ($weight:expr, $about:expr, $why:expr, { $($field:tt)* }, $what:literal) => {{
        let weight: $crate::trouble::Weight = $weight;
        if $crate::trouble::is_new(weight, $what, &$about, &$why) {
            match weight {
                $crate::trouble::Weight::Person => tracing::error!($($field)*, $what),
                $crate::trouble::Weight::Delay | $crate::trouble::Weight::Aside => tracing::warn!($($field)*, $what),
            }
        }
    }};
}

/// What hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Nothing waits for it: a warning.
    Aside,
    /// Events wait, and may go on by themselves: a warning, and an error if it lasts.
    Delay,
    /// Events wait until a person acts: an error.
    Person,
}

impl Weight {
    /// Of an error that events wait for; `passes`: it may go by itself.
    pub fn of(passes: bool) -> Weight {
        if passes { Weight::Delay } else { Weight::Person }
    }
}

/// How often a trouble that lasts is told of.
const EVERY: Duration = Duration::from_secs(60);
/// How many troubles are told apart, which is more than a person reads; the rest is counted by its kind alone.
const KEYS_MAX: usize = 1_000;

static TROUBLES: Mutex<Troubles> = Mutex::new(Troubles(BTreeMap::new()));

fn troubles() -> MutexGuard<'static, Troubles> {
    TROUBLES.lock()
}

/// One more of this kind; `true`: the first, which is to be logged.
pub fn is_new(weight: Weight, what: &'static str, about: &impl Display, why: &impl Display) -> bool {
    let (about, why) = (about.to_string(), why.to_string());
    troubles().met(weight, (what, about, why), Instant::now())
}

/// It is over; the number of times that it came, if that is to be logged. One that comes and goes is told of once a minute, but for
/// the first time that it comes again: the log must not end with it being over.
pub fn over(what: &'static str, about: &str) -> Option<u64> {
    troubles().over(what, about, Instant::now())
}

/// Logs what is due.
pub fn tell() {
    let due = troubles().due(Instant::now());
    log(due);
}

/// Logs what has not been told yet, at the end of the process.
pub fn tell_all() {
    let rest = troubles().rest();
    log(rest);
}

fn log(lines: Vec<TroubleLine>) {
    for TroubleLine { what, about, met, now } in lines {
        // What concerns nothing in particular has no such field.
        let about = (!about.is_empty()).then_some(about.as_str());
        let TroubleMet { why, times, .. } = met;
        let since = jiff::Timestamp::try_from(met.since).map_or_else(|_| "?".to_owned(), |since| format!("{since:.3}"));
        match (now, met.weight) {
            (TroubleNow::Lasts, Weight::Delay | Weight::Person) => {
                tracing::error!(about, why, times, since, "it continues: {what}");
            }
            (TroubleNow::Lasts, Weight::Aside) => tracing::warn!(about, why, times, since, "it continues: {what}"),
            (TroubleNow::Quiet, _) => tracing::warn!(about, why, times, since, "not for the last minute: {what}"),
            (TroubleNow::Ends, _) => tracing::warn!(about, why, times, since, "count until this host ended: {what}"),
        }
    }
}

/// Its kind, what it concerns, and its text without names and numbers.
type TroubleKey = (&'static str, String, String);

struct Troubles(BTreeMap<TroubleKey, TroubleMet>);

#[derive(Debug, Clone)]
struct TroubleMet {
    weight: Weight,
    /// What was said last.
    why: String,
    since: SystemTime,
    /// How often it came, and how often when it was last told of.
    times: u64,
    told: u64,
    told_at: Instant,
    last: Instant,
    /// It has not come again since it was over.
    over: bool,
    /// An end of it has been told.
    end_told: bool,
    /// The newest line about it is its end.
    ended: bool,
}

struct TroubleLine {
    what: &'static str,
    about: String,
    met: TroubleMet,
    now: TroubleNow,
}

/// How a trouble stands when it is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TroubleNow {
    /// It has come again in the last minute.
    Lasts,
    /// It has not.
    Quiet,
    /// This is the last line about it, because the host ends.
    Ends,
}

impl Troubles {
    fn met(&mut self, weight: Weight, (what, about, why): TroubleKey, now: Instant) -> bool {
        let mut key = (what, about, normalise(&why));
        if self.0.len() >= KEYS_MAX && !self.0.contains_key(&key) {
            key = (what, "others".to_owned(), String::new());
        }
        if let Some(met) = self.0.get_mut(&key) {
            met.times += 1;
            (met.weight, met.why, met.last, met.over) = (weight, why, now, false);
            // The newest line says that it is over.
            let untrue = std::mem::take(&mut met.ended);
            if untrue {
                (met.told, met.told_at) = (met.times, now);
            }
            return untrue;
        }
        let met = TroubleMet {
            weight,
            why,
            // On lines of the log, whose own time is the host's.
            since: wall_clock(),
            times: 1,
            told: 1,
            told_at: now,
            last: now,
            over: false,
            end_told: false,
            ended: false,
        };
        self.0.insert(key, met);
        true
    }

    fn over(&mut self, what: &'static str, about: &str, now: Instant) -> Option<u64> {
        let mut times = None;
        let from = (what, about.to_owned(), String::new());
        for (_, met) in self
            .0
            .range_mut(from..)
            .take_while(|(key, _)| key.0 == what && key.1 == about)
        {
            // The first end is told at once.
            if !met.over && (!met.end_told || now.saturating_duration_since(met.told_at) >= EVERY) {
                (met.told, met.told_at, met.end_told, met.ended) = (met.times, now, true, true);
                times = Some(times.unwrap_or(0) + met.times);
            }
            met.over = true;
        }
        times
    }

    fn due(&mut self, now: Instant) -> Vec<TroubleLine> {
        let mut lines = Vec::new();
        self.0.retain(|key, met| {
            if now.saturating_duration_since(met.told_at) < EVERY {
                return true;
            }
            let lasts = !met.over && met.times > met.told && now.saturating_duration_since(met.last) < EVERY;
            if met.times > met.told || (met.times > 1 && !met.over) {
                (met.told, met.told_at) = (met.times, now);
                lines.push(line(
                    key,
                    met,
                    if lasts { TroubleNow::Lasts } else { TroubleNow::Quiet },
                ));
            }
            lasts
        });
        lines
    }

    /// What was counted since it was told of last.
    fn rest(&mut self) -> Vec<TroubleLine> {
        let untold = self.0.iter().filter(|(_, met)| met.times > met.told);
        let lines = untold.map(|(key, met)| line(key, met, TroubleNow::Ends)).collect();
        self.0.clear();
        lines
    }
}

fn line(key: &TroubleKey, met: &TroubleMet, now: TroubleNow) -> TroubleLine {
    TroubleLine {
        what: key.0,
        about: key.1.clone(),
        met: met.clone(),
        now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(about: &str, why: &str) -> TroubleKey {
        ("it fails", about.to_owned(), why.to_owned())
    }

    fn told(lines: &[TroubleLine]) -> Vec<(&str, u64, TroubleNow)> {
        let told = lines.iter().map(|line| (line.about.as_str(), line.met.times, line.now));
        told.collect()
    }

    #[test]
    fn the_first_is_told_and_then_a_line_a_minute_says_how_often_until_it_has_not_come_for_one() {
        let mut troubles = Troubles(BTreeMap::new());
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(troubles.met(Weight::Delay, key("a", "event 1 waits"), at(0)));
        assert!(
            troubles.met(Weight::Delay, key("b", "event 1 waits"), at(0)),
            "another one's"
        );
        for second in 1..=70 {
            let why = format!("event {second} waits");
            assert!(
                !troubles.met(Weight::Delay, key("a", &why), at(second)),
                "but for its number the same"
            );
        }
        assert_eq!(
            told(&troubles.due(at(70))),
            [("a", 71, TroubleNow::Lasts)],
            "one that came once says nothing more"
        );
        assert_eq!(told(&troubles.due(at(71))), []);
        troubles.met(Weight::Delay, key("a", "event 8 waits"), at(72));
        assert_eq!(told(&troubles.due(at(140))), [("a", 72, TroubleNow::Quiet)]);
        assert!(
            troubles.met(Weight::Delay, key("a", "event 1 waits"), at(141)),
            "it is new again"
        );
        assert_eq!(told(&troubles.rest()), []);
        troubles.met(Weight::Delay, key("a", "event 1 waits"), at(142));
        troubles.met(Weight::Delay, key("a", "event 2 waits"), at(142));
        assert_eq!(
            told(&troubles.rest()),
            [("a", 2, TroubleNow::Ends)],
            "what is counted is told in the end"
        );
    }

    #[test]
    fn an_end_is_told_at_once_and_what_comes_and_goes_once_a_minute() {
        let mut troubles = Troubles(BTreeMap::new());
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(troubles.over("it fails", "a", at(0)), None);
        troubles.met(Weight::Person, key("a", "x"), at(0));
        troubles.met(Weight::Person, key("a", "x"), at(1));
        assert_eq!(troubles.over("it fails", "a", at(2)), Some(2));
        assert!(
            troubles.met(Weight::Person, key("a", "x"), at(3)),
            "the log says that it is over"
        );
        for second in 4..50 {
            assert!(!troubles.met(Weight::Person, key("a", "x"), at(second)));
            assert_eq!(troubles.over("it fails", "a", at(second)), None);
        }
        assert_eq!(told(&troubles.due(at(63))), [("a", 49, TroubleNow::Quiet)]);
        assert!(troubles.met(Weight::Person, key("a", "x"), at(64)));
    }

    #[test]
    fn troubles_beyond_the_bound_are_counted_together() {
        let mut troubles = Troubles(BTreeMap::new());
        let now = Instant::now();
        let about = |n: usize| format!("handler-{n}");
        let new = (0..KEYS_MAX + 100).filter(|n| troubles.met(Weight::Aside, key(&about(*n), "x"), now));
        assert_eq!(new.count(), KEYS_MAX + 1);
    }
}
