//! A handler's module, compiled and checked, and one run of it on one event.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime::{Store, UpdateDeadline};

use crate::compile::{self, Priority};
use crate::effects::Effects;
use crate::engine::{Runtime, chain, trapped};
use crate::guest::jetmesh::handler::types::{Event, Failure, HeaderParam};
use crate::guest::{self, Call, EventHandler, EventHandlerPre, Facts, Guest, Line, clean};
use crate::message::{Message, now_ms};
use crate::outcome::Outcome;
use crate::plan::Instance;

/// The WIT package that this host serves.
pub const WIT_PACKAGE: &str = "jetmesh:handler@0.1.0";
/// The interface that a module must export.
pub const WIT_EXPORT: &str = "jetmesh:handler/handler@0.1.0";

/// Why a module cannot serve: names the file, what is wrong, and what is wanted.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct Error {
    pub path: PathBuf,
    pub fault: Fault,
}

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    #[error("not a WebAssembly file ({0}); wanted: a component that exports {WIT_EXPORT}")]
    NotWasm(&'static str),
    #[error("a core module, not a component; build it for wasm32-wasip2, or run `wasm-tools component new` on it")]
    CoreModule,
    #[error(transparent)]
    Compile(#[from] compile::Error),
    #[error("what it was compiled to does not fit this host: {0}")]
    Unfit(String),
    #[error("it does not export {WIT_EXPORT}; it exports {0}")]
    NoExport(String),
    #[error("it imports `{name}`, which this host does not provide ({why}); provided: {WIT_PACKAGE} and WASI 0.2")]
    Import { name: String, why: String },
    #[error("it does not fit {WIT_PACKAGE}: {0}")]
    World(String),
}

/// The first 12 hex digits of a module file's SHA-256: which version it was, wherever the mesh writes it down.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModuleDigest(Arc<str>);

impl ModuleDigest {
    pub fn of(bytes: &[u8]) -> ModuleDigest {
        let hash = Sha256::digest(bytes);
        ModuleDigest(
            hash.iter()
                .take(6)
                .map(|b| format!("{b:02x}"))
                .collect::<String>()
                .into(),
        )
    }
}

impl fmt::Display for ModuleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A compiled module that fits this host.
pub struct Module {
    pub digest: ModuleDigest,
    pre: EventHandlerPre<Guest>,
    engine: wasmtime::Engine,
    #[expect(
        clippy::vec_box,
        reason = "an instance is a kilobyte, and goes in and out with each event"
    )]
    idle: Mutex<Vec<Box<Live>>>,
    /// What is left of fresh instances: the host's side of them, to be renewed for others. No more than ran at a time.
    spare: Mutex<Vec<Guest>>,
    retired: AtomicBool,
}

/// An instance between two events.
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
}

impl Module {
    /// Reads, compiles and checks a module file.
    ///
    /// # Cancel safety
    /// Dropped half-way, nothing is left of it.
    pub async fn load(runtime: &Runtime, path: &Path, priority: Priority) -> Result<Module, Error> {
        let load = async {
            let bytes = std::fs::read(path).map_err(Fault::Read)?;
            preamble(&bytes)?;
            let compiled = compile::component(&bytes, priority).await?;
            Module::link(runtime, ModuleDigest::of(&bytes), &compiled)
        };
        load.await.map_err(|fault| Error {
            path: path.to_owned(),
            fault,
        })
    }

    /// `compiled` is what this program's own compiler has just made.
    fn link(runtime: &Runtime, digest: ModuleDigest, compiled: &[u8]) -> Result<Module, Fault> {
        // SAFETY: the engine runs these bytes as they are. They were made a moment ago by this same executable and came
        // over a pipe that only the two processes hold; they never lay in a file that somebody else could write.
        #[expect(unsafe_code, reason = "the compiler is in another process")]
        let component = unsafe { Component::deserialize(&runtime.engine, compiled) };
        let component = component.map_err(|e| Fault::Unfit(chain(&e)))?;
        let ty = component.component_type();
        for (name, _) in ty.imports(&runtime.engine) {
            if !name.starts_with("wasi:") && !name.starts_with("jetmesh:handler/") {
                return Err(Fault::Import {
                    name: name.to_owned(),
                    why: "unknown package".to_owned(),
                });
            }
        }
        if component.get_export_index(None, WIT_EXPORT).is_none() {
            let exports: Vec<String> = ty
                .exports(&runtime.engine)
                .map(|(name, _)| format!("`{name}`"))
                .collect();
            return Err(Fault::NoExport(if exports.is_empty() {
                "nothing".to_owned()
            } else {
                exports.join(", ")
            }));
        }
        let pre = runtime.linker.instantiate_pre(&component).map_err(|e| unlinked(&e))?;
        let pre = EventHandlerPre::new(pre).map_err(|e| Fault::World(chain(&e)))?;
        Ok(Module {
            digest,
            pre,
            engine: runtime.engine.clone(),
            idle: Mutex::default(),
            spare: Mutex::default(),
            retired: AtomicBool::new(false),
        })
    }

