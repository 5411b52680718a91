//! Modules, compiled and checked. Handlers that name the same module share what it is compiled to, which is found by its
//! content: each is compiled once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use wasmtime::component::Component;

use crate::wasm::cache::CompiledCache;
use crate::wasm::compile::{self, Priority};
use crate::wasm::engine::{Runtime, chain};
use crate::wasm::guest::{EventHandlerPre, Guest};
use crate::wasm::source::{self, ModuleDigest, ModuleHash, Source};

/// The WIT package that this host serves.
pub const WIT_PACKAGE: &str = "jetmesh:handler@0.1.0";
/// The interface that a module must export.
pub const WIT_EXPORT: &str = "jetmesh:handler/handler@0.1.0";

/// The world that a module is built for.
pub const WIT_WORLD: &str = "jetmesh:handler/event-handler@0.1.0";

/// Why a module cannot serve: names the file, what is wrong, and what is wanted.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct Error {
    pub path: PathBuf,
    pub fault: Arc<ModuleFault>,
}

#[derive(Debug, thiserror::Error)]
pub enum ModuleFault {
    #[error(transparent)]
    Read(#[from] source::Error),
    #[error("not a WebAssembly file ({0}); a handler is a component that exports {WIT_EXPORT}")]
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

/// A compiled module that fits this host.
pub struct Compiled {
    pub hash: ModuleHash,
    pub digest: ModuleDigest,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    pub(crate) pre: EventHandlerPre<Guest>,
    pub(crate) runtime: Runtime,
}

/// What became of one content, or will.
type Cell = Arc<OnceCell<Result<Arc<Compiled>, Arc<ModuleFault>>>>;

/// What is compiled for this process.
pub struct Library {
    runtime: Runtime,
    cells: Mutex<HashMap<ModuleHash, Cell>>,
    /// How many modules are read and compiled at a time.
    turns: Semaphore,
    /// `None`: what was compiled is forgotten with the process.
    cache: Option<CompiledCache>,
}

/// A module's content, and a turn to compile it.
pub struct ModuleRead<'a> {
    pub source: Source,
    _turn: Option<SemaphorePermit<'a>>,
}

impl Library {
    pub fn new(runtime: Runtime) -> Library {
        Library::with_cache(runtime, None)
    }

    pub fn with_cache(runtime: Runtime, cache: Option<CompiledCache>) -> Library {
        let at_once = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Library {
            runtime,
            cells: Mutex::default(),
            turns: Semaphore::new(at_once),
            cache,
        }
    }

    /// Every one of these modules in their order, compiled and checked; or everything that is wrong with any of them.
    ///
    /// # Cancel safety
    /// Dropped half-way, nothing is left of it.
    pub async fn all(&self, paths: &[&Path], priority: Priority) -> Result<Vec<Arc<Compiled>>, Vec<Error>> {
        let mut distinct = paths.to_vec();
        distinct.sort();
        distinct.dedup();
        let one = |path: &&Path| {
            let path = path.to_path_buf();
            async move {
                let compiled = self.load(&path, priority).await;
                (path, compiled)
            }
        };
        let at_once = self.turns.available_permits().max(1);
        let loads = futures_util::stream::iter(distinct.iter().map(one));
        let loaded: HashMap<_, _> = loads.buffer_unordered(at_once).collect().await;
        let bad = |path| loaded[path].as_ref().err().cloned();
        let bad: Vec<Error> = distinct.iter().copied().filter_map(bad).collect();
        if !bad.is_empty() {
            return Err(bad);
        }
        let good = |path| loaded[path].as_ref().ok().map(Arc::clone);
        Ok(paths.iter().copied().filter_map(good).collect())
    }

    /// A module that did not come from a file here; `name` is for people.
    ///
    /// # Cancel safety
    /// Dropped half-way, nothing is left of it.
    pub async fn given(&self, name: &Path, bytes: Vec<u8>, priority: Priority) -> Result<Arc<Compiled>, Error> {
        let fault = |fault| Error {
            path: name.to_owned(),
            fault,
        };
        // The semaphore is never closed.
        let turn = self.turns.acquire().await.ok();
        let source = source::given(bytes).await.map_err(|e| fault(Arc::new(e.into())))?;
        let read = ModuleRead { source, _turn: turn };
        self.compile(read, priority).await.map_err(fault)
    }

    async fn load(&self, path: &Path, priority: Priority) -> Result<Arc<Compiled>, Error> {
        let fault = |fault| Error {
            path: path.to_owned(),
            fault,
        };
        let read = self.read(path).await.map_err(|e| fault(Arc::new(e.into())))?;
        self.compile(read, priority).await.map_err(fault)
    }

    /// Reads a module when it is its turn.
    ///
    /// # Cancel safety
    /// Dropped half-way, nothing is left of it.
    pub async fn read(&self, path: &Path) -> Result<ModuleRead<'_>, source::Error> {
        // The semaphore is never closed.
        let turn = self.turns.acquire().await.ok();
        Ok(ModuleRead {
            source: source::read(path).await?,
            _turn: turn,
        })
    }

