//! A round from its beginning to its verdict.

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::jetstream;

use crate::audit::{self, Known};
use crate::blocked;
use crate::config::Config;
use crate::found::Held;
use crate::mesh::{Mesh, PATIENT};
use crate::orders::{HANDLERS, SHARED};
use crate::points::Work;
use crate::redrives;
use crate::rollouts;
use crate::round::{Round, Trouble, Way};
use crate::rows::{self, Service, Written};
use crate::support::wait::SOON;
use crate::support::{Direction, Host, NatsServer, Proxy, Signal, eventually};
use crate::ticks;
use crate::timers;
use crate::world::{self, World};

const ACK_WAIT: Duration = Duration::from_secs(1);
const ATTEMPTS: u32 = 3;
/// Everything is answered and nothing moves: what is undecided then stays so. The sweep would find it after a minute.
const QUIET: Duration = Duration::from_secs(6);

/// How a round went.
pub struct Played {
    pub problems: Vec<String>,
    /// The first host came to the point.
    pub hit: bool,
    /// Events were under way then.
    pub in_flight: bool,
    pub took: Duration,
    /// What a person needs to see why it failed.
    pub logs: String,
}

/// Plays a round. `mistake`: what is planted in both hosts.
///
/// # Panics
/// When something that has to happen does not.
pub async fn play(round: &Round, mistake: Option<&str>) -> Played {
    let began = Instant::now();
    let server = NatsServer::start().await;
    let proxy = Proxy::start(server.addr());
    let mut service = match round.point.work {
        Work::Outbox(database) => Some(Service::new(database).await),
        _ => None,
    };
    let mut mesh = Mesh::over(server, config(round, service.as_ref())).await;
    let world = World::default();
    let js = mesh.js.clone();
    if round.blocked {
        blocked::make(&js).await;
    }
    if let Some(service) = service.as_mut() {
        service.open(&mesh).await;
    }
    if round.point.work == Work::Rollout {
        rollouts::begin(&mesh).await;
    }
    let looks = world.look(&js);
    let stage = async {
        let acted = act(round, mistake, &mut mesh, &proxy, &world, service.as_mut()).await;
        world.over.store(true, Ordering::Relaxed);
        acted
    };
    let ((), acted) = tokio::join!(looks, stage);
    let mut problems = Vec::new();
    let mut logs = String::new();
    for host in acted.hosts.iter().flatten() {
        let lines = host.lines();
        problems.extend(lines.iter().filter(|line| line.contains("panicked at")).cloned());
        logs += &format!("--- jetmesh, process {} ---\n{}\n", host.pid(), lines.join("\n"));
    }
    if round.point.work == Work::Schedule {
        problems.extend(ticks::judge(&mesh).await);
    }
    if round.point.work == Work::Rollout {
        problems.extend(rollouts::judge(&mesh).await);
    }
    if let Some(written) = &acted.written {
        problems.extend(rows::judge(&mesh, written).await);
    }
    let held = Held::read(&mesh).await;
    let known = Known {
        orders: &round.orders,
        published: &world.published.lock().expect("no holder panics"),
        malformed: &[],
        plain: false,
        puts: &world.puts.lock().expect("no holder panics"),
        looks: &world.looks.lock().expect("no holder panics"),
        redrives_max: round.redrives_max,
    };
    problems.extend(audit::judge(&known, &held));
    logs += &format!("--- the end of nats-server's log ---\n{}\n", mesh.server.log_end());
    Played {
        problems,
        hit: acted.hit,
        in_flight: acted.in_flight,
        took: began.elapsed(),
        logs,
    }
}

fn config(round: &Round, service: Option<&Service>) -> Config {
    let mut config = Config::new().nats("timeout = \"1s\"");
    // To arm it is a commit: in other rounds that would be the first to come to the point, before the host serves.
    config = match round.point.work {
        Work::Orders | Work::Relay | Work::Timers | Work::Redrive | Work::Rollout => config,
        Work::Schedule => config.table(ticks::STREAM).table(ticks::SCHEDULE),
        Work::Outbox(_) => config.table(rows::STREAM),
    };
    if let Some(times_max) = round.redrives_max {
        config = config.table(&redrives::table(times_max));
    }
    if let Some(service) = service {
        config = config.table(&service.table());
    }
    let (concurrency, instance) = (round.concurrency, if round.reused { "reused" } else { "fresh" });
    let ack_wait = ACK_WAIT.as_secs();
    for (name, bucket) in HANDLERS {
        let bucket = match bucket {
            "mesh" => String::new(),
            own => format!("bucket = {own:?}\n"),
        };
        let lines = format!(
            "{bucket}publish = [\"events.>\", \"full.>\", \"small.>\"]\nack_wait = \"{ack_wait}s\"\nmax_attempts = {ATTEMPTS}\n\
             concurrency = {concurrency}\ninstance = {instance:?}"
        );
        config = config.handler(name, &rollouts::module(round, name), &lines);
    }
    config
}

