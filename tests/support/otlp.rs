//! A collector of OTLP: it takes spans over HTTP and gRPC, reads their protobuf, and answers as it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// A span as the collector has read it. Ids are hex digits.
#[derive(Debug, Clone, Default)]
pub struct Span {
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub kind: u64,
    pub start_ns: u64,
    pub end_ns: u64,
    pub attributes: BTreeMap<String, String>,
    pub events: Vec<(String, BTreeMap<String, String>)>,
    /// The spans that are linked.
    pub links: Vec<String>,
    /// The message of its status, if that is an error.
    pub error: Option<String>,
    pub sampled: bool,
}

impl Span {
    /// An attribute; empty if it has none of this name.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

#[derive(Default)]
struct Taken {
    spans: Vec<Span>,
    resource: BTreeMap<String, String>,
    headers: HeaderMap,
    requests: usize,
    connections: usize,
    /// Statuses to answer with before it takes anything.
    refusals: VecDeque<u16>,
}

/// A collector that listens until the test ends.
pub struct Collector {
    pub address: SocketAddr,
    taken: Arc<Mutex<Taken>>,
    hang_up: Arc<Notify>,
    /// They end with it.
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy)]
enum Protocol {
    Http,
    Grpc,
}

impl Collector {
    pub async fn http() -> Collector {
        Collector::of(Protocol::Http, &[]).await
    }

    /// It answers first with these statuses of gRPC.
    pub async fn grpc(refusals: &[u16]) -> Collector {
        Collector::of(Protocol::Grpc, refusals).await
    }

