//! The registry of modules: in a KV bucket, for each name its versions and which of them is promoted; in an object store the content
//! of each version, named by its SHA-256. `decisions/0034-registry.md` says why it is so.

mod find;
mod load;
mod promoted;
mod rollout;
mod signature;
mod version;

use bytes::Bytes;

pub use self::find::{named, versions_of};
pub use self::load::{LoadError, LoadedModule, first, load};
pub use self::promoted::{ModuleAct, ModuleHold, Promoted, PromotedRecord, glance, history, promoted, serve};
#[cfg(test)]
pub use self::rollout::tests::spec;
pub use self::rollout::{MILLION, RolloutSpec, RolloutStep};
pub use self::signature::{key_of_seed, sign};
pub use self::version::{ModuleVersion, check_want, put_version, remove_version, version, versions};
use crate::broker::provision::MODULES;
use crate::broker::{Connection, Error};
use crate::wasm::source::{MODULE_BYTES_MAX, ModuleHash};

const FORMAT: u64 = 1;

/// The content of a version, checked against its digest.
///
/// # Errors
/// [`Error::Unreadable`] also if it is not there.
pub async fn content(connection: &Connection, digest: &str) -> Result<Vec<u8>, Error> {
    let unreadable = |why: &str| Error::Unreadable {
        what: format!("the content of module {digest}"),
        why: why.to_owned(),
        remedy: "push the file again: `jetmesh modules push FILE --as NAME`".to_owned(),
    };
    let found = connection.object(MODULES, digest, MODULE_BYTES_MAX).await?;
    let bytes = found.ok_or_else(|| unreadable("the registry does not hold it"))?;
    match ModuleHash::of(&bytes).hex() == digest {
        true => Ok(bytes),
        false => Err(unreadable("it has another SHA-256")),
    }
}

/// Stores a content under its digest. `false`: it was there.
///
/// What was there is read, because a content that was changed would keep the good one out.
pub async fn put_content(connection: &Connection, digest: &str, bytes: &Bytes) -> Result<bool, Error> {
    let there = match connection.object(MODULES, digest, MODULE_BYTES_MAX).await {
        Ok(found) => found.map(|found| found == *bytes),
        Err(Error::Unreadable { .. }) => Some(false),
        Err(error) => return Err(error),
    };
    if there == Some(true) {
        return Ok(false);
    }
    if there == Some(false) {
        connection.remove_object(MODULES, digest).await?;
    }
    connection.put_object(MODULES, digest, bytes).await
}

/// Removes a content that no version has any more. `false`: it was not there.
pub async fn remove_content(connection: &Connection, digest: &str) -> Result<bool, Error> {
    connection.remove_object(MODULES, digest).await
}

/// The error of a stored value that cannot be read.
fn unreadable(key: &str, why: impl ToString) -> Error {
    Error::Unreadable {
        what: format!("key {key} of bucket {MODULES}"),
        why: why.to_string(),
        remedy: format!("look at it with `nats kv get {MODULES} {key}`, and promote or push the version again"),
    }
}
