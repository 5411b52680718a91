//! The kill matrix: a host is killed, frozen or cut off at each point along an event's way, another goes on, in a third of
//! the rounds the server is killed too, and an auditor looks at what is there afterwards. That the auditor is to be
//! trusted is shown by mistakes that are planted in the host and that it must find.
//!
//! A program of its own, because its rounds are told by numbers: `--help` says how.

mod arguments;
mod audit;
mod blocked;
#[path = "../e2e/config.rs"]
#[expect(dead_code, reason = "the end-to-end tests use the rest")]
mod config;
mod event;
mod found;
#[path = "../e2e/mesh.rs"]
#[expect(dead_code, reason = "the end-to-end tests use the rest")]
mod mesh;
mod mistakes;
mod model;
mod orders;
mod points;
mod redrives;
mod report;
mod rollouts;
mod round;
mod rows;
mod run;
mod soak;
mod stage;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the end-to-end tests use the rest")]
mod support;
mod ticks;
mod timers;
mod world;

use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let arguments = match arguments::read() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    // Rounds mostly wait, so one thread is enough for all of them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let rounds = tokio::task::LocalSet::new();
    let runtime = runtime.expect("a runtime can be built");
    let played = async {
        match arguments.soak {
            Some(minutes) => soak::run(Duration::from_secs(minutes * 60)).await,
            None => run::run(&arguments).await,
        }
    };
    match rounds.block_on(&runtime, played) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
