//! The calendar beside a second one that goes through every minute of a year, in zones whose clocks are changed in different ways.

use std::collections::BTreeSet;

use jiff::civil::{Date, DateTime};
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use proptest::prelude::*;

use super::*;

/// A zone, and a year in which its clock is changed: by an hour in spring and autumn, the other way round in the south, by half an
/// hour, by a whole day once, for a month of fasting, and never.
const YEARS: [(&str, i16); 7] = [
    ("Europe/Berlin", 2026),
    ("America/New_York", 2027),
    ("Australia/Sydney", 2026),
    ("Australia/Lord_Howe", 2028),
    ("Pacific/Apia", 2011),
    ("Africa/Casablanca", 2026),
    ("Asia/Shanghai", 2030),
];

fn cron(expression: &str, zone: &str, dst: Dst) -> Calendar {
    let when = When::Cron {
        expression: expression.to_owned(),
        zone: zone.to_owned(),
        dst,
    };
    calendar(when, None, None)
}

fn calendar(when: When, start_ms: Option<u64>, end_ms: Option<u64>) -> Calendar {
    let timetable = Timetable { when, start_ms, end_ms };
    Calendar::of(&timetable).expect("the timetable is right")
}

fn ms(text: &str) -> u64 {
    let at: Timestamp = text.parse().expect("a time");
    u64::try_from(at.as_millisecond()).expect("after 1970")
}

/// Due times after a time, as local ones.
fn local(calendar: &Calendar, zone: &str, after: &str, count: usize) -> Vec<String> {
    let zone = TimeZone::get(zone).expect("a zone");
    let due = calendar.between(ms(after), u64::MAX).take(count);
    let at = |due: u64| Timestamp::from_millisecond(i64::try_from(due).expect("small")).expect("a time");
    due.map(|due| at(due).to_zoned(zone.clone()).strftime("%m-%d %H:%M:%S%:z").to_string())
        .collect()
}

/// A cron expression as sets of values; `None`: `*`.
#[derive(Debug, Clone)]
struct Sets([Option<BTreeSet<i8>>; 5]);

impl Sets {
    fn text(&self) -> String {
        let field = |set: &Option<BTreeSet<i8>>| match set {
            None => "*".to_owned(),
            Some(set) => set.iter().map(i8::to_string).collect::<Vec<_>>().join(","),
        };
        self.0.iter().map(field).collect::<Vec<_>>().join(" ")
    }

    fn has(&self, at: DateTime) -> bool {
        let [minutes, hours, days, months, weekdays] = &self.0;
        let has = |set: &Option<BTreeSet<i8>>, value: i8| set.as_ref().is_none_or(|set| set.contains(&value));
        let (day, weekday) = (has(days, at.day()), has(weekdays, at.weekday().to_sunday_zero_offset()));
        let both = days.is_some() && weekdays.is_some();
        has(minutes, at.minute())
            && has(hours, at.hour())
            && has(months, at.month())
            && if both { day || weekday } else { day && weekday }
    }

    /// Every due time of a year, found by looking at each minute.
    fn year(&self, zone: &TimeZone, year: i16, dst: Dst) -> BTreeSet<Timestamp> {
        let first = Date::new(year, 1, 1)
            .expect("a day")
            .to_datetime(jiff::civil::Time::midnight());
        let begin = zone.to_timestamp(first).expect("in range");
        let end = zone
            .to_timestamp(first.checked_add(1.year()).expect("in range"))
            .expect("in range");
        let mut found = BTreeSet::new();
        if dst == Dst::Once && self.0[1].is_some() {
            let mut local = first;
            while local.year() == year {
                if self.has(local) {
                    found.insert(zone.to_ambiguous_timestamp(local).compatible().expect("in range"));
                }
                local = local.checked_add(1.minute()).expect("in range");
            }
        } else {
            let mut at = begin;
            while at < end {
                if self.has(zone.to_datetime(at)) {
                    found.insert(at);
                }
                at += SignedDuration::from_secs(60);
            }
        }
        found.retain(|at| (begin..end).contains(at));
        found
    }
}

