//! The versions of a name: what each is, who has pushed it, and who has signed it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::signature::ModuleSignature;
use super::{FORMAT, unreadable};
use crate::broker::error::Code;
use crate::broker::kv::{is_tombstone, key_subject, kv_stream};
use crate::broker::provision::MODULES;
use crate::broker::{By, Connection, Error};
use crate::event::subject::{covers, no_subject};
use crate::event::{Headers, writable};
use crate::plan::Handler;

/// What a module wants: the state of its handler.
const WANTS_STATE: &str = "state";
/// Before the subject that it wants to emit to.
const WANTS_PUBLISH: &str = "publish:";

/// A version of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleVersion {
    /// SHA-256 of the module, in 64 hex digits; its object has this name.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// The WIT package that it was built for.
    pub wit: String,
    /// As its author calls it, such as `1.2.0`.
    pub version: Option<String>,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// What its handler must be granted, or it does not serve: `state`, `publish:SUBJECT`.
    pub wants: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// Who has pushed it.
    pub by: String,
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    pub note: Option<String>,
    pub signatures: Vec<ModuleSignature>,
}

#[derive(Serialize, Deserialize)]
struct StoredVersion {
    format: u64,
    #[serde(flatten)]
    version: ModuleVersion,
}

impl ModuleVersion {
    /// As people are shown it: 12 digits, and what its author calls it.
    pub fn told(&self) -> String {
        let short = &self.digest[..12];
        match &self.version {
            Some(version) => format!("{short} ({version})"),
            None => short.to_owned(),
        }
    }

    /// What it wants and a handler is not granted.
    pub fn ungranted(&self, handler: &Handler) -> Vec<&str> {
        let granted = |want: &str| match want.strip_prefix(WANTS_PUBLISH) {
            Some(subject) => handler.publish.iter().any(|granted| covers(granted, subject)),
            None => want == WANTS_STATE && handler.bucket.is_some(),
        };
        self.wants
            .iter()
            .map(String::as_str)
            .filter(|want| !granted(want))
            .collect()
    }

    /// The same as a sentence; `None`: it is granted everything.
    pub fn refused_by(&self, handler: &Handler) -> Option<String> {
        let lacks = self.ungranted(handler);
        let fix = |want: &&str| match want.strip_prefix(WANTS_PUBLISH) {
            Some(subject) => format!("`{subject}` in its `publish`"),
            None => "a `bucket`".to_owned(),
        };
        (!lacks.is_empty()).then(|| {
            format!(
                "version {} wants {}, which handler {} is not granted: give the handler {}",
                self.told(),
                lacks.join(" and "),
                handler.name,
                lacks.iter().map(fix).collect::<Vec<_>>().join(" and ")
            )
        })
    }
}

/// Whether a text is something that a module can want.
///
/// # Errors
/// What would be.
pub fn check_want(text: &str) -> Result<String, String> {
    let subject = text.strip_prefix(WANTS_PUBLISH);
    match subject {
        Some(subject) if no_subject(subject).is_none() && !subject.contains(',') => Ok(text.to_owned()),
        Some(subject) => Err(format!("`{subject}` is not a subject")),
        None if text == WANTS_STATE => Ok(text.to_owned()),
        None => Err("`state`, or `publish:SUBJECT` such as publish:inventory.>".to_owned()),
    }
}

fn key(name: &str, digest: &str) -> String {
    format!("version.{name}.{digest}")
}

/// A version, and the revision of its key, 0 if it was never written.
pub async fn version(connection: &Connection, name: &str, digest: &str) -> Result<(Option<ModuleVersion>, u64), Error> {
    let key = key(name, digest);
    let subject = key_subject(MODULES, &key);
    let stored = match connection.stored(&kv_stream(MODULES), By::Last(&subject)).await {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => None,
        stored => stored?,
    };
    match stored {
        None => Ok((None, 0)),
        Some(stored) if is_tombstone(&stored.raw_headers) => Ok((None, stored.sequence)),
        Some(stored) => Ok((Some(read(&key, digest, &stored.payload)?), stored.sequence)),
    }
}

fn read(key: &str, digest: &str, value: &[u8]) -> Result<ModuleVersion, Error> {
    let stored: StoredVersion = serde_json::from_slice(value).map_err(|error| unreadable(key, error))?;
    let is_hex =
        |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
    match stored.version {
        _ if stored.format != FORMAT => {
            let why = format!("it has format {}, and this jetmesh reads {FORMAT}", stored.format);
            Err(unreadable(key, why))
        }
        version if version.digest != digest || !is_hex(digest) => {
            Err(unreadable(key, "its digest is not that of its key"))
        }
        version => Ok(version),
    }
}

