//! Where a host answers over HTTP, and to whom.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The admin address.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AdminPlan {
    /// `None`: the configuration does not say.
    pub listen: Option<SocketAddr>,
    /// `None`: it is not encrypted, and other machines cannot reach it.
    pub tls: Option<TlsFiles>,
    /// A file with the token that clients of `/metrics` bring. `None`: they need none.
    pub metrics_token: Option<PathBuf>,
    /// Names of the console besides those of the certificate.
    pub names: Vec<String>,
    /// Whether a viewer may rehearse on a module of their own. `None`: the configuration does not say.
    pub uploads: Option<bool>,
}

/// Files in PEM.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsFiles {
    /// The certificate of the server, and those that lead from it to an authority.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Whether only this machine can reach an address.
pub fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
