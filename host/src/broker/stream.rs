//! What the mesh reads of a stream.

use std::collections::HashMap;
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
    pub first_seq: u64,
    pub last_seq: u64,
}

impl StreamInfo {
    pub fn retention(&self) -> &str {
        self.config["retention"].as_str().unwrap_or("limits")
    }

    /// How long it knows a message again by its id.
    pub fn duplicate_window(&self) -> Option<Duration> {
        self.config["duplicate_window"].as_u64().map(Duration::from_nanos)
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

    /// The subjects of stored messages that match a filter, in alphabetical order. The server tells of a hundred thousand
    /// at a time; one that is new or gone between two answers may be left out or told twice.
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
    state: Subjects,
    /// How many subjects match; absent if none does.
    #[serde(default)]
    total: usize,
}

#[derive(Deserialize)]
struct Subjects {
    #[serde(default)]
    subjects: HashMap<String, u64>,
}

#[derive(Deserialize)]
struct Names {
    streams: Option<Vec<String>>,
}
