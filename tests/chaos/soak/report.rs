//! The output at the end of a soak.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::Told;
use super::memory::Memory;

/// How many problems are printed; all of them are in a file, with the hosts' logs.
const PROBLEMS: usize = 40;

pub fn tell(time: Duration, told: &Told, memory: &[Memory], problems: &[String], logs: &[String]) {
    let Told {
        orders,
        malformed,
        decisions,
        emitted,
        undeliverable,
        letters,
        done,
        drained,
    } = told;
    let minutes = time.as_secs() / 60;
    println!(
        "soak of {minutes} min: {orders} orders and {malformed} malformed messages, {decisions} decisions in ledgers, \
         {emitted} events emitted, {undeliverable} undeliverable, {letters} other dead letters; drained in {drained:.1?}\n\
         {} modules replaced, {} hosts killed, the full target emptied {} times, a target removed {} times, streams of the \
         mesh removed {} times; load of the machine at the end {}\n\n\
         | resident memory in MiB | samples | first | first third | last third | most | a minute | at most |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|",
        done.swaps,
        done.kills,
        done.emptied,
        done.targets,
        done.removed,
        fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
    );
    memory.iter().for_each(|memory| println!("{}", memory.row()));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak.log");
    let samples: Vec<String> = memory.iter().map(Memory::samples).collect();
    let all = [problems, &samples, logs].concat().join("\n");
    match fs::write(&file, all) {
        Ok(()) => println!("\nall samples and logs: {}", file.display()),
        Err(error) => println!("\n{}: {error}", file.display()),
    }
    for problem in problems.iter().take(PROBLEMS) {
        eprintln!("    {problem}");
    }
    match problems.len() {
        0 => println!("all is well"),
        count => eprintln!("FAILED: {count} problems"),
    }
}
