//! The state of one ledger, and which of its consequences wait to be published.

use serde_json::Value;

use super::json::{LedgerState, LedgerStatus, RelayStanding, RelayStatus};
use crate::broker::error::Code;
use crate::broker::kv::kv_stream;
use crate::broker::{self, By, Connection};
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::ledger::core::entry::Subjects;
use crate::ledger::relay;
use crate::ledger::store::read::head;
use crate::plan::Plan;

/// A consequence that has waited for this time is late.
pub const LATE_MS: u64 = 15_000;

/// One ledger. `hosts`: what they answer; `None`: not known.
pub async fn stand(connection: &Connection, plan: &Plan, name: &str, hosts: Option<&[Value]>) -> LedgerStatus {
    let trouble = hosts
        .into_iter()
        .flatten()
        .flat_map(|host| host["data"]["ledgers"].as_array().into_iter().flatten())
        .find(|ledger| ledger["ledger"] == name && !ledger["error"].is_null());
    let of = |trouble: &Value, key: &str| trouble["error"][key].as_str().map(str::to_owned);
    let (state, since, why) = match trouble {
        Some(trouble) => (LedgerState::Stopped, of(trouble, "since"), of(trouble, "why")),
        None => {
            let (state, why) = at_nats(connection, name).await;
            (state, None, why)
        }
    };
    LedgerStatus {
        ledger: name.to_owned(),
        state,
        since,
        why,
        relay: relay(connection, plan, name, hosts).await,
    }
}

/// Whether a ledger can be used, by what is stored of it, and why not.
async fn at_nats(connection: &Connection, name: &str) -> (LedgerState, Option<String>) {
    let stream = kv_stream(name);
    let found = match connection.stream(&stream).await {
        Ok(Some(_)) => head(connection, &stream, &Subjects::new(name)).await.map(|_| true),
        Ok(None) => Ok(false),
        Err(error) => Err(error),
    };
    match found {
        Ok(true) => (LedgerState::Works, None),
        Ok(false) => {
            let why = format!(
                "its bucket {name} (stream {stream}) is not there: a host that starts makes it, unless a handler has decided \
                 something there; then restore it from a backup"
            );
            (LedgerState::Stopped, Some(why))
        }
        Err(error @ broker::Error::Unreadable { .. }) => (LedgerState::Stopped, Some(error.to_string())),
        Err(error) => (LedgerState::Unknown, Some(error.to_string())),
    }
}

async fn relay(connection: &Connection, plan: &Plan, name: &str, hosts: Option<&[Value]>) -> RelayStatus {
    let relays: Vec<&Value> = hosts
        .into_iter()
        .flatten()
        .flat_map(|host| host["relays"].as_array().into_iter().flatten())
        .filter(|relay| relay["ledger"] == name)
        .collect();
    let blocked = relays
        .iter()
        .flat_map(|relay| relay["blocked"].as_array().into_iter().flatten());
    let left_out = relays.iter().map(|relay| &relay["left_out"]).find(|one| !one.is_null());
    let mut status = RelayStatus {
        state: RelayStanding::Works,
        why: None,
        waiting: None,
        oldest: None,
        lag_ms: None,
        blocked: blocked.cloned().collect(),
        left_out: left_out.cloned(),
    };
    match waits(connection, name).await {
        Ok(Waits::Lying(sequence)) => {
            status.state = RelayStanding::Late;
            status.why = Some(format!(
                "the server does not deliver message {sequence} of stream {} and later ones: a host creates the \
                 consumer {} again within two minutes",
                kv_stream(name),
                relay::CONSUMER
            ));
            return status;
        }
        Ok(Waits::Known(waiting, oldest)) => {
            status.waiting = Some(waiting);
            let lag = oldest.map(|at| now_ms().saturating_sub(at));
            status.lag_ms = if waiting == 0 { Some(0) } else { lag };
            status.oldest = oldest.map(rfc3339);
        }
        Err(error) => {
            status.state = RelayStanding::Unknown;
            status.why = Some(unknown(name, &error));
            return status;
        }
    }
    if let Some((state, why)) = trouble(plan.relay, &relays, hosts.map(<[Value]>::len), &status) {
        status.state = state;
        status.why = Some(why);
    }
    status
}

/// What keeps a relay from its work. `hosts`: how many answer; `None`: not known.
fn trouble(
    relays_here: bool,
    relays: &[&Value],
    hosts: Option<usize>,
    status: &RelayStatus,
) -> Option<(RelayStanding, String)> {
    let late = status.lag_ms.is_some_and(|lag| lag > LATE_MS);
    let waits = status.waiting.is_some_and(|waiting| waiting > 0);
    let error = relays.iter().find_map(|relay| relay["error"]["why"].as_str());
    Some(if hosts.is_none() {
        let why = "it is not known which hosts there are".to_owned();
        (RelayStanding::Unknown, why)
    } else if relays.is_empty() && (waits || hosts > Some(0)) {
        let why = match relays_here {
            true => "no host that answers relays it",
            false => "no host relays it: `relay = false` here, and no host that answers has a relay",
        };
        (RelayStanding::Unserved, why.to_owned())
    } else if let Some(one) = status.blocked.iter().find(|one| one["waiting"].as_u64() != Some(0)) {
        let of = |key: &str| one[key].as_str().unwrap_or("?").to_owned();
        let why = format!("{} takes nothing: {}", of("target"), of("why"));
        (RelayStanding::Blocked, why)
    } else if let (true, Some(error)) = (
        late || relays.iter().all(|r| !r["error"].is_null()) && !relays.is_empty(),
        error,
    ) {
        (RelayStanding::Stopped, error.to_owned())
    } else if late {
        (RelayStanding::Late, "the relay has not come to them yet".to_owned())
    } else {
        return None;
    })
}

/// Why it is not known what waits. Whether a host makes a missing stream, the ledger's own line says.
fn unknown(name: &str, error: &broker::Error) -> String {
    match error.code() {
        Some(Code::STREAM_NOT_FOUND) => format!("there is no stream {}", kv_stream(name)),
        _ => error.to_string(),
    }
}

enum Waits {
    /// Messages of consequences that are not confirmed, and when the oldest of them was stored, in milliseconds since the Unix epoch.
    Known(u64, Option<u64>),
    /// The server says that there are none, and this one is stored.
    Lying(u64),
}

async fn waits(connection: &Connection, name: &str) -> Result<Waits, broker::Error> {
    let (stream, outs) = (kv_stream(name), Subjects::new(name).outs());
    let newest = connection.stored(&stream, By::Last(&outs)).await?;
    let consumer = connection.consumer(&stream, relay::CONSUMER).await?;
    let (floor, waiting) = match consumer {
        Some(consumer) => (
            consumer.ack_floor.stream_seq,
            consumer.num_pending + consumer.num_ack_pending,
        ),
        // No relay has ever run: all of them wait.
        None => (0, connection.subjects(&stream, &outs).await?.len() as u64),
    };
    match newest {
        Some(newest) if waiting == 0 && newest.sequence > floor => return Ok(Waits::Lying(newest.sequence)),
        Some(_) if waiting > 0 => {}
        Some(_) | None => return Ok(Waits::Known(waiting, None)),
    }
    // It may have been published by now.
    let oldest = connection.stored_next(&stream, floor + 1, &outs).await?;
    Ok(Waits::Known(waiting, oldest.map(|oldest| oldest.time_ms)))
}
