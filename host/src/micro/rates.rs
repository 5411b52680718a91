//! How fast the handlers of this host go: counters that are read every second, so that one question tells a rate.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Host;
use crate::handler_task::lane::Lane;

/// How often the counters are read.
pub const EVERY: Duration = Duration::from_secs(1);
/// A rate is over this time, or less if the host has just begun.
const WINDOW: Duration = Duration::from_secs(10);
/// Over less than this nothing is told.
const SHORTEST: Duration = Duration::from_millis(900);

/// How fast a handler goes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "rate")]
pub struct RateJson {
    /// Events a second that were done.
    pub done: f64,
    /// Attempts a second that failed.
    pub failed: f64,
    /// Over so many seconds.
    pub seconds: f64,
}

impl RateJson {
    /// That of several hosts together.
    pub fn and(self, other: RateJson) -> RateJson {
        RateJson {
            done: self.done + other.done,
            failed: self.failed + other.failed,
            seconds: self.seconds.min(other.seconds),
        }
    }
}

/// Counters of a handler at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct LaneCounts {
    done: u64,
    failed: u64,
}

impl LaneCounts {
    fn of(lane: &Lane) -> LaneCounts {
        let counters = &lane.counters;
        LaneCounts {
            done: counters.done.load(Ordering::Relaxed),
            failed: counters.retried.load(Ordering::Relaxed) + counters.dead(),
        }
    }
}

/// The counters of all handlers of a host, in its order, as they were in the last seconds.
#[derive(Debug, Default)]
pub struct RecentCounts {
    samples: VecDeque<(Instant, Vec<LaneCounts>)>,
}

impl RecentCounts {
    pub fn take(&mut self, host: &Host) {
        let counts = host.lanes.iter().map(|lane| LaneCounts::of(lane)).collect();
        self.add(Instant::now(), counts);
    }

    fn add(&mut self, now: Instant, counts: Vec<LaneCounts>) {
        self.samples.push_back((now, counts));
        // The first that stays is as old as the window, or a little older.
        while let Some((second, _)) = self.samples.get(1)
            && now.duration_since(*second) >= WINDOW
        {
            self.samples.pop_front();
        }
    }

    /// The rate of the handler at this place; `None`: the host has just begun.
    pub fn rate(&self, at: usize, lane: &Lane) -> Option<RateJson> {
        self.rate_to(at, LaneCounts::of(lane), Instant::now())
    }

    fn rate_to(&self, at: usize, after: LaneCounts, now: Instant) -> Option<RateJson> {
        let (then, counts) = self.samples.front()?;
        let before = counts.get(at)?;
        let passed = now.duration_since(*then);
        let per_second = |after: u64, before: u64| after.saturating_sub(before) as f64 / passed.as_secs_f64();
        (passed >= SHORTEST).then(|| RateJson {
            done: per_second(after.done, before.done),
            failed: per_second(after.failed, before.failed),
            seconds: passed.as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_ten_seconds_and_a_host_that_has_just_begun_tells_none() {
        let began = Instant::now();
        let mut recent = RecentCounts::default();
        let at = |second: u64| began + Duration::from_secs(second);
        let count = |done: u64| LaneCounts {
            done,
            failed: done / 10,
        };
        assert_eq!(recent.rate_to(0, count(0), began), None);
        let done = |second: u64| count(second.min(12) * 100 + second.saturating_sub(12) * 20);
        for second in 0..30 {
            // 100 a second, and from then on 20.
            recent.add(at(second), vec![done(second)]);
            let rate = recent.rate_to(0, done(second), at(second));
            let wanted = match second {
                0 => None,
                1..=12 => Some((100.0, second.min(10) as f64)),
                13..22 => Some((100.0 - 8.0 * (second - 12) as f64, 10.0)),
                _ => Some((20.0, 10.0)),
            };
            assert_eq!(rate.map(|rate| (rate.done, rate.seconds)), wanted, "{second}");
        }
        assert_eq!(recent.samples.len(), 11, "no more are kept");
        let rate = RateJson {
            done: 1.0,
            failed: 0.5,
            seconds: 10.0,
        };
        let both = rate.and(RateJson {
            done: 2.0,
            failed: 0.0,
            seconds: 3.0,
        });
        assert_eq!(
            both,
            RateJson {
                done: 3.0,
                failed: 0.5,
                seconds: 3.0
            }
        );
    }
}
