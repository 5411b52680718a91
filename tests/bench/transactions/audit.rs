//! The judge of a case. It knows only which orders were published, and looks at what the streams hold afterwards.

use std::collections::HashMap;
use std::ops::Range;

use serde::Deserialize;

use crate::case::Handler;
use crate::order::{Order, USERS, sku_name};
use crate::phases::Run;
use crate::read::{self, Wanted};
use crate::shared::percentile;
use crate::site::{STOCK, STREAM, Site};

/// Points that the handler `points` gives for an order when nothing is said.
const POINTS_PER_ORDER: u64 = 10;
/// In how many parts the window is looked at, to see whether it was steady.
const PARTS: usize = 6;

/// What the streams tell of a run, of all handlers together.
#[derive(Debug)]
pub struct Judged {
    pub orders: u64,
    /// Decisions within the window, in all and in each of its parts.
    pub decided: u64,
    pub parts: [u64; PARTS],
    /// Events that were emitted within the window.
    pub emitted: u64,
    /// At the end of the window: decisions whose event was not emitted yet.
    pub behind: i64,
    /// Entries within the window, and the most decisions of one.
    pub entries: u64,
    pub group_max: usize,
    pub lone: Times,
    pub paced: Times,
}

/// From the order's time in its stream to that of what follows from it, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub p50: f64,
    pub p99: f64,
}

#[derive(Deserialize)]
struct Entry {
    n: u64,
    decisions: Vec<Decision>,
}

#[derive(Deserialize)]
struct Decision {
    handler: String,
    event: String,
    verdict: String,
}

/// Each order decided once by each handler, and done; one event emitted for each; what the keys hold is what the orders
/// make of them; no dead letters.
///
/// # Errors
/// What is wrong.
pub async fn audit(site: &Site<'_>, run: &Run) -> Result<Judged, String> {
    let mut judged = Judged {
        orders: site.published,
        decided: 0,
        parts: [0; PARTS],
        emitted: 0,
        behind: 0,
        entries: 0,
        group_max: 0,
        lone: Times { p50: 0.0, p99: 0.0 },
        paced: Times { p50: 0.0, p99: 0.0 },
    };
    let (mut lone, mut paced) = (Vec::new(), Vec::new());
    for handler in site.case.handlers {
        decisions(site, handler, &run.steady.window, &mut judged).await?;
        let emitted = emitted(site, handler, &run.steady.window, &mut judged).await?;
        lone.extend(times(site, &run.lone, &emitted).await);
        paced.extend(times(site, &run.paced, &emitted).await);
        keys(site, handler).await?;
    }
    let letters = site.js.get_stream("MESH_DEAD").await;
    let letters = letters.map_err(|error| error.to_string())?.cached_info().state.messages;
    if letters > 0 {
        return Err(format!("{letters} dead letters"));
    }
    (judged.lone, judged.paced) = (Times::of(lone), Times::of(paced));
    Ok(judged)
}

async fn decisions(site: &Site<'_>, handler: &Handler, window: &Range<u64>, judged: &mut Judged) -> Result<(), String> {
    let mut events = Events::new(site.published, format!("decided by {}", handler.name));
    let (mut last, mut wrong) = (0, None);
    let ledger = handler.ledger();
    let wanted = Wanted {
        stream: &format!("KV_{ledger}"),
        subject: &format!("$MESH.state.{ledger}.ledger.>"),
        from: 1,
        batch: 100,
        headers_only: false,
    };
    read::each(&site.js, wanted, |stored| {
        let entry: Entry = serde_json::from_slice(&stored.body).expect("an entry is JSON");
        if entry.n != last + 1 {
            wrong.get_or_insert(format!("entry {} follows on entry {last}", entry.n));
        }
        last = entry.n;
        for decision in &entry.decisions {
            if decision.handler != handler.name || decision.verdict != "done" {
                let Decision {
                    handler,
                    event,
                    verdict,
                } = decision;
                wrong.get_or_insert(format!("{handler} has decided that {event} is {verdict}"));
            }
            events.add(&decision.event);
        }
        let count = entry.decisions.len();
        if window.contains(&stored.at_ns) && count > 0 {
            judged.entries += 1;
            judged.decided += count as u64;
            judged.group_max = judged.group_max.max(count);
            let part = (stored.at_ns - window.start) as usize * PARTS / (window.end - window.start) as usize;
            judged.parts[part] += count as u64;
        }
        if stored.at_ns < window.end {
            judged.behind += count as i64;
        }
    })
    .await;
    wrong.map_or(Ok(()), Err)?;
    events.each_once()
}

/// When the event of each order was emitted.
async fn emitted(
    site: &Site<'_>,
    handler: &Handler,
    window: &Range<u64>,
    judged: &mut Judged,
) -> Result<Vec<u64>, String> {
    let mut events = Events::new(site.published, format!("emitted into {}", handler.target));
    let mut emitted = vec![0; site.published as usize];
    let wanted = Wanted {
        stream: handler.target,
        subject: handler.emits,
        from: 1,
        batch: 5_000,
        headers_only: true,
    };
    read::each(&site.js, wanted, |stored| {
        let cause = stored.headers.get("Mesh-Cause-Event").map(|cause| cause.as_str());
        if let Some(number) = events.add(cause.unwrap_or_default()) {
            emitted[number] = stored.at_ns;
        }
        judged.emitted += u64::from(window.contains(&stored.at_ns));
        judged.behind -= i64::from(stored.at_ns < window.end);
    })
    .await;
    events.each_once()?;
    Ok(emitted)
}