    /// Runs the handler on one event.
    ///
    /// # Cancel safety
    /// Dropped half-way, the instance is gone and nothing has happened.
    pub async fn run(
        &self,
        facts: &Arc<Facts>,
        message: &Message,
        attempt: u32,
        instance: Instance,
        timeout: Duration,
    ) -> Run {
        let began = Instant::now();
        let deadline = began + timeout;
        let mut live = match self.live(facts, message, attempt, instance, began, deadline).await {
            Ok(live) => live,
            Err(error) => return Run::failed(instance_failure(&error, timeout, &[]), began),
        };
        live.store.data_mut().begin(Call::new(message, attempt));
        let id = message.event.to_string();
        let headers: Vec<HeaderParam> = message
            .headers
            .iter()
            .map(|(name, value)| HeaderParam { name, value })
            .collect();
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
        let call = live.store.data_mut().end();
        let outcome = match answer {
            None if call.waiting() > read_patience(timeout) => Outcome::HostFault {
                message: format!("state: a read had not come back when the time limit of {timeout:?} was over"),
            },
            None => Outcome::Timeout { limit: timeout },
            Some(Err(error)) => instance_failure(&error, timeout, &call.lines),
            Some(Ok(answer)) => {
                live.served += 1;
                self.keep(live, instance);
                outcome_of(answer)
            }
        };
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
            outcome,
            effects,
            lines: call.lines,
            took: began.elapsed(),
        }
    }

    async fn live(
        &self,
        facts: &Arc<Facts>,
        message: &Message,
        attempt: u32,
        instance: Instance,
        began: Instant,
        until: Instant,
    ) -> wasmtime::Result<Box<Live>> {
        if let Instance::Reused { .. } = instance {
            let idle = self.idle.lock().unwrap_or_else(|e| e.into_inner()).pop();
            if let Some(mut live) = idle {
                live.store.data_mut().until = until;
                live.store.set_epoch_deadline(1);
                guest::limit(&mut live.store);
                return Ok(live);
            }
        }
        let seed = message.event.sequence ^ (u64::from(attempt) << 48);
        let spare = self.spare.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let mut guest = match spare {
            Some(spare) => spare.renew(began, now_ms(), seed),
            None => Guest::new(Arc::clone(facts), began, now_ms(), seed),
        };
        guest.until = until;
        let mut store = Store::new(&self.engine, guest);
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
        let bindings = Box::pin(before(until, self.pre.instantiate_async(&mut store)));
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
        self.idle.lock().unwrap_or_else(|e| e.into_inner()).clear();
        self.spare.lock().unwrap_or_else(|e| e.into_inner()).clear();
    }

    fn keep(&self, live: Box<Live>, instance: Instance) {
        if self.retired.load(Ordering::Relaxed) {
            return;
        }
        match instance {
            Instance::Reused { recycle_after } if live.served < recycle_after => {
                self.idle.lock().unwrap_or_else(|e| e.into_inner()).push(live);
            }
            Instance::Reused { .. } | Instance::Fresh => {
                // The store ends here, with the instance and its memory.
                let guest = live.store.into_data();
                self.spare.lock().unwrap_or_else(|e| e.into_inner()).push(guest);
            }
        }
    }
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
            effects: Effects::default(),
            lines: Vec::new(),
            took: Duration::ZERO,
        }
    }

    fn failed(outcome: Outcome, began: Instant) -> Run {
        Run {
            took: began.elapsed(),
            ..Run::without(outcome)
        }
    }
}

/// A read takes milliseconds. One that takes so long is slow by no fault of the guest's; a guest that makes too many of
/// them, or computes until there is no time left for one, has used up its own time.
fn read_patience(timeout: Duration) -> Duration {
    (timeout / 2).min(Duration::from_secs(1))
}

/// Whether a file begins as a component does.
fn preamble(bytes: &[u8]) -> Result<(), Fault> {
    match bytes {
        [] => Err(Fault::NotWasm("it is empty")),
        // The preamble: magic, then version and layer (<https://github.com/WebAssembly/component-model>, Binary.md).
        [0, b'a', b's', b'm', 0x01, 0x00, 0x00, 0x00, ..] => Err(Fault::CoreModule),
        [0, b'a', b's', b'm', ..] => Ok(()),
        _ => Err(Fault::NotWasm("it does not begin with \\0asm")),
    }
}

fn outcome_of(answer: Result<(), Failure>) -> Outcome {
    match answer {
        Ok(()) => Outcome::Done,
        Err(Failure::Retry(retry)) => Outcome::Retry {
            code: code(&retry.code),
            message: clean(&retry.message),
            after: retry.delay_ms.map(Duration::from_millis),
        },
        Err(Failure::Reject(reject)) => Outcome::Reject {
            code: code(&reject.code),
            message: clean(&reject.message),
        },
    }
}

/// A failure's code, made to fit its rule: it is grouped by, and stands in headers.
fn code(text: &str) -> String {
    let code: String = text
        .chars()
        .take(64)
        .map(|c| match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() || "-_.".contains(c) => c,
            _ => '-',
        })
        .collect();
    if code.is_empty() { "error".to_owned() } else { code }
}

fn instance_failure(error: &wasmtime::Error, timeout: Duration, lines: &[Line]) -> Outcome {
    if let Some(wasmtime::Trap::Interrupt) = error.downcast_ref::<wasmtime::Trap>() {
        return Outcome::Timeout { limit: timeout };
    }
    if error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() {
        return Outcome::HostFault {
            message: "no free instance slot".to_owned(),
        };
    }
    let (message, backtrace) = trapped(error);
    let message = guest::panicked(lines).unwrap_or(message);
    Outcome::Trap { message, backtrace }
}

fn unlinked(error: &wasmtime::Error) -> Fault {
    let why = chain(error);
    Fault::Import {
        name: why.split('`').nth(1).unwrap_or("?").to_owned(),
        why,
    }
}
