//! The handlers that a person has paused: by whom, why and until when. All of them are one key of the mesh's own bucket, so a
//! host learns them with one read, and a command changes them with one write.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::broker::error::Code;
use crate::broker::kv::{is_tombstone, key_subject, kv_stream};
use crate::broker::provision::MESH_BUCKET;
use crate::broker::{By, Connection, Error};
use crate::event::parse_rfc3339;
use crate::text::display::clean;

/// The key.
pub const KEY: &str = "paused";
const FORMAT: u64 = 1;
/// How often a change is tried beside other commands.
const TRIES_MAX: u32 = 20;
/// The `pause_until` of a consumer whose handler is paused until it is resumed.
const FOR_EVER: &str = "9999-12-31T23:59:59Z";

/// A handler that a person has paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "pause", description = "A pause of a handler.")]
pub struct HandlerPause {
    /// Who has paused it.
    pub by: String,
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
    /// When it ends by itself; null: it lasts until the handler is resumed.
    #[schemars(extend("format" = "date-time"))]
    pub until: Option<String>,
    pub reason: Option<String>,
}

/// By handler.
pub type Pauses = BTreeMap<String, HandlerPause>;

#[derive(Serialize, Deserialize)]
struct StoredPauses {
    format: u64,
    handlers: Pauses,
}

impl HandlerPause {
    /// When it ends by itself, in milliseconds since the Unix epoch.
    pub fn until_ms(&self) -> Option<u64> {
        self.until.as_deref().and_then(parse_rfc3339)
    }

    pub fn has_ended(&self, now_ms: u64) -> bool {
        self.until_ms().is_some_and(|until| until <= now_ms)
    }

    /// Up to when the server is told to deliver nothing.
    pub fn deadline(&self) -> &str {
        self.until.as_deref().unwrap_or(FOR_EVER)
    }

    /// By whom, until when and why, on one line.
    pub fn told(&self) -> String {
        let until = self.until.as_ref().map(|until| format!(" until {until}"));
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}"));
        clean(&format!(
            "by {}{}{}",
            self.by,
            until.unwrap_or_default(),
            reason.unwrap_or_default()
        ))
    }
}

/// The pauses that have not ended.
pub async fn load(connection: &Connection, now_ms: u64) -> Result<Pauses, Error> {
    let (mut pauses, _) = stored(connection).await?;
    pauses.retain(|_, pause| !pause.has_ended(now_ms));
    Ok(pauses)
}

/// All of them, and the revision of the key; 0: it is not there.
async fn stored(connection: &Connection) -> Result<(Pauses, u64), Error> {
    let subject = key_subject(MESH_BUCKET, KEY);
    let stored = connection.stored(&kv_stream(MESH_BUCKET), By::Last(&subject)).await;
    let stored = match stored {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => None,
        stored => stored?,
    };
    let Some(stored) = stored else {
        return Ok((Pauses::new(), 0));
    };
    if is_tombstone(&stored.raw_headers) {
        return Ok((Pauses::new(), stored.sequence));
    }
    Ok((read(&stored.payload)?, stored.sequence))
}

fn read(value: &[u8]) -> Result<Pauses, Error> {
    let unreadable = |why: String| Error::Unreadable {
        what: format!("key {KEY} of bucket {MESH_BUCKET}"),
        why,
        remedy: format!(
            "remove it with `nats kv del {MESH_BUCKET} {KEY}`: then no handler is paused, and `jetmesh resume` resumes their \
             consumers"
        ),
    };
    let read: StoredPauses = serde_json::from_slice(value).map_err(|error| unreadable(error.to_string()))?;
    if read.format != FORMAT {
        return Err(unreadable(format!(
            "it has format {}, and this jetmesh reads {FORMAT}",
            read.format
        )));
    }
    let times = read
        .handlers
        .values()
        .flat_map(|pause| [Some(&pause.since), pause.until.as_ref()]);
    if let Some(time) = times.flatten().find(|time| parse_rfc3339(time).is_none()) {
        return Err(unreadable(format!("`{time}` is no time")));
    }
    Ok(read.handlers)
}

/// Changes the pauses, once. `change` is asked again if another command was faster; `false`: there is nothing to change.
/// Pauses that have ended are not kept.
pub async fn change(
    connection: &Connection,
    now_ms: u64,
    mut change: impl FnMut(&mut Pauses) -> bool,
) -> Result<(), Error> {
    let subject = key_subject(MESH_BUCKET, KEY);
    for _ in 0..TRIES_MAX {
        let (mut handlers, revision) = stored(connection).await?;
        handlers.retain(|_, pause| !pause.has_ended(now_ms));
        if !change(&mut handlers) {
            return Ok(());
        }
        let stored = StoredPauses {
            format: FORMAT,
            handlers,
        };
        let body = serde_json::to_vec(&stored).expect("pauses serialise");
        let written = connection.publish_upon(&subject, revision, HeaderMap::new(), body.into());
        let written = written
            .await
            .map_err(|error| error.in_stream(&kv_stream(MESH_BUCKET)))?;
        if written.is_some() {
            return Ok(());
        }
    }
    Err(Error::Timeout {
        what: format!("writing {subject}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_at_its_time_and_one_without_a_time_does_not() {
        let pause = |until: Option<&str>| HandlerPause {
            by: "anna@laptop".to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
            until: until.map(str::to_owned),
            reason: Some("the stock is counted".to_owned()),
        };
        let timed = pause(Some("2026-01-01T01:00:00Z"));
        let end = timed.until_ms().expect("it has an end");
        assert_eq!((timed.has_ended(end - 1), timed.has_ended(end)), (false, true));
        assert!(!pause(None).has_ended(u64::MAX));
        assert_eq!(
            (timed.deadline(), pause(None).deadline()),
            ("2026-01-01T01:00:00Z", FOR_EVER)
        );
        assert_eq!(
            timed.told(),
            "by anna@laptop until 2026-01-01T01:00:00Z: the stock is counted"
        );
        let lines = HandlerPause {
            reason: Some("two\nlines".to_owned()),
            ..pause(None)
        };
        assert_eq!(lines.told(), "by anna@laptop: two lines");
    }

    #[test]
    fn what_cannot_be_read_is_no_pause_and_says_how_it_is_removed() {
        let good = r#"{"format":1,"handlers":{"points":{"by":"a","since":"2026-01-01T00:00:00Z","until":null,"reason":null}}}"#;
        assert_eq!(read(good.as_bytes()).expect("it is readable").len(), 1);
        for wrong in [
            "x",
            r#"{"format":2,"handlers":{}}"#,
            r#"{"format":1,"handlers":{"points":{"by":"a","since":"x","until":null,"reason":null}}}"#,
            r#"{"format":1,"handlers":{"points":{"by":"a","since":"2026-01-01T00:00:00Z","until":"x","reason":null}}}"#,
        ] {
            let error = read(wrong.as_bytes()).expect_err("it is not readable").to_string();
            assert!(error.contains("nats kv del mesh paused"), "{error}");
        }
    }
}
