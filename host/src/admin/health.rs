//! Whether a host lives, and whether it is ready.

use std::time::Duration;

use serde::Serialize;

use super::{Admin, Stage};
use crate::handler_task::counters::ServingState;
use crate::handler_task::lane::Lane;
use crate::process::heartbeat;
use crate::text::secret::hide;

/// What `/livez` and `/readyz` answer, and a service manager is told.
#[derive(Debug, Serialize, PartialEq)]
pub struct Health {
    pub ok: bool,
    /// Why not.
    pub reasons: Vec<Reason>,
}

#[derive(Debug, Serialize, PartialEq)]
pub struct Reason {
    /// `host`, `thread lanes-0` or `handler points`.
    pub what: String,
    pub why: String,
}

impl Health {
    fn of(reasons: Vec<Reason>) -> Health {
        Health {
            ok: reasons.is_empty(),
            reasons,
        }
    }

    fn not_yet(why: &str) -> Health {
        let (what, why) = ("host".to_owned(), why.to_owned());
        Health::of(vec![Reason { what, why }])
    }
}

/// Whether the threads of the process run. NATS is no part of it: a host whose server is away must not be restarted for that.
pub fn live() -> Health {
    let reason = |(thread, silent): (String, Duration)| Reason {
        what: format!("thread {thread}"),
        why: format!("it is stuck: it has not run for {} s", silent.as_secs()),
    };
    Health::of(heartbeat::stuck().into_iter().map(reason).collect())
}

/// Whether the host takes events of all its handlers: it is connected, their modules are compiled and their consumers bound.
pub fn ready(admin: &Admin) -> Health {
    if admin.drain.has_begun() {
        return Health::not_yet("it is draining");
    }
    match admin.stage() {
        Stage::Compiling => Health::not_yet("its modules are being compiled"),
        Stage::Connecting => Health::not_yet(
            "it waits for NATS, prepares its streams, or waits for the first version of a module in the registry",
        ),
        Stage::Running(host) => Health::of(host.lanes.iter().filter_map(|lane| unserved(lane)).collect()),
    }
}

/// Why a handler does not serve on this host.
fn unserved(lane: &Lane) -> Option<Reason> {
    let status = lane.status.get();
    let word = status.state.word();
    (status.state != ServingState::Serving).then(|| Reason {
        what: format!("handler {}", lane.plan.name),
        why: match status.why {
            Some(why) => format!("{word}: {}", hide(&why)),
            None => word.to_owned(),
        },
    })
}
