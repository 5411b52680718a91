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

/// Of so many in a bucket, one leaves an exemplar, so that seldom ones do as well.
const EXEMPLAR_EVERY: u64 = 64;
/// The same of those that are slow, by which a person finds why.
const SLOW_EVERY: u64 = 8;
const SLOW: u64 = 100_000_000;

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
        Histogram {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
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

    /// The same. `exemplar` is asked now and then.
    pub fn count_of(&self, value: u64, exemplar: impl FnOnce() -> Exemplar) {
        let (bucket, before) = self.counted(value);
        let every = if value >= SLOW { SLOW_EVERY } else { EXEMPLAR_EVERY };
        if before.is_multiple_of(every) {
            let exemplar = exemplar();
            let mut exemplars = self.exemplars.lock();
            exemplars.resize(self.buckets.len(), None);
            exemplars[bucket] = Some(exemplar);
        }
    }

    /// Its bucket, and how many were there before.
    fn counted(&self, value: u64) -> (usize, u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.sum.fetch_add(value, Ordering::Relaxed);
        (bucket, self.buckets[bucket].fetch_add(1, Ordering::Relaxed))
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
    fn the_first_of_each_bucket_leaves_an_exemplar_then_a_few_and_slow_ones_more_often() {
        let times = Histogram::times();
        let mut asked = 0;
        let mut count = |value: u64| {
            times.count_of(value, || {
                asked += 1;
                Exemplar {
                    event: format!("k.{value}"),
                    trace: None,
                    value,
                    at_ms: 1,
                }
            });
        };
        (0..EXEMPLAR_EVERY).for_each(|_| count(1_000));
        (0..EXEMPLAR_EVERY).for_each(|_| count(150_000_000));
        assert_eq!(asked, 1 + EXEMPLAR_EVERY / SLOW_EVERY);
        let exemplars = times.now().unwrap().exemplars;
        let event = |at: usize| exemplars[at].as_ref().map(|exemplar| exemplar.event.as_str());
        assert_eq!(
            (event(0), event(1), event(13)),
            (Some("k.1000"), None, Some("k.150000000"))
        );
    }
}
