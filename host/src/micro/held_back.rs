//! What a host reports of that which holds events of a handler back.

use schemars::JsonSchema;
use serde::Serialize;

use crate::event::rfc3339;
use crate::handler_task::circuit::CircuitTold;
use crate::handler_task::hindered;

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

/// What keeps some events of a handler from going on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct HindranceJson {
    why: String,
    #[schemars(extend("format" = "date-time"))]
    since: String,
    /// Events that wait for it; 0: events that were lost are not looked for; null: all that come, as a circuit is open.
    events: Option<usize>,
}

impl From<hindered::Hindrance> for HindranceJson {
    fn from(hindrance: hindered::Hindrance) -> HindranceJson {
        HindranceJson {
            why: hindrance.why,
            since: rfc3339(hindrance.since_ms),
            events: Some(hindrance.events),
        }
    }
}
