//! How often something took how long, or was how much: counted in buckets, as Prometheus wants it. To count is cheap enough to be
//! done several times for each event: no lock, and no text.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Upper bounds of times, in nanoseconds: from 10 µs to a minute.
pub const TIMES: [u64; 21] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Upper bounds of numbers of things.
pub const SIZES: [u64; 11] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000];

/// A bucket gets a new exemplar after this time, in milliseconds: so rare ones leave one each, and frequent ones cost nothing.
const EXEMPLAR_EVERY_MS: u64 = 1_000;

/// One that was counted, by which a person finds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    pub event: String,
    /// Of its `traceparent`.
    pub trace: Option<String>,
    pub value: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
}

#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for what is above.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// From when on each bucket gets a new exemplar, in milliseconds since the Unix epoch.
    due_ms: Box<[AtomicU64]>,
    /// Of each bucket the newest; empty as long as there is none.
    exemplars: Mutex<Vec<Option<Exemplar>>>,
}

/// How a histogram stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    pub bounds: &'static [u64],
    /// Of each bucket alone.
    pub buckets: Vec<u64>,
    pub sum: u64,
    pub exemplars: Vec<Option<Exemplar>>,
}

impl Counted {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Histogram {
    pub fn new(bounds: &'static [u64]) -> Histogram {
        let zeros = || (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram {
            bounds,
            buckets: zeros(),
            sum: AtomicU64::new(0),
            due_ms: zeros(),
            exemplars: Mutex::default(),
        }
    }

    pub fn times() -> Histogram {
        Histogram::new(&TIMES)
    }

    pub fn sizes() -> Histogram {
        Histogram::new(&SIZES)
    }

    pub fn count(&self, value: u64) {
        self.counted(value);
    }

    /// The same. `exemplar` is asked at most once a second for each bucket. `at_ms`: now, in milliseconds since the Unix epoch.
    pub fn count_of(&self, value: u64, at_ms: u64, exemplar: impl FnOnce() -> Exemplar) {
        let bucket = self.counted(value);
        let due_ms = &self.due_ms[bucket];
        if at_ms >= due_ms.load(Ordering::Relaxed) {
            due_ms.store(at_ms + EXEMPLAR_EVERY_MS, Ordering::Relaxed);
            let exemplar = exemplar();
            let mut exemplars = self.exemplars.lock();
            exemplars.resize(self.buckets.len(), None);
            exemplars[bucket] = Some(exemplar);
        }
    }

    /// Its bucket.
    fn counted(&self, value: u64) -> usize {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.sum.fetch_add(value, Ordering::Relaxed);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        bucket
    }

    /// `None`: nothing was counted yet.
    pub fn now(&self) -> Option<Counted> {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counted = Counted {
            bounds: self.bounds,
            buckets: self.buckets.iter().map(of).collect(),
            sum: of(&self.sum),
            exemplars: self.exemplars.lock().clone(),
        };
        (counted.count() > 0).then_some(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_whose_bound_it_does_not_pass() {
        let sizes = Histogram::sizes();
        assert_eq!(sizes.now(), None);
        for size in [0, 1, 2, 3, 5, 2_000, 2_001] {
            sizes.count(size);
        }
        let now = sizes.now().unwrap();
        assert_eq!(now.buckets, [2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((now.count(), now.sum), (7, 4_012));
    }

    #[test]
    fn a_bucket_gets_a_new_exemplar_each_second_and_those_of_others_stay() {
        let times = Histogram::times();
        let mut asked = 0;
        let mut count = |value: u64, at_ms: u64| {
            times.count_of(value, at_ms, || {
                asked += 1;
                Exemplar {
                    event: format!("k.{at_ms}"),
                    trace: None,
                    value,
                    at_ms,
                }
            });
        };
        (0..EXEMPLAR_EVERY_MS).for_each(|ms| count(1_000, 5_000 + ms));
        count(150_000_000, 5_001);
        count(1_000, 6_000);
        assert_eq!(asked, 3);
        let exemplars = times.now().unwrap().exemplars;
        let event = |at: usize| exemplars[at].as_ref().map(|exemplar| exemplar.event.as_str());
        assert_eq!((event(0), event(1), event(13)), (Some("k.6000"), None, Some("k.5001")));
    }
}
