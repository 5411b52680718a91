//! How long a handler's events take on this host, and what came of their attempts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::broker::consumer::nanos;
use crate::event::clock::about_ms;
use crate::event::outcome::Outcome;
use crate::event::{EventId, Headers, Message};
use crate::histogram::{Exemplar, Histogram};
use crate::wasm::sandbox::SandboxLimit;
use crate::wasm::source::{ModuleDigest, ModuleHash};

/// Modules of which attempts are told apart. Those of older ones are no longer told.
const MODULES_MAX: usize = 4;

pub struct HandlerMetrics {
    /// From the delivery of an event to the start of its guest.
    pub wait: Histogram,
    /// One run of the guest.
    pub run: Histogram,
    /// From the end of a guest until the ledger has committed what it wants.
    pub commit: Histogram,
    /// From when the stream stored an event until it was decided.
    pub age: Histogram,
    /// Runs that a limit of the sandbox has ended, by [`SandboxLimit::NAMES`].
    limits: [AtomicU64; SandboxLimit::NAMES.len()],
    /// The newest module is the last.
    modules: ArcSwap<Vec<Arc<ModuleAttempts>>>,
}

impl Default for HandlerMetrics {
    fn default() -> HandlerMetrics {
        HandlerMetrics {
            wait: Histogram::times(),
            run: Histogram::times(),
            commit: Histogram::times(),
            age: Histogram::times(),
            limits: Default::default(),
            modules: ArcSwap::default(),
        }
    }
}

/// What came of the attempts that one module has run.
pub struct ModuleAttempts {
    pub module: ModuleDigest,
    /// By [`Outcome::NAMES`].
    outcomes: [AtomicU64; Outcome::NAMES.len()],
}

impl ModuleAttempts {
    fn of(module: &ModuleDigest) -> ModuleAttempts {
        ModuleAttempts {
            module: module.clone(),
            outcomes: Default::default(),
        }
    }

    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.outcomes.iter().map(|count| count.load(Ordering::Relaxed));
        Outcome::NAMES.into_iter().zip(counts)
    }
}

impl HandlerMetrics {
    /// The guest of an event started so long after its delivery. `at`, here and below: about now.
    pub fn waited(&self, message: &Message, took: Duration, at: Instant) {
        count(&self.wait, message, nanos(took), about_ms(at));
    }

    pub fn ran(&self, message: &Message, took: Duration, at: Instant) {
        count(&self.run, message, nanos(took), about_ms(at));
    }

    pub fn committed(&self, message: &Message, took: Duration, at: Instant) {
        count(&self.commit, message, nanos(took), about_ms(at));
    }

    /// An event is done or dead.
    pub fn decided(&self, message: &Message, at: Instant) {
        let at_ms = about_ms(at);
        let age_ms = at_ms.saturating_sub(message.time_ms);
        count(&self.age, message, age_ms.saturating_mul(1_000_000), at_ms);
    }

    pub fn limited(&self, limit: SandboxLimit) {
        self.limits[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn limits(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.limits.iter().map(|count| count.load(Ordering::Relaxed));
        SandboxLimit::NAMES.into_iter().zip(counts)
    }

    /// An attempt has ended.
    pub fn attempt(&self, module: &ModuleDigest, outcome: &Outcome) {
        let at = Outcome::NAMES.iter().position(|name| *name == outcome.name());
        let Some(at) = at else { return };
        let of = |known: &[Arc<ModuleAttempts>]| {
            let found = known.iter().rev().find(|one| one.module == *module);
            found
                .map(|one| one.outcomes[at].fetch_add(1, Ordering::Relaxed))
                .is_some()
        };
        // All attempts of a handler are on one thread.
        if !of(&self.modules.load()) {
            let mut known = self.modules.load().to_vec();
            known.push(Arc::new(ModuleAttempts::of(module)));
            let first = known.len().saturating_sub(MODULES_MAX);
            let known = known.split_off(first);
            of(&known);
            self.modules.store(Arc::new(known));
        }
    }

    pub fn modules(&self) -> Arc<Vec<Arc<ModuleAttempts>>> {
        self.modules.load_full()
    }
}

fn count(histogram: &Histogram, message: &Message, value: u64, at_ms: u64) {
    histogram.count_of(value, at_ms, || Exemplar {
        event: message.event.to_string(),
        trace: message.trace_id().map(str::to_owned),
        value,
        at_ms,
    });
}

/// All that is counted of one event of a handler with a ledger, for a benchmark of what that costs.
pub struct CountedEvent {
    metrics: HandlerMetrics,
    message: Message,
    module: ModuleDigest,
}

impl CountedEvent {
    /// An event with this id and these headers.
    pub fn new(id: &str, headers: Headers) -> Option<CountedEvent> {
        Some(CountedEvent {
            metrics: HandlerMetrics::default(),
            message: Message {
                event: EventId::parse(id)?,
                subject: String::new(),
                headers,
                payload: bytes::Bytes::new(),
                time_ms: about_ms(Instant::now()),
            },
            module: ModuleDigest::from(ModuleHash::of(&[])),
        })
    }

    /// Counts it as `handler_task` does, in the order of an event, and asks the clock as often. Its guest takes this time, and its
    /// commit this much longer.
    pub fn count(&self, guest: Duration, commit: Duration) {
        let (metrics, message) = (&self.metrics, &self.message);
        let at = Instant::now();
        // The clock is asked for a run anyway.
        let ended = at + guest;
        metrics.ran(message, guest, ended);
        metrics.waited(
            message,
            ended.saturating_duration_since(at).saturating_sub(guest),
            ended,
        );
        let committed = Instant::now() + guest;
        metrics.committed(message, committed - ended + commit, committed);
        metrics.attempt(&self.module, &Outcome::Done);
        metrics.decided(message, committed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_by_module_and_outcome_and_only_the_newest_modules_are_kept() {
        let metrics = HandlerMetrics::default();
        let digest = |n: u8| ModuleDigest::from(ModuleHash::of(&[n]));
        for n in 0..6 {
            metrics.attempt(&digest(n), &Outcome::Done);
        }
        metrics.attempt(&digest(5), &Outcome::Conflict);
        metrics.attempt(&digest(3), &Outcome::Done);
        let told: Vec<(ModuleDigest, u64, u64)> = metrics
            .modules()
            .iter()
            .map(|one| {
                let of = |name| one.outcomes().find(|(outcome, _)| *outcome == name).unwrap().1;
                (one.module.clone(), of("done"), of("conflict"))
            })
            .collect();
        assert_eq!(
            told,
            [
                (digest(2), 1, 0),
                (digest(3), 2, 0),
                (digest(4), 1, 0),
                (digest(5), 1, 1)
            ]
        );
    }
}
