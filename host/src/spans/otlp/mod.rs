//! OTLP: one request with spans, to a collector, over HTTP or gRPC
//! (<https://opentelemetry.io/docs/specs/otlp/>). The connection is kept for the next one.

mod encode;
mod grpc;
mod http;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, Fuse, FusedFuture as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::broker::tls;
use crate::plan::{Otlp, OtlpProtocol};
use crate::spans::span::SpanRecord;

/// What a collector may answer with, in bytes; what is beyond it is not read.
const ANSWER_MAX: usize = 64 * 1024;

/// Where spans go.
pub struct Collector {
    otlp: Otlp,
    tls: Option<TlsConnector>,
}

/// Why spans were not taken.
#[derive(Debug)]
pub struct SpansRefused {
    pub why: String,
    /// The same request may be taken later.
    pub passes: bool,
    /// Not before this time has passed, if the collector says so.
    pub after: Option<Duration>,
    /// The collector has answered that, so its connection can be used again.
    answered: bool,
}

impl SpansRefused {
    fn passes(why: impl Into<String>) -> SpansRefused {
        SpansRefused {
            why: why.into(),
            passes: true,
            after: None,
            answered: false,
        }
    }
}

/// What became of a request that was taken.
#[derive(Debug, Default, PartialEq)]
pub struct SpansTaken {
    /// Spans that the collector did not take, and why.
    pub rejected: u64,
    pub why: String,
}

trait CollectorStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> CollectorStream for T {}

/// What transports the bytes of a connection, for as long as it is polled; it ends with the connection.
type Transport = Fuse<BoxFuture<'static, ()>>;

/// A connection to a collector.
pub struct KeptConnection {
    sender: SpanSender,
    transport: Transport,
}

enum SpanSender {
    Http(http::HttpSender),
    Grpc(grpc::GrpcSender),
}

impl KeptConnection {
    /// Sends a request; its answer's body.
    async fn send(&mut self, otlp: &Otlp, body: Bytes) -> Result<Bytes, SpansRefused> {
        let mut asked: BoxFuture<'_, _> = match &mut self.sender {
            SpanSender::Http(sender) => Box::pin(http::send(sender, otlp, body)),
            SpanSender::Grpc(sender) => Box::pin(grpc::send(sender, otlp, body)),
        };
        if !self.transport.is_terminated() {
            tokio::select! {
                biased;
                answer = &mut asked => return answer,
                () = &mut self.transport => {}
            }
        }
        // A server may close it at once after its answer, which is there then. Else this says why there is none.
        asked.await
    }

    /// Waits until it is closed.
    pub async fn closed(&mut self) {
        if !self.transport.is_terminated() {
            (&mut self.transport).await;
        }
    }
}

impl Collector {
    /// # Errors
    /// The certificates cannot be read.
    pub fn new(otlp: &Otlp) -> io::Result<Collector> {
        let tls = match otlp.endpoint.tls {
            false => None,
            true => {
                let roots = tls::roots(otlp.ca.as_deref())?;
                let mut config = ClientConfig::builder()
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                config.alpn_protocols = match otlp.protocol {
                    OtlpProtocol::Grpc => vec![b"h2".to_vec()],
                    OtlpProtocol::Http => vec![b"http/1.1".to_vec()],
                };
                Some(TlsConnector::from(Arc::new(config)))
            }
        };
        Ok(Collector {
            otlp: otlp.clone(),
            tls,
        })
    }

    pub fn encode(&self, spans: &[SpanRecord]) -> Bytes {
        encode::request(&self.otlp.resource, spans).into()
    }

    /// Sends one request with spans, within its time limit. `kept`: the connection of the request before, and then that of this one.
    ///
    /// # Cancel safety
    /// Dropped half-way, the collector may have taken the spans, and no connection is kept.
    pub async fn send(&self, kept: &mut Option<KeptConnection>, body: Bytes) -> Result<SpansTaken, SpansRefused> {
        let limit = self.otlp.timeout;
        let sent = tokio::time::timeout(limit, self.send_at_length(kept, body)).await;
        let answer = sent.unwrap_or_else(|_| Err(SpansRefused::passes(format!("no answer within {limit:?}"))))?;
        let (rejected, why) = encode::rejected(&answer).unwrap_or_default();
        Ok(SpansTaken { rejected, why })
    }

    async fn send_at_length(&self, kept: &mut Option<KeptConnection>, body: Bytes) -> Result<Bytes, SpansRefused> {
        if let Some(mut connection) = kept.take() {
            let answer = connection.send(&self.otlp, body.clone()).await;
            if answer.as_ref().err().is_none_or(|refused| refused.answered) {
                *kept = Some(connection);
                return answer;
            }
            // The collector may have closed it meanwhile.
        }
        let mut connection = self.connect().await?;
        let answer = connection.send(&self.otlp, body).await;
        if answer.as_ref().err().is_none_or(|refused| refused.answered) {
            *kept = Some(connection);
        }
        answer
    }

    async fn connect(&self) -> Result<KeptConnection, SpansRefused> {
        let stream = self.dial().await;
        let stream = stream.map_err(|error| SpansRefused::passes(error.to_string()))?;
        let (sender, transport) = match self.otlp.protocol {
            OtlpProtocol::Http => {
                let (sender, transport) = http::open(stream).await?;
                (SpanSender::Http(sender), transport)
            }
            OtlpProtocol::Grpc => {
                let (sender, transport) = grpc::open(stream).await?;
                (SpanSender::Grpc(sender), transport)
            }
        };
        Ok(KeptConnection { sender, transport })
    }

    async fn dial(&self) -> io::Result<Box<dyn CollectorStream>> {
        let endpoint = &self.otlp.endpoint;
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(endpoint.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

/// `host:port`, as a request names it.
fn authority(otlp: &Otlp) -> String {
    let host = &otlp.endpoint.host;
    match host.contains(':') {
        true => format!("[{host}]:{}", otlp.endpoint.port),
        false => format!("{host}:{}", otlp.endpoint.port),
    }
}

const AGENT: &str = concat!("jetmesh/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests;
