//! A server of HTTP: what the admin address and the console have in common. A client that is slow or silent holds one of its
//! connections for a while, and nothing else. And a client for one request, for checks of health.

mod ask;
mod serve;
mod stream;
mod tls;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};

pub use self::ask::{ask, reached_from_here};
pub use self::serve::{CONNECTIONS_MAX, serve};
pub use self::stream::{ServerSentEvent, events, pieces};
pub use self::tls::TlsIdentity;

pub const TEXT: &str = "text/plain; charset=utf-8";
pub const JSON: &str = "application/json";
/// A JSON text on each line.
pub const JSON_LINES: &str = "application/x-ndjson";

/// What a request is answered with.
pub type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// What answers requests.
pub trait Site: Send + Sync {
    fn answer(&self, request: Request<Incoming>, patience: &Patience) -> impl Future<Output = Answer> + Send;
}

/// How long a connection may last, from its begin to the end of its only answer. An answer that takes longer says so.
pub struct Patience(AtomicU64);

impl Patience {
    /// As long as Prometheus waits for an answer.
    pub const USUAL: Duration = Duration::from_secs(10);

    fn usual() -> Patience {
        Patience(AtomicU64::new(Patience::USUAL.as_secs()))
    }

    /// Seconds, and no less than before.
    pub fn raise(&self, to: Duration) {
        self.0.fetch_max(to.as_secs(), Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// An address, before anything is answered there.
pub struct HttpListener {
    pub address: SocketAddr,
    /// `None`: it is not encrypted.
    pub tls: Option<Arc<TlsIdentity>>,
    listener: TcpListener,
}

/// The same, when it is listened at.
pub struct OpenListener {
    tls: Option<Arc<TlsIdentity>>,
    listener: tokio::net::TcpListener,
}

impl HttpListener {
    /// # Errors
    /// The address cannot be listened at.
    pub fn bind(address: SocketAddr, tls: Option<Arc<TlsIdentity>>) -> io::Result<HttpListener> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(HttpListener { address, tls, listener })
    }

    /// Its address for a browser.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/", self.address)
    }

    /// # Errors
    /// The runtime does not take it.
    pub fn listen(self) -> io::Result<OpenListener> {
        Ok(OpenListener {
            tls: self.tls,
            listener: tokio::net::TcpListener::from_std(self.listener)?,
        })
    }
}

/// An answer that nothing keeps.
pub fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    header(&mut answer, CONTENT_TYPE, kind);
    header(&mut answer, CACHE_CONTROL, "no-store");
    answer
}

/// The answer to a method that is not allowed.
pub fn only(methods: &'static str, text: &'static str) -> Answer {
    let mut only = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
    header(&mut only, ALLOW, methods);
    only
}

pub fn header(answer: &mut Answer, name: HeaderName, value: &'static str) {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
}
