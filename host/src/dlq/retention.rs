//! Limits by which the server would remove dead letters. The mesh creates their stream without limits; the user is warned of
//! those that were set later.

use std::time::Duration;

use serde_json::json;

use crate::broker::StreamInfo;
use crate::broker::provision::DEAD;
use crate::event::clock::now_ms;
use crate::event::parse_rfc3339;

/// Each limit of the stream, how much of it is used, and the command that lifts it; not the limit that the configuration
/// asks for.
pub fn warnings(info: &StreamInfo, bytes_max: Option<u64>) -> Vec<String> {
    let number = |key: &str| info.config[key].as_i64().unwrap_or(0);
    let is = |key: &str| info.config[key] == json!(true);
    let edit = |flags: &str| format!("lift it with `nats stream edit {DEAD} {flags}`");
    let share = |used: u64, limit: i64| used.saturating_mul(100) / u64::try_from(limit).unwrap_or(1).max(1);
    // A full stream either drops its oldest letters or takes no new ones; then what dies waits for room.
    let full = match info.config["discard"].as_str() {
        Some("new") => "a letter beyond it cannot be stored, and its event waits for room",
        _ => "a letter beyond it removes the oldest",
    };
    let mut warnings = Vec::new();
    if let Some(age) = u64::try_from(number("max_age")).ok().filter(|ns| *ns > 0) {
        let age = Duration::from_nanos(age);
        let oldest = info.state.first_ts.as_deref().and_then(parse_rfc3339);
        let oldest = oldest.filter(|ms| info.state.messages > 0 && *ms > 0).map(|ms| {
            let passed = Duration::from_millis(now_ms().saturating_sub(ms));
            format!(", and the oldest is {} old", rough(passed))
        });
        warnings.push(format!(
            "stream {DEAD} has max_age {}: dead letters expire{}; {}",
            humantime::format_duration(age),
            oldest.unwrap_or_default(),
            edit("--max-age=0")
        ));
    }
    let sizes = [
        ("max_msgs", "messages", info.state.messages, "--max-msgs=-1"),
        ("max_bytes", "bytes", info.state.bytes, "--max-bytes=-1"),
    ];
    for (key, unit, used, flags) in sizes {
        let limit = number(key);
        let asked = key == "max_bytes" && bytes_max.is_some_and(|most| Ok(most) == u64::try_from(limit));
        if limit > 0 && !(asked && info.config["discard"] == json!("new")) {
            warnings.push(format!(
                "stream {DEAD} has {key} {limit}: {full}; {used} {unit} are there, {} % of it; {}",
                share(used, limit),
                edit(flags)
            ));
        }
    }
    if number("max_msg_size") > 0 {
        warnings.push(format!(
            "stream {DEAD} has max_msg_size {}: a larger letter cannot be stored, and its event waits; {}",
            number("max_msg_size"),
            edit("--max-msg-size=-1")
        ));
    }
    if info.config["discard"] == json!("new") && is("discard_new_per_subject") {
        warnings.push(format!(
            "stream {DEAD} has discard_new_per_subject: a letter that is replayed or discarded cannot be settled; {}",
            edit("--no-discard-per-subject --discard=old")
        ));
    }
    if info.retention() != "limits" {
        warnings.push(format!(
            "stream {DEAD} has retention {}: a consumer of another program removes dead letters; export them with \
             `jetmesh dlq export --all`, delete the stream, and start a host, which creates it again",
            info.retention()
        ));
    }
    warnings
}

/// A time to the hour, or to the second if it is short.
fn rough(time: Duration) -> humantime::FormattedDuration {
    let unit = if time.as_secs() >= 24 * 3600 { 3600 } else { 1 };
    humantime::format_duration(Duration::from_secs(time.as_secs() / unit * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(config: serde_json::Value) -> StreamInfo {
        let state =
            json!({ "messages": 7, "bytes": 512, "first_seq": 1, "last_seq": 7, "first_ts": "0001-01-01T00:00:00Z" });
        serde_json::from_value(json!({ "config": config, "created": "", "state": state })).unwrap()
    }

    #[test]
    fn a_stream_as_the_mesh_makes_it_has_nothing_to_warn_of() {
        let made = json!({ "retention": "limits", "max_age": 0, "max_msgs": -1, "max_bytes": -1, "max_msg_size": -1,
            "max_msgs_per_subject": 1, "discard": "old" });
        assert_eq!(warnings(&info(made), None), Vec::<String>::new());
        let limited = json!({ "max_bytes": 1024, "discard": "new" });
        assert_eq!(warnings(&info(limited.clone()), Some(1024)), Vec::<String>::new());
        assert_eq!(
            warnings(&info(limited), Some(2048)).len(),
            1,
            "it was made with another one"
        );
    }

    #[test]
    fn each_limit_is_told_with_its_use_and_the_command_that_lifts_it() {
        let old = json!({ "max_age": 86_400_000_000_000u64, "max_msgs": 14, "max_bytes": 1024, "max_msg_size": 100 });
        let new = json!({ "max_msgs": 7, "discard": "new", "discard_new_per_subject": true, "retention": "workqueue" });
        let told = [warnings(&info(old), None), warnings(&info(new), None)]
            .concat()
            .join("\n");
        insta::assert_snapshot!(told, @r"
        stream MESH_DEAD has max_age 1day: dead letters expire; lift it with `nats stream edit MESH_DEAD --max-age=0`
        stream MESH_DEAD has max_msgs 14: a letter beyond it removes the oldest; 7 messages are there, 50 % of it; lift it with `nats stream edit MESH_DEAD --max-msgs=-1`
        stream MESH_DEAD has max_bytes 1024: a letter beyond it removes the oldest; 512 bytes are there, 50 % of it; lift it with `nats stream edit MESH_DEAD --max-bytes=-1`
        stream MESH_DEAD has max_msg_size 100: a larger letter cannot be stored, and its event waits; lift it with `nats stream edit MESH_DEAD --max-msg-size=-1`
        stream MESH_DEAD has max_msgs 7: a letter beyond it cannot be stored, and its event waits for room; 7 messages are there, 100 % of it; lift it with `nats stream edit MESH_DEAD --max-msgs=-1`
        stream MESH_DEAD has discard_new_per_subject: a letter that is replayed or discarded cannot be settled; lift it with `nats stream edit MESH_DEAD --no-discard-per-subject --discard=old`
        stream MESH_DEAD has retention workqueue: a consumer of another program removes dead letters; export them with `jetmesh dlq export --all`, delete the stream, and start a host, which creates it again
        ");
    }
}
