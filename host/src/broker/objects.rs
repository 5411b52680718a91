//! Objects of a JetStream object store, each of which is written once (ADR-20): parts on one subject, and what describes them on
//! another. <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-20.md>

use async_nats::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE as BASE64_URL;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::connection::{Connection, token};
use super::error::{Code, Error};
use super::stored::By;
use crate::event::clock::now_ms;
use crate::event::rfc3339;

/// The size of a part, as other clients choose it.
const PART_BYTES: usize = 128 * 1024;
/// What is left of a message for its headers, where the server takes less than a part.
const HEADERS_BYTES: usize = 1024;

/// The stream of an object store.
pub fn object_stream(bucket: &str) -> String {
    format!("OBJ_{bucket}")
}

/// The subject of what describes an object.
fn object_subject(bucket: &str, name: &str) -> String {
    format!("$O.{bucket}.M.{}", BASE64_URL.encode(name))
}

/// What describes an object, as far as it is used here.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ObjectInfo {
    name: String,
    bucket: String,
    nuid: String,
    size: u64,
    mtime: String,
    chunks: u64,
    #[serde(default)]
    digest: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

fn digest_of(bytes: &[u8]) -> String {
    format!("SHA-256={}", BASE64_URL.encode(Sha256::digest(bytes)))
}

impl Connection {
    async fn object_info(&self, bucket: &str, name: &str) -> Result<Option<ObjectInfo>, Error> {
        let subject = object_subject(bucket, name);
        let stored = self.stored(&object_stream(bucket), By::Last(&subject)).await?;
        let Some(stored) = stored else { return Ok(None) };
        let info: ObjectInfo =
            serde_json::from_slice(&stored.payload).map_err(|error| unreadable(bucket, name, error))?;
        Ok((!info.deleted).then_some(info))
    }

    /// Stores an object, unless it is there. `false`: it is.
    ///
    /// # Errors
    /// What was stored of it by then has no description: no reader finds it.
    pub async fn put_object(&self, bucket: &str, name: &str, bytes: &Bytes) -> Result<bool, Error> {
        if self.object_info(bucket, name).await?.is_some() {
            return Ok(false);
        }
        let (nuid, stream) = (token(), object_stream(bucket));
        let room = self.client.max_payload().saturating_sub(HEADERS_BYTES);
        let part_bytes = PART_BYTES.min(room).max(1);
        let subject = format!("$O.{bucket}.C.{nuid}");
        let mut chunks = 0;
        let put = async {
            for part in bytes.chunks(part_bytes) {
                self.publish(&subject, HeaderMap::new(), bytes.slice_ref(part)).await?;
                chunks += 1;
            }
            let info = ObjectInfo {
                name: name.to_owned(),
                bucket: bucket.to_owned(),
                nuid: nuid.clone(),
                size: bytes.len() as u64,
                mtime: rfc3339(now_ms()),
                chunks,
                digest: digest_of(bytes),
                deleted: false,
            };
            self.describe(&info, part_bytes).await
        };
        match put.await {
            Ok(()) => Ok(true),
            Err(error) => {
                // In vain, it only takes room.
                let _ = self.purge_subject(&stream, &subject).await;
                Err(error.in_stream(&stream))
            }
        }
    }

    async fn describe(&self, info: &ObjectInfo, part_bytes: usize) -> Result<(), Error> {
        let mut body = serde_json::to_value(info).expect("a description serialises");
        body["options"] = json!({ "max_chunk_size": part_bytes });
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", "sub");
        let subject = object_subject(&info.bucket, &info.name);
        self.publish(&subject, headers, body.to_string().into())
            .await
            .map(|_| ())
    }

    /// An object of at most this number of bytes, whole and as it was stored. `None`: it is not there.
    pub async fn object(&self, bucket: &str, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(info) = self.object_info(bucket, name).await? else {
            return Ok(None);
        };
        if info.size > bytes_max {
            let why = format!("it has {} bytes, and {bytes_max} are the most", info.size);
            return Err(unreadable(bucket, name, why));
        }
        let (stream, subject) = (object_stream(bucket), format!("$O.{bucket}.C.{}", info.nuid));
        let mut bytes = Vec::with_capacity(usize::try_from(info.size).unwrap_or_default());
        let mut next = 1;
        for number in 1..=info.chunks {
            let part = self.stored_next(&stream, next, &subject).await?;
            let Some(part) = part.filter(|part| bytes.len() + part.payload.len() <= bytes.capacity().max(1)) else {
                let why = format!("part {number} of {} is not there, or too long", info.chunks);
                return Err(unreadable(bucket, name, why));
            };
            bytes.extend_from_slice(&part.payload);
            next = part.sequence + 1;
        }
        // A digest is optional, and old clients fill it without padding.
        let digest = digest_of(&bytes);
        if bytes.len() as u64 != info.size || info.digest.trim_end_matches('=') != digest.trim_end_matches('=') {
            return Err(unreadable(bucket, name, "its content is not what its description says"));
        }
        Ok(Some(bytes))
    }

    /// Removes an object. `false`: it was not there.
    pub async fn remove_object(&self, bucket: &str, name: &str) -> Result<bool, Error> {
        let Some(info) = self.object_info(bucket, name).await? else {
            return Ok(false);
        };
        let subject = format!("$O.{bucket}.C.{}", info.nuid);
        let gone = ObjectInfo {
            size: 0,
            chunks: 0,
            digest: String::new(),
            mtime: rfc3339(now_ms()),
            deleted: true,
            ..info
        };
        self.describe(&gone, PART_BYTES).await?;
        self.purge_subject(&object_stream(bucket), &subject).await?;
        Ok(true)
    }

    /// Removes all messages on a subject. A stream that is not there has none.
    pub async fn purge_subject(&self, stream: &str, subject: &str) -> Result<(), Error> {
        let (call, what) = (format!("STREAM.PURGE.{stream}"), json!({ "filter": subject }));
        match self.api::<serde_json::Value>(&call, &what).await {
            Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => Ok(()),
            purged => purged.map(|_| ()),
        }
    }
}

fn unreadable(bucket: &str, name: &str, why: impl ToString) -> Error {
    Error::Unreadable {
        what: format!("object {name} of object store {bucket}"),
        why: why.to_string(),
        remedy: format!("remove it with `nats object del {bucket} {name}`, and store it again"),
    }
}
