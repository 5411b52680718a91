//! How many consumers a stream takes and how much it holds, and how near the mesh comes to that.

use super::connection::Connection;
use super::error::Error;
use super::provision::{ADVISORIES, wanted};
use super::stream::StreamInfo;
use crate::plan::Plan;

/// What nats-server 2.15.1 and newer take for a stream that names no number of its own
/// (`default_max_consumers` in <https://github.com/nats-io/nats-server/blob/main/server/consumer.go>).
const USUAL: u64 = 1_000;
/// What the mesh asks for where it makes the stream.
pub const PROVISIONED: u64 = 100_000;
/// From this share of a limit on, a person is warned: in percent.
const NEAR: u64 = 80;

/// The most consumers that a stream takes. `None`: the server sets no limit.
pub fn most(connection: &Connection, stream: &StreamInfo) -> Option<u64> {
    match stream.config["max_consumers"].as_i64() {
        Some(own) if own > 0 => u64::try_from(own).ok(),
        _ if connection.client.is_server_compatible(2, 15, 1) => Some(USUAL),
        _ => None,
    }
}

/// The streams whose handlers use most of the consumers that the stream takes, one sentence each.
pub async fn consumers(connection: &Connection, plan: &Plan) -> Result<Vec<String>, Error> {
    let mut streams: Vec<&str> = plan.handlers.iter().map(|h| h.stream.as_str()).collect();
    streams.sort_unstable();
    streams.dedup();
    let mut near = Vec::new();
    for name in streams {
        let Some(stream) = connection.stream(name).await? else {
            continue;
        };
        let handlers = plan.handlers.iter().filter(|h| h.stream == name).count();
        let used = stream
            .state
            .consumer_count
            .max(u64::try_from(handlers).unwrap_or(u64::MAX));
        near.extend(most(connection, &stream).and_then(|most| told(name, used, most)));
    }
    Ok(near)
}

/// The mesh's own streams and its ledgers that have a limit and are nearly full, one sentence each.
pub async fn room(connection: &Connection, plan: &Plan) -> Result<Vec<String>, Error> {
    let mut near = Vec::new();
    for (name, _) in wanted(plan) {
        // Advisories that find no room take the place of older ones.
        if name == ADVISORIES || plan.streams.iter().any(|stream| stream.name == name) {
            continue;
        }
        let Some(stream) = connection.stream(&name).await? else {
            continue;
        };
        let most = stream.config["max_bytes"].as_u64().filter(|most| *most > 0);
        near.extend(most.and_then(|most| filled(&name, stream.state.bytes, most)));
    }
    Ok(near)
}

fn filled(stream: &str, used: u64, most: u64) -> Option<String> {
    (used.saturating_mul(100) >= most.saturating_mul(NEAR)).then(|| {
        format!(
            "stream {stream} may hold {most} bytes and holds {used}: full, it takes nothing, and what needs it waits; raise it \
             with `nats stream edit {stream} --max-bytes=...`"
        )
    })
}

fn told(stream: &str, used: u64, most: u64) -> Option<String> {
    (used.saturating_mul(100) >= most.saturating_mul(NEAR)).then(|| {
        format!(
            "stream {stream} takes {most} consumers and needs {used}: each handler has one. A stream says its number when it \
             is made (`nats stream add {stream} --max-consumers {PROVISIONED}`), and it cannot be changed afterwards; spread \
             the handlers over several streams, or make the stream again"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_warned_from_eighty_percent_of_a_limit_on() {
        for (used, most, warned) in [
            (0, 1000, false),
            (799, 1000, false),
            (800, 1000, true),
            (2000, 1000, true),
        ] {
            assert_eq!(told("ORDERS", used, most).is_some(), warned, "{used} of {most}");
        }
    }
}
