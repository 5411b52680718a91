//! What keeps a handler's events from going on although it serves: an attempt that cannot be recorded, a letter that cannot
//! be stored, a replay that cannot be asked for. Kept for people: `micro` tells of it, and `jetmesh status` prints it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::broker::Error;
use crate::event::EventId;
use crate::event::clock::now_ms;
use crate::text::normalise::normalise;

/// What may pass by itself is reported when it has lasted for this time and was met again. An event that another host has taken
/// up meanwhile is not met again.
const LASTS_MS: u64 = 15_000;
/// An event that is put off is met again soon after its delay. One that is not met again is with another host, or decided.
const GRACE: Duration = Duration::from_secs(60);
/// How many events are remembered; the count that is reported stops here.
const EVENTS_MAX: usize = 1_000;
/// How many reasons are reported.
const REASONS_MAX: usize = 10;

/// What cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HinderedWork {
    Event(EventId),
    /// The search for lost events.
    Sweep,
}

/// Why something cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    pub text: String,
    /// It may pass without a change by a person.
    pub passes: bool,
}

impl From<&Error> for Why {
    fn from(error: &Error) -> Why {
        Why {
            text: error.to_string(),
            passes: error.passes(),
        }
    }
}

/// One reason, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    pub why: String,
    /// Since when something of it lasts, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Events that wait for it; 0: it is the sweep.
    pub events: usize,
}

#[derive(Debug, Default)]
pub struct Hindered {
    /// How many there are, so that events need no lock while there is none.
    count: AtomicUsize,
    met: Mutex<HashMap<HinderedWork, Met>>,
}

#[derive(Debug)]
struct Met {
    why: Why,
    since_ms: u64,
    times: u64,
    /// If it is not met again until then, it is over.
    until: Instant,
}

impl Hindered {
    /// Something cannot go on, and is tried again after `again_in`.
    pub fn met(&self, what: HinderedWork, why: Why, again_in: Duration) {
        let now = Instant::now();
        let mut all = self.lock();
        all.retain(|_, met| met.until > now);
        if all.len() < EVENTS_MAX || all.contains_key(&what) {
            let until = now + again_in + GRACE;
            let last = all.get(&what).map(|met| (met.since_ms, met.times));
            let (since_ms, times) = last.unwrap_or_else(|| (now_ms(), 0));
            let times = times + 1;
            all.insert(
                what,
                Met {
                    why,
                    since_ms,
                    times,
                    until,
                },
            );
        }
        self.count.store(all.len(), Ordering::Relaxed);
    }

    /// It goes on.
    pub fn over(&self, what: &HinderedWork) {
        if self.count.load(Ordering::Relaxed) > 0 {
            let mut all = self.lock();
            all.remove(what);
            self.count.store(all.len(), Ordering::Relaxed);
        }
    }

    /// An event is taken up. When this is dropped, the event has continued, unless it was [`met`](Self::met) meanwhile.
    pub fn taken_up<'a>(&'a self, event: &EventId) -> Option<TakenUp<'a>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let what = HinderedWork::Event(event.clone());
        let times = self.lock().get(&what)?.times;
        Some(TakenUp {
            hindered: self,
            what,
            times,
        })
    }

    /// What there is now, by reason, the oldest first.
    pub fn now(&self) -> Vec<Hindrance> {
        let (now, since) = (Instant::now(), now_ms());
        let mut reasons: HashMap<String, Hindrance> = HashMap::new();
        for (what, met) in self.lock().iter().filter(|(_, met)| met.until > now) {
            let lasts = met.times > 1 && since.saturating_sub(met.since_ms) >= LASTS_MS;
            if met.why.passes && !lasts {
                continue;
            }
            let reason = reasons.entry(normalise(&met.why.text)).or_insert_with(|| Hindrance {
                why: met.why.text.clone(),
                since_ms: met.since_ms,
                events: 0,
            });
            reason.since_ms = reason.since_ms.min(met.since_ms);
            reason.events += usize::from(matches!(what, HinderedWork::Event(_)));
        }
        let mut reasons: Vec<Hindrance> = reasons.into_values().collect();
        reasons.sort_by(|a, b| (a.since_ms, &a.why).cmp(&(b.since_ms, &b.why)));
        reasons.truncate(REASONS_MAX);
        reasons
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HinderedWork, Met>> {
        self.met.lock()
    }
}

/// Held while an event that could not go on before is worked on.
pub struct TakenUp<'a> {
    hindered: &'a Hindered,
    what: HinderedWork,
    times: u64,
}

impl Drop for TakenUp<'_> {
    fn drop(&mut self) {
        let mut all = self.hindered.lock();
        if all.get(&self.what).is_some_and(|met| met.times == self.times) {
            all.remove(&self.what);
        }
        self.hindered.count.store(all.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64) -> EventId {
        EventId {
            incarnation: "k".into(),
            sequence,
        }
    }

    fn full(passes: bool) -> Why {
        Why {
            text: "stream FULL takes nothing (10077)".to_owned(),
            passes,
        }
    }

    #[test]
    fn events_that_wait_for_one_reason_are_counted_until_each_has_gone_on() {
        let hindered = Hindered::default();
        assert!(hindered.taken_up(&event(1)).is_none());
        for sequence in 1..=2 {
            hindered.met(HinderedWork::Event(event(sequence)), full(false), Duration::ZERO);
        }
        hindered.met(HinderedWork::Sweep, full(false), Duration::ZERO);
        let now = hindered.now();
        assert_eq!((now.len(), now[0].events), (1, 2));
        let first = hindered.taken_up(&event(1));
        hindered.met(HinderedWork::Event(event(1)), full(false), Duration::ZERO);
        drop(first);
        assert_eq!(hindered.now()[0].events, 2, "it could not go on");
        drop(hindered.taken_up(&event(1)));
        drop(hindered.taken_up(&event(2)));
        assert_eq!(hindered.now()[0].events, 0, "the sweep is left");
        hindered.over(&HinderedWork::Sweep);
        assert_eq!(hindered.now(), []);
    }

    #[test]
    fn what_may_pass_is_not_told_of_at_once_and_no_more_is_kept_than_the_bound() {
        let hindered = Hindered::default();
        hindered.met(HinderedWork::Event(event(1)), full(true), Duration::ZERO);
        assert_eq!(hindered.now(), []);
        for sequence in 0..2 * EVENTS_MAX as u64 {
            hindered.met(HinderedWork::Event(event(sequence)), full(false), Duration::ZERO);
        }
        assert_eq!(hindered.now()[0].events, EVENTS_MAX);
    }
}
