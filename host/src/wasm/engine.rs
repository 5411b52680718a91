//! The WebAssembly engine: which features exist, how instances get their memory, and the tick that ends what runs too
//! long. One per process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{
    Config, Enabled, Engine, FrameInfo, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, WasmBacktrace,
};

use crate::process::heartbeat::Heartbeat;
use crate::process::limits;
use crate::random::Seeds;
use crate::text::display::clean;
use crate::wasm::cache::CompiledCache;
use crate::wasm::guest::{self, Guest};
use crate::wasm::pool::Room;
use crate::wasm::sandbox::{INSTANCES_OF_ONE, MEMORIES_MAX, TABLES_OF_ONE};

/// How often a guest's deadline is looked at; also how long a computing guest keeps its thread from its neighbours.
pub const TICK: Duration = Duration::from_millis(10);

/// Most instances that live at a time in one process: one more waits until another ends. Each reserves 4 GiB of address
/// space for a memory, so that code needs no check of its bounds, and a process has 128 TiB. It takes some ten mappings
/// of the 65,530 that a process may have.
pub const INSTANCES_MAX: usize = 4096;
/// Memories for each of them. Nearly every component has one.
const MEMORIES_EACH: usize = 2;

/// How many of a trapped guest's functions are told, and how many more there may be of Rust's own way to panic.
const FRAMES_MAX: usize = 20;
const PANIC_FRAMES_MAX: usize = 12;

/// What stays mapped of an instance's memory between events: more than the sample handlers touch.
const KEEP_RESIDENT_BYTES: usize = 2 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
#[error("the WebAssembly engine cannot start: {0}")]
pub struct Error(String);

/// The engine with everything that a handler may import.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) engine: Engine,
    pub(crate) linker: Arc<Linker<Guest>>,
    pub(crate) seeds: Arc<Seeds>,
    pub(crate) room: Arc<Room>,
}

impl Runtime {
    /// An engine for `instances` live instances, but no more than [`INSTANCES_MAX`], each with at most `memory_bytes_max`
    /// of linear memory.
    pub fn new(instances: usize, memory_bytes_max: usize) -> Result<Runtime, Error> {
        let instances = instances.clamp(1, INSTANCES_MAX);
        let engine = Engine::new(&config(instances, memory_bytes_max)).map_err(|error| {
            let gib = instances * MEMORIES_EACH * 4;
            let limit = limits::address_space().map(|limit| {
                format!("; {limit}, of which {instances} instances reserve {gib} GiB without using it: lift the limit")
            });
            Error(chain(&error) + &limit.unwrap_or_default())
        })?;
        let mut linker = Linker::new(&engine);
        guest::link(&mut linker).map_err(|error| Error(chain(&error)))?;
        tick(engine.weak()).map_err(|error| Error(limits::no_thread(&error)))?;
        let seeds = Seeds::new().map_err(|error| Error(format!("no random numbers: {error}")))?;
        Ok(Runtime {
            engine,
            linker: Arc::new(linker),
            seeds,
            room: Arc::default(),
        })
    }

    /// A folder for what this engine's modules are compiled to.
    ///
    /// # Errors
    /// It cannot be used: says what to change.
    pub fn cache(&self, folder: &Path) -> Result<CompiledCache, String> {
        CompiledCache::open(folder, &self.engine)
    }

    /// Instances that live, those that are kept for reuse included.
    pub fn instances(&self) -> u64 {
        let metrics = self.engine.pooling_allocator_metrics();
        metrics.map_or(0, |metrics| metrics.component_instances())
    }

    /// Runs that wait for room.
    pub fn waiting(&self) -> usize {
        self.room.waiting()
    }
}

/// Compiles a component to what [`Runtime`]s of the same program can load. Takes 10 ms to 10 s of computing, and as much
/// memory as the module makes it take: only `compile` calls it, in a process of its own.
pub fn compile(component: &[u8]) -> Result<Vec<u8>, String> {
    Engine::new(&language())
        .and_then(|engine| engine.precompile_component(component))
        .map_err(|e| chain(&e))
}

/// An error with its causes on one line. `{:?}` would capture a host backtrace as well.
pub fn chain(error: &wasmtime::Error) -> String {
    error
        .chain()
        .map(|e| e.to_string().replace('\n', " "))
        .collect::<Vec<_>>()
        .join(": ")
}

/// Why a guest trapped, on one line, and which of its functions were running then, innermost first, at most
/// [`FRAMES_MAX`].
pub fn trapped(error: &wasmtime::Error) -> (String, Vec<String>) {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return (clean(&chain(error)), Vec::new());
    };
    // The library puts the backtrace before the cause, as if it were one.
    let shown = backtrace.to_string();
    let causes = error.chain().map(|e| e.to_string()).filter(|text| *text != shown);
    let message = causes.collect::<Vec<_>>().join(": ");
    let frames: Vec<String> = backtrace.frames().iter().map(frame).collect();
    // Rust's own frames of a panic do not help the author.
    let panicked = frames.iter().rposition(|frame| frame.contains("rust_begin_unwind"));
    let first = panicked.map_or(0, |at| at + 1);
    (
        clean(&message),
        frames.into_iter().skip(first).take(FRAMES_MAX).collect(),
    )
}

/// `function (module)`; a function whose name is not in the module goes by its number.
fn frame(frame: &FrameInfo) -> String {
    let function = match frame.func_name() {
        // The alternate form leaves the hash away.
        Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
        None => format!("function {}", frame.func_index()),
    };
    clean(&match frame.module().name() {
        Some(module) => format!("{function} ({})", module.trim_end_matches(".wasm")),
        None => function,
    })
}

/// What code may be made of, and how it is made: the same where it is compiled and where it runs.
fn language() -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        // Switched off: what no handler language needs, each being surface. Component-model async also costs 1–8 µs a call.
        .concurrency_support(false)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .max_wasm_stack(512 * 1024)
        .async_stack_size(2 * 1024 * 1024)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(FRAMES_MAX + PANIC_FRAMES_MAX));
    config
}

fn config(instances: usize, memory_bytes_max: usize) -> Config {
    let instances = u32::try_from(instances).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        // A component of a guest with the standard library holds about eight core instances. These are only counted.
        .total_core_instances(instances * INSTANCES_OF_ONE)
        .total_memories(instances * MEMORIES_EACH as u32)
        .total_tables(instances * TABLES_OF_ONE)
        .total_stacks(instances)
        // A component may be composed of parts with memories of their own; together they have the handler's limit.
        .max_memories_per_component(MEMORIES_MAX)
        .max_memory_size(memory_bytes_max)
        .table_elements(20_000)
        .max_unused_warm_slots(instances)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(64 * 1024)
        .pagemap_scan(Enabled::Auto);
    let mut config = language();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// An OS thread of its own: a busy runtime must not delay it. Ends with the engine.
fn tick(engine: wasmtime::EngineWeak) -> std::io::Result<()> {
    let ticker = std::thread::Builder::new().name("epoch".to_owned());
    let spawned = ticker.spawn(move || {
        let heartbeat = Heartbeat::begin("epoch");
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            heartbeat.beat();
            pause(TICK);
        }
    });
    // Without it no guest could be stopped.
    spawned.map(drop)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the ticker's own thread has nothing else to do"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
