//! What the benchmarks stand on: their variables, the machine, processor times, publishing at full speed.

use std::env;
use std::fs;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::Context;

/// Published at once. The server drops what comes faster than it stores, from 10,000 messages on.
const WINDOW: u64 = 1_000;

/// An environment variable that is a number.
pub fn variable<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).map_or(default, |text| number(name, &text))
}

pub fn number<T: FromStr>(name: &str, text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| panic!("{name}: {text:?} is not a number that makes sense"))
}

/// Publishes a message for each number, as fast as the stream takes them. Returns when all are stored.
///
/// # Panics
/// When the last one has not the sequence `numbers.end`: the server has dropped some, or the numbers do not go on where
/// the stream ended.
pub async fn publish(
    client: &Client,
    js: &Context,
    subject: &'static str,
    numbers: Range<u64>,
    body: impl Fn(u64) -> Vec<u8>,
) {
    let mut first = numbers.start;
    while first < numbers.end {
        let last = (first + WINDOW).min(numbers.end) - 1;
        for number in first..last {
            client.publish(subject, body(number).into()).await.expect("connected");
        }
        // The confirmation of the last one stands for all before it.
        let ack = js.publish(subject, body(last).into()).await.expect("connected");
        let stored = ack.await.expect("the stream takes it").sequence;
        assert_eq!(stored, last + 1, "the server has dropped messages");
        first = last + 1;
    }
}

/// The processor time that a process has used, of all its threads (proc_pid_stat(5): fields 14 and 15, in ticks).
pub fn cpu(pid: u32) -> Duration {
    // What the kernel shows to user space is in hundredths of a second on every architecture that matters here.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    // The second field is a name in parentheses, in which anything may stand.
    let (_, rest) = stat.rsplit_once(") ").expect("a stat line has a name");
    let ticks = rest
        .split(' ')
        .skip(11)
        .take(2)
        .map(|t| t.parse::<u32>().expect("ticks are numbers"));
    TICK * ticks.sum::<u32>()
}

/// When and on what.
pub fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    format!("{date}, {cores} cores of {model}")
}

/// The value below which `p` per cent of the sorted values lie.
pub fn percentile<T: Copy>(sorted: &[T], p: usize) -> T {
    sorted[(sorted.len() - 1) * p / 100]
}