/// For each of these orders, how long it took until its event was emitted, in nanoseconds. Both times are the server's.
async fn times(site: &Site<'_>, numbers: &Range<u64>, emitted: &[u64]) -> Vec<u64> {
    let mut times = Vec::new();
    let wanted = Wanted {
        stream: STREAM,
        subject: ">",
        from: numbers.start + 1,
        batch: 5_000,
        headers_only: true,
    };
    read::each(&site.js, wanted, |stored| {
        let number = stored.sequence - 1;
        if numbers.contains(&number) {
            times.push(emitted[number as usize].saturating_sub(stored.at_ns));
        }
    })
    .await;
    times
}

/// What the handler's keys hold.
async fn keys(site: &Site<'_>, handler: &Handler) -> Result<(), String> {
    let Some(bucket) = handler.bucket else { return Ok(()) };
    let orders = (0..site.published).map(|number| Order::new(number, site.case.keys));
    let mut expected: HashMap<String, u64> = HashMap::new();
    match handler.name {
        "inventory" => {
            expected.extend((0..site.case.keys).map(|sku| (format!("stock.{}", sku_name(sku)), STOCK)));
            let mut wanted = vec![0; site.case.keys as usize];
            orders.for_each(|order| wanted[order.sku as usize] += order.quantity);
            for (sku, wanted) in wanted.into_iter().enumerate() {
                expected.insert(format!("stock.{}", sku_name(sku as u64)), STOCK - wanted);
            }
        }
        "points" => {
            let mut counts = vec![0; USERS as usize];
            orders.for_each(|order| counts[order.user as usize] += 1);
            let some = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
            expected.extend(some.map(|(user, count)| (format!("balance.u-{user:05}"), count * POINTS_PER_ORDER)));
        }
        other => return Err(format!("nobody knows what {other} writes")),
    }
    let prefix = format!("$KV.{bucket}.");
    let wanted = Wanted {
        stream: &format!("KV_{bucket}"),
        subject: &format!("{prefix}>"),
        from: 1,
        batch: 5_000,
        headers_only: false,
    };
    let mut wrong = Vec::new();
    read::each(&site.js, wanted, |stored| {
        let key = stored.subject.strip_prefix(&prefix).unwrap_or_default();
        let value = String::from_utf8_lossy(&stored.body).into_owned();
        let right = expected.remove(key).map(|value| value.to_string());
        if right.as_ref() != Some(&value) {
            wrong.push(format!("{key} is {value}, not {right:?}"));
        }
    })
    .await;
    if let Some(key) = expected.keys().next() {
        wrong.push(format!("{key} is missing"));
    }
    match wrong.first() {
        None => Ok(()),
        Some(first) => Err(format!("{} keys of {bucket} are wrong: {first}", wrong.len())),
    }
}

/// How often each order has come up.
struct Events {
    what: String,
    times: Vec<u8>,
    incarnation: Option<String>,
    strange: Option<String>,
}

impl Events {
    fn new(count: u64, what: String) -> Events {
        Events {
            what,
            times: vec![0; count as usize],
            incarnation: None,
            strange: None,
        }
    }

    /// `event` is `<incarnation>.<sequence>`. Returns the order's number.
    fn add(&mut self, event: &str) -> Option<usize> {
        let number = event.rsplit_once('.').and_then(|(incarnation, sequence)| {
            if self.incarnation.is_none() {
                self.incarnation = Some(incarnation.to_owned());
            }
            let number = sequence.parse::<usize>().ok()?.checked_sub(1)?;
            (self.incarnation.as_deref() == Some(incarnation) && number < self.times.len()).then_some(number)
        });
        match number {
            Some(number) => self.times[number] = self.times[number].saturating_add(1),
            None => self.strange = Some(event.to_owned()),
        }
        number
    }

    fn each_once(self) -> Result<(), String> {
        if let Some(event) = self.strange {
            return Err(format!("{event:?} was {} and is no order", self.what));
        }
        let wrong: Vec<_> = (0..).zip(&self.times).filter(|(_, times)| **times != 1).collect();
        match wrong.first() {
            None => Ok(()),
            Some((number, times)) => {
                let (count, what) = (wrong.len(), self.what);
                let sequence: u64 = number + 1;
                Err(format!(
                    "{count} orders were not {what} once; the one of sequence {sequence}: {times} times"
                ))
            }
        }
    }
}

impl Times {
    fn of(mut times: Vec<u64>) -> Times {
        times.sort_unstable();
        let ms = |p| percentile(&times, p) as f64 / 1e6;
        Times {
            p50: ms(50),
            p99: ms(99),
        }
    }
}
