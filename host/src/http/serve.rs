//! Accepting connections, and how long each may last.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{Answer, OpenListener, Patience, Site, TlsIdentity};
use crate::plan::is_local;
use crate::process::limits;
use crate::trouble::{self, Weight};

/// Connections that are open at a time. A further one waits until another ends.
pub const CONNECTIONS_MAX: usize = 128;
/// Of another machine: one that holds all of its own leaves room for the others, such as a health check.
const OF_ONE_MAX: usize = 48;
/// For the begin of an encrypted connection.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// After no connection could be accepted.
const PAUSE: Duration = Duration::from_millis(200);

const UNACCEPTED: &str = "the admin address accepts no connection";

/// Answers for as long as it is polled.
pub async fn serve<S: Site>(open: Arc<OpenListener>, site: Arc<S>) {
    let OpenListener { listener, tls } = &*open;
    let mut open = FuturesUnordered::new();
    let mut clients: HashMap<IpAddr, usize> = HashMap::new();
    loop {
        tokio::select! {
            Some(client) = open.next() => {
                if let Some(count) = clients.get_mut(&client) {
                    *count -= 1;
                }
                clients.retain(|_, count| *count > 0);
            }
            accepted = listener.accept(), if open.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, client)) => {
                    trouble::over(UNACCEPTED, "");
                    let count = clients.entry(client.ip()).or_default();
                    if *count < OF_ONE_MAX || is_local(client) {
                        *count += 1;
                        let (tls, site) = (tls.clone(), Arc::clone(&site));
                        open.push(async move {
                            connection(stream, tls, site).await;
                            client.ip()
                        });
                    }
                }
                Err(error) => {
                    trouble!(Weight::Aside, "", error, { error = limits::told(&error) }, "the admin address accepts no connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn connection<S: Site>(stream: TcpStream, tls: Option<Arc<TlsIdentity>>, site: Arc<S>) {
    match tls {
        None => answered(stream, site).await,
        // What a client does wrong is no concern of the host's.
        Some(tls) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
                answered(stream, site).await;
            }
        }
    }
}

async fn answered<S: Site>(stream: impl AsyncRead + AsyncWrite + Unpin, site: Arc<S>) {
    let patience = Arc::new(Patience::usual());
    let service = service_fn(|request: Request<Incoming>| {
        let (site, patience) = (Arc::clone(&site), Arc::clone(&patience));
        async move { Ok::<Answer, Infallible>(site.answer(request, &patience).await) }
    });
    let mut server = http1::Builder::new();
    let mut served = pin!(server.keep_alive(false).serve_connection(TokioIo::new(stream), service));
    let began = Instant::now();
    while let Some(left) = patience.get().checked_sub(began.elapsed()) {
        // The same.
        if tokio::time::timeout(left, &mut served).await.is_ok() {
            return;
        }
    }
}
