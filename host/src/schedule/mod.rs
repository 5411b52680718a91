//! Schedules: events that the mesh emits by itself, each due time once, whichever hosts run. What is known of a schedule is a key of
//! the mesh's own bucket, written by transactions of its ledger only; the transaction that takes a due time in also arms the next
//! one, as a delayed event that the server fires with no host up. `decisions/0019-schedules.md` says why.

pub mod keeper;
pub mod open;
pub mod state;
pub mod store;
mod transaction;

use std::sync::LazyLock;

use crate::histogram::Histogram;
use crate::plan::REDRIVE;

/// From a due time to the step that fires the schedule, on this host.
pub static LAG: LazyLock<Histogram> = LazyLock::new(Histogram::times);

/// Before the name of a schedule: the key of its state, and the handler that its decisions name.
pub const PREFIX: &str = "schedule.";

/// The key of a schedule's state in the mesh's own bucket. That of a redrive is its name: no other schedule has a dot in it.
pub fn key(name: &str) -> String {
    match name.starts_with(REDRIVE) {
        true => name.to_owned(),
        false => format!("{PREFIX}{name}"),
    }
}
