//! Compiles a module in a process of its own. The compiler reads bytes that others have made. Whatever they make it do, such as
//! run for ever, use up memory or crash, happens in a child process with limits, and the host continues.
//!
//! The child is this very executable with a hidden command. The module goes to its standard input, and what it compiled
//! comes from its standard output.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::failpoint;
use crate::process::limits;
use crate::text::display::clean;
use crate::wasm::engine;

/// The name of the hidden command.
pub const COMMAND: &str = "compile-module";
/// Computing time that one module may take: a handler in JavaScript, with its whole interpreter, takes 2 s.
const CPU_SECONDS_MAX: u64 = 60;
/// Address space of the child: that handler takes less than 200 MiB.
const MEMORY_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Wall time: a busy machine leaves little to a child of the lowest priority.
const WALL_SECONDS_MAX: u64 = 300;
/// Most that a compiled module may be.
const COMPILED_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// How much of the child's complaints is read.
const TEXT_BYTES_MAX: u64 = 64 * 1024;
/// The lowest priority there is.
const NICE: i32 = 19;

/// How much a compilation may disturb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Nothing is served before it is done.
    Usual,
    /// It takes what the events at work leave over.
    Lowest,
}

/// Why there is no compiled module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The compiler's own word.
    #[error("not a valid component: {0}")]
    Invalid(String),
    #[error("compiling took more than {0:?}")]
    Wall(Duration),
    #[error("compiling took more than {0:?} of computing{1}")]
    Cpu(Duration, &'static str),
    #[error("compiling took more than {0} MiB of memory{1}")]
    Memory(u64, &'static str),
    #[error("the compiler broke off ({status}): {text}")]
    Crashed { status: ExitStatus, text: String },
    #[error("the compiler does not run: {0}")]
    Unable(String),
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        Error::Unable(limits::told(&error))
    }
}

/// Why a child has compiled nothing: its exit code and the text on its standard error say it.
pub enum Child {
    Module(String),
    Host(String),
}

impl From<std::io::Error> for Child {
    fn from(error: std::io::Error) -> Child {
        Child::Host(limits::told(&error))
    }
}

/// The child's exit codes: the module is at fault, or the process cannot do its work.
pub const INVALID: u8 = 1;
pub const UNABLE: u8 = 3;

/// Compiles a component in a child.
///
/// # Cancel safety
/// Dropped half-way, the child is killed.
pub async fn component(module: &[u8], priority: Priority) -> Result<Vec<u8>, Error> {
    // This process's own executable, also where its file has been replaced by a newer one meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("jetmesh").arg(COMMAND);
    if priority == Priority::Lowest {
        command.arg("--aside");
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("RUST_BACKTRACE", "0")
        // Ctrl-C is for the host, which drains.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(std::io::Error::other("it has no pipes").into());
    };
    let work = async {
        let write = async {
            // One that ends early tells why by its status.
            let _ = stdin.write_all(module).await;
            drop(stdin);
            Ok(())
        };
        let (mut compiled, mut text) = (Vec::new(), Vec::new());
        let (mut stdout, mut stderr) = (stdout.take(COMPILED_BYTES_MAX), stderr.take(TEXT_BYTES_MAX));
        tokio::try_join!(write, stdout.read_to_end(&mut compiled), stderr.read_to_end(&mut text))?;
        // A child that writes more than the limits finds the pipes closed.
        drop((stdout, stderr));
        Ok::<_, std::io::Error>((child.wait().await?, compiled, text))
    };
    let limit = Duration::from_secs(limit("compile-wall-seconds", WALL_SECONDS_MAX));
    let ended = tokio::time::timeout(limit, work).await;
    let (status, compiled, text): (_, _, Vec<u8>) = ended.map_err(|_| Error::Wall(limit))??;
    match judge(status, &String::from_utf8_lossy(&text)) {
        None => Ok(compiled),
        Some(error) => Err(error),
    }
}

