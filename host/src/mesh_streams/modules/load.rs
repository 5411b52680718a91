//! A version of the registry, made ready to serve: its record and its signatures are checked, then its content, and then it is compiled.

use std::path::Path;
use std::sync::Arc;

use super::{content, history, promoted, version};
use crate::broker::{Connection, Error};
use crate::plan::Plan;
use crate::wasm::compile::Priority;
use crate::wasm::library::{Compiled, Library};
use crate::wasm::source::ModuleHash;

/// Why a version is not made ready.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot serve.
    #[error("{0}")]
    Unfit(String),
    /// It may not serve, or is not whole: a person can change that without promoting another.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Broker(#[from] Error),
}

/// As an error of what lies in NATS.
impl From<LoadError> for Error {
    fn from(error: LoadError) -> Error {
        match error {
            LoadError::Unfit(why) | LoadError::Refused(why) => Error::Refused(why),
            LoadError::Broker(error) => error,
        }
    }
}

/// The module that a name is promoted to.
pub struct LoadedModule {
    pub compiled: Arc<Compiled>,
    /// Of the key of what is promoted; 0: it is to be looked at again.
    pub revision: u64,
    /// Why it is not the newest that was promoted; `None`: it is.
    pub not_taken: Option<String>,
}

/// Makes a version ready for all handlers of a plan that follow the name.
///
/// # Cancel safety
/// Dropped half-way, nothing is left of it.
pub async fn load(
    connection: &Connection,
    (plan, library): (&Plan, &Library),
    (name, digest): (&str, &str),
    priority: Priority,
) -> Result<Arc<Compiled>, LoadError> {
    let short = &digest[..12];
    let refused = |why: String| LoadError::Refused(format!("registry:{name}: {why}"));
    let (Some(version), _) = version(connection, name, digest).await? else {
        return Err(refused(format!(
            "version {short} is promoted, and the registry does not describe it: push the file again with `jetmesh modules push \
             FILE --as {name}`"
        )));
    };
    let followers = plan
        .handlers
        .iter()
        .filter(|handler| handler.module.registered() == Some(name));
    let unsigned = version.unsigned(name, &plan.modules.require);
    let lacks = unsigned.or_else(|| followers.into_iter().find_map(|handler| version.refused_by(handler)));
    if let Some(why) = lacks {
        return Err(refused(why));
    }
    let ready = ModuleHash::parse(digest).and_then(|hash| library.ready(hash));
    if let Some(compiled) = ready {
        return Ok(compiled);
    }
    let bytes = match content(connection, digest).await {
        Err(error @ Error::Unreadable { .. }) => return Err(refused(error.to_string())),
        bytes => bytes?,
    };
    let called = format!("registry:{name} (version {short})");
    let compiled = library.given(Path::new(&called), bytes, priority).await;
    compiled.map_err(|error| LoadError::Unfit(error.to_string()))
}

/// What a name serves when a host starts: the newest version that was promoted and can serve.
///
/// # Errors
/// [`Error::NotYet`] if nothing was promoted; [`Error::Refused`] if no version that was promoted can serve.
pub async fn first(
    connection: &Connection,
    (plan, library): (&Plan, &Library),
    name: &str,
    priority: Priority,
) -> Result<LoadedModule, Error> {
    let (Some(record), revision) = promoted(connection, name).await? else {
        return Err(Error::NotYet(format!(
            "nothing is promoted as {name} in the registry of modules: push a module with `jetmesh modules push FILE --as {name}`, and \
             promote it with `jetmesh modules promote {name} DIGEST`"
        )));
    };
    let mut tried = vec![record.digest.clone()];
    let newest = match load(connection, (plan, library), (name, &record.digest), priority).await {
        Ok(compiled) => {
            return Ok(LoadedModule {
                compiled,
                // A canary is taken up with the first look.
                revision: if record.rollout.is_some() { 0 } else { revision },
                not_taken: None,
            });
        }
        Err(LoadError::Broker(error)) => return Err(error),
        Err(LoadError::Unfit(why) | LoadError::Refused(why)) => why,
    };
    let (earlier, _) = history(connection, name).await?;
    for one in earlier {
        if tried.contains(&one.record.digest) {
            continue;
        }
        tried.push(one.record.digest.clone());
        match load(connection, (plan, library), (name, &one.record.digest), priority).await {
            Ok(compiled) => {
                let not_taken = Some(newest);
                return Ok(LoadedModule {
                    compiled,
                    revision,
                    not_taken,
                });
            }
            Err(LoadError::Broker(error)) => return Err(error),
            Err(LoadError::Unfit(_) | LoadError::Refused(_)) => {}
        }
    }
    Err(Error::Refused(newest))
}
