//! OTLP: one request with spans, to a collector, over HTTP or gRPC
//! (<https://opentelemetry.io/docs/specs/otlp/>). Each request has a connection of its own.

mod encode;
mod grpc;
mod http;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
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
}

impl SpansRefused {
    fn passes(why: impl Into<String>) -> SpansRefused {
        SpansRefused {
            why: why.into(),
            passes: true,
            after: None,
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

/// What is asked over a connection, which works for as long as it is polled.
async fn answered<T>(
    asked: impl Future<Output = Result<T, SpansRefused>>,
    connection: impl Future,
) -> Result<T, SpansRefused> {
    let mut asked = pin!(asked);
    tokio::select! {
        biased;
        answer = &mut asked => return answer,
        _ = connection => {}
    }
    // A server may close it at once after its answer, which is there then. Else this says why there is none.
    asked.await
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

    /// Sends one request with spans, within its time limit.
    ///
    /// # Cancel safety
    /// Dropped half-way, the collector may have taken the spans.
    pub async fn send(&self, body: Bytes) -> Result<SpansTaken, SpansRefused> {
        let limit = self.otlp.timeout;
        let sent = tokio::time::timeout(limit, self.send_at_length(body)).await;
        sent.unwrap_or_else(|_| Err(SpansRefused::passes(format!("no answer within {limit:?}"))))
    }

    async fn send_at_length(&self, body: Bytes) -> Result<SpansTaken, SpansRefused> {
        let stream = self
            .connect()
            .await
            .map_err(|error| SpansRefused::passes(error.to_string()))?;
        let answer = match self.otlp.protocol {
            OtlpProtocol::Http => http::send(stream, &self.otlp, body).await?,
            OtlpProtocol::Grpc => grpc::send(stream, &self.otlp, body).await?,
        };
        let (rejected, why) = encode::rejected(&answer).unwrap_or_default();
        Ok(SpansTaken { rejected, why })
    }

    async fn connect(&self) -> io::Result<Box<dyn CollectorStream>> {
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