/// All versions of a name, or of all names, each with its name; the oldest of each name first. What cannot be read is told in its place.
pub async fn versions(
    connection: &Connection,
    name: Option<&str>,
) -> Result<Vec<(String, Result<ModuleVersion, Error>)>, Error> {
    let filter = key_subject(MODULES, &key(name.unwrap_or("*"), "*"));
    let subjects = match connection.subjects(&kv_stream(MODULES), &filter).await {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => return Ok(Vec::new()),
        subjects => subjects?,
    };
    let mut found = Vec::new();
    for subject in subjects {
        let mut tokens = subject.rsplit('.');
        let (Some(digest), Some(name)) = (tokens.next(), tokens.next()) else {
            continue;
        };
        match version(connection, name, digest).await {
            Ok((None, _)) => {}
            Ok((Some(version), _)) => found.push((name.to_owned(), Ok(version))),
            Err(error @ Error::Unreadable { .. }) => found.push((name.to_owned(), Err(error))),
            Err(error) => return Err(error),
        }
    }
    let at = |one: &Result<ModuleVersion, Error>| one.as_ref().ok().map(|one| one.at.clone());
    found.sort_by(|(a, first), (b, second)| (a, at(first)).cmp(&(b, at(second))));
    Ok(found)
}

/// Stores a version upon the revision that was read; 0: there was none. `false`: another writer was faster.
pub async fn put_version(
    connection: &Connection,
    name: &str,
    upon: u64,
    version: &ModuleVersion,
) -> Result<bool, Error> {
    let subject = key_subject(MODULES, &key(name, &version.digest));
    let stored = StoredVersion {
        format: FORMAT,
        version: version.clone(),
    };
    let body = serde_json::to_vec(&stored).expect("a version serialises");
    let written = connection.publish_upon(&subject, upon, writable(&Headers::new()), body.into());
    let written = written.await.map_err(|error| error.in_stream(&kv_stream(MODULES)))?;
    Ok(written.is_some())
}

/// Removes a version, as a KV client purges a key.
pub async fn remove_version(connection: &Connection, name: &str, digest: &str) -> Result<(), Error> {
    let subject = key_subject(MODULES, &key(name, digest));
    let headers = [("KV-Operation", "PURGE"), ("Nats-Rollup", "sub")];
    let headers: Headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    connection
        .publish(&subject, writable(&headers), Vec::new().into())
        .await
        .map(|_| ())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn version() -> ModuleVersion {
        ModuleVersion {
            digest: "a".repeat(64),
            size: 3,
            wit: "jetmesh:handler@0.1.0".to_owned(),
            version: Some("1.2.0".to_owned()),
            imports: Vec::new(),
            wants: vec!["state".to_owned(), "publish:inventory.reserved".to_owned()],
            labels: BTreeMap::new(),
            by: "anna@laptop".to_owned(),
            at: "2026-01-01T00:00:00Z".to_owned(),
            note: None,
            signatures: Vec::new(),
        }
    }

    #[test]
    fn what_a_version_wants_and_its_handler_is_not_granted_is_named() {
        let mut handler = Handler::of_test("inventory");
        let lacks = version().refused_by(&handler).expect("it is granted nothing");
        assert!(lacks.contains("state and publish:inventory.reserved"), "{lacks}");
        assert!(
            lacks.contains("a `bucket` and `inventory.reserved` in its `publish`"),
            "{lacks}"
        );
        handler.bucket = Some("inventory".to_owned());
        handler.publish = vec!["inventory.*".to_owned()];
        assert_eq!(version().refused_by(&handler), None);
        handler.publish = vec!["inventory.other".to_owned()];
        assert_eq!(version().ungranted(&handler), ["publish:inventory.reserved"]);
        for wrong in ["", "stat", "publish:", "publish:a b", "publish:a,b"] {
            assert!(check_want(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_stored_version_that_is_not_what_its_key_says_is_not_read() {
        let stored = |change: fn(&mut serde_json::Value)| {
            let mut value = serde_json::json!({ "format": 1 });
            let version = serde_json::to_value(version()).unwrap();
            value
                .as_object_mut()
                .unwrap()
                .extend(version.as_object().unwrap().clone());
            change(&mut value);
            read("k", &"a".repeat(64), value.to_string().as_bytes()).map_err(|error| error.to_string())
        };
        assert_eq!(stored(|_| {}), Ok(version()));
        let other = stored(|value| value["digest"] = "b".repeat(64).into()).expect_err("another digest");
        assert!(other.contains("not that of its key"), "{other}");
        let newer = stored(|value| value["format"] = 2.into()).expect_err("another format");
        assert!(newer.contains("format 2"), "{newer}");
    }
}
