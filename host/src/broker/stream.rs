//! What the mesh reads of a stream.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Deserialize;

use super::connection::Connection;
use super::error::{Code, Error};

/// What the mesh reads of a stream.
#[derive(Debug, Clone, Deserialize)]
pub struct StreamInfo {
    pub config: serde_json::Value,
    pub created: String,
    pub state: StreamState,
}

#[derive(Debug, Clone, Deserialize)]
pub struct StreamState {
    pub messages: u64,
    #[serde(default)]
    pub bytes: u64,
    /// When the oldest message was stored, RFC 3339; the year 1 if there is none.
    #[serde(default)]
    pub first_ts: Option<String>,
    /// The same of the newest.
    #[serde(default)]
    pub last_ts: Option<String>,
    pub first_seq: u64,
    pub last_seq: u64,
    /// Messages between the first and the last that are removed.
    #[serde(default)]
    pub num_deleted: u64,
    #[serde(default)]
    pub consumer_count: u64,
}

impl StreamInfo {
    pub fn retention(&self) -> &str {
        self.config["retention"].as_str().unwrap_or("limits")
    }

    /// How long it knows a message again by its id.
    pub fn duplicate_window(&self) -> Option<Duration> {
        self.config["duplicate_window"].as_u64().map(Duration::from_nanos)
    }

    /// The limits by which the stream removes its oldest messages, each with its value, even if a consumer has not received
    /// them. Empty: it removes none, or refuses new ones.
    pub fn removes_by(&self) -> Vec<String> {
        let limit = |key: &str| self.config[key].as_i64().filter(|limit| *limit > 0);
        let old = self.config["discard"].as_str() != Some("new");
        let full = ["max_msgs", "max_bytes", "max_msgs_per_subject"]
            .into_iter()
            .filter(|_| old);
        let full = full.filter_map(|key| Some(format!("{key} {}", limit(key)?)));
        let age = limit("max_age").and_then(|ns| u64::try_from(ns).ok());
        let age = age.map(|ns| format!("max_age {}", humantime::format_duration(Duration::from_nanos(ns))));
        full.chain(age).collect()
    }

    /// Whether it stores messages under other subjects than those that they were published on.
    pub fn transforms(&self) -> bool {
        let to = self.config["subject_transform"]["dest"].as_str();
        to.is_some_and(|to| !to.is_empty())
    }

    pub fn subjects(&self) -> Vec<String> {
        let list = self.config["subjects"].as_array();
        list.into_iter()
            .flatten()
            .filter_map(|s| s.as_str().map(str::to_owned))
            .collect()
    }
}

impl Connection {
    /// `None`: there is no such stream.
    pub async fn stream(&self, name: &str) -> Result<Option<StreamInfo>, Error> {
        match self.api(&format!("STREAM.INFO.{name}"), &serde_json::json!({})).await {
            Ok(info) => Ok(Some(info)),
            Err(Error::Api {
                code: Code::STREAM_NOT_FOUND,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The subjects of stored messages that match a filter, in alphabetical order. The server lists a hundred thousand at a
    /// time; one that appears or disappears between two answers may be left out or listed twice.
    pub async fn subjects(&self, stream: &str, filter: &str) -> Result<Vec<String>, Error> {
        let mut subjects = Vec::new();
        loop {
            let body = serde_json::json!({ "subjects_filter": filter, "offset": subjects.len() });
            let page: Page = self.api(&format!("STREAM.INFO.{stream}"), &body).await?;
            let more = page.state.subjects.len();
            subjects.extend(page.state.subjects.into_keys());
            if more == 0 || subjects.len() >= page.total {
                break;
            }
        }
        subjects.sort();
        Ok(subjects)
    }

    /// The names of all streams. The server tells of some thousand at a time.
    pub async fn stream_names(&self) -> Result<HashSet<String>, Error> {
        let (mut all, mut offset) = (HashSet::new(), 0);
        loop {
            let page: Names = self
                .api("STREAM.NAMES", &serde_json::json!({ "offset": offset }))
                .await?;
            let names = page.streams.unwrap_or_default();
            offset += names.len();
            let more = !names.is_empty() && offset < page.total;
            all.extend(names);
            if !more {
                return Ok(all);
            }
        }
    }

    /// The stream that captures a subject.
    pub async fn stream_of(&self, subject: &str) -> Result<Option<String>, Error> {
        Ok(self.streams_of(subject).await?.into_iter().next())
    }

    /// The streams that capture some subject of a pattern.
    pub async fn streams_of(&self, pattern: &str) -> Result<Vec<String>, Error> {
        let names: Names = self
            .api("STREAM.NAMES", &serde_json::json!({ "subject": pattern }))
            .await?;
        Ok(names.streams.unwrap_or_default())
    }
}

#[derive(Deserialize)]
struct Page {
    state: SubjectsPage,
    /// How many subjects match; absent if none does.
    #[serde(default)]
    total: usize,
}

#[derive(Deserialize)]
struct SubjectsPage {
    #[serde(default)]
    subjects: HashMap<String, u64>,
}

#[derive(Deserialize)]
struct Names {
    streams: Option<Vec<String>>,
    #[serde(default)]
    total: usize,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stream_tells_by_which_limits_it_removes_what_is_old() {
        let of = |config: serde_json::Value| {
            let state = json!({ "messages": 0, "first_seq": 0, "last_seq": 0 });
            let info = json!({ "config": config, "created": "", "state": state });
            let info: StreamInfo = serde_json::from_value(info).unwrap();
            info.removes_by().join(", ")
        };
        let none =
            json!({ "max_msgs": -1, "max_bytes": -1, "max_msgs_per_subject": -1, "max_age": 0, "discard": "old" });
        assert_eq!(of(none), "");
        let all = json!({ "max_msgs": 4, "max_bytes": 9, "max_msgs_per_subject": 1, "max_age": 60_000_000_000_u64 });
        assert_eq!(
            of(all.clone()),
            "max_msgs 4, max_bytes 9, max_msgs_per_subject 1, max_age 1m"
        );
        let mut new = all;
        new["discard"] = json!("new");
        assert_eq!(of(new), "max_age 1m", "what is full refuses");
    }
}
