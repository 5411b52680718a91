//! Accepting connections, and how long each may last.

use std::convert::Infallible;
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
use tokio::net::{TcpListener, TcpStream};

use super::{Answer, Patience, Site};
use crate::process::limits;
use crate::trouble::{self, Weight};

/// Connections that are open at a time. A further one waits until another ends.
const CONNECTIONS_MAX: usize = 128;
/// After no connection could be accepted.
const PAUSE: Duration = Duration::from_millis(200);

const UNACCEPTED: &str = "the admin address accepts no connection";

/// Answers for as long as it is polled.
pub async fn serve<S: Site>(listener: Arc<TcpListener>, site: Arc<S>) {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = open.next() => {}
            accepted = listener.accept(), if open.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    trouble::over(UNACCEPTED, "");
                    open.push(connection(stream, Arc::clone(&site)));
                }
                Err(error) => {
                    trouble!(Weight::Aside, "", error, { error = limits::told(&error) }, "the admin address accepts no connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn connection<S: Site>(stream: TcpStream, site: Arc<S>) {
    let patience = Arc::new(Patience::usual());
    let service = service_fn(|request: Request<Incoming>| {
        let (site, patience) = (Arc::clone(&site), Arc::clone(&patience));
        async move { Ok::<Answer, Infallible>(site.answer(request, &patience).await) }
    });
    let mut server = http1::Builder::new();
    let mut served = pin!(server.keep_alive(false).serve_connection(TokioIo::new(stream), service));
    let began = Instant::now();
    while let Some(left) = patience.get().checked_sub(began.elapsed()) {
        // What a client does wrong is no concern of the host's.
        if tokio::time::timeout(left, &mut served).await.is_ok() {
            return;
        }
    }
}
