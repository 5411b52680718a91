//! A handler's module with its instances, and one run of it on one event.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wasmtime::{Store, UpdateDeadline};

use crate::event::Message;
use crate::event::clock::now_ms;
use crate::event::effects::Effects;
use crate::event::outcome::Outcome;
use crate::plan::Instance;
use crate::random::Seed;
use crate::wasm::ended::{instance_failure, is_full, limit_of, out_of_time, outcome_of};
use crate::wasm::guest::jetmesh::handler::types::{Event, HeaderParam};
use crate::wasm::guest::{self, Call, EventHandler, Facts, Guest, Line};
use crate::wasm::library::Compiled;
use crate::wasm::pool::{Kept, PoolPlace};
use crate::wasm::sandbox::SandboxLimit;
use crate::wasm::source::{ModuleDigest, ModuleHash};

/// A compiled module at work for one handler.
pub struct Module {
    pub digest: ModuleDigest,
    /// When it was taken up.
    since: Instant,
    compiled: Arc<Compiled>,
    idle: Arc<Idle>,
    /// What is left of fresh instances: the host's side of them, to be renewed for others. No more than ran at a time.
    spare: Mutex<Vec<Guest>>,
    retired: AtomicBool,
}

/// Instances between two events.
#[derive(Default)]
struct Idle {
    #[expect(
        clippy::vec_box,
        reason = "an instance is a kilobyte, and goes in and out with each event"
    )]
    kept: Mutex<Vec<Box<Live>>>,
}

impl Idle {
    fn pop(&self) -> Option<Box<Live>> {
        self.kept.lock().pop()
    }
}

impl Kept for Idle {
    fn give_up_one(&self) -> bool {
        self.pop().is_some()
    }
}

/// An instance at work or idle.
struct Live {
    store: Store<Guest>,
    bindings: EventHandler,
    served: u32,
}

/// One run: what came of it and what it wants to happen.
#[derive(Debug)]
pub struct Run {
    pub outcome: Outcome,
    pub effects: Effects,
    pub lines: Vec<Line>,
    pub took: Duration,
    pub ended: Instant,
    /// What its random numbers came from; `None`: it asked for none.
    pub seed: Option<Seed>,
    /// The limit that has ended it.
    pub limit: Option<SandboxLimit>,
}

impl Module {
    pub fn new(compiled: Arc<Compiled>) -> Module {
        let idle = Arc::new(Idle::default());
        let kept: std::sync::Weak<Idle> = Arc::downgrade(&idle);
        compiled.runtime.room.know(kept);
        Module {
            digest: compiled.digest.clone(),
            since: Instant::now(),
            compiled,
            idle,
            spare: Mutex::default(),
            retired: AtomicBool::new(false),
        }
    }

