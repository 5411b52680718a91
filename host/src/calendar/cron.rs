//! Cron expressions: 5 fields, or 6 with seconds first. Pure.
//!
//! The fields and their meaning are those of Vixie's cron (<https://man7.org/linux/man-pages/man5/crontab.5.html>), with `L` for
//! the last day of a month.

use jiff::civil::{Date, DateTime, Time};

/// A parsed expression: for each field the set of its values, as bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Day 0 stands for the last day of a month.
    last_day: bool,
    /// Both a day of the month and a weekday are named: either of them is enough.
    either_day: bool,
    /// The hour is `*`: it stands for a pace, not for times of the day.
    every_hour: bool,
}

/// What a field may hold.
struct Field {
    name: &'static str,
    low: u8,
    high: u8,
    /// Names of its values, from `low` on.
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 6] = [
    Field {
        name: "second",
        low: 0,
        high: 59,
        names: &[],
    },
    Field {
        name: "minute",
        low: 0,
        high: 59,
        names: &[],
    },
    Field {
        name: "hour",
        low: 0,
        high: 23,
        names: &[],
    },
    Field {
        name: "day of the month",
        low: 1,
        high: 31,
        names: &[],
    },
    Field {
        name: "month",
        low: 1,
        high: 12,
        names: &MONTHS,
    },
    // 7 is Sunday as well.
    Field {
        name: "day of the week",
        low: 0,
        high: 7,
        names: &WEEKDAYS,
    },
];

/// How many days are looked at for the next due one: the 29th of February is up to eight years away, and may have to be a
/// certain weekday, which is the case once in 28 years, or in 40 around the year 2100.
const DAYS_MAX: u32 = 41 * 366;

impl Cron {
    /// `Err` says what is wrong with the expression.
    pub fn parse(expression: &str) -> Result<Cron, String> {
        let mut fields: Vec<&str> = expression.split_whitespace().collect();
        match fields.len() {
            6 => {}
            5 => fields.insert(0, "0"),
            n => {
                return Err(format!(
                    "it has {n} fields; it must have 5 (minute, hour, day of the month, month, day of the week), or 6 with the second first"
                ));
            }
        }
        let mut sets = [0; 6];
        for ((set, field), text) in sets.iter_mut().zip(&FIELDS).zip(&fields) {
            *set = field.set(text)?;
        }
        let [seconds, minutes, hours, days, months, mut weekdays] = sets;
        weekdays |= (weekdays >> 7) & 1;
        let open = |text: &str| text.starts_with('*');
        let cron = Cron {
            seconds,
            minutes,
            hours,
            days,
            months,
            weekdays,
            last_day: days & 1 != 0,
            either_day: !open(fields[3]) && !open(fields[5]),
            every_hour: fields[2] == "*",
        };
        match cron.day_from(Date::constant(2000, 1, 1)) {
            Some(_) => Ok(cron),
            None => Err("no such day exists in any year".to_owned()),
        }
    }

    /// Whether it stands for a pace, such as "every ten minutes", and not for times of the day.
    pub fn is_pace(&self) -> bool {
        self.every_hour
    }

    /// The first local time that matches, from this one on.
    pub fn from(&self, local: DateTime) -> Option<DateTime> {
        let local = match local.subsec_nanosecond() {
            0 => local,
            _ => local
                .with()
                .subsec_nanosecond(0)
                .build()
                .ok()?
                .checked_add(jiff::SignedDuration::from_secs(1))
                .ok()?,
        };
        let day = self.day_from(local.date())?;
        if day > local.date() {
            return Some(day.to_datetime(self.first_time()?));
        }
        match self.time_from(local.time()) {
            Some(time) => Some(day.to_datetime(time)),
            None => {
                let day = self.day_from(day.tomorrow().ok()?)?;
                Some(day.to_datetime(self.first_time()?))
            }
        }
    }

