//! The version that a person names.

use super::{ModuleVersion, versions};
use crate::broker::{Connection, Error};

/// The fewest digits by which a version is named.
const DIGITS_MIN: usize = 6;

/// The versions of a name that can be read, the oldest first.
pub async fn versions_of(connection: &Connection, name: &str) -> Result<Vec<ModuleVersion>, Error> {
    let versions = versions(connection, Some(name)).await?;
    Ok(versions.into_iter().filter_map(|(_, version)| version.ok()).collect())
}

/// The one version of a name that a text names: by the first digits of its digest, or by what its author calls it.
///
/// # Errors
/// A sentence for people, if it names none or several.
pub fn named<'a>(versions: &'a [ModuleVersion], name: &str, text: &str) -> Result<&'a ModuleVersion, String> {
    if versions.is_empty() {
        return Err(format!(
            "the registry has no version of {name}: `jetmesh modules ls` shows what it has, and `jetmesh modules push FILE --as {name}` \
             pushes one"
        ));
    }
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
            Err(format!(
                "{name} has no version `{text}`; name it by {DIGITS_MIN} or more digits of its digest, or by its version; the newest are {}",
                all.join(", ")
            ))
        }
        [..] => {
            let all: Vec<String> = found.iter().map(|one| one.told()).collect();
            Err(format!(
                "`{text}` means {} versions of {name}: {}",
                all.len(),
                all.join(", ")
            ))
        }
    }
}