    /// When it was taken up, in milliseconds since the Unix epoch.
    pub fn since_ms(&self) -> u64 {
        now_ms().saturating_sub(u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    #[cfg(test)]
    pub fn is_waited_for(&self) -> bool {
        self.compiled.runtime.room.is_waited_for()
    }

    pub fn compiled(&self) -> Arc<Compiled> {
        Arc::clone(&self.compiled)
    }

    /// Which content it is.
    pub fn hash(&self) -> ModuleHash {
        self.compiled.hash
    }

    /// Runs the handler on one event. `seed`: that of an earlier run of the same attempt, or of one to be repeated.
    ///
    /// # Cancel safety
    /// Dropped half-way, the instance is dropped and nothing has happened.
    pub async fn run(
        &self,
        facts: &Arc<Facts>,
        message: &Message,
        attempt: u32,
        instance: Instance,
        timeout: Duration,
        seed: Option<Seed>,
    ) -> Run {
        // Ends after the instance does, whichever way.
        let _place = PoolPlace(&self.compiled.runtime.room);
        let call = || Call::new(message, attempt, seed);
        let asked = Instant::now();
        let mut live = match self.live(facts, call, instance, asked, timeout).await {
            Ok(live) => live,
            Err(error) => {
                return Run {
                    outcome: instance_failure(&error, timeout, &[]),
                    limit: SandboxLimit::of(&error),
                    ..Run::since(asked)
                };
            }
        };
        // It may have waited for its instance: not its own time.
        let deadline = live.store.data().until;
        let began = deadline - timeout;
        let id = message.event.to_string();
        let headers = header_params(message);
        let event = Event {
            id: &id,
            subject: &message.subject,
            headers: &headers,
            payload: &message.payload,
            time_ms: message.time_ms,
        };
        let handler = live.bindings.jetmesh_handler_handler();
        // The epoch ends a guest that computes; this ends one that waits.
        let answer = before(deadline, handler.call_handle(&mut live.store, event)).await;
        let mut call = live.store.data_mut().end();
        let limit = limit_of(answer.as_ref());
        let outcome = match answer {
            None => out_of_time(call.waiting(), timeout),
            Some(Err(error)) => instance_failure(&error, timeout, &call.lines),
            Some(Ok(answer)) => {
                live.served += 1;
                self.keep(live, instance);
                outcome_of(answer, &mut call.lines)
            }
        };
        let seed = call.seed();
        let outcome = match call.host_fault {
            Some(message) => Outcome::HostFault { message },
            None => outcome,
        };
        let effects = if outcome == Outcome::Done {
            call.effects
        } else {
            call.effects.only_reads()
        };
        Run {
            // A fault of the host is not the guest's.
            limit: limit.filter(|_| !matches!(outcome, Outcome::HostFault { .. })),
            outcome,
            effects,
            seed,
            lines: call.lines,
            ..Run::since(began)
        }
    }

    async fn live(
        &self,
        facts: &Arc<Facts>,
        call: impl Fn() -> Call,
        instance: Instance,
        began: Instant,
        timeout: Duration,
    ) -> wasmtime::Result<Box<Live>> {
        if let Instance::Reused { .. } = instance
            && let Some(mut live) = self.idle.pop()
        {
            let guest = live.store.data_mut();
            guest.until = began + timeout;
            guest.begin(call());
            live.store.set_epoch_deadline(1);
            guest::limit(&mut live.store);
            return Ok(live);
        }
        let room = &self.compiled.runtime.room;
        if !room.is_waited_for() {
            match self.fresh(facts, call(), began, timeout).await {
                Err(error) if is_full(&error) => {}
                made => return made,
            }
        }
        let turn = room.queue().await;
        loop {
            match self.fresh(facts, call(), Instant::now(), timeout).await {
                Err(error) if is_full(&error) => room.wait(&turn).await,
                made => return made,
            }
        }
    }

    async fn fresh(
        &self,
        facts: &Arc<Facts>,
        call: Call,
        began: Instant,
        timeout: Duration,
    ) -> wasmtime::Result<Box<Live>> {
        let until = began + timeout;
        let runtime = &self.compiled.runtime;
        let spare = self.spare.lock().pop();
        let mut guest = match spare {
            Some(spare) => spare.renew(began),
            None => Guest::new(Arc::clone(facts), Arc::clone(&runtime.seeds), began),
        };
        guest.until = until;
        guest.begin(call);
        let mut store = Store::new(&runtime.engine, guest);
        guest::limit(&mut store);
        // At each tick a guest that still computes gives way to its thread's other work; tokio's own yield also lets
        // the thread look at its sockets.
        store.epoch_deadline_callback(|store| {
            Ok(if Instant::now() >= store.data().until {
                UpdateDeadline::Interrupt
            } else {
                UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
            })
        });
        // Two ticks: the first may be due at once, and instantiation runs guest code.
        store.set_epoch_deadline(2);
        // Boxed: it is large, and a reused instance does without it.
        let bindings = Box::pin(before(until, self.compiled.pre.instantiate_async(&mut store)));
        let bindings = bindings.await.ok_or(wasmtime::Trap::Interrupt)??;
        Ok(Box::new(Live {
            store,
            bindings,
            served: 0,
        }))
    }

    /// Another module has taken its place: what it holds for reuse goes.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        while self.idle.give_up_one() {
            self.compiled.runtime.room.left();
        }
        self.spare.lock().clear();
    }

    fn keep(&self, live: Box<Live>, instance: Instance) {
        if self.retired.load(Ordering::Relaxed) {
            return;
        }
        let room = &self.compiled.runtime.room;
        match instance {
            Instance::Reused { recycle_after } if live.served < recycle_after && !room.is_waited_for() => {
                self.idle.kept.lock().push(live);
            }
            Instance::Reused { .. } | Instance::Fresh => {
                // The store ends here, with the instance and its memory.
                let guest = live.store.into_data();
                self.spare.lock().push(guest);
            }
        }
    }
}

fn header_params(message: &Message) -> Vec<HeaderParam<'_>> {
    let param = |(name, value)| HeaderParam { name, value };
    message
        .headers
        .iter()
        .map(|(name, value)| param((name, value)))
        .collect()
}

/// What a future comes to, or nothing at the deadline. The timer is only made for one that has to wait, which most events
/// never do.
async fn before<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    match futures_util::poll!(&mut future) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => tokio::time::timeout_at(deadline.into(), future).await.ok(),
    }
}

impl Run {
    /// The outcome of an event that was not even tried.
    pub fn without(outcome: Outcome) -> Run {
        Run {
            outcome,
            ..Run::since(Instant::now())
        }
    }

    /// One that ends now and does nothing.
    fn since(began: Instant) -> Run {
        let ended = Instant::now();
        Run {
            outcome: Outcome::Done,
            effects: Effects::default(),
            lines: Vec::new(),
            took: ended.saturating_duration_since(began),
            ended,
            seed: None,
            limit: None,
        }
    }
}
