//! How fast dead letters go back: one at first, then twice as many each time as many are decided, up to a limit and as long
//! as that does not take long, no faster than asked for, and none any more when too many fail. Pure: the time is handed in.

use std::time::Duration;

/// Among fewer decided letters than this, a share of failures says nothing yet: they count as this many.
const TELLING: usize = 10;
/// What may go at once after a pause, as a share of a second's worth.
const BURST_SECONDS: f64 = 0.1;
/// The batch grows no more when its letters are decided in no less than this: hosts let go of what waits for longer than a
/// minute.
const ROUND_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaceLimits {
    /// How many may be sent and undecided at a time.
    pub batch_max: usize,
    /// How many are sent in a second at most.
    pub per_second: Option<f64>,
    /// The highest share of failures, 0 to 1, at which it goes on.
    pub failures_max: f64,
}

/// The pace of one run of replays.
#[derive(Debug)]
pub struct Pace {
    limits: PaceLimits,
    batch: usize,
    /// Decided since the batch grew last, or could have.
    since_growth: usize,
    /// When that was, since the beginning.
    grown: Duration,
    decided: usize,
    failed: usize,
    /// How many the rate allows by now, as of `at`.
    allowed: f64,
    at: Duration,
}

impl Pace {
    pub fn new(limits: PaceLimits) -> Pace {
        Pace {
            limits,
            batch: 1,
            since_growth: 0,
            grown: Duration::ZERO,
            decided: 0,
            failed: 0,
            allowed: 1.0,
            at: Duration::ZERO,
        }
    }

    /// How many more may be asked for, with `out` undecided, at `now` since the beginning.
    pub fn room(&mut self, now: Duration, out: usize) -> usize {
        if self.must_stop() {
            return 0;
        }
        let room = self.batch.saturating_sub(out);
        let Some(per_second) = self.limits.per_second else {
            return room;
        };
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        let burst = (per_second * BURST_SECONDS).max(1.0);
        self.allowed = (self.allowed + passed * per_second).min(burst);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is small and never negative"
        )]
        room.min(self.allowed as usize)
    }

    /// This number was sent.
    pub fn asked(&mut self, count: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        let count = count as f64;
        self.allowed = (self.allowed - count).max(0.0);
    }

    /// One that was asked for is decided, at `now` since the beginning.
    pub fn decided(&mut self, succeeded: bool, now: Duration) {
        self.decided += 1;
        self.failed += usize::from(!succeeded);
        self.since_growth += 1;
        if self.since_growth >= self.batch {
            if now.saturating_sub(self.grown) < ROUND_MAX {
                self.batch = (self.batch * 2).min(self.limits.batch_max);
            }
            self.since_growth = 0;
            self.grown = now;
        }
    }

    /// Too many have failed.
    pub fn must_stop(&self) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "counts of letters are far below 2^52")]
        let share = self.failed as f64 / self.decided.max(TELLING) as f64;
        share > self.limits.failures_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: PaceLimits = PaceLimits {
        batch_max: 100,
        per_second: None,
        failures_max: 0.1,
    };

    fn decide(pace: &mut Pace, count: usize, succeeded: bool) {
        (0..count).for_each(|_| pace.decided(succeeded, Duration::ZERO));
    }

    #[test]
    fn batches_double_as_they_are_decided_up_to_the_limit() {
        let mut pace = Pace::new(FREE);
        let mut batches = Vec::new();
        for _ in 0..9 {
            let room = pace.room(Duration::ZERO, 0);
            batches.push(room);
            decide(&mut pace, room, true);
        }
        assert_eq!(batches, [1, 2, 4, 8, 16, 32, 64, 100, 100]);
        assert_eq!(pace.room(Duration::ZERO, 90), 10, "what is undecided takes its place");
        assert_eq!(pace.room(Duration::ZERO, 150), 0);
    }

    #[test]
    fn batches_that_take_their_time_double_until_they_take_half_a_minute() {
        // Eight at a time, each in six seconds.
        let seconds = |batch: usize| batch.div_ceil(8) as u64 * 6;
        let mut pace = Pace::new(FREE);
        let (mut now, mut batches) = (Duration::ZERO, Vec::new());
        for _ in 0..9 {
            let room = pace.room(now, 0);
            batches.push(room);
            now += Duration::from_secs(seconds(room));
            (0..room).for_each(|_| pace.decided(true, now));
        }
        assert_eq!(batches, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        (0..64).for_each(|_| pace.decided(true, now + Duration::from_secs(1)));
        assert_eq!(pace.room(now, 0), 100, "it goes faster again");
    }

    #[test]
    fn it_stops_when_the_share_of_failures_passes_the_limit_and_not_before() {
        let mut pace = Pace::new(FREE);
        pace.decided(false, Duration::ZERO);
        assert!(!pace.must_stop(), "one of the first ten is not more than a tenth");
        pace.decided(false, Duration::ZERO);
        assert!(pace.must_stop(), "two of the first ten are");
        assert_eq!(pace.room(Duration::ZERO, 0), 0);
        let mut pace = Pace::new(FREE);
        decide(&mut pace, 90, true);
        decide(&mut pace, 10, false);
        assert!(!pace.must_stop());
        decide(&mut pace, 2, false);
        assert!(pace.must_stop());
    }

    #[test]
    fn a_limit_of_nothing_stops_at_the_first_failure_and_one_of_all_never_stops() {
        let limits = |failures_max| PaceLimits { failures_max, ..FREE };
        let mut none = Pace::new(limits(0.0));
        assert!(!none.must_stop());
        none.decided(false, Duration::ZERO);
        assert!(none.must_stop());
        let mut all = Pace::new(limits(1.0));
        decide(&mut all, 1000, false);
        assert!(!all.must_stop());
    }

    #[test]
    fn a_rate_is_kept_over_time_and_a_pause_is_not_made_up_for() {
        let mut pace = Pace::new(PaceLimits {
            per_second: Some(100.0),
            batch_max: 1000,
            ..FREE
        });
        decide(&mut pace, 1023, true);
        let mut asked = 0;
        for tick in 0..=1000u64 {
            let room = pace.room(Duration::from_millis(tick), 0);
            pace.asked(room);
            decide(&mut pace, room, true);
            asked += room;
        }
        assert!((99..=101).contains(&asked), "{asked} in a second");
        assert_eq!(pace.room(Duration::from_secs(60), 0), 10, "a tenth of a second's worth");
        let mut slow = Pace::new(PaceLimits {
            per_second: Some(0.5),
            ..FREE
        });
        assert_eq!(slow.room(Duration::ZERO, 0), 1, "the first goes at once");
        slow.asked(1);
        slow.decided(true, Duration::ZERO);
        assert_eq!(slow.room(Duration::from_secs(1), 0), 0);
        assert_eq!(slow.room(Duration::from_secs(2), 0), 1);
    }
}
