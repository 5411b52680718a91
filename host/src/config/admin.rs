//! `[admin]`: where a host answers over HTTP.

use std::net::{Ipv4Addr, SocketAddr};

use super::reader::{Reader, Section};

/// `None`: it is not said.
pub fn read(mut section: Section, reader: &mut Reader) -> Option<SocketAddr> {
    let text = section.text(reader, "listen");
    let key = section.key("listen");
    section.finish(reader);
    let text = text?;
    match local(&text) {
        Ok(address) => Some(address),
        Err((what, hint)) => {
            reader.problem(key, what, hint);
            None
        }
    }
}

/// An address that only this machine can reach. `Err`: what is wrong, and what would be right.
pub fn local(text: &str) -> Result<SocketAddr, (String, String)> {
    let Some(address) = address(text) else {
        let what = format!("\"{}\" is no IP address with a port", text.escape_debug());
        return Err((
            what,
            "for instance \"127.0.0.1:9464\"; port 0 is any free one".to_owned(),
        ));
    };
    if !address.ip().to_canonical().is_loopback() {
        let what = format!("other machines can reach {address}, and what they send would not be encrypted");
        let hint = format!(
            "use \"127.0.0.1:{}\"; from another machine, forward the port with `ssh -L` or `kubectl port-forward`",
            address.port()
        );
        return Err((what, hint));
    }
    Ok(address)
}

fn address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into()),
        None => text.parse().ok(),
    }
}