/// The error that a child's end stands for. `None`: it has done its work.
fn judge(status: ExitStatus, text: &str) -> Option<Error> {
    let text = text.trim();
    Some(match (status.code(), status.signal()) {
        (Some(0), _) => return None,
        (Some(code), _) if code == i32::from(INVALID) => Error::Invalid(clean(text)),
        (Some(code), _) if code == i32::from(UNABLE) => Error::Unable(clean(text)),
        (_, Some(signal)) if signal == Signal::XCPU.as_raw() => {
            let (seconds, of_process) = cpu_seconds();
            let of_process = if of_process {
                ", the limit of this process (`ulimit -t`)"
            } else {
                ""
            };
            Error::Cpu(Duration::from_secs(seconds), of_process)
        }
        // How Rust ends a process, and how it ends a thread that it cannot make, when there is no more memory.
        _ if ["memory allocation of", "failed to allocate"]
            .iter()
            .any(|end| text.contains(end)) =>
        {
            let (bytes, of_process) = memory_bytes();
            let of_process = if of_process {
                ", the limit of this process (`ulimit -v`)"
            } else {
                ""
            };
            Error::Memory(bytes / (1024 * 1024), of_process)
        }
        _ => Error::Crashed {
            status,
            text: if text.is_empty() {
                "it printed nothing".to_owned()
            } else {
                clean(text)
            },
        },
    })
}

/// The child: compiles its standard input to its standard output, within its limits.
pub fn child(priority: Priority) -> Result<(), Child> {
    restrict(priority).map_err(std::io::Error::from)?;
    failpoint::point("compiling");
    let mut module = Vec::new();
    std::io::stdin().read_to_end(&mut module)?;
    let compiled = engine::compile(&module).map_err(Child::Module)?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&compiled)?;
    Ok(stdout.flush()?)
}

fn restrict(priority: Priority) -> rustix::io::Result<()> {
    // A host that is killed leaves no compiler behind.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let at_most = |current, maximum| Rlimit {
        current: Some(current),
        maximum: Some(maximum),
    };
    setrlimit(Resource::Core, at_most(0, 0))?;
    let (memory, _) = memory_bytes();
    setrlimit(Resource::As, at_most(memory, memory))?;
    // The first ends it with a signal of its own, by which the host knows why.
    let (cpu, _) = cpu_seconds();
    let (killed, _) = limits::at_most(Resource::Cpu, cpu + 5);
    setrlimit(Resource::Cpu, at_most(cpu, killed))?;
    if priority == Priority::Lowest {
        rustix::process::nice(NICE)?;
    }
    Ok(())
}

/// And whether it is a limit that the process has already.
fn cpu_seconds() -> (u64, bool) {
    limits::at_most(Resource::Cpu, limit("compile-cpu-seconds", CPU_SECONDS_MAX))
}

/// The same.
fn memory_bytes() -> (u64, bool) {
    limits::at_most(Resource::As, limit("compile-memory-bytes", MEMORY_BYTES_MAX))
}

/// A limit, which a test may lower.
fn limit(name: &str, usual: u64) -> u64 {
    failpoint::number(name).unwrap_or(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_compiler_says_what_was_wrong() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        let killed = ExitStatus::from_raw;
        let rows = [
            (exited(1), "malformed\n", "not a valid component: malformed"),
            (killed(24), "", "compiling took more than 60s of computing"),
            (
                killed(6),
                "memory allocation of 12 bytes failed",
                "compiling took more than 4096 MiB of memory",
            ),
            (
                exited(101),
                "thread 'main' panicked at x.rs:\noh",
                "the compiler broke off (exit status: 101): thread 'main' panicked at x.rs: oh",
            ),
            (
                killed(11),
                "",
                "the compiler broke off (signal: 11 (SIGSEGV)): it printed nothing",
            ),
        ];
        for (status, text, said) in rows {
            let error = judge(status, text).map(|e| e.to_string());
            assert_eq!(error.as_deref(), Some(said), "{status}");
        }
        assert!(judge(exited(0), "a note").is_none());
    }
}
