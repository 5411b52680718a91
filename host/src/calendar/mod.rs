//! When a schedule is due: cron expressions, periods and single times. Pure: the time comes from the caller, the rules of time
//! zones from the data that is built in.

mod cron;
mod local;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};

use self::cron::Cron;
use crate::plan::{Dst, Timetable, When};

/// A timetable whose expression and zone have been read.
#[derive(Debug, Clone)]
pub struct Calendar {
    rule: Rule,
    start_ms: u64,
    end_ms: u64,
}

#[derive(Debug, Clone)]
enum Rule {
    Cron { cron: Cron, zone: TimeZone, dst: Dst },
    Every { from_ms: u64, period_ms: u64 },
    At(u64),
}

/// What is wrong with a timetable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// The expression, and how it is written.
    Cron(String),
    Zone(String),
}

impl Calendar {
    pub fn of(timetable: &Timetable) -> Result<Calendar, Wrong> {
        let rule = match &timetable.when {
            When::Cron { expression, zone, dst } => Rule::Cron {
                cron: Cron::parse(expression).map_err(Wrong::Cron)?,
                zone: time_zone(zone).map_err(Wrong::Zone)?,
                dst: *dst,
            },
            When::Every(seconds) => Rule::Every {
                from_ms: timetable.start_ms.unwrap_or(0),
                period_ms: seconds.max(&1).saturating_mul(1000),
            },
            When::At(ms) => Rule::At(*ms),
        };
        Ok(Calendar {
            rule,
            start_ms: timetable.start_ms.unwrap_or(0),
            end_ms: timetable.end_ms.unwrap_or(u64::MAX),
        })
    }
}

/// A zone by its name. `Err` says what is wrong with the name.
fn time_zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| "it is not a time zone of the IANA database".to_owned())
}

impl Calendar {
    /// The first due time after this one, in milliseconds since the Unix epoch. `None`: there is none any more.
    pub fn after(&self, ms: u64) -> Option<u64> {
        // A due time may be at the start itself.
        let ms = ms.max(self.start_ms.saturating_sub(1));
        let due = match &self.rule {
            Rule::At(at) => Some(*at).filter(|at| *at > ms),
            Rule::Every { from_ms, period_ms } => match ms.checked_sub(*from_ms) {
                None => Some(*from_ms),
                Some(since) => (since / period_ms + 1).checked_mul(*period_ms)?.checked_add(*from_ms),
            },
            Rule::Cron { cron, zone, dst } => {
                let after = Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
                let due = local::after(cron, zone, *dst, after)?;
                u64::try_from(due.as_millisecond()).ok()
            }
        };
        due.filter(|due| *due <= self.end_ms)
    }

    /// The due times after one time, up to another one.
    pub fn between(&self, after_ms: u64, until_ms: u64) -> impl Iterator<Item = u64> {
        std::iter::successors(self.after(after_ms), |due| self.after(*due)).take_while(move |due| *due <= until_ms)
    }
}

/// How long after its due time a schedule of this name fires, within its jitter: always the same, so that schedules of many names
/// that are due together are spread, and one alone keeps its pace.
pub fn delay_of(name: &str, jitter: Duration) -> Duration {
    let digest = Sha256::digest(name);
    let hash = digest
        .iter()
        .take(8)
        .fold(0, |hash, byte| (hash << 8) | u64::from(*byte));
    let most = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(u64::try_from((u128::from(hash) * u128::from(most)) >> 64).unwrap_or(0))
}
