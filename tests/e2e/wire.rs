//! What the client library cannot read: our copy of its parser's rules against that parser, and what the guard makes of it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::{Client, ConnectOptions, Message};
use bytes::BytesMut;
use futures_util::StreamExt;
use jetmesh::tested::{Headers, Malformed, Screen, headers_of, wire};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const CASES: usize = 1500;
const SECRET: &str = "0secret0";
const INFO: &str = "INFO {\"server_id\":\"x\",\"server_name\":\"x\",\"version\":\"2.12.5\",\"proto\":1,\"go\":\"\",\
                    \"host\":\"127.0.0.1\",\"port\":4222,\"headers\":true,\"max_payload\":1048576,\"jetstream\":true}\r\n";

/// A message as a server might store it.
#[derive(Debug, Clone)]
struct Case {
    subject: Vec<u8>,
    /// Empty: none.
    headers: Vec<u8>,
    payload: Vec<u8>,
}

impl Case {
    /// As the server delivers it.
    fn frame(&self) -> Vec<u8> {
        let (head, all) = (self.headers.len(), self.headers.len() + self.payload.len());
        let line = match head {
            0 => format!(" 1 answer.here {all}\r\n"),
            _ => format!(" 1 answer.here {head} {all}\r\n"),
        };
        let verb: &[u8] = if head == 0 { b"MSG " } else { b"HMSG " };
        [
            verb,
            &self.subject,
            line.as_bytes(),
            &self.headers,
            &self.payload,
            b"\r\n",
        ]
        .concat()
    }
}

/// Words that the parser has an opinion on, in any order, and some bytes.
fn bytes(words: &'static [&'static [u8]], most: usize) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        12 => prop::sample::select(words).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..3),
    ];
    prop::collection::vec(word, 0..most).prop_map(|words| words.concat())
}

fn case() -> impl Strategy<Value = Case> {
    const LINES: &[&[u8]] = &[
        b"\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b":",
        b": ",
        b" ",
        b"\t",
        b"A",
        b"Name: value",
        b"Nats-Msg-Id",
        b"200",
        b"099",
        b"503 No Responders",
        b"NATS/1.0",
        b"\xff",
        b"\x00",
        "\u{a0}".as_bytes(),
        "\u{85}".as_bytes(),
        "\u{2003}".as_bytes(),
        "é".as_bytes(),
    ];
    const NAMES: &[&[u8]] = &[
        b"orders",
        b".",
        b"a",
        b"\xff",
        "\u{a0}".as_bytes(),
        "\u{85}".as_bytes(),
        "\u{fffd}".as_bytes(),
        "é".as_bytes(),
    ];
    let subject = bytes(NAMES, 5).prop_map(|name| {
        let name: Vec<u8> = name
            .into_iter()
            .filter(|b| !b.is_ascii_whitespace() && *b != 0)
            .collect();
        [b"s".as_slice(), &name].concat()
    });
    let begin = prop_oneof![
        8 => Just(b"NATS/1.0\r\n".as_slice()),
        2 => Just(b"NATS/1.0".as_slice()),
        1 => Just(b"".as_slice()),
    ];
    let end = prop_oneof![8 => Just(b"\r\n\r\n".as_slice()), 1 => Just(b"".as_slice())];
    let headers = (begin, bytes(LINES, 12), end).prop_map(|(begin, lines, end)| [begin, &lines, end].concat());
    let headers = prop_oneof![1 => Just(Vec::new()), 9 => headers];
    let payload = prop::collection::vec(any::<u8>(), 0..40);
    (subject, headers, payload).prop_map(|(subject, headers, payload)| Case {
        subject,
        headers,
        payload,
    })
}

/// The same cases each time.
fn cases(count: usize) -> impl Iterator<Item = Case> {
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let strategy = case();
    (0..count).map(move |_| strategy.new_tree(&mut runner).expect("a case").current())
}

/// A client of the real library, and the other end of its connection, where it waits for what the server sends.
async fn pair(listener: &TcpListener) -> (Client, async_nats::Subscriber, BufReader<TcpStream>) {
    let dialled = Arc::new(AtomicBool::new(false));
    let options = ConnectOptions::new().reconnect_to_server_callback(move |_, _| {
        let again = dialled.swap(true, Ordering::Relaxed);
        async move {
            if again {
                std::panic::resume_unwind(Box::new("it connects once"));
            }
            None
        }
    });
    let url = format!("nats://{}", listener.local_addr().expect("an address"));
    let server = async {
        let (stream, _) = listener.accept().await.expect("the client comes");
        let mut stream = BufReader::new(stream);
        stream.write_all(INFO.as_bytes()).await.expect("it is written");
        until(&mut stream, "PING").await;
        stream.write_all(b"PONG\r\n").await.expect("it is written");
        until(&mut stream, "SUB").await;
        stream
    };
    let client = async {
        let client = options.connect(url).await.expect("it connects");
        let messages = client.subscribe("any").await.expect("it subscribes");
        client.flush().await.expect("it is sent");
        (client, messages)
    };
    let ((client, messages), stream) = tokio::join!(client, server);
    (client, messages, stream)
}

