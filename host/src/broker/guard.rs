//! A way to the server past which no message comes that the client library cannot read: a proxy on loopback, inside the
//! process, for one connection. The client speaks to it in the clear; it speaks to the server as the client would, with
//! TLS where that is asked for, and hands everything on, screened (decision 0016).

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, ServerAddr};
use bytes::BytesMut;
use rand::seq::SliceRandom;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};

use super::connection::{Connection, token};
use super::dial::open;
use super::error::Error;
use super::login;
use super::screen::{Malformed, Screen};
use super::tls::{certificates, roots};
use crate::plan::Nats;
use crate::text::secret::redact;

/// A connection to a server, encrypted or not.
trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

type GuardedServer = BufReader<Box<dyn ByteStream>>;

/// Bytes that are read at a time, each way.
const CHUNK: usize = 64 * 1024;
/// How long the last bytes to the server may take once the client has closed.
const PARTING: Duration = Duration::from_secs(2);
/// The longest `CONNECT` and `INFO`.
const GREETING_MAX: u64 = 1024 * 1024;

/// Connects as [`super::open`] does, by a way on which a message that the client cannot read breaks nothing: it comes as
/// what [`Connection::malformed`] recognises. It costs a hop more, so it is for what meets such messages.
pub async fn open_guarded(nats: &Nats, name: &str) -> Result<Connection, Error> {
    let guard = start(nats).await?;
    let proof = format!("{name} {}", guard.secret);
    // What a person reads of it names the server, not the guard.
    let url = guard.server;
    let mut connection = open(&guard.nats, &proof).await.map_err(|error| match error {
        Error::Connect { why, .. } => Error::Connect { url, why },
        Error::Crowded { why, wanted, .. } => Error::Crowded { url, why, wanted },
        Error::Unauthorized { tried, why, .. } => Error::Unauthorized { url, tried, why },
        other => other,
    })?;
    connection.guard = Some(guard.secret);
    Ok(connection)
}

impl Connection {
    pub fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }

    /// What the client could not read, if this message stands for it.
    pub fn malformed(&self, message: &Message) -> Option<Malformed> {
        let secret = self.guard.as_deref()?;
        (*message.subject == *secret).then(|| Malformed::of(message.payload.clone()))?
    }

    /// Returns when what was written before is on its way to the server; `stream`: one that the user may ask for.
    pub async fn flush(&self, stream: &str) {
        // This fails only when the connection is closed: then the server redelivers what is not answered.
        let _ = self.client.flush().await;
        if self.is_guarded() {
            // What the client has sent is not yet with the server; an answer says that it is.
            let _ = self.stream(stream).await;
        }
    }
}

/// An open way.
struct Guard {
    /// The server's address, without a user.
    server: String,
    /// How the client is to connect: to the guard, in the clear.
    nats: Nats,
    /// To stand at the end of the client's name, as proof that it is the one that the way was opened for; also the subject
    /// of what stands for a message that the client could not read.
    secret: Arc<str>,
}

/// Connects to a server and waits for the client, in a task that ends with the connection.
#[expect(
    clippy::disallowed_methods,
    reason = "like the client's own tasks, it ends with its connection"
)]
async fn start(nats: &Nats) -> Result<Guard, Error> {
    let refused = |why: String| Error::Connect {
        url: redact(&nats.url),
        why,
    };
    let mut last = "no server is named".to_owned();
    let mut servers: Vec<&str> = nats.url.split(',').map(str::trim).collect();
    // In no particular order, as the client takes them.
    servers.shuffle(&mut rand::rng());
    for server in servers {
        let addr = login::address(server).server.parse();
        let addr: ServerAddr = addr.map_err(|e: io::Error| refused(e.to_string()))?;
        match timeout(nats.timeout, dial(nats, &addr)).await {
            Ok(Ok((open, info))) => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
                let listener = listener.map_err(|e| refused(format!("no port of 127.0.0.1 can be had: {e}")))?;
                let port = listener.local_addr().map_err(|e| refused(e.to_string()))?.port();
                let secret: Arc<str> = format!("{}{}", token(), token()).into();
                let guard = Guard {
                    server: login::address(server).server,
                    nats: to_guard(nats, server, port),
                    secret: Arc::clone(&secret),
                };
                let patience = nats.timeout;
                tokio::spawn(async move {
                    // Whatever ends it closes both sides, and each side notices by that.
                    let _ = serve(&listener, open, &info, &secret, patience).await;
                });
                return Ok(guard);
            }
            Ok(Err(e)) => last = e.to_string(),
            Err(_) => last = "timed out".to_owned(),
        }
    }
    Err(refused(last))
}

/// The same user and settings, with the guard in the server's place.
fn to_guard(nats: &Nats, server: &str, port: u16) -> Nats {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    Nats {
        url: format!("nats://{user}@127.0.0.1:{port}"),
        tls_ca: None,
        tls_cert: None,
        tls_key: None,
        tls_first: false,
        ..nats.clone()
    }
}

