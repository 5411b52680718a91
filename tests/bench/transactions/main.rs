//! What effects that happen once cost. Each case has servers, hosts and streams of its own, runs for a minute in which
//! there is always work, then at a pace, and is audited: order by order, event by event, key by key. A case whose audit
//! fails fails the benchmark.
//!
//! `cargo bench -p jetmesh --bench transactions`. `BENCH_SECONDS`: how long each case runs; 60 unless said.
//! `BENCH_CASES`: only the cases whose name has one of these in it (`1024,hot`). `BENCH_REPLICAS=1`: also the case with
//! three servers. The table goes to standard output, row by row, progress to standard error.

mod audit;
mod case;
mod order;
mod phases;
mod read;
mod report;
#[path = "../shared.rs"]
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
use std::process::ExitCode;

use case::{CASES, Case};
use report::Row;
use shared::variable;
use site::Site;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let seconds = variable("BENCH_SECONDS", 60);
    let mut failed = false;
    let mut headed = false;
    for case in CASES.iter().filter(|case| is_wanted(case)) {
        eprintln!("{}: begins", case.name);
        let mut site = match Site::open(case).await {
            Ok(site) => site,
            Err(reason) => {
                eprintln!("SKIPPED: {}: {reason}", case.name);
                continue;
            }
        };
        let run = phases::run(&mut site, seconds).await;
        eprintln!("{}: {run:?}", case.name);
        match audit::audit(&site, &run).await {
            Ok(judged) => {
                eprintln!("{}: {judged:?}", case.name);
                if !headed {
                    println!("{}", report::heading(seconds, &site.server_version()));
                    headed = true;
                }
                println!("{}", Row { case, run, judged }.text());
            }
            Err(wrong) => {
                eprintln!("FAILED: {}: {wrong}", case.name);
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn is_wanted(case: &Case) -> bool {
    if let Ok(wanted) = env::var("BENCH_CASES") {
        return wanted.split(',').any(|part| case.name.contains(part.trim()));
    }
    let wanted = case.replicas == 1 || env::var_os("BENCH_REPLICAS").is_some();
    if !wanted {
        eprintln!("SKIPPED: {}: set BENCH_REPLICAS=1 for it", case.name);
    }
    wanted
}
