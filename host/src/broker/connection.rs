//! One connection to NATS. It is used once: when it breaks, it is dropped together with everything that was queued on it, and
//! its owner starts again on another one. So nothing written before a disconnect is ever sent after it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, Request, RequestErrorKind};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::denied::Denials;
use super::error::{Code, Error, chain};
use super::latch::Latch;
use crate::event::clock;
use crate::plan::Nats;

/// Before the subjects of JetStream's API, unless it is elsewhere.
const API: &str = "$JS.API";

/// A connection and where the JetStream API is over it. Clones are the same connection.
#[derive(Clone)]
pub struct Connection {
    pub client: Client,
    api_prefix: String,
    /// The domain that JetStream is in, if it is not the server's own.
    domain: Option<Arc<str>>,
    closed: Latch,
    /// Which connection of this process it is.
    number: u64,
    /// What the server does not allow this connection's user.
    pub denials: Arc<Denials>,
    /// The subject of what stands for a message that the client could not read. `None`: such a message breaks it.
    pub(super) guard: Option<Arc<str>>,
}

/// Connections that this process has opened.
static OPENED: AtomicU64 = AtomicU64::new(0);

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

/// What every answer of the JetStream API may hold.
#[derive(Deserialize)]
struct ApiAnswer {
    error: Option<ApiError>,
    /// When the state of a stream or consumer was read, RFC 3339.
    ts: Option<String>,
}

#[derive(Deserialize)]
struct ApiError {
    /// Absent in answers of very early checks, which carry an HTTP-like `code` only.
    #[serde(default)]
    err_code: Code,
    #[serde(default)]
    description: String,
}

impl Connection {
    /// `closed`: is set when the client has lost the server.
    pub(super) fn new(client: Client, nats: &Nats, closed: Latch, denials: Arc<Denials>) -> Connection {
        let api_prefix = match (&nats.js_domain, &nats.js_api_prefix) {
            (Some(domain), _) => format!("$JS.{domain}.API"),
            (None, Some(prefix)) => prefix.clone(),
            (None, None) => API.to_owned(),
        };
        Connection {
            client,
            domain: nats.js_domain.as_deref().map(Arc::from),
            api_prefix,
            closed,
            number: OPENED.fetch_add(1, Ordering::Relaxed),
            denials,
            guard: None,
        }
    }

    /// Completes when the connection is closed for good.
    pub async fn closed(&self) {
        self.closed.wait().await;
    }

    /// Whether both are the same connection.
    pub fn is(&self, other: &Connection) -> bool {
        self.number == other.number
    }

    pub fn is_closed(&self) -> bool {
        self.closed.is_set()
    }

