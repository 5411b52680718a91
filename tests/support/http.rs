//! A client of HTTP that sends what it is told to.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

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

/// The address in a line that has `http://HOST:PORT`, `https://HOST:PORT` or `address=HOST:PORT`.
pub fn address(line: &str) -> SocketAddr {
    let after = ["http://", "https://", "address="]
        .iter()
        .find_map(|mark| line.split_once(mark));
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
    answered(&text)
}

fn answered(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has headers");
    let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer {
        status: status.expect("an answer has a status"),
        headers: headers.to_owned(),
        body: body.to_owned(),
    }
}

/// Sends a request as it is and returns whatever comes.
pub async fn read(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A client over TLS that knows an authority.
pub struct Encrypted(TlsConnector);

impl Encrypted {
    pub fn trusting(authority: &Path) -> Encrypted {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(authority).expect("a certificate");
        roots.add(authority).expect("it is one of an authority");
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Encrypted(TlsConnector::from(Arc::new(config)))
    }

    /// The answer to a request, and the certificate of the server, which is one for `localhost`.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn ask(&self, address: SocketAddr, request: &str) -> (Answer, Vec<u8>) {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = self.0.connect(name, stream).await.expect("it is encrypted");
        let known = stream.get_ref().1.peer_certificates().expect("it has one")[0].to_vec();
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut bytes = Vec::new();
        // That it ends without a farewell is not of interest.
        let _ = stream.read_to_end(&mut bytes).await;
        (answered(&String::from_utf8_lossy(&bytes)), known)
    }
}
