//! What a guest sees: the host's side of `wit/handler.wit`. Effects are only written down here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::p2::bindings::random as wasi_random;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

pub use self::death::explained;
use self::jetmesh::handler::{context, log, settings, state, types};
use self::random::Drawn;
use crate::event::effects::{Effects, State, check_key};
use crate::event::timer::is_of_timers;
use crate::event::{EventId, Message};
use crate::failpoint;
use crate::plan::Handler;
use crate::random::{Seed, Seeds};
use crate::text::display::clean;
use crate::wasm::sandbox::{Capture, Clocks, LOG_BYTES_MAX, Limits};

mod death;
mod emit;
mod random;

wasmtime::component::bindgen!({
    path: "../wit",
    world: "event-handler",
    imports: { "jetmesh:handler/state.get": async },
    exports: { default: async },
    ownership: Borrowing { duplicate_if_necessary: true },
});

/// Most that a guest may make the host allocate by one call.
const HOSTCALL_BYTES_MAX: usize = 8 * 1024 * 1024;
const RESOURCES_MAX: usize = 1000;

/// What is the same for every call of a handler.
pub struct Facts {
    pub handler: String,
    pub max_attempts: u32,
    pub settings: BTreeMap<String, String>,
    pub publish: Vec<String>,
    pub memory_bytes_max: usize,
    /// The server's `max_payload`; 0: not known yet.
    pub message_bytes_max: AtomicUsize,
    pub state: Option<Arc<dyn State>>,
}

impl Facts {
    pub fn of(handler: &Handler, state: Option<Arc<dyn State>>) -> Facts {
        Facts {
            handler: handler.name.clone(),
            max_attempts: handler.retry.max_attempts,
            settings: handler.settings.clone(),
            publish: handler.publish.clone(),
            memory_bytes_max: handler.memory_bytes_max,
            message_bytes_max: AtomicUsize::new(0),
            state,
        }
    }
}

/// One line that a guest wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub level: tracing::Level,
    pub text: String,
    /// When it was written.
    pub at: Instant,
}

/// The data of a store: one call at a time.
pub struct Guest {
    facts: Arc<Facts>,
    wasi: WasiCtx,
    table: ResourceTable,
    pub(crate) limits: Limits,
    clocks: Clocks,
    seeds: Arc<Seeds>,
    stderr: Capture,
    /// When the call must end.
    pub(crate) until: Instant,
    call: Call,
}

/// What one call brings along, and what it leaves behind.
#[derive(Default)]
pub struct Call {
    pub attempt: u32,
    event: Option<EventId>,
    trace_id: Option<String>,
    pub effects: Effects,
    pub lines: Vec<Line>,
    /// What the host could not do for it: then whatever the guest answers is not its own verdict.
    pub host_fault: Option<String>,
    /// Since when it waits for a read.
    reads_since: Option<Instant>,
    drawn: Drawn,
    logged: usize,
    dropped: usize,
}

impl Call {
    /// `seed`: what its random numbers come from; `None`: one of its own is made if it asks for any.
    pub fn new(message: &Message, attempt: u32, seed: Option<Seed>) -> Call {
        Call {
            attempt,
            drawn: Drawn::from(seed),
            event: Some(message.event.clone()),
            trace_id: message.trace_id().map(str::to_owned),
            ..Call::default()
        }
    }

    /// How long it has been waiting for a read that has not come back.
    pub fn waiting(&self) -> Duration {
        self.reads_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// What its random numbers came from; `None`: it asked for none.
    pub fn seed(&self) -> Option<Seed> {
        self.drawn.seed
    }

    fn line(&mut self, level: tracing::Level, text: &str) {
        let text = clean(text);
        if self.logged + text.len() > LOG_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        self.logged += text.len();
        let at = Instant::now();
        self.lines.push(Line { level, text, at });
    }
}

impl Guest {
    /// The data for a fresh store, whose guest's clocks begin at `began`.
    pub fn new(facts: Arc<Facts>, seeds: Arc<Seeds>, began: Instant) -> Guest {
        let stderr = Capture::default();
        let clocks = Clocks::new(began);
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(stderr.clone())
            .stderr(stderr.clone())
            .wall_clock(clocks.clone())
            .monotonic_clock(clocks.clone())
            .allow_tcp(false)
            .allow_udp(false);
        Guest {
            limits: Limits {
                memory_bytes_left: facts.memory_bytes_max,
            },
            facts,
            wasi: wasi.build(),
            table: table(),
            clocks,
            seeds,
            stderr,
            until: began,
            call: Call::default(),
        }
    }

