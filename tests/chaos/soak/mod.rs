//! The soak: one mesh with two hosts works for many minutes, everything goes wrong again and again, and in the end each
//! event is accounted for and nothing has grown.

mod memory;
mod publish;
mod report;
mod seen;
mod tail;
mod trouble;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::interval;

use self::memory::Memory;
use self::publish::{Flow, Later};
use self::seen::Seen;
use self::trouble::Done;
use crate::audit::{self, Known};
use crate::config::Config;
use crate::found::{Held, Ledger};
use crate::mesh::{Mesh, PATIENT, says};
use crate::orders::{HANDLERS, PLAIN, SHARED};
use crate::stage;
use crate::support::{Host, Signal, eventually};
use crate::world::{self, World};

/// Those that have a ledger.
const BUCKETS: [&str; 2] = [SHARED, "mesh"];
/// What is logged for each event would be most of what a host does.
const LOG: (&str, &str) = (
    "JETMESH_LOG__FILTER",
    "warn,jetmesh::handler_task::serve=info,jetmesh::handler_task::reload=info",
);
/// After the last order everything is decided and published within this time, or never.
const DRAINED: Duration = Duration::from_secs(180);
/// Between two writes of the person.
const PUT_EVERY: Duration = Duration::from_secs(1);
/// Which of [`Soak::memory`] is that of the host that is killed.
const MORTAL: usize = 1;
/// MiB a minute. A module of the handlers takes more than that, and one is replaced each minute; 200 bytes for each event
/// of each handler, at 120 a second, would be as much.
const HOST_BOUND: f64 = 1.5;
/// The server's collector lets its memory rise and fall by some tens of MiB, so its line is less straight.
const SERVER_BOUND: f64 = 3.0;

struct Soak {
    mesh: Mesh,
    /// It lives all along.
    steady: Host,
    /// `None`: it has just been killed.
    mortal: RefCell<Option<Host>>,
    /// Of the steady host, of the other, of the server.
    memory: RefCell<[Memory; 3]>,
    /// What hosts that were killed have said.
    logs: RefCell<Vec<String>>,
}

/// What the report tells beside what is wrong.
struct Told {
    orders: usize,
    malformed: usize,
    decisions: usize,
    emitted: usize,
    undeliverable: usize,
    letters: usize,
    done: Done,
    drained: Duration,
}

/// `false`: something is wrong, and it has been said.
pub async fn run(time: Duration) -> bool {
    let soak = Soak::start().await;
    let js = soak.mesh.js.clone();
    let (world, later, mut flow) = (World::default(), Later::default(), Flow::default());
    let seen = Seen::start(&soak.mesh.client, &js).await;
    let mut done = Done::default();
    let acting = async {
        let publish = async {
            flow.publish(&soak.mesh, &world, &later, time).await;
            world.all_published.store(true, Ordering::Relaxed);
        };
        let trouble = async { done = trouble::run(&soak, &seen, &later, time).await };
        tokio::join!(publish, trouble, world.write(&js, 1, PUT_EVERY), seen.follow(time));
        let began = Instant::now();
        soak.wait_settled(&flow).await;
        world.over.store(true, Ordering::Relaxed);
        began.elapsed()
    };
    let (drained, (), ()) = tokio::join!(acting, world.look(&js), soak.sample(&world));
    soak.end().await;
    seen.read().await;
    let mut held = Held::rest(&soak.mesh).await;
    for (bucket, entries) in seen.entries.take() {
        held.ledgers.get_mut(bucket).expect("it has been read").entries = entries;
    }
    (held.emitted, held.given_up) = (seen.emitted.take(), seen.given_up.take());
    let known = Known {
        orders: &flow.orders,
        published: &world.published.lock().expect("no holder panics"),
        malformed: &flow.malformed,
        plain: true,
        puts: &world.puts.lock().expect("no holder panics"),
        looks: &world.looks.lock().expect("no holder panics"),
        redrives_max: None,
    };
    let mut problems = audit::judge(&known, &held);
    let logs = soak.logs.take();
    problems.extend(logs.iter().filter(|line| line.contains("panicked at")).cloned());
    let memory = soak.memory.borrow();
    let grow = memory.iter().filter(|memory| memory.grows());
    problems.extend(grow.map(|memory| format!("the memory of {} grows", memory.name)));
    let told = Told {
        orders: flow.orders.len(),
        malformed: flow.malformed.len(),
        decisions: held.ledgers.values().map(Ledger::decisions).sum(),
        emitted: held.emitted.len(),
        undeliverable: held.undeliverable.len(),
        letters: held.letters.len(),
        done,
        drained,
    };
    report::tell(time, &told, memory.as_slice(), &problems, &logs);
    problems.is_empty()
}

