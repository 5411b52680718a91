//! Answers that come piece by piece, such as server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::{Response, StatusCode};
use serde_json::Value;

use super::{Answer, header};

/// One event of a stream.
pub struct ServerSentEvent {
    pub name: &'static str,
    pub data: Value,
}

impl ServerSentEvent {
    fn bytes(&self) -> Bytes {
        // JSON on one line has no line break.
        format!("event: {}\ndata: {}\n\n", self.name, self.data).into()
    }
}

/// An answer that goes on for as long as there are events.
pub fn events(events: impl Stream<Item = ServerSentEvent> + Send + 'static) -> Answer {
    pieces("text/event-stream", events.map(|event| Ok(event.bytes())))
}

/// An answer that comes piece by piece. After an error the connection is broken off, so that the client does not take what it has for all.
pub fn pieces(kind: &'static str, pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Answer {
    let frames = pieces.map(|piece| piece.map(Frame::data));
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    *answer.status_mut() = StatusCode::OK;
    header(&mut answer, CONTENT_TYPE, kind);
    header(&mut answer, CACHE_CONTROL, "no-store");
    answer
}