/// What came of the acts of a round.
struct Acted {
    hosts: [Option<Host>; 2],
    hit: bool,
    in_flight: bool,
    /// By the service, if there is one.
    written: Option<Written>,
}

/// The hosts begin, orders come, the point is hit, all hosts continue, all is settled, the hosts end. The service writes
/// from the time that a host serves until all is settled.
async fn act(
    round: &Round,
    mistake: Option<&str>,
    mesh: &mut Mesh,
    proxy: &Proxy,
    world: &World,
    mut service: Option<&mut Service>,
) -> Acted {
    let js = mesh.js.clone();
    let fault = format!(
        "{}:{}:{}",
        round.point.name,
        if round.way == Way::Killed { "kill" } else { "stop" },
        round.nth
    );
    let planted: Vec<_> = mistake.map(|name| ("MESH_MISTAKE", name)).into_iter().collect();
    let faulty = [&planted[..], &[("MESH_FAULT", fault.as_str())]].concat();
    let (url, config) = (proxy.url(), mesh.config.clone());
    let first = async |mesh: &Mesh| mesh.host_of(&config, &url, &faulty).await;
    let before = if round.begins_late() { round.orders.len() / 3 } else { 0 };
    let mut second = None;
    if round.begins_late() {
        second = Some(mesh.host(&planted).await);
        world.publish(&js, &round.orders[..before], round.order_every()).await;
        wait_acked(&js, SOON).await;
    }
    let leads = round.together && round.is_of_the_first();
    let first = if round.together && !leads && second.is_none() {
        let (one, other) = tokio::join!(first(mesh), mesh.host(&planted));
        second = Some(other);
        one
    } else {
        first(mesh).await
    };
    if let Some(service) = service.as_mut() {
        service.begin();
    }
    if leads {
        second = Some(mesh.host(&planted).await);
    }
    rollouts::wait_taken(round, &first).await;
    let publish = async {
        world.publish(&js, &round.orders[before..], round.order_every()).await;
        world.all_published.store(true, Ordering::Relaxed);
    };
    let person = async {
        // A write whose fate is not known would prove nothing.
        if round.server.is_none() {
            world.write(&js, round.person, world::PUT_EVERY).await;
        }
    };
    let fix = async {
        if round.point.work == Work::Redrive {
            world.fix(&js, &round.orders).await;
        }
    };
    let (mut hit, mut in_flight) = (false, false);
    let breaking = async {
        (hit, in_flight) = wait_hit(&first, round, mesh, world).await;
        if !hit {
            return;
        }
        let server = async {
            if let Some(down) = round.server {
                mesh.server.kill9();
                pass(down).await;
                mesh.server.restart().await;
            }
        };
        let database = async {
            if let (Some(trouble), Some(service)) = (round.database, service.as_mut()) {
                service.suffer(trouble).await;
            }
        };
        tokio::join!(server, database);
        if round.way == Way::Killed && second.is_none() {
            second = Some(mesh.host(&planted).await);
        }
        if round.way == Way::Frozen {
            let since = Instant::now();
            if second.is_none() {
                second = Some(mesh.host(&planted).await);
            }
            pass((ACK_WAIT * ATTEMPTS + ACK_WAIT / 2).saturating_sub(since.elapsed())).await;
            first.signal(Signal::CONT);
        }
        if let Way::CutOff(trouble) = round.way {
            cut_off(proxy, &first, trouble).await;
        }
    };
    tokio::join!(publish, person, fix, breaking);
    wait_settled(&js, world).await;
    wait_over(mesh, round).await;
    let written = match service {
        Some(service) => Some(service.end(mesh).await),
        None => None,
    };
    let hosts = [Some(first), second];
    for host in hosts.iter().flatten() {
        end(host).await;
    }
    Acted {
        hosts,
        hit,
        in_flight,
        written,
    }
}

/// The first host is at the point. `false`: it never came there.
async fn wait_hit(host: &Host, round: &Round, mesh: &Mesh, world: &World) -> (bool, bool) {
    let stat = format!("/proc/{}/stat", host.pid());
    let hit = eventually("the point to be hit", PATIENT, async || {
        if round.way == Way::Killed {
            if let Some(status) = host.ended() {
                assert_eq!(status.signal(), Some(9), "the first host ends in another way");
                return Some(true);
            }
        } else {
            let text = std::fs::read_to_string(&stat).expect("a process that lives");
            if text.rsplit(')').next()?.trim_start().starts_with('T') {
                return Some(true);
            }
        }
        (world.all_published.load(Ordering::Relaxed) && is_over(mesh, round).await).then_some(false)
    })
    .await;
    let in_flight = hit && (!world.all_published.load(Ordering::Relaxed) || !is_over(mesh, round).await);
    (hit, in_flight)
}

