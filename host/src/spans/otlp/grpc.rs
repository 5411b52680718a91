//! OTLP over gRPC: one call, which is one stream of HTTP/2
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::future::poll_fn;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use h2::RecvStream;
use h2::client::SendRequest;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use hyper::{Request, StatusCode};

use super::{AGENT, ANSWER_MAX, CollectorStream, SpansRefused, Transport, authority};
use crate::plan::Otlp;

/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

pub type GrpcSender = SendRequest<Bytes>;

/// Begins to speak over a connection.
pub async fn open(stream: Box<dyn CollectorStream>) -> Result<(GrpcSender, Transport), SpansRefused> {
    let (sender, transport) = h2::client::handshake(stream).await.map_err(failed)?;
    // A request tells what is wrong with its connection.
    Ok((sender, transport.map(drop).boxed().fuse()))
}

/// Sends a request; the message that answers it.
pub async fn send(sender: &mut GrpcSender, otlp: &Otlp, body: Bytes) -> Result<Bytes, SpansRefused> {
    let mut framed = BytesMut::with_capacity(PREFIX + body.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(body.len()).map_err(|_| never("the request is too large"))?);
    framed.extend_from_slice(&body);
    let scheme = if otlp.endpoint.tls { "https" } else { "http" };
    let mut request = Request::post(format!("{scheme}://{}{}", authority(otlp), otlp.endpoint.path))
        .header(CONTENT_TYPE, "application/grpc+proto")
        .header(TE, "trailers")
        .header(USER_AGENT, AGENT);
    for (name, value) in &otlp.headers {
        request = request.header(name.to_ascii_lowercase(), value);
    }
    let request = request.body(()).map_err(|error| never(&error.to_string()))?;
    poll_fn(|context| sender.poll_ready(context)).await.map_err(failed)?;
    let (answer, mut send) = sender.send_request(request, false).map_err(failed)?;
    send.send_data(framed.freeze(), true).map_err(failed)?;
    let (head, body) = answer.await.map_err(failed)?.into_parts();
    if head.status != StatusCode::OK {
        return Err(SpansRefused {
            passes: head.status.is_server_error() || head.status == StatusCode::TOO_MANY_REQUESTS,
            answered: true,
            ..never(&format!("HTTP status {}", head.status))
        });
    }
    // What fails at once has no body, and its status among the headers.
    if head.headers.contains_key(STATUS) {
        judged(&head.headers)?;
    }
    let (message, trailers) = read(body).await?;
    judged(&trailers.unwrap_or(head.headers))?;
    Ok(message)
}

async fn read(mut body: RecvStream) -> Result<(Bytes, Option<HeaderMap>), SpansRefused> {
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(failed)?;
        let _ = body.flow_control().release_capacity(data.len());
        if message.len() + data.len() > ANSWER_MAX {
            return Err(never("its answer is too large"));
        }
        message.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.map_err(failed)?;
    let message = message.split_off(PREFIX.min(message.len())).freeze();
    Ok((message, trailers))
}

const STATUS: &str = "grpc-status";

fn judged(headers: &HeaderMap) -> Result<(), SpansRefused> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let status: Option<u32> = text(STATUS).and_then(|status| status.parse().ok());
    if status == Some(0) {
        return Ok(());
    }
    let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
    let why = text("grpc-message").unwrap_or_default();
    Err(SpansRefused {
        passes: PASSING.contains(&status.as_str()),
        answered: true,
        ..never(&format!("gRPC status {status} {why}"))
    })
}

/// Statuses after which a client tries again: cancelled, deadline exceeded, resource exhausted, aborted, out of range, unavailable,
/// data loss.
const PASSING: [&str; 7] = ["1", "4", "8", "10", "11", "14", "15"];

fn failed(error: h2::Error) -> SpansRefused {
    SpansRefused::passes(error.to_string())
}

fn never(why: &str) -> SpansRefused {
    SpansRefused {
        why: why.trim_end().to_owned(),
        passes: false,
        after: None,
        answered: false,
    }
}
