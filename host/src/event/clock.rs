//! What time it is by the clock of the NATS servers, which stamps every stored message and fires delayed events.
//!
//! The host's own wall clock is believed as far as the servers do not contradict it. An answer to a request for a stream's or a
//! consumer's state tells the server's time, read between the request and the answer: so it bounds how far the server's clock
//! is from this process's monotonic one. A slow answer bounds it less, and is never wrong; several bound it more and more.
//!
//! Lines of the log have the time of the host's wall clock, [`wall_ms`]; everything else has [`now_ms`].

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::event::parse_rfc3339;
use crate::failpoint;

/// A difference that is warned of.
const TOLD: Duration = Duration::from_secs(1);
/// The difference has ended when no answer has contradicted the wall clock for this time.
const ENDED: Duration = Duration::from_secs(300);
/// How much two clocks may drift apart, as a share of the time that passes: one part in 2,000, to which kernels limit a clock
/// that they correct.
const DRIFT: i64 = 2_000;

/// Moments of the monotonic clock are counted from here.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
static CLOCK: Mutex<Clock> = Mutex::new(Clock::NEW);
/// How far the servers' clock was ahead of the monotonic one at the last answer; before the first, the wall clock.
static SERVERS_US: LazyLock<AtomicI64> = LazyLock::new(|| AtomicI64::new(wall_us() - monotonic_us(Instant::now())));

/// Milliseconds since the Unix epoch, by the servers' clock as far as it is known.
pub fn now_ms() -> u64 {
    let (wall, at) = (wall_us(), monotonic_us(Instant::now()));
    let now = CLOCK.lock().now_us(wall, at);
    u64::try_from(now / 1000).unwrap_or_default()
}

/// What time it was at a moment, as far as the last answer of a server told: without a lock, and without asking a clock, for
/// figures that need no more.
pub fn about_ms(at: Instant) -> u64 {
    about_us(at) / 1000
}

/// The same in microseconds since the Unix epoch.
pub fn about_us(at: Instant) -> u64 {
    u64::try_from(monotonic_us(at) + SERVERS_US.load(Ordering::Relaxed)).unwrap_or_default()
}

/// The same by the host's own wall clock.
pub fn wall_ms() -> u64 {
    u64::try_from(wall_us() / 1000).unwrap_or_default()
}

/// By how many milliseconds at least the host's wall clock is ahead of the servers'; negative: behind.
pub fn ahead_ms() -> i64 {
    let (wall, at) = (wall_us(), monotonic_us(Instant::now()));
    let clock = CLOCK.lock();
    (wall - clock.now_us(wall, at)) / 1000
}

/// A difference in words, "1h 5s ahead of", if it is more than a second.
pub fn difference(ahead_ms: i64) -> Option<String> {
    let apart = Duration::from_millis(ahead_ms.unsigned_abs());
    let which = if ahead_ms > 0 { "ahead of" } else { "behind" };
    // What is known is a little less than it is.
    let seconds = Duration::from_secs((ahead_ms.unsigned_abs() + 500) / 1000);
    (apart > TOLD).then(|| format!("{} {which}", humantime::format_duration(seconds)))
}

/// A server has told its time (RFC 3339) in an answer to a request that left at `asked` and that has just come.
pub fn heard(time: &str, asked: Instant) {
    let Some(server) = parse_rfc3339(time).and_then(|ms| i64::try_from(ms).ok()) else {
        return;
    };
    let now = Instant::now();
    let (wall, at) = (wall_us(), monotonic_us(now));
    let seen = ClockBounds {
        low: server * 1000 - at,
        // Of its time, milliseconds are read.
        high: server * 1000 + 999 - monotonic_us(asked),
    };
    let change = {
        let mut clock = CLOCK.lock();
        let change = clock.hear(seen, wall, at);
        SERVERS_US.store(clock.now_us(wall, at) - at, Ordering::Relaxed);
        change
    };
    match change {
        Some(ClockChange::Apart(ahead_ms)) => tracing::warn!(
            "this host's clock is {} that of the NATS server: set it right, for instance with NTP; what the mesh writes has the \
             server's time meanwhile, the log has the host's",
            difference(ahead_ms).unwrap_or_default()
        ),
        Some(ClockChange::Together) => tracing::info!("this host's clock agrees with that of the NATS server again"),
        None => {}
    }
}

