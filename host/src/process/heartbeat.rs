//! Whether the threads that events need still run: each of them has a heartbeat, about once a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often a thread has a heartbeat at least.
const EVERY: Duration = Duration::from_secs(1);
/// A thread that is silent for longer is stuck. An event may hold its thread for a moment, and a machine may be slow.
const SILENT_MAX: Duration = Duration::from_secs(10);

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
static ALL: Mutex<Vec<Arc<Beat>>> = Mutex::new(Vec::new());

struct Beat {
    thread: String,
    /// In milliseconds since [`BEGAN`].
    last: AtomicU64,
}

/// The heartbeat of a thread, until it is dropped.
pub struct Heartbeat(Arc<Beat>);

impl Heartbeat {
    pub fn begin(thread: impl Into<String>) -> Heartbeat {
        let beat = Arc::new(Beat {
            thread: thread.into(),
            last: AtomicU64::new(now()),
        });
        ALL.lock().push(Arc::clone(&beat));
        Heartbeat(beat)
    }

    pub fn beat(&self) {
        self.0.last.store(now(), Ordering::Relaxed);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        ALL.lock().retain(|beat| !Arc::ptr_eq(beat, &self.0));
    }
}

/// The heartbeat of the thread of a runtime, for as long as this task is polled on it.
pub async fn keep(thread: String) {
    let heartbeat = Heartbeat::begin(thread);
    loop {
        heartbeat.beat();
        tokio::time::sleep(EVERY).await;
    }
}

/// The threads that are stuck, and for how long they have been silent.
pub fn stuck() -> Vec<(String, Duration)> {
    stuck_at(now())
}

fn stuck_at(now: u64) -> Vec<(String, Duration)> {
    let silent = |beat: &Arc<Beat>| {
        let silent = Duration::from_millis(now.saturating_sub(beat.last.load(Ordering::Relaxed)));
        (silent > SILENT_MAX).then(|| (beat.thread.clone(), silent))
    };
    ALL.lock().iter().filter_map(silent).collect()
}

fn now() -> u64 {
    u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_heartbeat_is_stuck_until_it_has_one_or_ends() {
        let beat = Heartbeat::begin("of a test");
        let is_stuck = |after: Duration| {
            let at = now() + u64::try_from(after.as_millis()).unwrap();
            stuck_at(at).iter().any(|(thread, _)| thread == "of a test")
        };
        let late = SILENT_MAX + Duration::from_secs(1);
        assert!(!is_stuck(Duration::ZERO) && is_stuck(late));
        beat.0.last.store(now() + 2_000, Ordering::Relaxed);
        assert!(!is_stuck(late), "it has had one since");
        drop(beat);
        assert!(!is_stuck(2 * late));
    }
}
