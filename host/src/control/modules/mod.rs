//! What a person does to the registry of modules: push a version, sign it, promote it, go back, hold a name, and remove old versions.

mod change;
mod hosts;
mod push;

pub use self::change::{ChangeOrder, ModuleChange, ModuleChanged, change, recorded_change};
pub use self::push::{ModulePushed, PrunedModules, PushOrder, prune, push, recorded_prune, recorded_push, sign};
use crate::broker::{self, Connection};
use crate::mesh_streams::modules::{self, ModuleVersion};

/// The fewest digits by which a version is named.
const DIGITS_MIN: usize = 6;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A person has to do it in another way; says how.
    #[error("{0}")]
    Person(String),
    #[error(transparent)]
    Broker(#[from] broker::Error),
}

/// The versions of a name that can be read, the oldest first.
pub async fn versions_of(connection: &Connection, name: &str) -> Result<Vec<ModuleVersion>, Error> {
    let versions = modules::versions(connection, Some(name)).await?;
    let versions: Vec<ModuleVersion> = versions.into_iter().filter_map(|(_, version)| version.ok()).collect();
    match versions.is_empty() {
        false => Ok(versions),
        true => Err(Error::Person(format!(
            "the registry has no version of {name}: `jetmesh modules ls` shows what it has, and `jetmesh modules push FILE --as {name}` \
             pushes one"
        ))),
    }
}

/// The one version of a name that a text names: by the first digits of its digest, or by what its author calls it.
pub fn named<'a>(versions: &'a [ModuleVersion], name: &str, text: &str) -> Result<&'a ModuleVersion, Error> {
    let by_digest = |one: &&ModuleVersion| text.len() >= DIGITS_MIN && one.digest.starts_with(text);
    let by_version = |one: &&ModuleVersion| one.version.as_deref() == Some(text);
    let found: Vec<&ModuleVersion> = versions
        .iter()
        .filter(|one| by_digest(one) || by_version(one))
        .collect();
    match found[..] {
        [one] => Ok(one),
        [] => {
            let all: Vec<String> = versions.iter().rev().take(5).map(ModuleVersion::told).collect();
            Err(Error::Person(format!(
                "{name} has no version `{text}`; name it by {DIGITS_MIN} or more digits of its digest, or by its version; the newest are {}",
                all.join(", ")
            )))
        }
        [..] => {
            let all: Vec<String> = found.iter().map(|one| one.told()).collect();
            Err(Error::Person(format!(
                "`{text}` means {} versions of {name}: {}",
                all.len(),
                all.join(", ")
            )))
        }
    }
}
