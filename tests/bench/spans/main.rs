//! What the spans of an attempt cost the thread that handles the event: while nothing is exported, for a trace that is not sampled, and for
//! one that is. A task on another thread exports them to a collector that takes everything.
//!
//! `cargo bench -p jetmesh --bench spans`. The table goes to standard output. It needs no server.

use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use jetmesh::tested::SpannedEvent;

/// The spans of so many events wait in the queue at most, so none is dropped.
const EVENTS: u32 = 20_000;
const SPANS_OF_EVENT: u64 = 3;
const ROUNDS: usize = 9;

fn main() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/default.toml");
    let event = |flag: &str| {
        let trace = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flag}");
        let headers = vec![("traceparent".to_owned(), trace)];
        SpannedEvent::new(&config, "k3f9.17", headers).expect("the configuration is valid")
    };
    let (sampled, unsampled) = (event("01"), event("00"));
    println!("## Spans\n\n| spans | ns for an attempt, median | least | most |\n|---|---:|---:|---:|");
    row("not exported", &sampled, 0);
    export();
    row("exported, the trace is not sampled", &unsampled, 0);
    row("exported, the trace is sampled", &sampled, SPANS_OF_EVENT);
    let (exported, dropped) = SpannedEvent::counted();
    println!("\n{exported} spans were exported, {dropped} dropped.");
}

/// `spans`: how many an event has.
fn row(what: &str, event: &SpannedEvent, spans: u64) {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let before = SpannedEvent::counted().0;
            let began = Instant::now();
            for _ in 0..EVENTS {
                black_box(event).handle();
            }
            let took = began.elapsed() / EVENTS;
            // The next round begins with an empty queue.
            while SpannedEvent::counted().0 < before + u64::from(EVENTS) * spans {
                thread::park_timeout(Duration::from_millis(5));
            }
            took
        })
        .collect();
    rounds.sort();
    let (median, least, most) = (rounds[ROUNDS / 2], rounds[0], rounds[ROUNDS - 1]);
    println!(
        "| {what} | {} | {} | {} |",
        median.as_nanos(),
        least.as_nanos(),
        most.as_nanos()
    );
}

fn export() {
    let collector = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = collector.local_addr().expect("it listens");
    thread::spawn(move || collector.incoming().flatten().for_each(take));
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let queue = EVENTS as usize * 4;
        runtime
            .expect("a runtime")
            .block_on(SpannedEvent::export(address, queue));
    });
    while !SpannedEvent::is_exported() {
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// Answers each request of a connection.
fn take(stream: TcpStream) {
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).expect("it is a request") > 0 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("it is a length");
        }
        if line.trim().is_empty() {
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("it is whole");
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            reader.get_mut().write_all(answer).expect("the client waits");
        }
        line.clear();
    }
}