    async fn of(protocol: Protocol, refusals: &[u16]) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let taken = Arc::new(Mutex::new(Taken {
            refusals: refusals.iter().copied().collect(),
            ..Taken::default()
        }));
        let shared = Arc::clone(&taken);
        let hang_up = Arc::new(Notify::new());
        let told = Arc::clone(&hang_up);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (taken, told) = (Arc::clone(&shared), Arc::clone(&told));
                taken.lock().unwrap_or_else(PoisonError::into_inner).connections += 1;
                connections.spawn(async move {
                    let served = async {
                        match protocol {
                            Protocol::Http => over_http(stream, taken).await,
                            Protocol::Grpc => over_grpc(stream, taken).await,
                        }
                    };
                    tokio::select! {
                        () = served => {}
                        () = told.notified() => {}
                    }
                });
            }
        });
        Collector {
            address,
            taken,
            hang_up,
            _tasks: tasks,
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn with<T>(&self, look: impl FnOnce(&Taken) -> T) -> T {
        look(&self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All spans that it has taken.
    pub fn spans(&self) -> Vec<Span> {
        self.with(|taken| taken.spans.clone())
    }

    pub fn resource(&self) -> BTreeMap<String, String> {
        self.with(|taken| taken.resource.clone())
    }

    /// Those of the newest request.
    pub fn header(&self, name: &str) -> Option<String> {
        self.with(|taken| Some(taken.headers.get(name)?.to_str().ok()?.to_owned()))
    }

    /// Closes all connections.
    pub fn hang_up(&self) {
        self.hang_up.notify_waiters();
    }

    /// How many there have been.
    pub fn connections(&self) -> usize {
        self.with(|taken| taken.connections)
    }

    pub fn requests(&self) -> usize {
        self.with(|taken| taken.requests)
    }
}

fn take(taken: &Mutex<Taken>, headers: &HeaderMap, body: &[u8]) -> Option<u16> {
    let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
    taken.requests += 1;
    taken.headers = headers.clone();
    if let Some(refusal) = taken.refusals.pop_front() {
        return Some(refusal);
    }
    for resource_spans in messages(body, 1) {
        for resource in messages(resource_spans, 1) {
            taken.resource = attributes(resource, 1);
        }
        let scopes = messages(resource_spans, 2);
        let spans = scopes.into_iter().flat_map(|scope| messages(scope, 2));
        taken.spans.extend(spans.map(span));
    }
    None
}

async fn over_http(stream: TcpStream, taken: Arc<Mutex<Taken>>) {
    let service = service_fn(|request: Request<Incoming>| {
        let taken = Arc::clone(&taken);
        async move {
            assert_eq!(request.uri().path(), "/v1/traces");
            assert_eq!(request.headers()["content-type"], "application/x-protobuf");
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a request is whole").to_bytes();
            let refusal = take(&taken, &head.headers, &body);
            let mut answer = Response::new(Full::new(Bytes::new()));
            if let Some(status) = refusal {
                *answer.status_mut() = status.try_into().expect("it is a status");
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let server = hyper::server::conn::http1::Builder::new();
    // The client may close it at any time.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn over_grpc(stream: TcpStream, taken: Arc<Mutex<Taken>>) {
    let mut connection = h2::server::handshake(stream).await.expect("it speaks HTTP/2");
    let mut calls = JoinSet::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let taken = Arc::clone(&taken);
        calls.spawn(async move {
            let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
            assert_eq!(request.uri().path(), path);
            assert_eq!(request.headers()["content-type"], "application/grpc+proto");
            assert_eq!(request.headers()["te"], "trailers");
            let (head, mut stream) = request.into_parts();
            let mut body = BytesMut::new();
            while let Some(data) = stream.data().await {
                let data = data.expect("a request is whole");
                stream.flow_control().release_capacity(data.len()).expect("it has come");
                body.extend_from_slice(&data);
            }
            let length = u32::from_be_bytes(body[1..5].try_into().expect("four bytes"));
            assert_eq!(
                (body[0], length as usize),
                (0, body.len() - 5),
                "not compressed, and whole"
            );
            let status = take(&taken, &head.headers, &body[5..]).unwrap_or(0);
            let head = Response::builder().header("content-type", "application/grpc+proto");
            let head = head.body(()).expect("it is valid");
            let mut send = respond.send_response(head, false).expect("the client waits");
            if status == 0 {
                let mut empty = BytesMut::new();
                empty.put_u8(0);
                empty.put_u32(0);
                send.send_data(empty.freeze(), false).expect("the client waits");
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", status.to_string().parse().expect("digits"));
            send.send_trailers(trailers).expect("the client waits");
        });
    }
}

fn span(bytes: &[u8]) -> Span {
    let text = |field| texts(bytes, field).pop().unwrap_or_default();
    let id = |field| messages(bytes, field).pop().map(hex).unwrap_or_default();
    let number = |field| numbers(bytes, field).pop().unwrap_or_default();
    let events = messages(bytes, 11).into_iter().map(|event| {
        let name = texts(event, 2).pop().unwrap_or_default();
        (name, attributes(event, 3))
    });
    let status = messages(bytes, 15).pop();
    Span {
        trace: id(1),
        id: id(2),
        parent: id(4),
        name: text(5),
        kind: number(6),
        start_ns: number(7),
        end_ns: number(8),
        attributes: attributes(bytes, 9),
        events: events.collect(),
        links: messages(bytes, 13)
            .into_iter()
            .flat_map(|link| messages(link, 2))
            .map(hex)
            .collect(),
        error: status
            .filter(|status| numbers(status, 3) == [2])
            .map(|status| texts(status, 2).pop().unwrap_or_default()),
        sampled: number(16) & 1 == 1,
    }
}

fn attributes(bytes: &[u8], field: u64) -> BTreeMap<String, String> {
    let pairs = messages(bytes, field).into_iter().map(|pair| {
        let key = texts(pair, 1).pop().expect("an attribute has a key");
        let value = messages(pair, 2).pop().expect("an attribute has a value");
        let numbers = || [numbers(value, 2), numbers(value, 3)].concat().pop();
        let text = texts(value, 1).pop().or_else(|| Some(numbers()?.to_string()));
        (key, text.expect("it is a text, a boolean or a number"))
    });
    pairs.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message of protobuf.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut number = 0;
        for place in 0.. {
            let byte = *bytes.split_off_first().expect("a number ends");
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                break;
            }
        }
        number
    }
    fn whole<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
        bytes.split_off(..length).expect("a field is whole")
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Number(u64::from_le_bytes(
                whole(&mut bytes, 8).try_into().expect("eight bytes"),
            )),
            2 => {
                let length = usize::try_from(varint(&mut bytes)).expect("it is not so long");
                Field::Bytes(whole(&mut bytes, length))
            }
            5 => Field::Number(u64::from(u32::from_le_bytes(
                whole(&mut bytes, 4).try_into().expect("four bytes"),
            ))),
            kind => panic!("there is no kind {kind}"),
        };
        found.push((key >> 3, value));
    }
    found
}

fn messages(bytes: &[u8], wanted: u64) -> Vec<&[u8]> {
    let found = fields(bytes).into_iter().filter(|(field, _)| *field == wanted);
    let bytes = found.filter_map(|(_, value)| match value {
        Field::Bytes(bytes) => Some(bytes),
        Field::Number(_) => None,
    });
    bytes.collect()
}

fn texts(bytes: &[u8], wanted: u64) -> Vec<String> {
    let found = messages(bytes, wanted).into_iter();
    found
        .map(|text| String::from_utf8(text.to_vec()).expect("it is text"))
        .collect()
}

fn numbers(bytes: &[u8], wanted: u64) -> Vec<u64> {
    let found = fields(bytes).into_iter().filter(|(field, _)| *field == wanted);
    let numbers = found.filter_map(|(_, value)| match value {
        Field::Number(number) => Some(number),
        Field::Bytes(_) => None,
    });
    numbers.collect()
}