/// Connects to a server, and returns its first message.
async fn dial(nats: &Nats, addr: &ServerAddr) -> io::Result<(GuardedServer, Vec<u8>)> {
    let plain = TcpStream::connect((addr.host(), addr.port())).await?;
    plain.set_nodelay(true)?;
    let mut stream: Box<dyn ByteStream> = Box::new(plain);
    if nats.tls_first {
        stream = encrypt(nats, addr, stream).await?;
    }
    let mut server = BufReader::with_capacity(CHUNK, stream);
    let mut info = Vec::new();
    (&mut server).take(GREETING_MAX).read_until(b'\n', &mut info).await?;
    let body = info.strip_prefix(b"INFO ").ok_or(io::ErrorKind::InvalidData)?;
    let mut body: serde_json::Value = serde_json::from_slice(body)?;
    let wanted = addr.tls_required() || body["tls_required"] == true;
    if wanted && !nats.tls_first {
        if !server.buffer().is_empty() {
            return Err(io::Error::other("the server speaks before the handshake of TLS"));
        }
        server = BufReader::with_capacity(CHUNK, encrypt(nats, addr, server.into_inner()).await?);
    }
    // The client must not encrypt its connection to the guard.
    for wish in ["tls_required", "tls_available", "tls_verify"] {
        body[wish] = false.into();
    }
    Ok((server, format!("INFO {body}\r\n").into_bytes()))
}

/// As the client does it.
async fn encrypt(nats: &Nats, addr: &ServerAddr, stream: Box<dyn ByteStream>) -> io::Result<Box<dyn ByteStream>> {
    let config = ClientConfig::builder().with_root_certificates(roots(nats.tls_ca.as_deref())?);
    let config = match (&nats.tls_cert, &nats.tls_key) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
            let config = config.with_client_auth_cert(certificates(cert)?, key);
            config.map_err(io::Error::other)?
        }
        _ => config.with_no_client_auth(),
    };
    let name = ServerName::try_from(addr.host().to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(config));
    Ok(Box::new(connector.connect(name, stream).await?))
}

/// Carries one connection, from the client's greeting to the end of either side.
async fn serve(
    listener: &TcpListener,
    server: GuardedServer,
    info: &[u8],
    secret: &str,
    patience: Duration,
) -> io::Result<()> {
    let (client, connect) = timeout(patience, greet(listener, info, secret)).await??;
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let client_closed = {
        let up = async {
            to_server.write_all(&connect).await?;
            carry(&mut from_client, &mut to_server).await
        };
        let down = screen(&mut from_server, &mut to_client, secret);
        tokio::pin!(down);
        tokio::select! {
            up = up => match up {
                Ok(()) => true,
                // The server has closed. What it said before that is the reason.
                Err(error) => {
                    let _ = timeout(PARTING, down).await;
                    return Err(error);
                }
            },
            down = &mut down => { down?; false }
        }
    };
    if client_closed {
        // What it wrote last is an ack: the server reads it if the connection is closed only when it has.
        to_server.shutdown().await?;
        let _ = timeout(PARTING, tokio::io::copy(&mut from_server, &mut tokio::io::sink())).await;
    }
    Ok(())
}

/// The client, and its `CONNECT` without the secret. Another process that finds the port gets the server's greeting, and
/// nothing that it sends is forwarded.
async fn greet(listener: &TcpListener, info: &[u8], secret: &str) -> io::Result<(BufReader<TcpStream>, Vec<u8>)> {
    loop {
        let (client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        let mut client = BufReader::with_capacity(CHUNK, client);
        let mut connect = Vec::new();
        let heard = async {
            client.write_all(info).await?;
            (&mut client).take(GREETING_MAX).read_until(b'\n', &mut connect).await
        };
        if heard.await.is_err() {
            continue;
        }
        let proof = format!(" {secret}");
        let (proof, said) = (proof.as_bytes(), connect.as_slice());
        if let Some(at) = said.windows(proof.len()).position(|part| part == proof) {
            let rest = &said[at + proof.len()..];
            let connect = [&said[..at], rest].concat();
            return Ok((client, connect));
        }
    }
}

async fn carry(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut bytes = BytesMut::with_capacity(CHUNK);
    while from.read_buf(&mut bytes).await? > 0 {
        to.write_all(&bytes).await?;
        to.flush().await?;
        bytes.clear();
    }
    Ok(())
}

async fn screen(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    secret: &str,
) -> io::Result<()> {
    let mut screen = Screen::new(secret);
    let (mut input, mut output) = (BytesMut::with_capacity(CHUNK), BytesMut::with_capacity(CHUNK));
    while from.read_buf(&mut input).await? > 0 {
        screen
            .pass(&mut input, &mut output)
            .map_err(|_| io::ErrorKind::InvalidData)?;
        to.write_all(&output).await?;
        output.clear();
        input.reserve(CHUNK);
    }
    Ok(())
}