fn sets() -> impl Strategy<Value = Sets> {
    fn some(low: i8, high: i8, most: usize) -> impl Strategy<Value = Option<BTreeSet<i8>>> {
        proptest::option::weighted(0.6, proptest::collection::btree_set(low..=high, 1..=most))
    }
    let minutes = proptest::collection::btree_set(0i8..=59, 1..=3).prop_map(Some);
    // Clocks are changed in these hours.
    let hours = proptest::option::weighted(0.8, proptest::collection::btree_set(0i8..=4, 1..=3));
    (minutes, hours, some(1, 28, 20), some(1, 12, 8), some(0, 6, 4))
        .prop_map(|(minutes, hours, days, months, weekdays)| Sets([minutes, hours, days, months, weekdays]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_year_of_due_times_is_what_looking_at_each_minute_finds(
        sets in sets(), place in 0..YEARS.len(), clock in any::<bool>(),
    ) {
        let (name, year) = YEARS[place];
        let zone = TimeZone::get(name).expect("a zone");
        let dst = if clock { Dst::Clock } else { Dst::Once };
        let wanted: Vec<u64> = sets
            .year(&zone, year, dst)
            .into_iter()
            .map(|at| u64::try_from(at.as_millisecond()).expect("after 1970"))
            .collect();
        let first = Date::new(year, 1, 1).expect("a day").to_datetime(jiff::civil::Time::midnight());
        let edge = |at: DateTime| ms(&zone.to_timestamp(at).expect("in range").to_string());
        let (begin, end) = (edge(first), edge(first.checked_add(1.year()).expect("in range")));
        let found: Vec<u64> = cron(&sets.text(), name, dst).between(begin - 1, end - 1).collect();
        prop_assert_eq!(found, wanted, "{} in {}", sets.text(), name);
    }
}

#[test]
fn a_local_time_comes_once_on_each_day_of_a_year_whatever_the_clock_does() {
    for (name, year) in YEARS {
        for hour in 0..4 {
            let zone = TimeZone::get(name).expect("a zone");
            let begin = Date::new(year, 1, 1)
                .expect("a day")
                .to_zoned(zone.clone())
                .expect("in range");
            let end = Date::new(year + 1, 1, 1)
                .expect("a day")
                .to_zoned(zone.clone())
                .expect("in range");
            let at = |at: &jiff::Zoned| u64::try_from(at.timestamp().as_millisecond()).expect("after 1970");
            let due = cron(&format!("30 {hour} * * *"), name, Dst::Once)
                .between(at(&begin) - 1, at(&end) - 1)
                .count();
            // Samoa had no 30 December in 2011.
            let days = if name == "Pacific/Apia" {
                364
            } else {
                365 + usize::from(begin.in_leap_year())
            };
            assert_eq!(due, days, "{hour}:30 in {name}");
        }
    }
}

#[test]
fn a_time_that_the_clock_passes_over_comes_when_it_would_have_been_and_one_that_is_shown_twice_comes_first() {
    let berlin = "Europe/Berlin";
    let daily = cron("30 2 * * *", berlin, Dst::Once);
    assert_eq!(
        local(&daily, berlin, "2026-03-28T00:00:00Z", 3),
        ["03-28 02:30:00+01:00", "03-29 03:30:00+02:00", "03-30 02:30:00+02:00"]
    );
    assert_eq!(
        local(&daily, berlin, "2026-10-24T12:00:00Z", 2),
        ["10-25 02:30:00+02:00", "10-26 02:30:00+01:00"]
    );
    let clock = cron("30 2 * * *", berlin, Dst::Clock);
    assert_eq!(
        local(&clock, berlin, "2026-03-28T12:00:00Z", 1),
        ["03-30 02:30:00+02:00"]
    );
    assert_eq!(
        local(&clock, berlin, "2026-10-24T12:00:00Z", 2),
        ["10-25 02:30:00+02:00", "10-25 02:30:00+01:00"]
    );
}

#[test]
fn a_pace_goes_on_while_the_clock_is_changed() {
    let pace = cron("*/20 * * * *", "Europe/Berlin", Dst::Once);
    for changed in ["2026-03-29T00:00:00Z", "2026-10-24T23:00:00Z"] {
        let due: Vec<u64> = pace.between(ms(changed), u64::MAX).take(20).collect();
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] == 20 * 60_000), "{due:?}");
    }
}

