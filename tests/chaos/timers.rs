//! Timers of handlers, in the rounds whose point is in the code that fires them: orders set and cancel them. The auditor knows by the
//! ledger's order which of them fire.

use std::collections::BTreeMap;
use std::ops::Range;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::found::Emitted;
use crate::mesh::Mesh;
use crate::orders::{HANDLERS, Order, SHARED, Step};

/// The handler that the decisions of firings name, and the key that counts them in their bucket.
pub const FIRINGS: &str = "mesh-timers";
/// How the keys of timers begin.
const KEYS: &str = "mesh-timer.";
const SUBJECT: &str = "events.timer";
/// After how long a timer is due.
const AFTER_MS: Range<u64> = 20..1000;
/// Handlers with the same bucket share so many names, so that they call off each other's timers.
const NAMES: u32 = 5;

/// Has most orders set or cancel a timer, before all else that they do.
pub fn spoil(orders: &mut [Order], seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    for order in orders {
        let number = order.number;
        for ((handler, _), steps) in HANDLERS.iter().zip(&mut order.steps) {
            let shared = format!("shared.{}", rng.random_range(0..NAMES));
            let after_ms = rng.random_range(AFTER_MS);
            let set = |name: String| Step::TimerSet {
                name,
                subject: SUBJECT.to_owned(),
                payload: json!(format!("{handler} {number}")),
                after_ms,
            };
            match rng.random_range(0..10) {
                0..4 => steps.insert(0, set(shared)),
                4..6 => steps.insert(0, Step::TimerCancel { name: shared }),
                6..8 => steps.insert(0, set(format!("own.{number}"))),
                _ => {}
            }
        }
    }
}

/// Whether each timer has come to its time, and was answered.
pub async fn are_over(mesh: &Mesh) -> bool {
    // When it is due, the server puts it under another subject; who has taken it in removes it.
    for lying in ["$MESH.delay.>", "$MESH.due.>"] {
        let filter = json!({ "subjects_filter": lying });
        let info: Result<Value, _> = mesh.js.request("STREAM.INFO.MESH_DELAYED", &filter).await;
        let info = info.unwrap_or_default();
        if info["state"]["messages"].is_null() || !info["state"]["subjects"].is_null() {
            return false;
        }
    }
    true
}

/// What an auditor can know of the value of a key: of a timer which handler has set it for which event, of the count the number.
pub fn plain(key: &str, value: &str) -> Option<String> {
    let is_timer = key.starts_with(KEYS);
    if !is_timer && key != FIRINGS {
        return None;
    }
    let value: Value = serde_json::from_str(value).expect("what the mesh writes is JSON");
    Some(match is_timer {
        // `<handler>.<event>.<number of the effect>`.
        true => {
            let id = value["id"].as_str().unwrap_or_default();
            id.rsplit_once('.').map_or(id, |(cause, _)| cause).to_owned()
        }
        false => value["n"].to_string(),
    })
}

/// The timers of all buckets, as far as the ledgers are replayed.
#[derive(Default)]
pub struct Timers {
    /// By bucket and key: what is emitted.
    set: BTreeMap<(String, String), Emitted>,
    /// By bucket.
    fired: BTreeMap<String, u64>,
}

/// What a handler does to a timer; `None`: it cancels it.
pub type TimerSet = Option<(String, Value)>;

impl Timers {
    /// A handler's run is committed. What it writes, for the ledger's replay.
    pub fn commit(&mut self, bucket: &str, cause: (&str, &str), name: &str, set: TimerSet) -> (String, Option<String>) {
        let (handler, event) = cause;
        let key = match bucket {
            SHARED => format!("{KEYS}{name}"),
            _ => format!("{KEYS}{handler}.{name}"),
        };
        let at = (bucket.to_owned(), key.clone());
        let Some((subject, payload)) = set else {
            self.set.remove(&at);
            return (key, None);
        };
        let emit = Emitted {
            handler: handler.to_owned(),
            event: event.to_owned(),
            subject,
            payload: payload.to_string(),
        };
        self.set.insert(at, emit);
        (key, Some(format!("{handler}.{event}")))
    }

    /// A firing is committed, which has written these keys. What it emits and writes.
    pub fn fire(
        &mut self,
        bucket: &str,
        event: &str,
        keys: &[&str],
    ) -> Result<(Emitted, BTreeMap<String, Option<String>>), String> {
        let fired = self.fired.entry(bucket.to_owned()).or_default();
        *fired += 1;
        let number = event.rsplit_once('.').map(|(_, number)| number.to_owned());
        if number != Some(fired.to_string()) {
            return Err(format!("is the firing {fired} of its bucket"));
        }
        let key = keys.iter().find(|key| key.starts_with(KEYS)).copied();
        let key = key.ok_or("has written no timer's key")?.to_owned();
        let Some(emit) = self.set.remove(&(bucket.to_owned(), key.clone())) else {
            return Err(format!("fires {key}, which is not set then"));
        };
        let count = (FIRINGS.to_owned(), number);
        Ok((emit, BTreeMap::from([(key, None), count])))
    }

    /// What is wrong when all timers have come to their time: some have not fired.
    pub fn lost(&self) -> impl Iterator<Item = String> {
        let lost = self.set.iter();
        lost.map(|((bucket, key), emit)| format!("{bucket}: {key} has not fired: {emit:?}"))
    }
}
