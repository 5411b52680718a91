//! Modules in OCI registries, where container images are as well (<https://github.com/opencontainers/distribution-spec>).
//! `decisions/0037-oci.md` says why it is so.

mod challenge;
mod client;
mod credentials;
mod login;
mod manifest;
mod read;
mod reference;
mod write;

use std::time::Duration;

pub use self::read::read;
pub use self::reference::OciReference;
pub use self::write::{OciArtifact, write};

/// Why a module was not read from a registry, or not written to it. No message has a password, a token, or an address with a query.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("registry {host} cannot be reached: {why}")]
    Unreachable { host: String, why: String },
    #[error("registry {host} has not answered within {limit:?}")]
    Silent { host: String, limit: Duration },
    /// It has another answer than the one that was asked for.
    #[error("registry {host} has answered {status} to {what}{why}")]
    Answer {
        host: String,
        status: u16,
        what: String,
        why: String,
    },
    /// The login is missing or wrong, or cannot be read.
    #[error("{0}")]
    Login(String),
    /// What lies there is not what was asked for.
    #[error("{reference}: {why}")]
    Unfit { reference: String, why: String },
}

impl Error {
    fn unfit(reference: &OciReference, why: impl Into<String>) -> Error {
        Error::Unfit {
            reference: reference.to_string(),
            why: why.into(),
        }
    }
}
