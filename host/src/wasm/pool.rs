//! Room for instances. The engine has a fixed number of places; an instance that finds none waits here, in its turn, until
//! another one ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// How often the first in the queue looks, besides being woken: who ends on another thread may not see yet that it waits.
const LOOK: Duration = Duration::from_millis(10);

/// Instances that are kept between events.
pub trait Kept: Send + Sync {
    /// Gives up one of them. `false`: there is none.
    fn give_up_one(&self) -> bool;
}

/// The queue for places.
pub struct Room {
    turn: Semaphore,
    waiting: AtomicUsize,
    freed: Notify,
    kept: Mutex<Vec<Weak<dyn Kept>>>,
}

impl Default for Room {
    fn default() -> Room {
        Room {
            turn: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            kept: Mutex::default(),
        }
    }
}

/// Held by who is first in the queue.
pub struct QueueTurn<'a> {
    room: &'a Room,
    _first: Option<SemaphorePermit<'a>>,
}

impl Drop for QueueTurn<'_> {
    fn drop(&mut self) {
        self.room.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place that is taken while this lives, or no place is needed. A task that waits is woken when it is dropped.
pub struct PoolPlace<'a>(pub &'a Room);

impl Drop for PoolPlace<'_> {
    fn drop(&mut self) {
        self.0.left();
    }
}

impl Room {
    /// A task waits for a place: later ones queue behind it, and no instance is kept for reuse.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Tasks that wait for a place.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A place has come free.
    pub fn left(&self) {
        if self.is_waited_for() {
            self.freed.notify_one();
        }
    }

    /// Registers an owner of kept instances. It gives them up when a task waits for a place.
    pub fn know(&self, kept: Weak<dyn Kept>) {
        let mut known = self.kept.lock();
        known.retain(|kept| kept.strong_count() > 0);
        known.push(kept);
    }

    /// Waits to be the first in the queue.
    ///
    /// # Cancel safety
    /// Dropped half-way, the others move up.
    pub async fn queue(&self) -> QueueTurn<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut turn = QueueTurn {
            room: self,
            _first: None,
        };
        // The semaphore is never closed.
        turn._first = self.turn.acquire().await.ok();
        turn
    }

    /// Waits until there may be a place again, after none was found.
    pub async fn wait(&self, _: &QueueTurn<'_>) {
        if !self.give_up_one() {
            // Who left before this has left its word.
            let _ = tokio::time::timeout(LOOK, self.freed.notified()).await;
        }
    }

    fn give_up_one(&self) -> bool {
        let kept: Vec<Arc<dyn Kept>> = {
            let known = self.kept.lock();
            known.iter().filter_map(Weak::upgrade).collect()
        };
        kept.iter().any(|kept| kept.give_up_one())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use futures_util::future::{BoxFuture, join_all};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::event::effects::State;
    use crate::event::effects::Version;
    use crate::event::outcome::Outcome;
    use crate::event::{EventId, Message};
    use crate::plan::Instance;
    use crate::wasm::engine::Runtime;
    use crate::wasm::guest::Facts;
    use crate::wasm::library::Compiled;
    use crate::wasm::module::{Module, Run};

    /// Reads wait until the test lets them pass.
    #[derive(Default)]
    struct Gate {
        open: Option<Semaphore>,
        inside: AtomicUsize,
    }

    impl State for Gate {
        fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(Option<Bytes>, Version), String>> {
            async {
                self.inside.fetch_add(1, Ordering::SeqCst);
                if let Some(open) = &self.open {
                    open.acquire().await.expect("it is never closed").forget();
                }
                self.inside.fetch_sub(1, Ordering::SeqCst);
                Ok((None, Version::Stored(0)))
            }
            .boxed()
        }
    }

    const PLACES: usize = 2;

    fn modules(count: usize) -> Vec<Module> {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../handlers/target/wasm32-wasip2/release/probe.wasm"
        );
        let bytes = std::fs::read(path).expect("`make handlers` has built the probe");
        let runtime = Runtime::new(PLACES, 16 * 1024 * 1024).unwrap();
        let compiled = Arc::new(Compiled::here(&runtime, &bytes));
        (0..count).map(|_| Module::new(Arc::clone(&compiled))).collect()
    }

    fn facts(gate: &Arc<Gate>) -> Arc<Facts> {
        Arc::new(Facts {
            handler: "probe".to_owned(),
            max_attempts: 1,
            settings: std::collections::BTreeMap::new(),
            publish: Vec::new(),
            memory_bytes_max: 16 * 1024 * 1024,
            message_bytes_max: 0.into(),
            state: Some(Arc::clone(gate) as Arc<dyn State>),
        })
    }

    async fn run(module: &Module, facts: &Arc<Facts>, sequence: u64, instance: Instance) -> Run {
        let message = Message {
            event: EventId::of_test(sequence),
            subject: "orders.probe".to_owned(),
            headers: Vec::new(),
            payload: r#"{"op":"get","key":"n"}"#.into(),
            time_ms: 0,
        };
        module
            .run(facts, &message, 1, instance, Duration::from_secs(60), None)
            .await
    }

    #[tokio::test]
    async fn an_instance_that_finds_no_place_waits_and_does_not_fail() {
        let gate = Arc::new(Gate {
            open: Some(Semaphore::new(0)),
            ..Gate::default()
        });
        let (modules, facts) = (modules(1), facts(&gate));
        let runs = join_all((0..9).map(|n| run(&modules[0], &facts, n, Instance::Fresh)));
        let watch = async {
            let open = gate.open.as_ref().expect("it has a gate");
            for left in (0..9_usize).rev() {
                // As many as there are places, and never more.
                while gate.inside.load(Ordering::SeqCst) < PLACES.min(left + 1) {
                    tokio::task::yield_now().await;
                }
                assert_eq!(gate.inside.load(Ordering::SeqCst), PLACES.min(left + 1));
                open.add_permits(1);
                while gate.inside.load(Ordering::SeqCst) > left.min(PLACES - 1) && left < PLACES {
                    tokio::task::yield_now().await;
                }
            }
        };
        let (runs, ()) = tokio::join!(runs, watch);
        for run in runs {
            assert_eq!(run.outcome, Outcome::Done);
        }
        assert!(!modules[0].is_waited_for());
    }

    #[tokio::test]
    async fn what_others_keep_for_reuse_is_given_up_for_who_waits() {
        let gate = Arc::new(Gate::default());
        let (modules, facts) = (modules(5), facts(&gate));
        // Each keeps an instance, and there are two places.
        for _ in 0..3 {
            for (n, module) in modules.iter().enumerate() {
                let reused = Instance::Reused { recycle_after: 100 };
                let run = run(module, &facts, n as u64, reused).await;
                assert_eq!(run.outcome, Outcome::Done, "module {n}");
            }
        }
    }
}
