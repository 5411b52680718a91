//! Which dead letters of a handler are replayed by themselves, when, and how often.

use std::time::Duration;

use super::{CatchUp, Handler, Overlap, Schedule, Timetable, When};

/// The redrive of a handler.
#[derive(Debug, Clone, PartialEq)]
pub struct Redrive {
    /// The words of the causes.
    pub causes: Vec<String>,
    /// The codes; empty: all.
    pub codes: Vec<String>,
    /// How often dead letters are looked for; whole seconds.
    pub every: Duration,
    /// How old a dead letter is at least.
    pub after: Duration,
    /// How long after a failed replay the next one comes at least; it doubles with each further one.
    pub backoff: Duration,
    /// Most that this delay may be.
    pub backoff_max: Duration,
    /// After this number of failed replays a dead letter is left to a person.
    pub times_max: u32,
    /// How many are replayed in a second at most.
    pub per_second: Option<f64>,
}

/// Before the name of a handler: its redrive, as the mesh's bucket has it.
pub const REDRIVE: &str = "redrive.";

/// For how long a missed round is made up for: at most one is.
const CATCH_UP_WINDOW_MS: u64 = 365 * 24 * 3_600_000;

impl Handler {
    /// The schedule of its redrive. What comes of a due time is an order to the hosts that serve the handler, one of which takes
    /// it. `None`: it has no redrive.
    pub fn redrive_schedule(&self) -> Option<Schedule> {
        let redrive = self.redrive.as_ref()?;
        Some(Schedule {
            name: self.redrive_name(),
            timetable: Timetable {
                when: When::Every(redrive.every.as_secs()),
                start_ms: None,
                end_ms: None,
            },
            jitter_ms: 0,
            subject: format!("$MESH.replay.{}.redrive", self.name),
            payload: String::new(),
            headers: Vec::new(),
            // A round that takes longer is not overtaken by the next one.
            overlap: Overlap::Skip,
            catch_up: CatchUp::Last,
            catch_up_window_ms: CATCH_UP_WINDOW_MS,
            max_runs: None,
        })
    }

    pub fn redrive_name(&self) -> String {
        format!("{REDRIVE}{}", self.name)
    }
}
