//! `[admin]`: where a host answers over HTTP.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::files::check_file;
use super::reader::{Reader, Section};
use crate::broker::login::check_pem;
use crate::plan::{AdminPlan, TlsFiles, is_local};

/// The shortest and the longest token, in bytes: one that is shorter can be guessed.
const TOKEN_MIN: usize = 16;
const TOKEN_MAX: usize = 4096;

/// What is wrong, and what would be right.
type AddressProblem = (String, String);

pub fn read(mut section: Section, reader: &mut Reader) -> AdminPlan {
    let listen = section.text(reader, "listen");
    let mut file = |name: &'static str| section.text(reader, name).map(PathBuf::from);
    let (cert, key, metrics_token) = (file("tls_cert"), file("tls_key"), file("metrics_token_file"));
    let names = section.list(reader, "names");
    let says = section.has("uploads");
    let uploads = section.boolean(reader, "uploads", false);
    section.finish(reader);
    for name in names.iter().filter(|name| !is_name(name)) {
        let what = format!("\"{}\" is no name of a machine", name.escape_debug());
        let hint = "a name without a port, such as \"mesh.example.com\"";
        reader.problem("admin.names", what, hint);
    }
    let certificate = |path: &Path| check_pem(path, "CERTIFICATE", "certificate");
    let private = |path: &Path| check_pem(path, "PRIVATE KEY", "private key");
    check_file(reader, "admin.tls_cert", cert.as_deref(), certificate);
    check_file(reader, "admin.tls_key", key.as_deref(), private);
    check_file(reader, "admin.metrics_token_file", metrics_token.as_deref(), |path| {
        token(path).map(|_| ())
    });
    let mut lacks = |lacks: &str, has: &str| {
        reader.problem(format!("admin.{lacks}"), format!("admin.{has} needs it"), "");
        None
    };
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
        (None, None) => None,
        (Some(_), None) => lacks("tls_key", "tls_cert"),
        (None, Some(_)) => lacks("tls_cert", "tls_key"),
    };
    let mut plan = AdminPlan {
        listen: None,
        tls,
        metrics_token,
        names,
        uploads: says.then_some(uploads),
    };
    let Some(text) = listen else {
        return plan;
    };
    let checked = address(&text).and_then(|address| safe(address, &plan).map(|()| address));
    match checked {
        Ok(address) => plan.listen = Some(address),
        Err((what, hint)) => reader.problem("admin.listen", what, hint),
    }
    if let Some(address) = plan.listen
        && !is_local(address)
        && plan.metrics_token.is_none()
    {
        reader.problem(
            "admin.metrics_token_file",
            format!("other machines can reach {address}, and /metrics would answer all of them"),
            format!(
                "a file with a token of {TOKEN_MIN} characters or more, which Prometheus brings by `authorization.credentials_file`"
            ),
        );
    }
    plan
}

/// The token in a file. It is on one line.
///
/// # Errors
/// It cannot be read, or is no token.
pub fn token(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}"))?;
    let token = text.trim();
    let odd = |byte: u8| !byte.is_ascii_graphic();
    match token.len() {
        length if length > TOKEN_MAX => Err(format!("it is longer than {TOKEN_MAX} bytes")),
        _ if token.bytes().any(odd) => Err("a token is one line of ASCII characters without spaces".to_owned()),
        length if length < TOKEN_MIN => Err(format!(
            "its token has {length} characters, and {TOKEN_MIN} are the least: `openssl rand -hex 32` makes one"
        )),
        _ => Ok(token.to_owned()),
    }
}

/// An address of this machine. `localhost` is one.
pub fn address(text: &str) -> Result<SocketAddr, AddressProblem> {
    let parsed = match text.strip_prefix("localhost:") {
        Some(port) => port.parse().ok().map(|port: u16| (Ipv4Addr::LOCALHOST, port).into()),
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| {
        let what = format!("\"{}\" is no IP address with a port", text.escape_debug());
        (
            what,
            "for instance \"127.0.0.1:9464\"; port 0 is any free one".to_owned(),
        )
    })
}

/// Whether what is sent to an address cannot be read on the way: only this machine reaches it, or it is encrypted.
pub fn safe(address: SocketAddr, plan: &AdminPlan) -> Result<(), AddressProblem> {
    if is_local(address) || plan.tls.is_some() {
        return Ok(());
    }
    let what = format!("other machines can reach {address}, and what they send would not be encrypted");
    let hint = format!(
        "set admin.tls_cert and admin.tls_key; or use \"127.0.0.1:{}\", and forward the port from another machine with `ssh -L` or \
         `kubectl port-forward`",
        address.port()
    );
    Err((what, hint))
}

fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    !name.is_empty() && name.len() <= 253 && name.bytes().all(is_letter)
}
