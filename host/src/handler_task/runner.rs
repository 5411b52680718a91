//! What runs a handler's events: its module, what a guest is told of its handler, and a limited number of instances.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::event::Message;
use crate::event::clock::now_ms;
use crate::event::effects::State;
use crate::ledger::Bucket;
use crate::plan::{Handler, Instance, ModuleOrigin};
use crate::process::drain::Drain;
use crate::random::Seed;
use crate::wasm::guest::Facts;
use crate::wasm::library::Compiled;
use crate::wasm::module::{Module, Run};
use crate::wasm::source::ModuleDigest;

/// Runs the events of one handler.
pub struct Runner {
    pub handler: String,
    /// Where the module comes from.
    pub origin: ModuleOrigin,
    pub module: ArcSwap<Module>,
    not_taken: Mutex<Option<NotTaken>>,
    facts: Arc<Facts>,
    instances: Semaphore,
    instance: Instance,
    timeout: Duration,
}

/// Its file, or the registry, has something else than the module that serves, and that is not taken up.
#[derive(Debug, Clone)]
pub struct NotTaken {
    pub why: String,
    pub since_ms: u64,
}

impl Runner {
    pub fn new(plan: &Handler, module: Module, bucket: Option<&Arc<Bucket>>) -> Runner {
        let bucket = bucket.filter(|_| plan.bucket.is_some()).cloned();
        let state = bucket.map(|bucket| bucket as Arc<dyn State>);
        Runner {
            handler: plan.name.clone(),
            origin: plan.module.clone(),
            module: ArcSwap::from_pointee(module),
            not_taken: Mutex::default(),
            facts: Arc::new(Facts::of(plan, state)),
            instances: Semaphore::new(plan.concurrency),
            instance: plan.instance,
            timeout: plan.timeout,
        }
    }

    pub fn digest(&self) -> ModuleDigest {
        self.module.load().digest.clone()
    }

    /// Serves with another module from the next event on.
    pub fn swap(&self, compiled: &Arc<Compiled>) {
        let (old, new) = (self.digest(), &compiled.digest);
        self.module.swap(Arc::new(Module::new(Arc::clone(compiled)))).retire();
        tracing::info!(handler = %self.handler, %old, %new, "module swapped");
    }

    /// Why something newer is not taken up; `None`: the newest serves.
    pub fn set_not_taken(&self, why: Option<String>) {
        let since_ms = now_ms();
        *self.not_taken.lock() = why.map(|why| NotTaken { why, since_ms });
    }

    pub fn not_taken(&self) -> Option<NotTaken> {
        self.not_taken.lock().clone()
    }

    /// The server's largest message: what guests emit must fit into one.
    pub fn set_message_bytes_max(&self, max: usize) {
        self.facts.message_bytes_max.store(max, Ordering::Relaxed);
    }

    /// The right to an instance, when one is free. `None`: the drain has begun.
    pub async fn instance(&self, drain: &Drain) -> Option<SemaphorePermit<'_>> {
        match self.instances.try_acquire() {
            Ok(permit) if !drain.has_begun() => Some(permit),
            _ => {
                tokio::select! {
                    biased;
                    () = drain.begun() => None,
                    permit = self.instances.acquire() => permit.ok(),
                }
            }
        }
    }

    /// Runs an event on a module: the same through all runs of an attempt. `seed`: that of an earlier run of the attempt.
    pub fn run<'a>(
        &'a self,
        module: &'a Module,
        message: &'a Message,
        attempt: u32,
        seed: Option<Seed>,
    ) -> impl Future<Output = Run> + 'a {
        module.run(&self.facts, message, attempt, self.instance, self.timeout, seed)
    }
}
