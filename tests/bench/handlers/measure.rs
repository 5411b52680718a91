//! One case: the host is started, stopped and started again, proves that all of its handlers work, and idles.

use std::fs;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::proof;
use crate::shared::cpu;
use crate::site::{Buckets, Site};
use crate::support::{Host, Signal, eventually};

/// More than any machine needs for one step.
const PATIENCE: Duration = Duration::from_secs(600);
/// After the last event the host and its server come to rest.
const REST: Duration = Duration::from_secs(10);

/// What was measured of one case.
#[derive(Debug)]
pub struct Row {
    pub handlers: usize,
    pub buckets: Buckets,
    pub ledgers: usize,
    /// Until all serve, with nothing in NATS yet.
    pub first: Duration,
    /// The same when everything has been made before; and how long of that it took until the modules were compiled and the
    /// streams looked at.
    pub again: Duration,
    pub prepared: Duration,
    /// From the first event to the last decision.
    pub decided: Duration,
    pub status: Duration,
    pub host_bytes: u64,
    pub server_bytes: u64,
    /// The most that were seen at a time.
    pub descriptors: usize,
    pub connections: usize,
    /// Of one core.
    pub host_idle: f64,
    pub server_idle: f64,
}

pub async fn measure(site: &Site, idle: Duration) -> Row {
    let config = site.config();
    let (host, _, first) = start(site, &config).await;
    eprintln!("{} handlers serve after {first:?}", site.handlers.len());
    host.signal(Signal::TERM);
    let end = host.wait_exit(PATIENCE).await;
    assert!(end.success(), "the host ends with {end}");
    let (host, prepared, again) = start(site, &config).await;
    eprintln!("again after {again:?}");
    let decided = proof::all_decide(site).await;
    eprintln!("all decided after {decided:?}");
    let file = "status.toml";
    fs::write(site.dir.path().join(file), &config).expect("the folder is ours");
    let status = proof::all_serve(site, file).await;
    sleep(REST).await;

    let (host_pid, server_pid) = (host.pid(), site.server.pid());
    let port = site.server.addr().port();
    let began = Instant::now();
    let before = (cpu(host_pid), cpu(server_pid));
    let (mut descriptors, mut connections) = (0, 0);
    while began.elapsed() < idle {
        descriptors = descriptors.max(open_files(host_pid));
        // One is this benchmark's own.
        connections = connections.max(established(port) - 1);
        sleep(Duration::from_secs(1)).await;
    }
    let share = |used: Duration| used.as_secs_f64() / began.elapsed().as_secs_f64();
    let host_idle = share(cpu(host_pid) - before.0);
    let server_idle = share(cpu(server_pid) - before.1);
    let row = Row {
        handlers: site.handlers.len(),
        buckets: site.buckets,
        // And that of the mesh's own bucket.
        ledgers: site.buckets().len() + 1,
        first,
        again,
        prepared,
        decided,
        status,
        host_bytes: resident(host_pid),
        server_bytes: resident(server_pid),
        descriptors,
        connections,
        host_idle,
        server_idle,
    };
    host.signal(Signal::TERM);
    let end = host.wait_exit(PATIENCE).await;
    assert!(end.success(), "the host ends with {end}");
    row
}

/// Starts the host; it serves all of its handlers when this returns. How long it took until it was prepared, and in all.
async fn start(site: &Site, config: &str) -> (Host, Duration, Duration) {
    let began = Instant::now();
    let host = Host::start(config, site.dir.path(), &[]);
    host.wait_for_line(|line| line.contains("host started"), PATIENCE).await;
    let prepared = began.elapsed();
    let serving = |line: &String| line.contains(" serving ");
    eventually("all handlers to serve", PATIENCE, async || {
        assert!(host.ended().is_none(), "the host has ended: {:?}", host.lines().last());
        (host.lines().iter().filter(|line| serving(line)).count() >= site.handlers.len()).then_some(())
    })
    .await;
    (host, prepared, began.elapsed())
}

/// Memory that a process has in use, in bytes (proc_pid_status(5)).
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("its memory is told") * 1024
}

fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the process is there")
        .count()
}

/// Connections that a server on this port has (proc_net_tcp(5): the second field is the local address, the fourth the
/// state).
fn established(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("it is Linux");
    let port = format!(":{port:04X}");
    let here = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().is_some_and(|address| address.ends_with(&port));
        local && fields.nth(1) == Some("01")
    };
    table.lines().filter(here).count()
}