    /// Where to publish so that the right domain has it: a server whose JetStream is of another one keeps `$KV.>` to
    /// itself, and each domain takes it behind its API's prefix as well
    /// (`generateJSMappingTable` in nats-server's `server/jetstream.go`).
    pub fn place<'a>(&self, subject: &'a str) -> Cow<'a, str> {
        match &self.domain {
            Some(domain) if subject.starts_with("$KV.") => Cow::Owned(format!("$JS.{domain}.API.{subject}")),
            _ => Cow::Borrowed(subject),
        }
    }

    pub(super) fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// Whether JetStream is in another domain or account.
    pub fn is_elsewhere(&self) -> bool {
        self.api_prefix != API
    }

    /// `$JS.API`, or what the account's imports make of it.
    pub fn api_prefix(&self) -> &str {
        &self.api_prefix
    }

    /// One call of the JetStream API; `subject` without the prefix, e.g. `STREAM.INFO.ORDERS`.
    pub async fn api<T: DeserializeOwned>(&self, subject: &str, body: &impl Serialize) -> Result<T, Error> {
        let what = || format!("JetStream {subject}");
        let unreadable = |e: serde_json::Error| Error::Answer {
            what: what(),
            why: e.to_string(),
        };
        let body = serde_json::to_vec(body).map_err(unreadable)?;
        let full = format!("{}.{subject}", self.api_prefix);
        let asked = Instant::now();
        let answer = self.request_as(what, &full, None, body.into()).await;
        let answer = answer.map_err(|error| self.unheard(error))?;
        let ApiAnswer { error, ts } = serde_json::from_slice(&answer).map_err(unreadable)?;
        if let Some(ApiError { err_code, description }) = error {
            return Err(Error::Api {
                what: what(),
                code: err_code,
                text: description,
            });
        }
        // Other answers may contain an older time: the answer to the creation of a consumer contains a stored one.
        if let (Some(ts), true) = (
            ts,
            subject.starts_with("STREAM.INFO.") || subject.starts_with("CONSUMER.INFO."),
        ) {
            clock::heard(&ts, asked);
        }
        serde_json::from_slice(&answer).map_err(unreadable)
    }

    /// A request whose answer is the body; "no responders" is an error.
    pub async fn request(&self, subject: &str, headers: Option<HeaderMap>, body: Bytes) -> Result<Bytes, Error> {
        self.request_as(|| subject.to_owned(), subject, headers, body).await
    }

    /// The same; `what`: how errors call it.
    async fn request_as(
        &self,
        what: impl Fn() -> String,
        subject: &str,
        headers: Option<HeaderMap>,
        body: Bytes,
    ) -> Result<Bytes, Error> {
        let mut request = Request::new().payload(body);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        // If the connection breaks, or the server does not allow the subject, the client lets the request run into its time
        // limit. This does not wait for that.
        let (place, began) = (self.place(subject), Instant::now());
        let answer = tokio::select! {
            answer = self.client.send_request(place.to_string(), request) => answer,
            () = self.denials.publish_refused(&place, began) => {
                return Err(Error::Denied { what: what(), right: "publish to", subject: place.into_owned() });
            }
            () = self.closed() => return Err(Error::Gone { what: what() }),
        };
        match answer {
            Ok(message) => Ok(message.payload),
            Err(e) => Err(match e.kind() {
                RequestErrorKind::TimedOut => match self.denials.unheard() {
                    Some(subject) => Error::Denied {
                        what: what(),
                        right: "subscribe to",
                        subject,
                    },
                    None => Error::Timeout { what: what() },
                },
                RequestErrorKind::NoResponders => Error::NoResponders { what: what() },
                RequestErrorKind::MaxPayloadExceeded => Error::Api {
                    what: what(),
                    code: Code::STREAM_MESSAGE_EXCEEDS_MAXIMUM,
                    text: "larger than the server's max_payload".to_owned(),
                },
                RequestErrorKind::InvalidSubject => Error::Answer {
                    what: what(),
                    why: chain(&e),
                },
                RequestErrorKind::Other => {
                    // The connection's task has ended, whether or not its last messages were sent.
                    self.closed.set();
                    Error::Gone { what: what() }
                }
            }),
        }
    }

    /// Publishes into a stream and waits for its confirmation.
    pub async fn publish(&self, subject: &str, headers: HeaderMap, body: Bytes) -> Result<PubAck, Error> {
        let answer = self.request(subject, Some(headers), body).await?;
        pub_ack(subject, &answer)
    }

    /// Publishes if the last message on a subject has the expected sequence (0: there is none). `None`: it has not.
    ///
    /// # Errors
    /// [`Error::Undecided`] if another write of that subject is still on its way after half a second; besides, those of
    /// [`Connection::publish`].
    pub async fn publish_upon(
        &self,
        subject: &str,
        expected: u64,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Option<PubAck>, Error> {
        headers.insert(EXPECTED, expected.to_string());
        for moment in UNDECIDED_MOMENTS {
            let answer = self.publish(subject, headers.clone(), body.clone()).await;
            match stored_upon(subject, answer) {
                Err(Error::Undecided { .. }) => tokio::time::sleep(moment).await,
                decided => return decided,
            }
        }
        stored_upon(subject, self.publish(subject, headers, body).await)
    }
}

/// Header of a publish: the sequence of the message that it follows on its subject; 0: there is none.
pub const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// How long to wait between looks at a subject on which another write is not decided yet: a few round trips of a cluster.
const UNDECIDED_MOMENTS: [Duration; 4] = [
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(80),
    Duration::from_millis(320),
];

/// What the answer to a publish with an expectation means. `None`: the expectation does not hold.
/// [`Error::Undecided`]: another write is on its way and may yet be lost.
pub fn stored_upon(subject: &str, answer: Result<PubAck, Error>) -> Result<Option<PubAck>, Error> {
    match answer {
        Ok(ack) => Ok(Some(ack)),
        Err(Error::Api {
            code: Code::STREAM_WRONG_LAST_SEQUENCE,
            ..
        }) => Ok(None),
        Err(Error::Api {
            code: Code::STREAM_WRONG_LAST_SEQUENCE_CONSTANT,
            ..
        }) => Err(Error::Undecided {
            what: subject.to_owned(),
        }),
        Err(error) => Err(error),
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

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("closed", &self.is_closed()).finish()
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
