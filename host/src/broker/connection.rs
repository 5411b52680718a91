//! One connection to NATS, which lives once: when it breaks, it is thrown away with everything that was queued on it,
//! and its owner begins anew. So nothing written before a disconnect is ever sent after it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, Request, RequestErrorKind};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::denied::Denials;
use super::error::{Code, Error, SERVER_MIN, chain};
use super::login::{self, Address};
use crate::message::clock;
use crate::plan::Nats;
use crate::text::secret::redact;
use crate::trouble::Weight;

/// Before the subjects of JetStream's API, unless it is elsewhere.
const API: &str = "$JS.API";

/// A connection and where the JetStream API is over it. Clones are the same connection.
#[derive(Clone)]
pub struct Connection {
    pub client: Client,
    api_prefix: String,
    /// The domain that JetStream is in, if it is not the server's own.
    domain: Option<Arc<str>>,
    closed: CancellationToken,
    /// Which connection of this process it is.
    number: u64,
    /// What the server does not allow this connection's user.
    pub denials: Arc<Denials>,
    /// The subject of what stands for a message that the client could not read. `None`: such a message breaks it.
    pub(super) guard: Option<Arc<str>>,
}

/// Connections that this process has opened.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// Connects once, to the first address that takes it, in no particular order; no retries.
pub async fn open(nats: &Nats, name: &str) -> Result<Connection, Error> {
    use rand::seq::SliceRandom as _;
    let mut addresses = login::addresses(nats);
    addresses.shuffle(&mut rand::rng());
    let mut failed = None;
    for address in addresses {
        match dial(nats, name, &address).await {
            // Another server may be up. What a person must change is said first, whatever else is down.
            Err(error @ Error::Connect { .. }) => failed = failed.or(Some(error)),
            Err(error @ (Error::Unauthorized { .. } | Error::Crowded { .. } | Error::NoApi { .. })) => {
                failed = Some(error)
            }
            done => return done,
        }
    }
    if let Some(error @ Error::Crowded { .. }) = &failed {
        super::crowded::tell(error);
    }
    Err(failed.unwrap_or_else(|| Error::Connect {
        url: redact(&nats.url),
        why: "there is no address".to_owned(),
    }))
}

async fn dial(nats: &Nats, name: &str, address: &Address) -> Result<Connection, Error> {
    let closed = CancellationToken::new();
    let (lost, dead) = (closed.clone(), closed.clone());
    let dials = Arc::new(AtomicU32::new(0));
    let denials = Arc::new(Denials::default());
    let told = Arc::clone(&denials);
    let mut options = login::options(nats, address.login.as_ref())
        .await?
        .name(name)
        .connection_timeout(nats.timeout)
        .request_timeout(Some(nats.timeout))
        // A connection that is open on one side only is noticed within half a minute.
        .ping_interval(Duration::from_secs(10))
        .subscription_capacity(64 * 1024)
        .event_callback(move |event| {
            let (lost, told) = (lost.clone(), Arc::clone(&told));
            async move {
                match event {
                    async_nats::Event::Disconnected | async_nats::Event::Closed => lost.cancel(),
                    async_nats::Event::ServerError(error) => {
                        // Whatever waits for it says so as well.
                        let about = told.hear(&error.to_string()).unwrap_or_default();
                        trouble!(Weight::Aside, about, error, { %error }, "nats reports an error");
                    }
                    async_nats::Event::LameDuckMode => tracing::info!("the nats server is about to shut down"),
                    _ => {}
                }
            }
        })
        .reconnect_to_server_callback(move |_, _| {
            let first = dials.fetch_add(1, Ordering::Relaxed) == 0;
            let dead = dead.clone();
            async move {
                if !first {
                    dead.cancel();
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
    let client = options
        .connect(&address.server)
        .await
        .map_err(|e| login::failed(nats, address, &e))?;
    let info = client.server_info();
    let (major, minor, patch) = SERVER_MIN;
    if !client.is_server_compatible(major, minor, patch) {
        return Err(Error::OldServer { found: info.version });
    }
    // Elsewhere it may be there anyway: a leaf need not have one.
    if !info.jetstream && nats.js_domain.is_none() && nats.js_api_prefix.is_none() {
        return Err(Error::NoJetStream);
    }
    let api_prefix = match (&nats.js_domain, &nats.js_api_prefix) {
        (Some(domain), _) => format!("$JS.{domain}.API"),
        (None, Some(prefix)) => prefix.clone(),
        (None, None) => API.to_owned(),
    };
    let connection = Connection {
        client,
        domain: nats.js_domain.as_deref().map(Arc::from),
        api_prefix,
        closed,
        number: OPENED.fetch_add(1, Ordering::Relaxed),
        denials,
        guard: None,
    };
    connection.is_heard().await?;
    Ok(connection)
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
    /// Completes when the connection is gone for good.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Whether both are the same connection.
    pub fn is(&self, other: &Connection) -> bool {
        self.number == other.number
    }

    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
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
        // Other answers may hold an older time: that of a consumer that was made is not read anew.
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
        // A connection that breaks leaves its requests to run into their time limit, and so does a server that does not
        // allow them; nobody waits for that.
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
                    // The connection's task is gone, whatever has become of its last words.
                    self.closed.cancel();
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
