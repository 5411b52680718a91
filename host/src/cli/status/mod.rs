//! `jetmesh status`: asks NATS, and the hosts that run, how each handler and each ledger stands. What cannot be asked is
//! said where it belongs, and hides nothing else.

pub mod outbox;
mod print;

pub use print::{decided, known, of_handler, of_handlers_and_ledgers, of_the_rest, per_second, word};

use std::io::IsTerminal as _;
use std::time::Duration;

use super::args::Status;
use super::text::{self, json_line, json_page};
use super::{Args, Error, OK, UNSERVED};
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::plan::Plan;
use crate::report::status::json::MeshStatus;
use crate::report::status::look;
use crate::text::secret;

pub async fn run(args: &Args, status: &Status) -> Result<u8, Error> {
    let loaded = args.look()?;
    let whole = look(&loaded.plan).await?;
    if let Some(pause) = status.watch {
        return watch(&loaded.plan, status, whole, pause).await;
    }
    if status.json {
        println!("{}", json_page(&whole));
    } else {
        print::print(&whole);
    }
    Ok(if whole.serves { OK } else { UNSERVED })
}

/// Shows it again and again, until a signal ends the process.
async fn watch(plan: &Plan, status: &Status, first: MeshStatus, pause: Duration) -> Result<u8, Error> {
    let clears = !status.json && std::io::stdout().is_terminal();
    let mut looked: Result<MeshStatus, Error> = Ok(first);
    loop {
        if clears {
            text::clear();
        }
        match &looked {
            Ok(whole) if status.json => println!("{}", json_line(whole)),
            Ok(whole) => {
                println!("{}", rfc3339(now_ms()));
                print::print(whole);
            }
            // What is away may come again.
            Err(error) => note!("error: {}", secret::hide(&error.to_string())),
        }
        text::flush();
        tokio::time::sleep(pause).await;
        looked = look(plan).await.map_err(Error::from);
    }
}
