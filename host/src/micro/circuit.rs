//! What a host reports about the circuit of a handler.

use schemars::JsonSchema;
use serde::Serialize;

use crate::event::rfc3339;
use crate::handler_task::circuit::CircuitTold;

/// A circuit that is open.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CircuitJson {
    /// The host's.
    host: String,
    #[schemars(extend("format" = "date-time"))]
    since: String,
    why: String,
    /// When the next probe is due.
    #[schemars(extend("format" = "date-time"))]
    next_probe: String,
    /// Probes that have failed since it opened.
    probes: u64,
}

impl CircuitJson {
    pub fn of(host: &str, told: CircuitTold) -> CircuitJson {
        CircuitJson {
            host: host.to_owned(),
            since: rfc3339(told.since_ms),
            why: told.why,
            next_probe: rfc3339(told.next_probe_ms),
            probes: told.probes,
        }
    }
}
