//! What goes wrong during a soak, each thing again and again and at its own moments: no two that would excuse each other
//! fall together. A relay that takes over looks into its targets, so these are emptied and removed only when the last kill
//! is long over.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::{Context, stream};
use futures_util::TryStreamExt;
use rustix::process::Signal;
use tokio::time::{Instant, interval_at};

use super::publish::Later;
use super::seen::Seen;
use super::{Soak, begin};
use crate::mesh::{Mesh, PATIENT};
use crate::orders::HANDLERS;
use crate::support::wait::SOON;
use crate::support::{eventually, modules};
use crate::world;

/// How long nothing comes after a host was killed.
const DOWN: Duration = Duration::from_secs(5);
/// How long the target that is removed is away.
const AWAY: Duration = Duration::from_secs(30);
/// So much fits in the target that is full.
const ROOM: i64 = 30;
/// Removed one after the other. The letters are not: they are what the auditor counts.
const REMOVED: [&str; 4] = ["MESH_DELAYED", "MESH_REPLAY", "KV_mesh_attempts", "MESH_ADVISORIES"];

/// How often each thing was done.
#[derive(Debug, Default)]
pub struct Done {
    pub swaps: usize,
    pub kills: usize,
    pub emptied: usize,
    pub targets: usize,
    pub removed: usize,
}

/// Calls `act` at `first`, and again after each `every`, until `time` is over. How often.
async fn each(first: u64, every: u64, time: Duration, mut act: impl AsyncFnMut(usize)) -> usize {
    let (first, every) = (Duration::from_secs(first), Duration::from_secs(every));
    let mut moments = interval_at(Instant::now() + first, every);
    let mut count = 0;
    while first + every * u32::try_from(count).expect("few") < time {
        moments.tick().await;
        act(count).await;
        count += 1;
    }
    count
}

/// All of it, until `time` is over.
pub async fn run(soak: &Soak, seen: &Seen, later: &Later, time: Duration) -> Done {
    let js = &soak.mesh.js;
    let swaps = each(15, 60, time, async |number| soak.swap(number + 1).await);
    let kills = each(60, 120, time, async |_| kill(soak).await);
    let emptied = each(30, 60, time, async |_| empty(js, seen).await);
    let targets = each(110, 120, time, async |_| away(js, seen).await);
    let removed = each(90, 120, time, async |number| remove(&soak.mesh, later, number).await);
    let (swaps, kills, emptied, targets, removed) = tokio::join!(swaps, kills, emptied, targets, removed);
    Done {
        swaps,
        kills,
        emptied,
        targets,
        removed,
    }
}

/// The handlers' module becomes another, at once: the same code with another digest.
pub fn replace(module: &Path, number: usize) {
    let mut wasm = fs::read(modules::handler("probe")).expect("it is built");
    // A custom section: 9 bytes, of which the first is the length of its name.
    wasm.extend_from_slice(&[0, 9, 4]);
    wasm.extend_from_slice(b"soak");
    wasm.extend_from_slice(&u32::try_from(number).expect("few").to_be_bytes());
    let beside = module.with_extension("new");
    fs::write(&beside, wasm).expect("the folder is writable");
    fs::rename(&beside, module).expect("the folder is writable");
}

/// A host is killed, and a new one comes after a while. The other goes on.
async fn kill(soak: &Soak) {
    let host = soak.mortal.take().expect("it runs");
    host.signal(Signal::KILL);
    host.wait_exit(SOON).await;
    soak.keep(&host);
    drop(host);
    pass(DOWN).await;
    let new = begin(&soak.mesh).await;
    soak.memory.borrow_mut()[super::MORTAL].follows(new.pid());
    soak.mortal.replace(Some(new));
}

pub async fn make_full(js: &Context) {
    let config = stream::Config {
        name: "FULL".to_owned(),
        subjects: vec!["full.>".to_owned()],
        max_messages: ROOM,
        discard: stream::DiscardPolicy::New,
        ..stream::Config::default()
    };
    js.create_stream(config).await.expect("the stream is made");
}

/// The full target is emptied.
async fn empty(js: &Context, seen: &Seen) {
    let last = seen.read_full().await;
    let stream = js.get_stream("FULL").await.expect("it is there");
    let purged = stream.purge().sequence(last + 1).await;
    purged.expect("it can be emptied");
}

pub fn gone(subject: &str) -> stream::Config {
    stream::Config {
        name: "GONE".to_owned(),
        subjects: vec![subject.to_owned()],
        ..stream::Config::default()
    }
}

/// A target is removed, and made again after a while.
async fn away(js: &Context, seen: &Seen) {
    // Nothing comes any more between the last look and the end.
    js.update_stream(gone("closed.>")).await.expect("it can be changed");
    seen.remove_gone(js).await;
    pass(AWAY).await;
    js.create_stream(gone("gone.>")).await.expect("it can be made");
    seen.follow_gone(js).await;
}

/// A stream of the mesh's own is removed, and a host makes it again.
async fn remove(mesh: &Mesh, later: &Later, number: usize) {
    let name = REMOVED[number % REMOVED.len()];
    if name == "MESH_DELAYED" {
        later.held.store(true, Ordering::Relaxed);
        nothing_waits(mesh, later.last.load(Ordering::Relaxed)).await;
    }
    mesh.js.delete_stream(name).await.expect("it is there");
    later.held.store(false, Ordering::Relaxed);
    let back = format!("{name} to be made again");
    eventually(back, PATIENT, async || mesh.js.get_stream(name).await.ok()).await;
}

/// No delayed event waits, and none is to come: what a person removes with the stream is lost.
async fn nothing_waits(mesh: &Mesh, last: u64) {
    eventually("all delayed events to be decided", PATIENT, async || {
        for (name, _) in HANDLERS {
            let acked = &world::consumer(&mesh.js, "ORDERS", name).await?["ack_floor"]["stream_seq"];
            if acked.as_u64()? < last {
                return None;
            }
        }
        Some(())
    })
    .await;
    let mut ends = Vec::new();
    for bucket in super::BUCKETS {
        let head = world::last(&mesh.js, &format!("KV_{bucket}"), &format!("$MESH.state.{bucket}.head")).await;
        ends.push((format!("KV_{bucket}"), head.expect("a ledger has a head").0));
    }
    eventually("all delayed events to be carried out", PATIENT, async || {
        for (stream, end) in &ends {
            let relay = world::consumer(&mesh.js, stream, "mesh-relay").await?;
            let idle = relay["num_pending"] == 0 && relay["num_ack_pending"] == 0;
            if !idle && relay["ack_floor"]["stream_seq"].as_u64()? < *end {
                return None;
            }
        }
        none_is_delayed(&mesh.js).await.then_some(())
    })
    .await;
}

/// Nothing in `MESH_DELAYED` is left to be published.
pub async fn none_is_delayed(js: &Context) -> bool {
    let Ok(stream) = js.get_stream("MESH_DELAYED").await else {
        return false;
    };
    for filter in ["$MESH.delay.>", "$MESH.due.>"] {
        let held = stream.info_with_subjects(filter).await.expect("it can be asked");
        let held: Vec<_> = held.try_collect().await.expect("it can be asked");
        if !held.is_empty() {
            return false;
        }
    }
    true
}

/// Lets time pass: what is tried is what happens within it.
async fn pass(time: Duration) {
    interval_at(Instant::now() + time, time).tick().await;
}
