//! One connection to NATS, which lives once: when it breaks, it is thrown away with everything that was queued on it,
//! and its owner begins anew. So nothing written before a disconnect is ever sent after it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, response::Response};
use async_nats::{Client, ConnectOptions, HeaderMap, Request, RequestErrorKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::message::{Headers, parse_rfc3339};
use crate::plan::Nats;

/// The oldest server on which the tests have passed.
pub const SERVER_MIN: (i64, i64, i64) = (2, 12, 5);

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("cannot connect to NATS at {url}: {why}")]
    Connect { url: String, why: String },
    #[error("{what}: cannot be used: {why}")]
    Credentials { what: String, why: String },
    #[error(
        "nats-server {found} is too old: {} or newer is needed",
        format!("{}.{}.{}", SERVER_MIN.0, SERVER_MIN.1, SERVER_MIN.2)
    )]
    OldServer { found: String },
    #[error("JetStream is not enabled on the server, or not for this account: start nats-server with --jetstream")]
    NoJetStream,
    /// What JetStream answered; the code is its `err_code`.
    #[error("{what}: {text} ({code})")]
    Api { what: String, code: u64, text: String },
    #[error("{what}: nobody answered within the time limit")]
    Timeout { what: String },
    #[error("{what}: the connection to NATS is gone")]
    Gone { what: String },
    /// A stream or consumer that was there.
    #[error("{what} is gone")]
    Missing { what: String },
    #[error("{what}: an answer that cannot be read: {why}")]
    Answer { what: String, why: String },
    /// A state of NATS that a person must change; says how.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// JetStream's own error code, if it answered with one.
    pub fn code(&self) -> Option<u64> {
        match self {
            Error::Api { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn passes(&self) -> bool {
        match self {
            Error::Connect { .. }
            | Error::Timeout { .. }
            | Error::Gone { .. }
            | Error::Missing { .. }
            | Error::Answer { .. } => true,
            // 10008: JetStream temporarily unavailable; 503 family without a leader.
            Error::Api { code, .. } => matches!(code, 10008 | 10009 | 10023),
            Error::Credentials { .. } | Error::OldServer { .. } | Error::NoJetStream | Error::Refused(_) => false,
        }
    }
}

/// A connection and the JetStream API over it. Clones are the same connection.
#[derive(Clone)]
pub struct Connection {
    pub client: Client,
    pub js: jetstream::Context,
    api_prefix: String,
    closed: CancellationToken,
}

/// Connects once; no retries.
pub async fn open(nats: &Nats, name: &str) -> Result<Connection, Error> {
    let closed = CancellationToken::new();
    let lost = closed.clone();
    let dials = Arc::new(AtomicU32::new(0));
    let mut options = credentials(nats)
        .await?
        .name(name)
        .connection_timeout(nats.timeout)
        .request_timeout(Some(nats.timeout))
        .subscription_capacity(64 * 1024)
        .event_callback(move |event| {
            let lost = lost.clone();
            async move {
                match event {
                    async_nats::Event::Disconnected | async_nats::Event::Closed => lost.cancel(),
                    async_nats::Event::ServerError(error) => {
                        tracing::warn!(%error, "nats reports an error");
                    }
                    async_nats::Event::LameDuckMode => tracing::info!("the nats server is about to shut down"),
                    _ => {}
                }
            }
        })
        .reconnect_to_server_callback(move |_, _| {
            let first = dials.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if !first {
                    // The client would dial again and send what is queued; unwinding, without the panic hook, ends its
                    // task and nothing else.
                    std::panic::resume_unwind(Box::new("a connection lives once"));
                }
                None
            }
        });
    if let Some(prefix) = &nats.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    let url = redact(&nats.url);
    let servers: Vec<&str> = nats.url.split(',').map(str::trim).collect();
    let client = options.connect(servers).await.map_err(|e| Error::Connect {
        url: url.clone(),
        why: chain(&e),
    })?;
    let info = client.server_info();
    let (major, minor, patch) = SERVER_MIN;
    if !client.is_server_compatible(major, minor, patch) {
        return Err(Error::OldServer { found: info.version });
    }
    if !info.jetstream {
        return Err(Error::NoJetStream);
    }
    let api_prefix = match (&nats.js_domain, &nats.js_api_prefix) {
        (Some(domain), _) => format!("$JS.{domain}.API"),
        (None, Some(prefix)) => prefix.clone(),
        (None, None) => "$JS.API".to_owned(),
    };
    let js = jetstream::with_prefix(client.clone(), &api_prefix);
    Ok(Connection {
        client,
        js,
        api_prefix,
        closed,
    })
}

async fn credentials(nats: &Nats) -> Result<ConnectOptions, Error> {
    let mut options = ConnectOptions::new();
    if let Some(file) = &nats.creds {
        options = options.credentials_file(file).await.map_err(|e| Error::Credentials {
            what: file.display().to_string(),
            why: e.to_string(),
        })?;
    }
    if let Some(file) = &nats.nkey {
        let seed = std::fs::read_to_string(file).map_err(|e| Error::Credentials {
            what: file.display().to_string(),
            why: e.to_string(),
        })?;
        options = options.nkey(seed.trim().to_owned());
    }
    if let Some(user) = &nats.user {
        options = options.user_and_password(user.clone(), nats.password.clone().unwrap_or_default());
    }
    if let Some(token) = &nats.token {
        options = options.token(token.clone());
    }
    if let Some(ca) = &nats.tls_ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&nats.tls_cert, &nats.tls_key) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    if nats.tls_first {
        options = options.tls_first();
    }
    Ok(options)
}

