//! What runs a handler's events: its module, what a guest is told of its handler, and a limited number of instances.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::event::Message;
use crate::event::clock::now_ms;
use crate::event::effects::State;
use crate::ledger::Bucket;
use crate::ledger::core::rollout::RolloutState;
use crate::mesh_streams::modules::RolloutSpec;
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
    /// The module that takes over step by step, while a rollout is under way.
    pub canary: ArcSwapOption<CanaryModule>,
    /// Where its decisions stand, if it has a ledger.
    pub ledger: Option<Arc<Bucket>>,
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

/// A module that takes over from the one that serves, and how.
pub struct CanaryModule {
    pub module: Arc<Module>,
    pub spec: Arc<RolloutSpec>,
}

impl Runner {
    pub fn new(plan: &Handler, module: Module, bucket: Option<&Arc<Bucket>>) -> Runner {
        let ledger = bucket.cloned();
        let bucket = bucket.filter(|_| plan.bucket.is_some()).cloned();
        let state = bucket.map(|bucket| bucket as Arc<dyn State>);
        Runner {
            handler: plan.name.clone(),
            origin: plan.module.clone(),
            module: ArcSwap::from_pointee(module),
            canary: ArcSwapOption::empty(),
            ledger,
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

    /// Another module takes over step by step; `None`: none does any more.
    pub fn set_canary(&self, canary: Option<(&Arc<Compiled>, &RolloutSpec)>) {
        let known = self.canary.load();
        if known.as_ref().map(|known| known.spec.number) == canary.map(|(_, spec)| spec.number) {
            return;
        }
        match canary {
            Some((compiled, spec)) => {
                let (digest, number) = (&compiled.digest, spec.number);
                tracing::info!(handler = %self.handler, canary = %digest, rollout = number, "a canary takes over step by step");
            }
            None => tracing::info!(handler = %self.handler, serving = %self.digest(), "the rollout is over"),
        }
        let canary = canary.map(|(compiled, spec)| CanaryModule {
            module: Arc::new(Module::new(Arc::clone(compiled))),
            spec: Arc::new(spec.clone()),
        });
        if let Some(old) = self.canary.swap(canary.map(Arc::new)) {
            old.module.retire();
        }
    }

    /// How far the rollout is, as the handler's ledger has it here. `None`: no rollout, no ledger, or nothing is counted yet.
    pub fn rollout(&self) -> Option<RolloutState> {
        let canary = self.canary.load_full()?;
        let state = self.ledger.as_ref()?.rollout(&self.handler)?;
        (state.spec.number == canary.spec.number).then_some(state)
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
