//! How fast things go, from one sample to the next.

use std::collections::{BTreeMap, VecDeque};

use crate::report::sample::{HandlerSample, Sample};

/// Samples of which the times of runs are told: about as many seconds.
const WINDOW: usize = 15;
/// Rates that are kept of each handler.
pub const RATES_MAX: usize = 60;
/// Longer runs are told as this, in microseconds.
const LONGEST_US: u64 = 120_000_000;

/// The last minute of all handlers.
#[derive(Debug, Default)]
pub struct MeshRates {
    pub handlers: BTreeMap<String, HandlerRates>,
}

/// The last minute of a handler.
#[derive(Debug, Default)]
pub struct HandlerRates {
    samples: VecDeque<(u64, HandlerSample)>,
    /// Events a second that were done, the newest last; `None`: not known, as after the start of a host.
    pub done: VecDeque<Option<f64>>,
    /// Failed attempts a second.
    pub failing: Option<f64>,
    /// What half of the runs took at most, and 99 in 100, in microseconds.
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
}

impl MeshRates {
    pub fn take(&mut self, sample: &Sample) {
        self.handlers.retain(|name, _| sample.handlers.contains_key(name));
        for (name, one) in &sample.handlers {
            let rates = self.handlers.entry(name.clone()).or_default();
            rates.take(sample.at, one);
        }
    }
}

impl HandlerRates {
    pub fn rate(&self) -> Option<f64> {
        self.done.back().copied().flatten()
    }

    fn take(&mut self, at: u64, sample: &HandlerSample) {
        let before = self.samples.back();
        let per_second = |of: fn(&HandlerSample) -> u64| {
            let (then, before) = before?;
            let seconds = at.checked_sub(*then).filter(|ms| *ms > 0)? as f64 / 1000.0;
            // A host that has started again counts from zero.
            Some(of(sample).checked_sub(of(before))? as f64 / seconds)
        };
        let rate = per_second(|one| one.done);
        self.failing = per_second(|one| one.retried + one.dead);
        self.done.push_back(rate);
        if self.done.len() > RATES_MAX {
            self.done.pop_front();
        }
        self.samples.push_back((at, sample.clone()));
        if self.samples.len() > WINDOW {
            self.samples.pop_front();
        }
        let runs = self.samples.front().map(|(_, first)| &first.runs);
        self.p50_us = runs.and_then(|first| quantile(first, &sample.runs, 0.50));
        self.p99_us = runs.and_then(|first| quantile(first, &sample.runs, 0.99));
    }
}

/// What a share of the runs between two samples took at most, in microseconds: the upper bound of its bucket. `None`: there were none.
fn quantile(before: &BTreeMap<u64, u64>, after: &BTreeMap<u64, u64>, share: f64) -> Option<u64> {
    let counts = after.iter().map(|(bound, count)| {
        let earlier = before.get(bound).copied().unwrap_or(0);
        (*bound, count.saturating_sub(earlier))
    });
    let counts: Vec<(u64, u64)> = counts.collect();
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    let mut below = 0;
    for (bound, count) in counts {
        below += count;
        if count > 0 && below as f64 >= share * all as f64 {
            return Some(bound.min(LONGEST_US));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, done: u64, runs: &[(u64, u64)]) -> Sample {
        let one = HandlerSample {
            done,
            retried: done / 10,
            runs: runs.iter().copied().collect(),
            ..HandlerSample::default()
        };
        Sample {
            at,
            hosts: Vec::new(),
            handlers: BTreeMap::from([("points".to_owned(), one)]),
            unknown: None,
        }
    }

    #[test]
    fn two_samples_tell_a_rate_and_a_host_that_has_started_again_tells_none() {
        let mut rates = MeshRates::default();
        rates.take(&sample(1000, 100, &[]));
        assert_eq!(rates.handlers["points"].rate(), None);
        rates.take(&sample(3000, 300, &[]));
        let points = &rates.handlers["points"];
        assert_eq!((points.rate(), points.failing), (Some(100.0), Some(10.0)));
        rates.take(&sample(4000, 7, &[]));
        assert_eq!(rates.handlers["points"].rate(), None);
    }

    #[test]
    fn times_are_those_of_the_runs_since_the_first_sample() {
        let mut rates = MeshRates::default();
        rates.take(&sample(1000, 0, &[(100, 1000), (500, 5)]));
        rates.take(&sample(2000, 0, &[(100, 1090), (500, 14), (u64::MAX, 1)]));
        let points = &rates.handlers["points"];
        assert_eq!((points.p50_us, points.p99_us), (Some(100), Some(500)));
        assert_eq!(
            quantile(&BTreeMap::new(), &BTreeMap::from([(u64::MAX, 3)]), 0.5),
            Some(LONGEST_US)
        );
        assert_eq!(quantile(&BTreeMap::new(), &BTreeMap::new(), 0.5), None);
    }
}
