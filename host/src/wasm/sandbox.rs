//! What a guest can take of the host, and what it sees instead of one: limits, clocks, standard output and error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

use crate::event::clock::now_ms;

/// Most memories of one component.
pub const MEMORIES_MAX: u32 = 4;

/// Most core instances and tables of one component.
pub const INSTANCES_OF_ONE: u32 = 32;
pub const TABLES_OF_ONE: u32 = 8;

/// Most that one attempt may log.
pub const LOG_BYTES_MAX: usize = 64 * 1024;

/// What a guest may take of the host: its memories share one limit.
pub struct Limits {
    pub memory_bytes_left: usize,
}

/// A limit that has ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxLimit {
    Memory,
    Table,
    Stack,
    Time,
}

impl SandboxLimit {
    pub const NAMES: [&str; 4] = ["memory", "table", "stack", "time"];

    /// The limit that has made an instance fail; `None`: it was another reason.
    pub fn of(error: &wasmtime::Error) -> Option<SandboxLimit> {
        if let Some(over) = error.downcast_ref::<GuestOverLimit>() {
            return Some(over.limit);
        }
        match error.downcast_ref::<wasmtime::Trap>()? {
            wasmtime::Trap::StackOverflow => Some(SandboxLimit::Stack),
            wasmtime::Trap::Interrupt => Some(SandboxLimit::Time),
            _ => None,
        }
    }
}

/// A guest wants more than it may have. It traps with this: a refused growth would only be a failed allocation somewhere in it.
#[derive(Debug, thiserror::Error)]
#[error("{told}")]
pub struct GuestOverLimit {
    pub limit: SandboxLimit,
    told: String,
}

/// Most elements of one table: functions that a guest may call by pointer.
const TABLE_ELEMENTS_MAX: usize = 20_000;

impl wasmtime::ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        if more > self.memory_bytes_left {
            return Err(wasmtime::Error::new(GuestOverLimit {
                limit: SandboxLimit::Memory,
                told: format!("out of memory: {desired} bytes are over the limit of the handler"),
            }));
        }
        self.memory_bytes_left -= more;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            return Err(wasmtime::Error::new(GuestOverLimit {
                limit: SandboxLimit::Table,
                told: format!("a table of {desired} elements is over the limit of {TABLE_ELEMENTS_MAX}"),
            }));
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES_OF_ONE as usize
    }

    fn tables(&self) -> usize {
        TABLES_OF_ONE as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

/// A guest's two clocks. The wall clock is read when the guest asks first, which few do, and goes on from there; the monotonic
/// one begins at zero.
#[derive(Clone)]
pub struct Clocks(Arc<Mutex<Began>>);

struct Began {
    /// The time at `at`, since the Unix epoch.
    wall: Option<Duration>,
    at: Instant,
}

impl Clocks {
    pub fn new(at: Instant) -> Clocks {
        Clocks(Arc::new(Mutex::new(Began { wall: None, at })))
    }

    /// Both begin at this moment.
    pub fn set(&self, at: Instant) {
        *self.began() = Began { wall: None, at };
    }

    /// What the guest's wall clock shows, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(HostWallClock::now(self).as_millis()).unwrap_or(u64::MAX)
    }

    fn began(&self) -> MutexGuard<'_, Began> {
        self.0.lock()
    }
}

impl HostWallClock for Clocks {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        let mut began = self.began();
        let elapsed = began.at.elapsed();
        let wall = began
            .wall
            .get_or_insert_with(|| Duration::from_millis(now_ms()).saturating_sub(elapsed));
        *wall + elapsed
    }
}

impl HostMonotonicClock for Clocks {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began().at.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A guest's stdout and stderr, up to the log's limit; what exceeds it is dropped.
#[derive(Clone, Default)]
pub struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    fn push(&self, bytes: &[u8]) {
        let mut held = self.0.lock();
        let room = LOG_BYTES_MAX.saturating_sub(held.len());
        held.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl wasmtime_wasi::cli::IsTerminal for Capture {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl wasmtime_wasi::cli::StdoutStream for Capture {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for this one, and it is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Capture {
    async fn ready(&mut self) {}
}

impl OutputStream for Capture {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LOG_BYTES_MAX)
    }
}
