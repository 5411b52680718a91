//! A client of HTTP that sends what it is told to.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a server has answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

impl Answer {
    /// # Panics
    /// If the body is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The address in a line that has `http://HOST:PORT` or `address=HOST:PORT`.
pub fn address(line: &str) -> SocketAddr {
    let after = ["http://", "address="].iter().find_map(|mark| line.split_once(mark));
    let (_, rest) = after.unwrap_or_else(|| panic!("no address: {line}"));
    let end = rest
        .find(|c: char| c != '.' && !c.is_ascii_digit() && c != ':')
        .unwrap_or(rest.len());
    rest[..end]
        .trim_end_matches(':')
        .parse()
        .unwrap_or_else(|error| panic!("{error}: {line}"))
}

pub async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await
}

/// Sends a request as it is and reads the answer to its end.
///
/// # Panics
/// If there is no answer.
pub async fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("it answers with text");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has headers");
    let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer {
        status: status.expect("an answer has a status"),
        headers: headers.to_owned(),
        body: body.to_owned(),
    }
}