fn wall_us() -> i64 {
    micros(failpoint::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn monotonic_us(at: Instant) -> i64 {
    // A request may have left before.
    micros(at.saturating_duration_since(*BEGAN)) - micros(BEGAN.saturating_duration_since(at))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

/// What an answer has changed.
#[derive(Debug, PartialEq)]
enum ClockChange {
    /// The wall clock is ahead by this number of milliseconds; negative: behind.
    Apart(i64),
    Together,
}

/// Between which numbers of microseconds the servers' clock is ahead of the monotonic one.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ClockBounds {
    low: i64,
    high: i64,
}

/// All times are in microseconds: those of wall clocks since the Unix epoch, those of the monotonic one since the process began.
struct Clock {
    bounds: Option<ClockBounds>,
    /// When they were joined last.
    joined: i64,
    /// When the wall clock was last found to be wrong, if that is told.
    apart: Option<i64>,
}

impl Clock {
    const NEW: Clock = Clock {
        bounds: None,
        joined: 0,
        apart: None,
    };

    /// The servers' time: the wall clock's, unless it is not possible.
    fn now_us(&self, wall: i64, at: i64) -> i64 {
        match self.bounds {
            Some(ClockBounds { low, high }) => wall.clamp(low + at, high + at),
            None => wall,
        }
    }

    fn hear(&mut self, seen: ClockBounds, wall: i64, at: i64) -> Option<ClockChange> {
        let drift = (at - self.joined) / DRIFT;
        let joined = self.bounds.map(|known| ClockBounds {
            low: (known.low - drift).max(seen.low),
            high: (known.high + drift).min(seen.high),
        });
        // They exclude each other if a server's clock was set, or this machine has slept: the newest is right.
        let possible = joined.filter(|bounds| bounds.low <= bounds.high);
        self.bounds = Some(possible.unwrap_or(seen));
        self.joined = at;
        let ahead = wall - self.now_us(wall, at);
        if ahead.abs() > micros(TOLD) {
            let told = self.apart.replace(at).is_some();
            return (!told).then_some(ClockChange::Apart(ahead / 1000));
        }
        self.apart.take_if(|last| at - *last >= micros(ENDED))?;
        Some(ClockChange::Together)
    }
}

/// A time that a person gives: a point in time, or a duration before now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// In milliseconds since the Unix epoch.
    At(u64),
    Ago(Duration),
}

impl Moment {
    /// In milliseconds since the Unix epoch; to be asked when the servers' clock is known.
    pub fn ms(self) -> u64 {
        match self {
            Moment::At(ms) => ms,
            Moment::Ago(ago) => now_ms().saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3_600 * SECOND;

    /// An answer of a server that is an hour ahead of the monotonic clock, asked for and come at these moments.
    fn answer(asked: i64, come: i64) -> ClockBounds {
        let read = HOUR + i64::midpoint(asked, come);
        ClockBounds {
            low: read - come,
            high: read - asked,
        }
    }

    #[test]
    fn a_wall_clock_that_the_server_does_not_contradict_is_believed() {
        let mut clock = Clock::NEW;
        assert_eq!(clock.now_us(5, 0), 5, "nothing is known yet");
        // Two seconds under way: it may be off by one, as far as that says.
        assert_eq!(
            clock.hear(answer(0, 2 * SECOND), HOUR + 2 * SECOND + 900_000, 2 * SECOND),
            None
        );
        assert_eq!(
            clock.now_us(HOUR + 2 * SECOND + 900_000, 2 * SECOND),
            HOUR + 2 * SECOND + 900_000
        );
        // A quick answer says more.
        assert_eq!(
            clock.hear(answer(3 * SECOND, 3 * SECOND + 10), HOUR + 3 * SECOND, 3 * SECOND + 10),
            None
        );
        let now = clock.now_us(HOUR + 5 * SECOND + 900_000, 5 * SECOND);
        assert!((HOUR + 5 * SECOND..HOUR + 5 * SECOND + 20).contains(&now), "{now}");
        // A slow one afterwards takes nothing of that back.
        clock.hear(answer(4 * SECOND, 9 * SECOND), HOUR, 9 * SECOND);
        let now = clock.now_us(0, 10 * SECOND);
        assert!(
            (HOUR + 10 * SECOND - 5_000..=HOUR + 10 * SECOND).contains(&now),
            "{now}"
        );
    }

    #[test]
    fn a_wall_clock_that_is_off_is_told_of_once_and_again_when_it_has_been_right_for_five_minutes() {
        let mut clock = Clock::NEW;
        let mut hear = |ahead: i64, at: i64| clock.hear(answer(at, at + 10), HOUR + at + ahead, at + 10);
        assert_eq!(hear(0, SECOND), None);
        assert_eq!(hear(999_000, 2 * SECOND), None, "less than a second");
        assert!(matches!(hear(HOUR, 3 * SECOND), Some(ClockChange::Apart(ms)) if (ms - 3_600_000).abs() <= 1));
        assert_eq!(hear(HOUR, 4 * SECOND), None, "once");
        assert_eq!(hear(0, 100 * SECOND), None, "not yet");
        assert_eq!(hear(-HOUR, 200 * SECOND), None, "it is still wrong");
        assert_eq!(hear(0, 499 * SECOND), None);
        assert_eq!(hear(0, 501 * SECOND), Some(ClockChange::Together));
        assert!(matches!(hear(-HOUR, 502 * SECOND), Some(ClockChange::Apart(ms)) if (ms + 3_600_000).abs() <= 1));
    }

    #[test]
    fn a_server_whose_clock_is_set_is_followed() {
        let mut clock = Clock::NEW;
        clock.hear(answer(0, 10), HOUR, 10);
        let later = ClockBounds {
            low: 2 * HOUR,
            high: 2 * HOUR + 10,
        };
        clock.hear(later, HOUR, SECOND);
        assert_eq!(clock.now_us(HOUR, SECOND), 2 * HOUR + SECOND);
    }
}
