//! What is done to a site, in turn: single orders, a backlog, a steady pace.

use std::ops::Range;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::order::Order;
use crate::site::{Left, SUBJECT, Said, Site};
use crate::support::server::round_trip;

/// Orders that come alone, each after everything of the one before.
const LONE: u64 = 200;
/// A single order that takes longer is lost.
const LOST: Duration = Duration::from_secs(30);
/// The pace, if the machine keeps up with more than that.
const PACE_PER_SECOND: u64 = 15_000;
/// The pace is kept by the millisecond, which is as fine as a timer is.
const TICK: Duration = Duration::from_millis(1);
/// Between two looks at the consumer.
const LOOK: Duration = Duration::from_millis(100);
/// Published at a time while a backlog is made.
const CHUNK: u64 = 10_000;

/// What was done and seen; the rest is in the streams.
#[derive(Debug)]
pub struct Run {
    /// The numbers of the orders that came alone.
    pub lone: Range<u64>,
    pub steady: Steady,
    /// The numbers of the orders that came at a pace, and the pace.
    pub paced: Range<u64>,
    pub pace: u64,
}

/// The window in which there was always a backlog.
#[derive(Debug)]
pub struct Steady {
    /// In nanoseconds since the Unix epoch.
    pub window: Range<u64>,
    /// Processor time within it.
    pub hosts: Duration,
    pub servers: Duration,
    /// Within it.
    pub said: Said,
    /// At its end.
    pub relays_left: Left,
    /// Orders that had to be published within it, because it went faster than before.
    pub published: u64,
}

/// `seconds`: how long the window is.
pub async fn run(site: &mut Site<'_>, seconds: u64) -> Run {
    let lone = lone(site).await;
    let steady = steady(site, seconds).await;
    let began = Instant::now();
    site.drained().await;
    eprintln!(
        "{}: carried out {:.1?} after the window",
        site.case.name,
        began.elapsed()
    );
    let (pace, paced) = paced(site, seconds).await;
    site.drained().await;
    Run {
        lone,
        steady,
        paced,
        pace,
    }
}

/// One order after the other, each when everything that follows from the one before has been emitted.
async fn lone(site: &mut Site<'_>) -> Range<u64> {
    let mut emitted = futures_util::stream::SelectAll::new();
    for handler in site.case.handlers {
        emitted.push(site.client.subscribe(handler.emits).await.expect("connected"));
    }
    round_trip(&site.client).await;
    let first = site.published;
    for number in first..first + LONE {
        site.publish(1).await;
        for _ in site.case.handlers {
            let event = timeout(LOST, emitted.next()).await;
            event.unwrap_or_else(|_| panic!("nothing follows from order {number}"));
        }
    }
    first..site.published
}

/// A backlog that is large enough for the whole window, so that nothing is published meanwhile.
async fn steady(site: &mut Site<'_>, seconds: u64) -> Steady {
    // Twice, the second time with enough to tell the speed.
    let mut per_second = speed(site, (site.case.in_flight as u64 * 5).clamp(200, 10_000)).await;
    per_second = speed(site, (per_second * 2).clamp(200, 100_000)).await;
    let enough = per_second * (seconds * 5 / 4 + 1);
    // Each handler has its own speed, and the quickest must not run out either.
    while let Some(missing) = enough
        .checked_sub(site.orders_left().await.0)
        .filter(|missing| *missing > 0)
    {
        site.publish(missing.min(CHUNK)).await;
    }
    eprintln!("{}: a backlog of {enough} orders", site.case.name);

    let (said, published, (hosts, servers), from) = (site.said().await, site.published, site.cpu(), now_ns());
    let until = Instant::now() + Duration::from_secs(seconds);
    let low = (per_second / 2).max(site.case.in_flight as u64);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < until {
        looks.tick().await;
        if site.orders_left().await.0 < low {
            site.publish(CHUNK.min(low.max(1))).await;
        }
    }
    let (to, (hosts_now, servers_now)) = (now_ns(), site.cpu());
    let relays_left = site.relays_left().await;
    let said_now = site.said().await;
    Steady {
        window: from..to,
        hosts: hosts_now - hosts,
        servers: servers_now - servers,
        said: Said {
            conflicts: said_now.conflicts - said.conflicts,
            refused: said_now.refused - said.refused,
            retried: said_now.retried - said.retried,
        },
        relays_left,
        published: site.published - published,
    }
}

/// How many orders a second are decided, roughly.
async fn speed(site: &mut Site<'_>, count: u64) -> u64 {
    let began = Instant::now();
    site.publish(count).await;
    site.decided().await;
    (count as f64 / began.elapsed().as_secs_f64()) as u64
}

/// Orders at a steady pace that the whole way keeps up with: how many a second, and their numbers.
async fn paced(site: &mut Site<'_>, seconds: u64) -> (u64, Range<u64>) {
    let whole = whole_way(site).await;
    let pace = if whole > PACE_PER_SECOND * 5 / 4 {
        PACE_PER_SECOND
    } else {
        (whole / 2).max(1)
    };
    let first = site.published;
    let count = pace * (seconds / 4).clamp(3, 15);
    let keys = site.case.keys;
    let mut ticks = interval(TICK);
    let began = Instant::now();
    while site.published - first < count {
        ticks.tick().await;
        let due = (began.elapsed().as_micros() as u64 * pace / 1_000_000).min(count);
        for number in site.published..first + due {
            let text = Order::new(number, keys).text();
            site.client.publish(SUBJECT, text.into()).await.expect("connected");
        }
        site.published = site.published.max(first + due);
    }
    round_trip(&site.client).await;
    (pace, first..site.published)
}

/// How many orders a second go the whole way, to the last emitted event.
async fn whole_way(site: &mut Site<'_>) -> u64 {
    let mut count = site.case.in_flight as u64 * 2;
    loop {
        let began = Instant::now();
        site.publish(count).await;
        site.drained().await;
        let took = began.elapsed();
        if took > Duration::from_secs(1) {
            return (count as f64 / took.as_secs_f64()) as u64;
        }
        count *= 3;
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("it is after 1970").as_nanos() as u64
}
