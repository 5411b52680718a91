//! What counting costs an event: all that a handler with a ledger does for the metrics of one event, with the clock that it asks.
//!
//! `cargo bench -p jetmesh --bench metrics`. The table goes to standard output. It needs no server.

use std::hint::black_box;
use std::time::{Duration, Instant};

use jetmesh::tested::CountedEvent;

const EVENTS: u32 = 2_000_000;
const ROUNDS: usize = 9;

fn main() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = vec![("traceparent".to_owned(), trace.to_owned())];
    let event = CountedEvent::new("k3f9.17", headers).expect("it is an event's id");
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for n in 0..EVENTS {
                // Times of many buckets, as those of real events.
                let guest = Duration::from_micros(u64::from(n % 64));
                let commit = Duration::from_micros(u64::from(n % 7) * 300);
                black_box(&event).count(guest, commit);
            }
            began.elapsed() / EVENTS
        })
        .collect();
    rounds.sort();
    println!(
        "## Metrics\n\n| events in a round | rounds | ns for an event, median | least | most |\n|---:|---:|---:|---:|---:|\n\
         | {EVENTS} | {ROUNDS} | {} | {} | {} |",
        rounds[ROUNDS / 2].as_nanos(),
        rounds[0].as_nanos(),
        rounds[ROUNDS - 1].as_nanos()
    );
}
