//! `[admin]`: where a host answers over HTTP.

use std::net::{Ipv4Addr, SocketAddr};

use super::reader::{Reader, Section};

/// `None`: it is not said.
pub fn read(mut section: Section, reader: &mut Reader) -> Option<SocketAddr> {
    let text = section.text(reader, "listen");
    let key = section.key("listen");
    section.finish(reader);
    let text = text?;
    let Some(address) = address(&text) else {
        let what = format!("\"{}\" is no IP address with a port", text.escape_debug());
        reader.problem(key, what, "for instance \"127.0.0.1:9464\"; port 0 is any free one");
        return None;
    };
    if !address.ip().to_canonical().is_loopback() {
        let what = format!("other machines can reach {address}, and there are no TLS and no credentials yet");
        let hint = format!(
            "use \"127.0.0.1:{}\"; TLS and credentials come with the console",
            address.port()
        );
        reader.problem(key, what, hint);
        return None;
    }
    Some(address)
}

fn address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into()),
        None => text.parse().ok(),
    }
}
