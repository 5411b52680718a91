//! The modules of a host: those of files and those of the registry, at start and while it serves.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::Error;
use crate::broker::shared::Shared;
use crate::broker::{self, Connection};
use crate::handler_task::lane::Lane;
use crate::handler_task::registry::RegistryFollower;
use crate::handler_task::reload;
use crate::mesh_streams::modules::{self, LoadedModule};
use crate::plan::{ModuleOrigin, Plan};
use crate::process::drain::Drain;
use crate::wasm::compile::Priority;
use crate::wasm::library::{Compiled, Library};
use crate::wasm::module::Module;

/// By path.
pub type OfFiles = BTreeMap<String, Arc<Compiled>>;
/// By name in the registry.
pub type OfRegistry = BTreeMap<String, LoadedModule>;

/// Every module that a plan has as a file, compiled and checked; or everything that is wrong with any of them.
///
/// # Cancel safety
/// Dropped half-way, nothing is left of it.
pub async fn of_files(library: &Library, plan: &Plan) -> Result<OfFiles, Error> {
    let paths: Vec<&Path> = plan.handlers.iter().filter_map(|h| h.module.file()).collect();
    let compiled = library.all(&paths, Priority::Usual).await;
    let compiled = compiled.map_err(|errors| Error::modules(errors, plan))?;
    let named = paths.iter().map(|path| path.display().to_string());
    Ok(named.zip(compiled).collect())
}

/// What the registry has for the handlers of a plan that follow it.
///
/// # Errors
/// Names the handlers that cannot serve.
pub async fn of_registry(
    connection: &Connection,
    (plan, library): (&Plan, &Library),
    priority: Priority,
) -> Result<OfRegistry, broker::Error> {
    let mut found = OfRegistry::new();
    for name in plan.registered() {
        let followers = plan.handlers.iter().filter(|h| h.module.registered() == Some(name));
        let keys: String = followers.map(|h| format!("handlers.{}.module: ", h.name)).collect();
        let first = modules::first(connection, (plan, library), name, priority).await;
        let first = first.map_err(|error| match error {
            broker::Error::NotYet(why) => broker::Error::NotYet(format!("{keys}{why}")),
            broker::Error::Refused(why) => broker::Error::Refused(format!("{keys}{why}")),
            other => other,
        });
        found.insert(name.to_owned(), first?);
    }
    Ok(found)
}

/// The module of each handler, in the order of the plan.
pub fn of_handlers(plan: &Plan, files: &OfFiles, registry: &OfRegistry) -> Vec<Module> {
    let of = |origin: &ModuleOrigin| match origin {
        ModuleOrigin::File(path) => Arc::clone(&files[&path.display().to_string()]),
        ModuleOrigin::Registry(name) => Arc::clone(&registry[name].compiled),
    };
    plan.handlers
        .iter()
        .map(|handler| Module::new(of(&handler.module)))
        .collect()
}

/// Tells each handler that serves with an earlier version than the promoted one.
pub fn not_taken(lanes: &[Arc<Lane>], registry: &OfRegistry) {
    for lane in lanes {
        let loaded = lane.runner.origin.registered().and_then(|name| registry.get(name));
        let Some(why) = loaded.and_then(|loaded| loaded.not_taken.as_ref()) else {
            continue;
        };
        tracing::error!(handler = %lane.plan.name, error = why, serving = %lane.runner.digest(),
            "what the registry has cannot serve; the version that served before it does");
        lane.runner.set_not_taken(Some(why.clone()));
    }
}

/// Starts what takes up other modules.
pub fn follow(
    plan: &Arc<Plan>,
    (library, registry): (Arc<Library>, OfRegistry),
    host: &str,
    lanes: &[Arc<Lane>],
    drain: &Drain,
) {
    let runners: Vec<_> = lanes.iter().map(|lane| Arc::clone(&lane.runner)).collect();
    let (of_files, own) = (Arc::clone(&library), runners.clone());
    drain.spawn_until("module files", move || {
        reload::follow(Arc::clone(&of_files), own.clone())
    });
    if registry.is_empty() {
        return;
    }
    let follower = Arc::new(RegistryFollower {
        plan: Arc::clone(plan),
        library,
        connections: Arc::new(Shared::new(&plan.nats, format!("jetmesh modules {host}"))),
        runners,
        revisions: registry
            .into_iter()
            .map(|(name, loaded)| (name, loaded.revision))
            .collect(),
    });
    drain.spawn_until("module registry", move || {
        let follower = Arc::clone(&follower);
        async move { follower.run().await }
    });
}
