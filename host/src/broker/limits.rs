//! How near a mesh comes to the limits that the server reports: consumers and bytes of a stream, streams and bytes of the
//! account. A server reports its limit of connections to its operator only; a host that is refused a connection says so
//! (`Error::Crowded`).

use super::provision::PROVISIONED;
use serde_json::{Value, json};

use super::connection::Connection;
use super::error::Error;
use super::provision::{ADVISORIES, AUDIT, wanted};
use super::stream::StreamInfo;
use crate::plan::Plan;

/// What nats-server 2.15.1 and newer take for a stream that names no number of its own
/// (`default_max_consumers` in <https://github.com/nats-io/nats-server/blob/main/server/consumer.go>).
const USUAL: u64 = 1_000;

/// From this share of a limit on, a person is warned: in percent.
const NEAR: u64 = 80;

/// Each limit of which most is used, or will be when everything of the plan is made; one sentence each, with the figure
/// and what to change.
pub async fn near(connection: &Connection, plan: &Plan) -> Result<Vec<String>, Error> {
    let account: Value = connection.api("INFO", &json!({})).await?;
    let mut near = room(connection, plan).await?;
    near.extend(consumers(connection, plan, &account).await?);
    let there = connection.stream_names().await?;
    let missing = wanted(plan).iter().filter(|(name, _)| !there.contains(name)).count();
    match account["tiers"].as_object().filter(|tiers| !tiers.is_empty()) {
        // By replicas, each with limits of its own.
        Some(tiers) => {
            for (tier, info) in tiers {
                let missing = if *tier == format!("R{}", plan.replicas) {
                    missing
                } else {
                    0
                };
                near.extend(of_account(info, missing, &format!(" with {tier}")));
            }
        }
        None => near.extend(of_account(&account, missing, "")),
    }
    Ok(near)
}

/// `missing`: streams that are to be made; `which`: what the limits are for.
fn of_account(info: &Value, missing: usize, which: &str) -> Vec<String> {
    let number = |key: &str| info[key].as_u64().unwrap_or(0);
    let rows = [
        (
            "max_streams",
            "max_streams",
            "streams",
            number("streams") + missing as u64,
        ),
        (
            "max_storage",
            "max_file",
            "bytes in files",
            number("storage").max(number("reserved_storage")),
        ),
        (
            "max_memory",
            "max_mem",
            "bytes in memory",
            number("memory").max(number("reserved_memory")),
        ),
    ];
    let told = |(limit, setting, unit, used): (&str, &str, &str, u64)| {
        let most = info["limits"][limit].as_u64().filter(|most| *most > 0)?;
        // What is beyond it, a start refuses.
        (is_near(used, most) && used <= most).then(|| {
            format!(
                "the account may have {most} {unit}{which} and needs {used}: raise {setting} in the account's `jetstream` \
                 limits before it is reached"
            )
        })
    };
    rows.into_iter().filter_map(told).collect()
}

/// The most consumers that a stream takes: its own number, or its account's if that is lower. `None`: there is no limit.
fn most(connection: &Connection, stream: &StreamInfo, account: &Value) -> Option<u64> {
    let positive = |value: &Value| value.as_u64().filter(|limit| *limit > 0);
    let tier = format!("R{}", stream.config["num_replicas"].as_u64().unwrap_or(1));
    let of_account = positive(&account["limits"]["max_consumers"])
        .or_else(|| positive(&account["tiers"][tier.as_str()]["limits"]["max_consumers"]));
    let own = positive(&stream.config["max_consumers"]);
    let usual = || connection.client.is_server_compatible(2, 15, 1).then_some(USUAL);
    match (own, of_account) {
        (Some(own), Some(account)) => Some(own.min(account)),
        (own, account) => own.or(account).or_else(usual),
    }
}

/// The streams whose handlers use most of the consumers that the stream takes.
async fn consumers(connection: &Connection, plan: &Plan, account: &Value) -> Result<Vec<String>, Error> {
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
        near.extend(most(connection, &stream, account).and_then(|most| told(name, used, most)));
    }
    Ok(near)
}

/// The mesh's own streams and its ledgers that have a limit and are nearly full, one sentence each.
async fn room(connection: &Connection, plan: &Plan) -> Result<Vec<String>, Error> {
    let mut near = Vec::new();
    for (name, _) in wanted(plan) {
        // What finds no room there takes the place of what is older.
        if [ADVISORIES, AUDIT].contains(&name.as_str()) || plan.streams.iter().any(|stream| stream.name == name) {
            continue;
        }
        let Some(stream) = connection.stream(&name).await? else {
            continue;
        };
        let most = |limit: &str| stream.config[limit].as_u64().filter(|most| *most > 0);
        near.extend(
            most("max_bytes").and_then(|most| filled(&name, (stream.state.bytes, most), ("bytes", "max-bytes"))),
        );
        near.extend(
            most("max_msgs").and_then(|most| filled(&name, (stream.state.messages, most), ("messages", "max-msgs"))),
        );
    }
    Ok(near)
}

fn filled(stream: &str, (used, most): (u64, u64), (unit, flag): (&str, &str)) -> Option<String> {
    is_near(used, most).then(|| {
        format!(
            "stream {stream} may hold {most} {unit} and holds {used}: full, it takes nothing, and what needs it waits; raise it \
             with `nats stream edit {stream} --{flag}=...`"
        )
    })
}

fn told(stream: &str, used: u64, most: u64) -> Option<String> {
    is_near(used, most).then(|| {
        format!(
            "stream {stream} allows {most} consumers and needs {used}: each handler has one. The number of a stream \
             is set when it is created (`nats stream add {stream} --max-consumers {PROVISIONED}`), and cannot be \
             changed later; an account can have a lower limit (max_consumers). Raise the account's, spread the \
             handlers over several streams, or create the stream again"
        )
    })
}

fn is_near(used: u64, most: u64) -> bool {
    used.saturating_mul(100) >= most.saturating_mul(NEAR)
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

    #[test]
    fn what_is_to_be_made_counts_and_what_has_no_limit_is_not_told() {
        let info = json!({
            "streams": 5, "storage": 10, "reserved_storage": 90, "memory": 1,
            "limits": { "max_streams": 10, "max_storage": 100, "max_memory": -1 },
        });
        let near = |missing| of_account(&info, missing, " with R1");
        assert_eq!(near(2).len(), 1);
        let all = near(3);
        assert!(all[0].contains("10 streams with R1 and needs 8"), "{all:?}");
        assert!(all[1].contains("100 bytes in files with R1 and needs 90"), "{all:?}");
        assert_eq!(all.len(), 2, "{all:?}");
    }
}
