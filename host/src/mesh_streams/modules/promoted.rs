//! Which version of a name is promoted: one key, changed by a compare-and-set, with its history.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rollout::RolloutSpec;
use super::{FORMAT, unreadable};
use crate::broker::error::Code;
use crate::broker::kv::{is_tombstone, key_subject, kv_stream};
use crate::broker::provision::MODULES;
use crate::broker::{By, Connection, Error};
use crate::event::{Headers, writable};
use crate::wasm::source::ModuleHash;

/// How a name came to its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum ModuleAct {
    Promoted,
    RolledBack,
    /// The version is the same, and another one takes over step by step.
    RolloutBegun,
    /// The version is the same, and the one that was to take over does not.
    CanaryFailed,
    /// The version is the same, and no other is promoted until it is resumed.
    Held,
    Resumed,
}

impl ModuleAct {
    pub fn word(self) -> &'static str {
        match self {
            ModuleAct::Promoted => "promoted",
            ModuleAct::RolledBack => "rolled back",
            ModuleAct::RolloutBegun => "kept beside a canary",
            ModuleAct::CanaryFailed => "kept, as the canary failed",
            ModuleAct::Held => "held",
            ModuleAct::Resumed => "resumed",
        }
    }
}

/// Nothing is promoted while it lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct ModuleHold {
    pub by: String,
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    pub reason: Option<String>,
}

/// What a name serves, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct PromotedRecord {
    /// SHA-256 of the module, in 64 hex digits.
    pub digest: String,
    pub act: ModuleAct,
    pub by: String,
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    /// Why.
    pub note: Option<String>,
    /// Null: nothing keeps another version from being promoted.
    pub hold: Option<ModuleHold>,
    /// Another version that takes over step by step; null: none does.
    #[serde(default)]
    pub rollout: Option<RolloutSpec>,
}

impl PromotedRecord {
    /// The first 12 digits of its digest.
    pub fn short(&self) -> &str {
        &self.digest[..12]
    }
}

/// The record and the revision of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promoted {
    pub record: PromotedRecord,
    pub revision: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredPromoted {
    format: u64,
    #[serde(flatten)]
    record: PromotedRecord,
}

fn key(name: &str) -> String {
    format!("serving.{name}")
}

fn read(name: &str, value: &[u8], revision: u64) -> Result<Promoted, Error> {
    let key = key(name);
    let stored: StoredPromoted = serde_json::from_slice(value).map_err(|error| unreadable(&key, error))?;
    if stored.format != FORMAT {
        let why = format!("it has format {}, and this jetmesh reads {FORMAT}", stored.format);
        return Err(unreadable(&key, why));
    }
    if ModuleHash::parse(&stored.record.digest).is_none() {
        return Err(unreadable(&key, "its digest is no SHA-256 in 64 small hex digits"));
    }
    let record = stored.record;
    Ok(Promoted { record, revision })
}

/// What is promoted under a name, and the revision of its key, 0 if it was never written.
pub async fn promoted(connection: &Connection, name: &str) -> Result<(Option<PromotedRecord>, u64), Error> {
    let subject = key_subject(MODULES, &key(name));
    let stored = match connection.stored(&kv_stream(MODULES), By::Last(&subject)).await {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => None,
        stored => stored?,
    };
    match stored {
        None => Ok((None, 0)),
        Some(stored) if is_tombstone(&stored.raw_headers) => Ok((None, stored.sequence)),
        Some(stored) => Ok((
            Some(read(name, &stored.payload, stored.sequence)?.record),
            stored.sequence,
        )),
    }
}

/// A look at many names at once, as some replica has them: those that have a record, each with its revision. What is not told may be
/// missing, or be told by the next look.
pub async fn glance(connection: &Connection, names: &[&str]) -> Vec<(String, u64)> {
    let subjects: Vec<String> = names.iter().map(|name| key_subject(MODULES, &key(name))).collect();
    let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
    let glanced = connection.glance_all(&kv_stream(MODULES), &subjects).await;
    let of = |one: crate::broker::stored::Glanced| {
        let name = one.subject()?.rsplit('.').next()?.to_owned();
        Some((name, one.sequence))
    };
    glanced.into_iter().filter_map(of).collect()
}

/// Stores what a name serves upon the revision that was read; 0: there was none. `None`: another person was faster.
pub async fn serve(
    connection: &Connection,
    name: &str,
    upon: u64,
    record: &PromotedRecord,
) -> Result<Option<u64>, Error> {
    let stored = StoredPromoted {
        format: FORMAT,
        record: record.clone(),
    };
    let body = serde_json::to_vec(&stored).expect("a record serialises");
    let subject = key_subject(MODULES, &key(name));
    let written = connection.publish_upon(&subject, upon, writable(&Headers::new()), body.into());
    let written = written.await.map_err(|error| error.in_stream(&kv_stream(MODULES)))?;
    Ok(written.map(|ack| ack.seq))
}

/// What a name has served, the newest first: as much as the bucket keeps. What cannot be read is left out, and counted.
pub async fn history(connection: &Connection, name: &str) -> Result<(Vec<Promoted>, u64), Error> {
    let (stream, subject) = (kv_stream(MODULES), key_subject(MODULES, &key(name)));
    let (mut found, mut left_out, mut next) = (Vec::new(), 0, 1);
    while let Some(stored) = connection.stored_next(&stream, next, &subject).await? {
        next = stored.sequence + 1;
        if is_tombstone(&stored.raw_headers) {
            continue;
        }
        match read(name, &stored.payload, stored.sequence) {
            Ok(promoted) => found.push(promoted),
            Err(_) => left_out += 1,
        }
    }
    found.reverse();
    Ok((found, left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_without_a_whole_digest_is_not_read() {
        let record = |digest: &str| {
            format!(
                r#"{{"format":1,"digest":"{digest}","act":"promoted","by":"a","at":"2026-01-01T00:00:00Z","note":null,"hold":null}}"#
            )
        };
        let good = read("inventory", record(&"a".repeat(64)).as_bytes(), 7).expect("it is whole");
        assert_eq!((good.revision, good.record.short()), (7, "aaaaaaaaaaaa"));
        for digest in ["", &"a".repeat(63), &"A".repeat(64), &"g".repeat(64), &"é".repeat(32)] {
            let error = read("inventory", record(digest).as_bytes(), 1).expect_err(digest);
            assert!(error.to_string().contains("serving.inventory"), "{error}");
        }
    }
}