/// The connections of a host that has come to its point are in trouble, and it goes on.
async fn cut_off(proxy: &Proxy, host: &Host, trouble: Trouble) {
    let (direction, time) = match trouble {
        Trouble::Cut => {
            proxy.cut();
            host.signal(Signal::CONT);
            return;
        }
        Trouble::Late(time) => (Direction::ToServer, time),
        Trouble::AnswersLate(time) => (Direction::FromServer, time),
        Trouble::Lost => (Direction::ToServer, ACK_WAIT / 3),
        Trouble::AnswersLost => (Direction::FromServer, ACK_WAIT / 3),
    };
    proxy.pause(direction);
    host.signal(Signal::CONT);
    pass(time).await;
    if matches!(trouble, Trouble::Lost | Trouble::AnswersLost) {
        proxy.cut();
    }
    proxy.resume(direction);
}

/// Lets time pass: what is tried is what happens within it.
pub async fn pass(time: Duration) {
    let began = Instant::now();
    eventually("time to pass", time + SOON, async || {
        (began.elapsed() >= time).then_some(())
    })
    .await;
}

async fn end(host: &Host) {
    if host.ended().is_none() {
        host.signal(Signal::TERM);
        host.wait_exit(PATIENT).await;
    }
}

/// Every consumer that the mesh has on streams of events and consequences. Not that of advisories: one that a host takes
/// with it comes again only after half a minute, and decides nothing new.
fn consumers() -> impl Iterator<Item = (String, &'static str)> {
    let relays = [SHARED, "mesh"].map(|bucket| (format!("KV_{bucket}"), "mesh-relay"));
    let handlers = HANDLERS.map(|(name, _)| ("ORDERS".to_owned(), name));
    handlers.into_iter().chain(relays)
}

/// Nothing waits to be delivered, acked or published.
pub async fn is_settled(js: &jetstream::Context) -> bool {
    for (stream, name) in consumers() {
        match world::consumer(js, &stream, name).await {
            Some(info) if info["num_pending"] == 0 && info["num_ack_pending"] == 0 => {}
            _ => return false,
        }
    }
    // A work queue: what is acked is removed.
    match js.get_stream("MESH_REPLAY").await {
        Ok(replays) => replays.cached_info().state.messages == 0,
        Err(_) => false,
    }
}

async fn wait_acked(js: &jetstream::Context, limit: Duration) {
    eventually("the first orders to be settled", limit, async || {
        is_settled(js).await.then_some(())
    })
    .await;
}

/// Nothing waits, and what the round has beside its orders is done.
async fn is_over(mesh: &Mesh, round: &Round) -> bool {
    let settled = is_settled(&mesh.js).await;
    let over = match round.point.work {
        Work::Redrive => redrives::are_over(mesh, round.redrives_max.unwrap_or(0)).await,
        Work::Timers => timers::are_over(mesh).await,
        // The service writes until all else is over; the schedule goes on.
        Work::Orders | Work::Relay | Work::Schedule | Work::Rollout | Work::Outbox(_) => return settled,
    };
    // What these have done meanwhile is to be settled as well.
    settled && over && is_settled(&mesh.js).await
}

/// Waits until all is over; what is missing after a long time, the auditor finds.
async fn wait_over(mesh: &Mesh, round: &Round) {
    let began = Instant::now();
    eventually("all to be over", PATIENT * 2, async || {
        (is_over(mesh, round).await || began.elapsed() > PATIENT).then_some(())
    })
    .await;
}

/// Waits until all is decided and settled, or until nothing moves any more; what is missing then, the auditor finds.
async fn wait_settled(js: &jetstream::Context, world: &World) {
    let count = world.published.lock().expect("no holder panics").len() as u64;
    let mut quiet: Option<Instant> = None;
    let mut entries = 0;
    let began = Instant::now();
    eventually("all to be settled", PATIENT * 2, async || {
        if began.elapsed() > PATIENT {
            return Some(());
        }
        let (mut decided, mut now) = (true, 0);
        for (name, bucket) in HANDLERS {
            let head = world::head(js, bucket).await?;
            let totals = &head["floors"][name];
            let of = |verdict: &str| totals[verdict].as_u64().unwrap_or(0);
            decided &= of("done") + of("dead") >= count;
            now += head["n"].as_u64().unwrap_or(0);
        }
        if !is_settled(js).await || now != entries {
            (quiet, entries) = (None, now);
            return None;
        }
        let since = *quiet.get_or_insert_with(Instant::now);
        (decided || since.elapsed() > QUIET).then_some(())
    })
    .await;
}