impl Soak {
    async fn start() -> Self {
        let mesh = Mesh::new(Config::new()).await;
        let module = mesh.dir.path().join("probe.wasm");
        trouble::replace(&module, 0);
        let mesh = Mesh {
            config: config(&module),
            ..mesh
        };
        trouble::make_full(&mesh.js).await;
        mesh.js
            .create_stream(trouble::gone("gone.>"))
            .await
            .expect("it can be made");
        let steady = begin(&mesh).await;
        let mortal = begin(&mesh).await;
        let memory = [
            Memory::of("the host that goes on", steady.pid(), Some(HOST_BOUND)),
            Memory::of("the host that is killed", mortal.pid(), None),
            Memory::of("nats-server", mesh.server.pid(), Some(SERVER_BOUND)),
        ];
        Self {
            mesh,
            steady,
            mortal: RefCell::new(Some(mortal)),
            memory: RefCell::new(memory),
            logs: RefCell::default(),
        }
    }

    /// The file that all handlers run.
    fn module(&self) -> PathBuf {
        self.mesh.dir.path().join("probe.wasm")
    }

    /// Looks at the memory until all is over.
    async fn sample(&self, world: &World) {
        let mut pace = interval(memory::EVERY);
        while !world.over.load(Ordering::Relaxed) {
            pace.tick().await;
            self.memory.borrow_mut().iter_mut().for_each(Memory::sample);
        }
    }

    /// Waits until all is decided and published; what is missing after a long time, the auditor finds.
    async fn wait_settled(&self, flow: &Flow) {
        let count = (flow.orders.len() + flow.malformed.len()) as u64;
        let (js, began) = (&self.mesh.js, Instant::now());
        eventually("all to be settled", DRAINED + PATIENT, async || {
            if began.elapsed() > DRAINED {
                return Some(());
            }
            for (name, bucket) in HANDLERS {
                let totals = &world::head(js, bucket).await?["floors"][name];
                if totals["done"].as_u64()? + totals["dead"].as_u64()? < count {
                    return None;
                }
            }
            let plain = world::consumer(js, "ORDERS", PLAIN).await?;
            let idle = plain["num_pending"] == 0 && plain["num_ack_pending"] == 0;
            let settled = idle && stage::is_settled(js).await && trouble::none_is_delayed(js).await;
            settled.then_some(())
        })
        .await;
    }

    /// The file that all handlers run becomes another, and each of the steady host takes it up.
    async fn swap(&self, number: usize) {
        trouble::replace(&self.module(), number);
        eventually("the module to be taken up", PATIENT, async || {
            let lines = self.steady.lines();
            let swapped = lines.iter().filter(|line| line.contains("module swapped"));
            (swapped.count() == number * (HANDLERS.len() + 1)).then_some(())
        })
        .await;
    }

    /// Both hosts end.
    async fn end(&self) {
        let mortal = self.mortal.take();
        for host in [Some(&self.steady), mortal.as_ref()].into_iter().flatten() {
            host.signal(Signal::TERM);
            let status = host.wait_exit(PATIENT).await;
            assert!(status.success(), "a host ends with {status}");
            self.keep(host);
        }
    }

    fn keep(&self, host: &Host) {
        let mut logs = self.logs.borrow_mut();
        logs.push(format!("--- jetmesh, process {} ---", host.pid()));
        logs.extend(host.lines());
    }
}

/// A host that serves. It compiles the module first, while everything else works.
async fn begin(mesh: &Mesh) -> Host {
    let host = Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &[LOG]);
    for handler in mesh.config.handlers() {
        let serves = format!("handler={handler} ");
        host.wait_for_line(says(&["serving", &serves]), PATIENT).await;
    }
    host
}

fn config(module: &std::path::Path) -> Config {
    // Short, so that beginnings of ledgers are collected all the time and the server has no reason to grow.
    let mut config = Config::new().top("ledger_keep = \"1m\"");
    let usual = "ack_wait = \"2s\"\nmax_attempts = 3\nconcurrency = 8";
    for (name, bucket) in HANDLERS {
        let bucket = match bucket {
            "mesh" => String::new(),
            own => format!("bucket = {own:?}\n"),
        };
        let lines = format!("{bucket}publish = [\"events.>\", \"full.>\", \"gone.>\"]\n{usual}");
        config = config.handler(name, module, &lines);
    }
    config.handler(PLAIN, module, usual)
}
