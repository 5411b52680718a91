//! A version beside the one that serves, on the newest events.

use super::name;
use crate::broker::Connection;
use crate::cli::table::{self, Narrow};
use crate::cli::text::json_page;
use crate::cli::{Error, FAILED, OK};
use crate::control::modules::{self, ModuleRehearsed};
use crate::plan::Plan;
use crate::text::display::clean;

/// Run the newest events on a version and on the one that serves, without effects, and compare them; nothing in NATS changes
///
/// Each event runs once on either, with the settings, grants and limits of its handler, and with the state as it is now.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 if no event fails on this version only; 1 otherwise.")]
pub struct ModulesRehearse {
    /// The name in the registry
    #[arg(value_parser = name)]
    name: String,
    /// Digest or version
    #[arg(value_name = "DIGEST")]
    digest: String,
    /// How many events of each handler
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    last: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn rehearse(connection: &Connection, plan: &Plan, asked: &ModulesRehearse) -> Result<u8, Error> {
    let wanted = (asked.name.as_str(), asked.digest.as_str());
    let rehearsed = modules::rehearse(connection, plan, wanted, asked.last as usize).await?;
    match asked.json {
        true => println!("{}", json_page(&rehearsed)),
        false => print(&rehearsed),
    }
    Ok(if rehearsed.failed == 0 { OK } else { FAILED })
}

fn print(rehearsed: &ModuleRehearsed) {
    let rows: Vec<Vec<String>> = rehearsed
        .differences
        .iter()
        .map(|one| {
            vec![
                one.handler.clone(),
                one.event.clone(),
                clean(&one.subject),
                clean(&one.difference),
                clean(&one.outcome),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let narrow = Narrow {
            leave_out: &[2, 0],
            cut: &[4],
        };
        table::print_narrow(
            &["HANDLER", "EVENT", "SUBJECT", "DIFFERENCE", "OUTCOME"],
            &rows,
            &narrow,
        );
    }
    println!(
        "{} event(s) on {} and on {}, which serves: {} fail(s) on it only, {} on the serving version only, {} on both; {} done by both \
         with different effects",
        rehearsed.events,
        &rehearsed.digest[..12],
        &rehearsed.serving[..12],
        rehearsed.failed,
        rehearsed.serving_failed,
        rehearsed.both_failed,
        rehearsed.differ
    );
}
