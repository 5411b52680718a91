//! Messages byte by byte, also such as no client library would send.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::NatsServer;

/// Messages to be published at once.
#[derive(Default)]
pub struct Raw(Vec<u8>);

impl Raw {
    /// `headers`: with their first line, `NATS/1.0\r\n…`.
    pub fn add(&mut self, subject: &[u8], headers: &[u8], payload: &[u8]) {
        self.add_with_reply(subject, "", headers, payload);
    }

    /// The same; what a stream answers goes to `reply`.
    pub fn add_with_reply(&mut self, subject: &[u8], reply: &str, headers: &[u8], payload: &[u8]) {
        let (head, all) = (headers.len(), headers.len() + payload.len());
        self.0.extend_from_slice(b"HPUB ");
        self.0.extend_from_slice(subject);
        let reply = if reply.is_empty() {
            String::new()
        } else {
            format!(" {reply}")
        };
        self.0.extend_from_slice(format!("{reply} {head} {all}\r\n").as_bytes());
        self.0.extend_from_slice(headers);
        self.0.extend_from_slice(payload);
        self.0.extend_from_slice(b"\r\n");
    }

    /// Returns when the server has taken them.
    pub fn publish(&self, server: &NatsServer) {
        let mut server = TcpStream::connect(server.addr()).expect("the server listens");
        // The server speaks first; one that also takes TLS from the first byte would take ours for that.
        let mut greeting = [0];
        while greeting != *b"\n" {
            server.read_exact(&mut greeting).expect("it greets");
        }
        server
            .write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n")
            .expect("it takes it");
        server.write_all(&self.0).expect("it takes it");
        server.write_all(b"PING\r\n").expect("it takes it");
        // The PONG comes after the messages were taken.
        let mut answer = Vec::new();
        let mut buffer = [0; 1024];
        while !answer.windows(4).any(|w| w == b"PONG") {
            let read = server.read(&mut buffer).expect("it answers");
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..read]);
        }
    }
}
