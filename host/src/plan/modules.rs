//! Where the modules of handlers come from, and which of them may serve.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a handler's module comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModuleOrigin {
    /// A component file, absolute or relative to the working directory.
    File(PathBuf),
    /// What is promoted under this name in the registry of the mesh.
    Registry(String),
}

impl ModuleOrigin {
    pub fn file(&self) -> Option<&Path> {
        match self {
            ModuleOrigin::File(path) => Some(path),
            ModuleOrigin::Registry(_) => None,
        }
    }

    /// The name in the registry.
    pub fn registered(&self) -> Option<&str> {
        match self {
            ModuleOrigin::File(_) => None,
            ModuleOrigin::Registry(name) => Some(name),
        }
    }
}

/// As the configuration writes it.
impl fmt::Display for ModuleOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModuleOrigin::File(path) => path.display().fmt(f),
            ModuleOrigin::Registry(name) => write!(f, "registry:{name}"),
        }
    }
}

/// How a host uses the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModulesPlan {
    /// Public keys of nkeys, each of which must have signed a version before it serves. Empty: no signature is needed.
    pub require: Vec<String>,
    /// How long a module that serves no more stays compiled.
    pub rollback_window: Duration,
    /// The folder of compiled modules. `None`: each start compiles.
    pub cache: Option<PathBuf>,
}