/// A URL without the user's secrets.
pub fn redact(url: &str) -> String {
    let hide = |one: &str| match (one.find("://"), one.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://***{}", &one[..scheme], &one[at..]),
        _ => one.to_owned(),
    };
    url.split(',').map(hide).collect::<Vec<_>>().join(",")
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Which stored message.
#[derive(Debug, Clone)]
pub enum By<'a> {
    Sequence(u64),
    /// The last one on a subject.
    Last(&'a str),
}

/// A message as its stream holds it, read without the client's parser: whatever bytes it has, it can be had.
#[derive(Debug, Clone)]
pub struct Stored {
    pub subject: String,
    pub sequence: u64,
    pub time_ms: u64,
    /// As they are on the wire, `NATS/1.0\r\n…`; empty if there are none.
    pub raw_headers: Bytes,
    pub payload: Bytes,
}

impl Stored {
    /// The headers, or why the client library would refuse them: such a message breaks the connection of whoever it is
    /// delivered to.
    pub fn headers(&self) -> Result<Headers, String> {
        if self.subject.contains('\u{fffd}') {
            return Err("its subject is not UTF-8".to_owned());
        }
        if self.raw_headers.is_empty() {
            return Ok(Headers::new());
        }
        let text = std::str::from_utf8(&self.raw_headers).map_err(|_| "its headers are not UTF-8".to_owned())?;
        let mut headers = Headers::new();
        for line in text.split("\r\n").skip(1).filter(|line| !line.is_empty()) {
            // A line that begins with a blank continues the one above.
            if line.starts_with([' ', '\t'])
                && let Some((_, value)) = headers.last_mut()
            {
                value.push(' ');
                value.push_str(line.trim());
                continue;
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| "a header line has no colon".to_owned())?;
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(format!("`{}` is not a header name", name.escape_debug()));
            }
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        headers.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(headers)
    }
}

#[derive(Deserialize)]
struct GetAnswer {
    message: RawMessage,
}

#[derive(Deserialize)]
struct RawMessage {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: String,
}

/// What JetStream answers to a publish.
#[derive(Debug, Clone, Deserialize)]
pub struct PubAck {
    pub seq: u64,
    #[serde(default)]
    pub duplicate: bool,
}

#[derive(Deserialize)]
struct PublishAnswer {
    error: Option<ApiError>,
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
}

#[derive(Deserialize)]
struct ApiError {
    err_code: u64,
    description: String,
}

/// JetStream's `err_code`: no message found.
const NO_MESSAGE: u64 = 10037;
/// JetStream's `err_code`: stream not found.
pub const NO_STREAM: u64 = 10059;
/// JetStream's `err_code`: consumer not found.
pub const NO_CONSUMER: u64 = 10014;
/// JetStream's `err_code`: wrong last sequence.
pub const WRONG_LAST: u64 = 10071;

impl Connection {
    /// Completes when the connection is gone for good.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// `$JS.API`, or what the account's imports make of it.
    pub fn api_prefix(&self) -> &str {
        &self.api_prefix
    }

    /// One call of the JetStream API; `subject` without the prefix, e.g. `STREAM.INFO.ORDERS`.
    pub async fn api<T: DeserializeOwned>(&self, subject: &str, body: &impl Serialize) -> Result<T, Error> {
        let what = || format!("JetStream {subject}");
        let answer: Response<T> = self
            .js
            .request(subject.to_owned(), body)
            .await
            .map_err(|e| self.failed(what(), e.to_string()))?;
        match answer {
            Response::Ok(value) => Ok(value),
            Response::Err { error } => Err(Error::Api {
                what: what(),
                code: error.error_code().0,
                text: error.to_string().split(" (code ").next().unwrap_or_default().to_owned(),
            }),
        }
    }

    fn failed(&self, what: String, why: String) -> Error {
        if self.is_closed() {
            Error::Gone { what }
        } else if why.contains("timed out") {
            Error::Timeout { what }
        } else {
            Error::Answer { what, why }
        }
    }

    /// A request whose answer is the body; "no responders" is an error.
    pub async fn request(&self, subject: &str, headers: Option<HeaderMap>, body: Bytes) -> Result<Bytes, Error> {
        let mut request = Request::new().payload(body);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let what = || subject.to_owned();
        // A connection that breaks leaves its requests to run into their time limit; nobody waits for that.
        let answer = tokio::select! {
            answer = self.client.send_request(subject.to_owned(), request) => answer,
            () = self.closed() => return Err(Error::Gone { what: what() }),
        };
        match answer {
            Ok(message) => Ok(message.payload),
            Err(e) => Err(match e.kind() {
                RequestErrorKind::TimedOut => Error::Timeout { what: what() },
                RequestErrorKind::NoResponders => Error::Api {
                    what: what(),
                    code: 0,
                    text: "no stream or consumer listens there".to_owned(),
                },
                _ => self.failed(what(), chain(&e)),
            }),
        }
    }

    /// Publishes into a stream and waits for its confirmation.
    pub async fn publish(&self, subject: &str, headers: HeaderMap, body: Bytes) -> Result<PubAck, Error> {
        let answer = self.request(subject, Some(headers), body).await?;
        pub_ack(subject, &answer)
    }

    /// A stored message, from the stream's leader (a direct get may be answered by a replica that is behind).
    pub async fn stored(&self, stream: &str, by: By<'_>) -> Result<Option<Stored>, Error> {
        let body = match by {
            By::Sequence(seq) => serde_json::json!({ "seq": seq }),
            By::Last(subject) => serde_json::json!({ "last_by_subj": subject }),
        };
        self.get(stream, body).await
    }

    /// The next stored message at or after a sequence that matches a subject.
    pub async fn stored_next(&self, stream: &str, sequence: u64, subject: &str) -> Result<Option<Stored>, Error> {
        self.get(stream, serde_json::json!({ "seq": sequence, "next_by_subj": subject }))
            .await
    }

    async fn get(&self, stream: &str, body: serde_json::Value) -> Result<Option<Stored>, Error> {
        let subject = format!("STREAM.MSG.GET.{stream}");
        let message = match self.api::<GetAnswer>(&subject, &body).await {
            Ok(answer) => answer.message,
            Err(Error::Api { code: NO_MESSAGE, .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = |text: &str| {
            BASE64.decode(text).map(Bytes::from).map_err(|e| Error::Answer {
                what: format!("JetStream {subject}"),
                why: e.to_string(),
            })
        };
        Ok(Some(Stored {
            sequence: message.seq,
            time_ms: parse_rfc3339(&message.time).unwrap_or(0),
            raw_headers: bytes(&message.hdrs)?,
            payload: bytes(&message.data)?,
            subject: message.subject,
        }))
    }
}

/// Reads JetStream's answer to a publish.
pub fn pub_ack(what: &str, answer: &[u8]) -> Result<PubAck, Error> {
    let read = |why: String| Error::Answer {
        what: what.to_owned(),
        why,
    };
    let answer: PublishAnswer = serde_json::from_slice(answer).map_err(|e| read(e.to_string()))?;
    match (answer.error, answer.seq) {
        (Some(error), _) => Err(Error::Api {
            what: what.to_owned(),
            code: error.err_code,
            text: error.description,
        }),
        (None, Some(seq)) => Ok(PubAck {
            seq,
            duplicate: answer.duplicate,
        }),
        (None, None) => Err(read("no sequence".to_owned())),
    }
}

/// Headers for the client library. `Err` names the one that it refuses.
pub fn header_map(headers: &Headers) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let refused = || format!("the header {} cannot be written", name.escape_debug());
        let name: async_nats::HeaderName = name.parse().map_err(|_| refused())?;
        let value: async_nats::HeaderValue = value.parse().map_err(|_| refused())?;
        map.append(name, value);
    }
    Ok(map)
}

/// What the mesh reads of a stream.
#[derive(Debug, Clone, Deserialize)]
pub struct StreamInfo {
    pub config: serde_json::Value,
    pub created: String,
    pub state: StreamState,
}

#[derive(Debug, Clone, Deserialize)]
pub struct StreamState {
    pub messages: u64,
    pub first_seq: u64,
    pub last_seq: u64,
    #[serde(default)]
    pub subjects: HashMap<String, u64>,
}

impl StreamInfo {
    pub fn retention(&self) -> &str {
        self.config["retention"].as_str().unwrap_or("limits")
    }

    pub fn subjects(&self) -> Vec<String> {
        let list = self.config["subjects"].as_array();
        list.into_iter()
            .flatten()
            .filter_map(|s| s.as_str().map(str::to_owned))
            .collect()
    }
}

impl Connection {
    /// `None`: there is no such stream.
    pub async fn stream(&self, name: &str) -> Result<Option<StreamInfo>, Error> {
        match self.api(&format!("STREAM.INFO.{name}"), &serde_json::json!({})).await {
            Ok(info) => Ok(Some(info)),
            Err(Error::Api { code: NO_STREAM, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How long between two attempts to reach NATS: half a second at first, four at most.
pub fn redial_delay(attempt: u32) -> Duration {
    Duration::from_millis(500 * 2u64.pow(attempt.min(3)))
}

/// A short random name, different each time: 12 characters of `0-9a-z`.
pub fn token() -> String {
    use rand::RngExt as _;
    let mut random = rand::rng();
    (0..12)
        .map(|_| char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[random.random_range(0..36)]))
        .collect()
}