    /// What a module is compiled to; the same content is compiled once while a handler has it.
    ///
    /// # Cancel safety
    /// Dropped half-way, nothing is left of it.
    pub async fn compile(&self, read: ModuleRead<'_>, priority: Priority) -> Result<Arc<Compiled>, Arc<ModuleFault>> {
        let hash = read.source.hash;
        let compiled = self.cell(hash);
        let made = compiled.get_or_init(async || {
            let made = self.make(&read.source, priority).await;
            made.map(Arc::new).map_err(Arc::new)
        });
        made.await.clone()
    }

    /// What a content was compiled to, if something still has it.
    pub fn ready(&self, hash: ModuleHash) -> Option<Arc<Compiled>> {
        let cells = self.cells.lock();
        let made = cells.get(&hash)?.get()?;
        made.as_ref().ok().map(Arc::clone)
    }

    /// The one cell of a content. Contents that no handler uses and no task waits for are removed.
    fn cell(&self, hash: ModuleHash) -> Cell {
        let mut cells = self.cells.lock();
        cells.retain(|_, cell| {
            let served = matches!(cell.get(), Some(Ok(compiled)) if Arc::strong_count(compiled) > 1);
            served || Arc::strong_count(cell) > 1
        });
        Arc::clone(cells.entry(hash).or_default())
    }

    async fn make(&self, source: &Source, priority: Priority) -> Result<Compiled, ModuleFault> {
        preamble(&source.bytes)?;
        if let Some(cache) = &self.cache
            && let Some(compiled) = cache.get(source.hash).await
        {
            // One that does not fit is not of this engine, whatever its name says.
            let linked = Compiled::link(&self.runtime, source.hash, &compiled);
            if !matches!(linked, Err(ModuleFault::Unfit(_))) {
                tracing::debug!(module = %ModuleDigest::from(source.hash), "module found in the cache");
                return linked;
            }
        }
        let began = Instant::now();
        let compiled = compile::component(&source.bytes, priority).await?;
        let linked = Compiled::link(&self.runtime, source.hash, &compiled)?;
        tracing::debug!(module = %linked.digest, took = ?began.elapsed(), "module compiled");
        if let Some(cache) = &self.cache {
            cache.put(source.hash, compiled).await;
        }
        Ok(linked)
    }
}

impl Compiled {
    /// `compiled` is what this program's own compiler has made.
    fn link(runtime: &Runtime, hash: ModuleHash, compiled: &[u8]) -> Result<Compiled, ModuleFault> {
        // SAFETY: the engine runs these bytes as they are. They were made by this same executable and came over a pipe that only the two
        // processes have; or they come from a folder that only this user can use, and are as they were written there (`cache`). A
        // process of this user could as well replace the executable.
        #[expect(unsafe_code, reason = "the compiler is in another process")]
        let component = unsafe { Component::deserialize(&runtime.engine, compiled) };
        let component = component.map_err(|e| ModuleFault::Unfit(chain(&e)))?;
        let ty = component.component_type();
        for (name, _) in ty.imports(&runtime.engine) {
            if !name.starts_with("wasi:") && !name.starts_with("jetmesh:handler/") {
                return Err(ModuleFault::Import {
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
            return Err(ModuleFault::NoExport(if exports.is_empty() {
                "nothing".to_owned()
            } else {
                exports.join(", ")
            }));
        }
        let imports = ty.imports(&runtime.engine).map(|(name, _)| name.to_owned()).collect();
        let exports = ty.exports(&runtime.engine).map(|(name, _)| name.to_owned()).collect();
        let pre = runtime.linker.instantiate_pre(&component).map_err(|e| unlinked(&e))?;
        let pre = EventHandlerPre::new(pre).map_err(|e| ModuleFault::World(chain(&e)))?;
        Ok(Compiled {
            hash,
            digest: hash.into(),
            imports,
            exports,
            pre,
            runtime: runtime.clone(),
        })
    }
}

#[cfg(test)]
impl Compiled {
    /// Compiles in this process, which is no host that could be its own compiler.
    pub fn here(runtime: &Runtime, module: &[u8]) -> Compiled {
        let compiled = crate::wasm::engine::compile(module).expect("it is a component");
        Compiled::link(runtime, ModuleHash::of(module), &compiled).expect("it fits")
    }
}

/// Whether a file begins as a component does.
fn preamble(bytes: &[u8]) -> Result<(), ModuleFault> {
    match bytes {
        [] => Err(ModuleFault::NotWasm("it is empty")),
        // The preamble: magic, then version and layer (<https://github.com/WebAssembly/component-model>, Binary.md).
        [0, b'a', b's', b'm', 0x01, 0x00, 0x00, 0x00, ..] => Err(ModuleFault::CoreModule),
        [0, b'a', b's', b'm', ..] => Ok(()),
        _ => Err(ModuleFault::NotWasm("it does not begin with \\0asm")),
    }
}

fn unlinked(error: &wasmtime::Error) -> ModuleFault {
    let why = chain(error);
    ModuleFault::Import {
        name: why.split('`').nth(1).unwrap_or("?").to_owned(),
        why,
    }
}
