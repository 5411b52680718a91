//! OTLP over HTTP/1.1, with protobuf.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::{AGENT, ANSWER_MAX, CollectorStream, SpansRefused, Transport, authority};
use crate::plan::Otlp;

pub type HttpSender = http1::SendRequest<Full<Bytes>>;

/// Begins to speak over a connection.
pub async fn open(stream: Box<dyn CollectorStream>) -> Result<(HttpSender, Transport), SpansRefused> {
    let (sender, transport) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // A request tells what is wrong with its connection.
    Ok((sender, transport.map(drop).boxed().fuse()))
}

/// Sends a request; its answer's body.
pub async fn send(sender: &mut HttpSender, otlp: &Otlp, body: Bytes) -> Result<Bytes, SpansRefused> {
    let mut request = Request::post(otlp.endpoint.path.as_str())
        .header(HOST, authority(otlp))
        .header(USER_AGENT, AGENT)
        .header(CONTENT_TYPE, "application/x-protobuf");
    for (name, value) in &otlp.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(body)).map_err(|error| SpansRefused {
        why: error.to_string(),
        passes: false,
        after: None,
        answered: false,
    })?;
    sender.ready().await.map_err(failed)?;
    let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
    let body = Limited::new(body, ANSWER_MAX).collect().await;
    let body = body
        .map_err(|error| SpansRefused::passes(error.to_string()))?
        .to_bytes();
    judged(&Response::from_parts(head, ()), body)
}

fn failed(error: hyper::Error) -> SpansRefused {
    SpansRefused::passes(error.to_string())
}

fn judged(answer: &Response<()>, body: Bytes) -> Result<Bytes, SpansRefused> {
    let status = answer.status();
    if status.is_success() {
        return Ok(body);
    }
    Err(SpansRefused {
        why: format!("HTTP status {status}"),
        passes: matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ),
        after: after(answer.headers()),
        answered: true,
    })
}

fn after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
