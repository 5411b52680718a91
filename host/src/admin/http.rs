//! The admin address as a server of HTTP. A client that is slow or silent holds one of its connections for a while, and
//! nothing else: all of this has a thread of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::Admin;
use super::exposition::TextFormat;
use super::health::{self, Health};
use crate::process::limits;
use crate::trouble::{self, Weight};

/// Connections that are open at a time. A further one waits until another ends.
const CONNECTIONS_MAX: usize = 64;
/// How long one may last, from its begin to the end of its only answer: as long as Prometheus waits for one.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// After no connection could be accepted.
const PAUSE: Duration = Duration::from_millis(200);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const UNACCEPTED: &str = "the admin address accepts no connection";

type Answer = Response<Full<Bytes>>;

/// Answers for as long as it is polled.
pub async fn serve(listener: Arc<TcpListener>, admin: Arc<Admin>) {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = open.next() => {}
            accepted = listener.accept(), if open.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    trouble::over(UNACCEPTED, "");
                    open.push(connection(stream, Arc::clone(&admin)));
                }
                Err(error) => {
                    trouble!(Weight::Aside, "", error, { error = limits::told(&error) }, "the admin address accepts no connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn connection(stream: TcpStream, admin: Arc<Admin>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&admin, &request);
        async { Ok::<Answer, Infallible>(answer) }
    });
    let mut server = http1::Builder::new();
    let served = server.keep_alive(false).serve_connection(TokioIo::new(stream), service);
    // What a client does wrong is no concern of the host's.
    let _ = tokio::time::timeout(CONNECTION_MAX, served).await;
}

fn answer(admin: &Admin, request: &Request<Incoming>) -> Answer {
    let (method, path) = (request.method(), request.uri().path());
    let known = matches!(path, "/metrics" | "/livez" | "/readyz");
    if known && !matches!(*method, Method::GET | Method::HEAD) {
        let mut answer = of(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
        answer
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match path {
        "/metrics" => {
            let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
            let format = TextFormat::accepted(accept);
            of(StatusCode::OK, format.content_type(), admin.metrics(format))
        }
        "/livez" => of_health(&health::live()),
        "/readyz" => of_health(&health::ready(admin)),
        _ => of(
            StatusCode::NOT_FOUND,
            TEXT,
            "there are /metrics, /livez and /readyz\n".to_owned(),
        ),
    }
}

fn of_health(health: &Health) -> Answer {
    let status = match health.ok {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    // A struct of texts is always JSON.
    let text = serde_json::to_string(health).unwrap_or_default();
    of(status, JSON, text + "\n")
}

fn of(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
