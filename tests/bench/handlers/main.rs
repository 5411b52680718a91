//! What thousands of handlers cost one host and its server while little happens: the time until all of them serve, memory,
//! descriptors, connections and idle processor time. Afterwards each handler is given one event, and all are decided.
//!
//! The handlers are those of tenants: each has the same twenty services, each service a module of its own. Half of them keep
//! state, a quarter emit events, a quarter do neither. Of each size there are two cases. `a tenant` has one bucket for the ten
//! services of a tenant that keep state, so that their writes can be one transaction. `a handler` has a bucket for each of
//! them, which keeps them apart and is the largest number of ledgers for this number of handlers.
//!
//! `cargo bench -p jetmesh --bench handlers`. `BENCH_HANDLERS`: how many, `100,1000,3000` unless said; `BENCH_BUCKETS`:
//! `tenant,handler`; `BENCH_IDLE`: for how many seconds idle processor time is taken, 60 unless said, which is a whole round
//! of sweeps. The table goes to standard output, progress to standard error. A handler that does not serve ends it with a
//! panic.

mod measure;
mod proof;
mod report;
#[path = "../shared.rs"]
#[expect(dead_code, reason = "the other benchmarks stand on the rest")]
mod shared;
mod site;
#[path = "../../support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the benchmark stands on a part of what the tests stand on"
)]
mod support;

use std::env;
use std::time::Duration;

use shared::{number, variable};
use site::{Buckets, Site};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sizes = env::var("BENCH_HANDLERS").unwrap_or_else(|_| "100,1000,3000".to_owned());
    let sizes: Vec<usize> = sizes.split(',').map(|n| number("BENCH_HANDLERS", n.trim())).collect();
    let buckets = env::var("BENCH_BUCKETS").unwrap_or_else(|_| "tenant,handler".to_owned());
    let buckets: Vec<Buckets> = buckets.split(',').map(|name| Buckets::named(name.trim())).collect();
    let idle = Duration::from_secs(variable("BENCH_IDLE", 60));

    let (mut rows, mut version) = (Vec::new(), String::new());
    for &handlers in &sizes {
        for &buckets in &buckets {
            let site = Site::open(handlers, buckets).await;
            version = site.server_version();
            let row = measure::measure(&site, idle).await;
            eprintln!("{row:?}");
            rows.push(row);
        }
    }
    println!("{}", report::table(&rows, idle, &version));
}