async fn until(stream: &mut BufReader<TcpStream>, word: &str) {
    let mut line = String::new();
    while !line.starts_with(word) {
        line.clear();
        assert!(stream.read_line(&mut line).await.expect("the client speaks") > 0);
    }
}

/// What the client makes of bytes. `None`: its connection breaks.
async fn told(listener: &TcpListener, bytes: &[u8]) -> Option<Message> {
    let (client, mut messages, mut server) = pair(listener).await;
    server.write_all(bytes).await.expect("it is written");
    let closed = async {
        let mut line = String::new();
        // It ends, or closes with bytes unread.
        while server.read_line(&mut line).await.is_ok_and(|read| read > 0) {
            line.clear();
        }
    };
    let message = tokio::select! {
        biased;
        message = messages.next() => message,
        () = closed => None,
    };
    drop(client);
    message
}

#[tokio::test]
async fn what_is_held_to_be_readable_is_what_the_client_library_reads() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port is free");
    let (mut readable, mut refused) = (0, 0);
    for case in cases(CASES) {
        let ours: Option<Headers> = wire::headers(&case.subject, &case.headers).ok();
        // One whose subject begins or ends with a blank of Unicode it reads, as one on another subject.
        let theirs = told(&listener, &case.frame()).await;
        let theirs = theirs.filter(|message| message.subject.as_bytes() == case.subject);
        let found = theirs.as_ref().map(|message| headers_of(message.headers.as_ref()));
        assert_eq!(ours, found, "{case:?}");
        match theirs {
            Some(message) => {
                assert_eq!(message.payload, case.payload, "{case:?}");
                readable += 1;
            }
            None => refused += 1,
        }
    }
    assert!(
        readable > CASES / 10 && refused > CASES / 10,
        "{readable} readable, {refused} refused"
    );
}

/// What passes a screen, given in pieces of these sizes.
fn screened(bytes: &[u8], pieces: &[usize]) -> Vec<u8> {
    let mut screen = Screen::new(SECRET);
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut rest = bytes;
    let mut sizes = pieces.iter().cycle();
    while !rest.is_empty() {
        let size = (*sizes.next().expect("there is one")).clamp(1, rest.len());
        input.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        screen.pass(&mut input, &mut output).expect("it is the protocol");
    }
    assert!(input.is_empty(), "left behind");
    output.to_vec()
}

#[tokio::test]
async fn behind_a_screen_the_client_library_reads_everything_and_no_byte_is_lost() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port is free");
    let (_client, mut messages, mut server) = pair(&listener).await;
    for (number, case) in cases(CASES).enumerate() {
        let frame = case.frame();
        let passed = screened(&frame, &[1 + number % 50, 3, 7]);
        server.write_all(&passed).await.expect("the client is still there");
        let message = messages.next().await.unwrap_or_else(|| panic!("it broke: {case:?}"));
        assert_eq!(message.reply.as_deref(), Some("answer.here"));
        if wire::check(&case.subject, &case.headers).is_ok() {
            assert_eq!(passed, frame, "{case:?}");
            assert_eq!(message.subject.as_bytes(), case.subject);
            continue;
        }
        assert_eq!(message.subject.as_str(), SECRET);
        let found = Malformed::of(message.payload).expect("a replacement");
        let bytes = (&found.subject[..], &found.headers[..], &found.payload[..]);
        let expected = (&case.subject[..], &case.headers[..], &case.payload[..]);
        assert_eq!(bytes, expected);
    }
}

proptest! {
    #[test]
    fn however_the_bytes_come_a_screen_lets_the_same_pass(
        cases in prop::collection::vec(case(), 1..6),
        pieces in prop::collection::vec(1usize..200, 1..10),
    ) {
        let frames: Vec<u8> = cases.iter().flat_map(Case::frame).collect();
        let all = [b"PING\r\n".as_slice(), &frames, b"+OK\r\n", INFO.as_bytes()].concat();
        prop_assert_eq!(screened(&all, &pieces), screened(&all, &[all.len()]));
    }

    #[test]
    fn no_bytes_make_a_screen_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut screen = Screen::new(SECRET);
        let all = [b"HMSG a 1 ".as_slice(), &bytes, b"\r\nMSG ", &bytes].concat();
        let mut output = BytesMut::new();
        let _ = screen.pass(&mut BytesMut::from(&all[..]), &mut output);
        let _ = Malformed::of(bytes.into());
    }
}
