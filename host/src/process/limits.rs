//! What the operating system lets this process have. A limit that is met is named, with the command that shows it.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Open files that a host with thousands of handlers stays well below.
const OPEN_FILES: u64 = 65_536;

/// Lets this process open as many files as it may: the usual soft limit, 1024, is meant for programs of the last century.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < most) {
        // If it is refused, the limit stays what it was.
        let raised = Rlimit {
            current: Some(most),
            maximum: limit.maximum,
        };
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

/// Open files of a host besides its connections: standard streams, modules that are read, pipes to compilers.
const OPEN_FILES_BASE: usize = 40;
/// Of one runtime, and of one connection: a guarded one is three, with the socket that it is opened by.
const OF_A_THREAD: usize = 8;
const OF_A_CONNECTION: usize = 4;

/// How many files a host with these numbers of threads and connections has open at most.
pub fn open_files_wanted(threads: usize, connections: usize) -> usize {
    OPEN_FILES_BASE + threads * OF_A_THREAD + connections * OF_A_CONNECTION
}

/// The warning if this process may not have this number of files open. `None`: it may.
pub fn open_files_short(wanted: usize) -> Option<String> {
    let most = getrlimit(Resource::Nofile).current?;
    (usize::try_from(most).unwrap_or(usize::MAX) < wanted).then(|| {
        format!(
            "a host with this configuration has up to {wanted} files open, and this process may have {most}: raise the hard \
             limit (`ulimit -H -n`; `LimitNOFILE` of a service)"
        )
    })
}

/// Open files without which nothing can be done: a runtime, a connection, a compiler's pipes.
const OPEN_FILES_MIN: usize = 32;

/// From now on a write beyond the largest file size (`ulimit -f`) fails, and does not end the process. To be called within the
/// runtime.
pub fn outlive_file_size() {
    // What is installed stays for the life of the process. Without it, such a write ends the process as before.
    let _ = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()));
}

/// Whether the least that any command needs is available: some open files, and this number of threads. Asked before a runtime
/// is created, which would panic.
pub fn enough(threads: usize) -> Result<(), String> {
    let files: io::Result<Vec<File>> = (0..OPEN_FILES_MIN).map(|_| File::open("/dev/null")).collect();
    files.map_err(|error| format!("{OPEN_FILES_MIN} files cannot be open at a time: {}", told(&error)))?;
    self::threads(threads)
}

fn threads(count: usize) -> Result<(), String> {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock();
    let start = |_| {
        let gate = Arc::clone(&gate);
        let wait = move || drop(gate.lock());
        thread::Builder::new().name("start".to_owned()).spawn(wait)
    };
    let started: io::Result<Vec<_>> = (0..count).map(start).collect();
    drop(closed);
    for thread in started.map_err(|error| no_thread(&error))? {
        // It does nothing that could fail.
        let _ = thread.join();
    }
    Ok(())
}

/// Why a thread does not start.
pub fn no_thread(error: &io::Error) -> String {
    let why = match getrlimit(Resource::Nproc).current {
        Some(most) => format!("this user may have {most} processes and threads (`ulimit -u`)"),
        None => "the user may have any number of them (`ulimit -u`)".to_owned(),
    };
    format!("no thread can be started: {error}: {why}; a container or service may have a limit of its own (pids.max)")
}

/// An error with the limit that it comes from, if there is one.
pub fn told(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE) => match getrlimit(Resource::Nofile).current {
            Some(most) => format!("{error}: this process may have {most} files open (`ulimit -n`)"),
            None => error.to_string(),
        },
        Some(Errno::NFILE) => format!("{error}: of the whole machine (fs.file-max)"),
        // A process that cannot be started, not a file that cannot be read.
        Some(Errno::AGAIN) => no_thread(error).replacen("thread", "process", 1),
        Some(Errno::NOMEM) => match address_space() {
            Some(limit) => format!("{error}: {limit}"),
            None => error.to_string(),
        },
        _ => error.to_string(),
    }
}

/// How much address space this process may have; `None`: any.
pub fn address_space() -> Option<String> {
    let bytes = getrlimit(Resource::As).current?;
    let mib = bytes / (1024 * 1024);
    Some(format!(
        "this process may have {mib} MiB of address space (`ulimit -v`)"
    ))
}

/// For how long this process may compute before it is ended; `None`: for ever.
pub fn computing() -> Option<String> {
    let seconds = getrlimit(Resource::Cpu).current?;
    Some(format!(
        "this process is ended after {seconds} s of computing (`ulimit -t`)"
    ))
}

/// The lower one of a limit of ours and the one that the process has already, and whether it is the latter.
pub fn at_most(resource: Resource, ours: u64) -> (u64, bool) {
    match getrlimit(resource).maximum {
        Some(theirs) if theirs < ours => (theirs, true),
        _ => (ours, false),
    }
}