    fn day_from(&self, from: Date) -> Option<Date> {
        let mut day = from;
        for _ in 0..DAYS_MAX {
            if self.has_day(day) {
                return Some(day);
            }
            // A month that is not in the set is passed over at once.
            day = match has(self.months, day.month()) {
                true => day.tomorrow().ok()?,
                false => day.last_of_month().tomorrow().ok()?,
            };
        }
        None
    }

    fn has_day(&self, day: Date) -> bool {
        let of_month = has(self.days, day.day()) || (self.last_day && day.day() == day.days_in_month());
        let of_week = has(self.weekdays, day.weekday().to_sunday_zero_offset());
        let day_fits = match self.either_day {
            true => of_month || of_week,
            false => of_month && of_week,
        };
        day_fits && has(self.months, day.month())
    }

    fn first_time(&self) -> Option<Time> {
        self.time_from(Time::midnight())
    }

    /// The first matching time of a day from this one on.
    fn time_from(&self, from: Time) -> Option<Time> {
        let (hour, minute, second) = (from.hour(), from.minute(), from.second());
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = next(self.seconds, second)
            {
                return Time::new(hour, minute, second, 0).ok();
            }
            if let Some(minute) = next(self.minutes, minute + 1) {
                return Time::new(hour, minute, next(self.seconds, 0)?, 0).ok();
            }
        }
        let hour = next(self.hours, hour + 1)?;
        Time::new(hour, next(self.minutes, 0)?, next(self.seconds, 0)?, 0).ok()
    }
}

/// Whether a value is in a set.
fn has(set: u64, value: i8) -> bool {
    (set >> value) & 1 != 0
}

/// The least value of a set that is not below this one.
fn next(set: u64, from: i8) -> Option<i8> {
    let rest = set >> from;
    (rest != 0).then(|| from + i8::try_from(rest.trailing_zeros()).unwrap_or(0))
}

impl Field {
    fn set(&self, text: &str) -> Result<u64, String> {
        let mut set = 0;
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, Some(step)),
                None => (part, None),
            };
            let wrong = |why: String| format!("`{part}` in the {} field {why}", self.name);
            let step = match step.map(str::parse::<u8>) {
                None => 1,
                Some(Ok(step)) if (1..=self.high).contains(&step) => step,
                Some(_) => return Err(wrong(format!("has a step that is not in 1..={}", self.high))),
            };
            let (low, high) = match (range, range.split_once('-')) {
                ("*", _) => (
                    self.low,
                    self.high.min(if self.names.len() == 7 { 6 } else { self.high }),
                ),
                ("L", _) if self.high == 31 && part == "L" => (0, 0),
                (_, Some((low, high))) => (self.value(low).map_err(wrong)?, self.value(high).map_err(wrong)?),
                (one, None) => match (self.value(one).map_err(wrong)?, part == range) {
                    (one, true) => (one, one),
                    (_, false) => {
                        return Err(wrong(format!(
                            "has a step without a range: write `{one}-{}/{step}`",
                            self.high
                        )));
                    }
                },
            };
            if low > high {
                return Err(wrong("is a range that ends before it begins".to_owned()));
            }
            set |= (low..=high)
                .step_by(usize::from(step))
                .fold(0, |set, value| set | 1 << value);
        }
        Ok(set)
    }

    fn value(&self, text: &str) -> Result<u8, String> {
        let named = self.names.iter().position(|name| text.eq_ignore_ascii_case(name));
        if let Some(at) = named.and_then(|at| u8::try_from(at).ok()) {
            return Ok(self.low + at);
        }
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse::<u8>() {
            Ok(value) if digits && (self.low..=self.high).contains(&value) => Ok(value),
            _ => {
                let names = match self.names {
                    [first, .., last] => format!(", or {}-{}", first.to_uppercase(), last.to_uppercase()),
                    _ => String::new(),
                };
                Err(format!("is not {}-{}{names}", self.low, self.high))
            }
        }
    }
}