    /// The same from the data of a dropped store: it keeps nothing that a guest can change.
    pub fn renew(self, began: Instant) -> Guest {
        self.clocks.set(began);
        self.stderr.take();
        Guest {
            limits: Limits {
                memory_bytes_left: self.facts.memory_bytes_max,
            },
            table: table(),
            until: began,
            call: Call::default(),
            ..self
        }
    }

    /// Begin a call. What an instance does while it is made belongs to its first one.
    pub fn begin(&mut self, call: Call) {
        self.call = call;
    }

    /// End it: what it left behind.
    pub fn end(&mut self) -> Call {
        let mut call = std::mem::take(&mut self.call);
        let written = self.stderr.take();
        if !written.is_empty() {
            for line in String::from_utf8_lossy(&written).lines() {
                call.line(tracing::Level::WARN, line);
            }
        }
        if call.dropped > 0 {
            let text = format!(
                "{} lines over the limit of {LOG_BYTES_MAX} bytes were dropped",
                call.dropped
            );
            call.lines.push(Line {
                level: tracing::Level::WARN,
                text,
                at: Instant::now(),
            });
        }
        call
    }
}

/// What one guest holds open; empty.
fn table() -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(RESOURCES_MAX);
    table
}

/// Everything that a handler may import.
pub fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    // Instead of the library's.
    linker.allow_shadowing(true);
    wasi_random::random::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest)?;
    wasi_random::insecure::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest)?;
    wasi_random::insecure_seed::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest)?;
    linker.allow_shadowing(false);
    EventHandler::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest)
}

/// Limits of a store that are not in [`Guest`].
pub fn limit(store: &mut wasmtime::Store<Guest>) {
    store.limiter(|guest| &mut guest.limits);
    store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl types::Host for Guest {}

impl log::Host for Guest {
    fn log(&mut self, level: log::Level, message: String) {
        let level = match level {
            log::Level::Trace => tracing::Level::TRACE,
            log::Level::Debug => tracing::Level::DEBUG,
            log::Level::Info => tracing::Level::INFO,
            log::Level::Warn => tracing::Level::WARN,
            log::Level::Error => tracing::Level::ERROR,
        };
        self.call.line(level, &message);
    }
}

impl settings::Host for Guest {
    fn get(&mut self, name: String) -> Option<String> {
        self.facts.settings.get(&name).cloned()
    }
}

impl context::Host for Guest {
    fn handler_name(&mut self) -> String {
        self.facts.handler.clone()
    }

    fn attempt(&mut self) -> u32 {
        self.call.attempt
    }

    fn max_attempts(&mut self) -> u32 {
        self.facts.max_attempts
    }

    fn idempotency_key(&mut self) -> String {
        let event = self.call.event.as_ref().map(EventId::to_string).unwrap_or_default();
        format!("{}.{event}", self.facts.handler)
    }

    fn trace_id(&mut self) -> Option<String> {
        self.call.trace_id.clone()
    }
}

impl state::Host for Guest {
    async fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, state::Error> {
        let Some(bucket) = self.facts.state.clone() else {
            return Err(state::Error::NoBucket);
        };
        check_own(&key)?;
        if let Some(own) = self.call.effects.writes.get(&key) {
            return Ok(own.as_ref().map(|value| value.to_vec()));
        }
        failpoint::point("mid-run");
        self.call.reads_since = Some(Instant::now());
        let found = bucket.get(&key).await;
        self.call.reads_since = None;
        let (value, version) = match found {
            Ok(found) => found,
            Err(why) => {
                self.call.host_fault = Some(format!("state: {why}"));
                return Err(state::Error::Other(why));
            }
        };
        match self.call.effects.reads.get(&key) {
            // Two values within one call: it goes on, but with the first one it can never be committed.
            Some(first) if *first != version => {}
            _ => self
                .call
                .effects
                .read(&key, version)
                .map_err(|e| state::Error::TooLarge(e.to_string()))?,
        }
        Ok(value.map(|value| value.to_vec()))
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), state::Error> {
        self.write(&key, Some(value.into()))
    }

    fn delete(&mut self, key: String) -> Result<(), state::Error> {
        self.write(&key, None)
    }
}

/// A key that the handler may read and write.
fn check_own(key: &str) -> Result<(), state::Error> {
    check_key(key).map_err(state::Error::InvalidKey)?;
    match is_of_timers(key) {
        true => Err(state::Error::InvalidKey(format!(
            "`{key}`: keys of this name hold timers"
        ))),
        false => Ok(()),
    }
}

impl Guest {
    fn write(&mut self, key: &str, value: Option<Bytes>) -> Result<(), state::Error> {
        if self.facts.state.is_none() {
            return Err(state::Error::NoBucket);
        }
        check_own(key)?;
        self.call
            .effects
            .set(key, value)
            .map_err(|e| state::Error::TooLarge(e.to_string()))
    }
}