#[test]
fn expressions_mean_what_cron_means_by_them() {
    let rows = [
        // Seconds first.
        ("*/20 30 9 * * *", "2026-01-01T09:30:05Z", "2026-01-01T09:30:20Z"),
        ("0 9 * * MON-fri", "2026-01-02T10:00:00Z", "2026-01-05T09:00:00Z"),
        ("0 9 * * 7", "2026-01-02T10:00:00Z", "2026-01-04T09:00:00Z"),
        ("0 9 * * 5-7", "2026-01-03T10:00:00Z", "2026-01-04T09:00:00Z"),
        // Either of the days, unless one is `*`.
        ("0 9 13 * 5", "2026-01-02T10:00:00Z", "2026-01-09T09:00:00Z"),
        ("0 9 13 * *", "2026-01-02T10:00:00Z", "2026-01-13T09:00:00Z"),
        ("0 9 L * *", "2026-12-01T10:00:00Z", "2026-12-31T09:00:00Z"),
        ("0 9 L feb *", "2027-12-01T10:00:00Z", "2028-02-29T09:00:00Z"),
        ("0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"),
        ("0,30 8-10/2 * * *", "2026-01-01T08:30:00Z", "2026-01-01T10:00:00Z"),
        ("59 23 31 12 *", "2026-12-31T23:59:00Z", "2027-12-31T23:59:00Z"),
    ];
    for (expression, after, due) in rows {
        assert_eq!(
            cron(expression, "UTC", Dst::Once).after(ms(after)),
            Some(ms(due)),
            "{expression}"
        );
    }
}

#[test]
fn a_bad_expression_is_named_by_its_part_field_and_rule() {
    let rows = [
        ("* * * *", "it has 4 fields"),
        ("60 * * * *", "`60` in the minute field is not 0-59"),
        ("* 24 * * *", "`24` in the hour field is not 0-23"),
        ("* * 0 * *", "`0` in the day of the month field is not 1-31"),
        ("* * * jab *", "`jab` in the month field is not 1-12, or JAN-DEC"),
        (
            "* * * * MONDAY",
            "`MONDAY` in the day of the week field is not 0-7, or SUN-SAT",
        ),
        (
            "* 5-3 * * *",
            "`5-3` in the hour field is a range that ends before it begins",
        ),
        (
            "*/0 * * * *",
            "`*/0` in the minute field has a step that is not in 1..=59",
        ),
        ("5/10 * * * *", "write `5-59/10`"),
        ("+5 * * * *", "`+5` in the minute field"),
        ("1,,2 * * * *", "`` in the minute field"),
        ("0 0 30 2 *", "no such day"),
        ("@daily", "it has 1 fields"),
    ];
    for (expression, part) in rows {
        let when = When::Cron {
            expression: expression.to_owned(),
            zone: "UTC".to_owned(),
            dst: Dst::Once,
        };
        match Calendar::of(&Timetable {
            when,
            start_ms: None,
            end_ms: None,
        }) {
            Err(Wrong::Cron(why)) => assert!(why.contains(part), "{expression}: {why}"),
            other => panic!("{expression}: {other:?}"),
        }
    }
}

#[test]
fn a_zone_that_does_not_exist_is_refused() {
    for zone in ["Europe/Berln", "", "+02:00", "CET-1CEST"] {
        let when = When::Cron {
            expression: "0 2 * * *".to_owned(),
            zone: zone.to_owned(),
            dst: Dst::Once,
        };
        let made = Calendar::of(&Timetable {
            when,
            start_ms: None,
            end_ms: None,
        });
        assert!(matches!(made, Err(Wrong::Zone(_))), "{zone}: {made:?}");
    }
}

#[test]
fn a_period_is_counted_from_the_start_and_nothing_is_due_outside_the_bounds() {
    let day = ms("2026-01-01T00:00:10Z");
    let every = calendar(When::Every(30), Some(day), Some(day + 60_000));
    let due: Vec<u64> = every.between(0, u64::MAX).collect();
    assert_eq!(due, [day, day + 30_000, day + 60_000]);
    assert_eq!(every.after(day), Some(day + 30_000), "strictly after");
    assert_eq!(
        calendar(When::Every(30), None, None).after(day),
        Some(ms("2026-01-01T00:00:30Z"))
    );
    let once = calendar(When::At(day), None, None);
    assert_eq!((once.after(day - 1), once.after(day)), (Some(day), None));
}

#[test]
fn a_jitter_is_always_the_same_for_a_name_and_spreads_names() {
    let minute = Duration::from_secs(60);
    let names = (0..100).map(|n| format!("schedule-{n}"));
    let delays: BTreeSet<Duration> = names.map(|name| delay_of(&name, minute)).collect();
    assert!(delays.len() > 95 && delays.iter().all(|delay| *delay < minute));
    assert!(
        delays.iter().any(|d| d.as_secs() < 10) && delays.iter().any(|d| d.as_secs() > 50),
        "{delays:?}"
    );
    assert_eq!(delay_of("nightly", minute), delay_of("nightly", minute));
    assert_eq!(delay_of("nightly", Duration::ZERO), Duration::ZERO);
}
