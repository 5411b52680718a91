//! What the end-to-end tests stand on: a real nats-server, a real PostgreSQL, the real jetmesh binary, a proxy that breaks the connection
//! between them, and one way to wait for a fact.

pub mod browser;
pub mod cli;
pub mod host;
pub mod http;
pub mod modules;
pub mod oci;
pub mod otlp;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod server;
pub mod wait;

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};

pub use host::Host;
pub use proxy::{Direction, Proxy};
pub use raw::Raw;
pub use rustix::process::Signal;
pub use server::NatsServer;
pub use wait::eventually;

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the host's crate is in a folder of the repository")
}

/// Where a program is: in the environment variable `variable`, else in `.tools/bin`, else on `PATH`.
pub fn tool(name: &str, variable: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Some(path.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(root().join(".tools/bin")).chain(env::split_paths(&path));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// `PATH` for a program that looks for a nats-server itself.
pub fn path_with_tools() -> std::ffi::OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(root().join(".tools/bin")).chain(env::split_paths(&path));
    env::join_paths(folders).expect("no folder has a colon in its name")
}

/// Says that a test, or the rest of it, does not run.
pub fn skipped(reason: &str) {
    // Not `eprintln!`, which the test runner shows only for a test that fails. A closed stderr is not worth a failure.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}
