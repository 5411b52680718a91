//! A changed module file is picked up while its handler serves: compiled aside, checked, and then one pointer moves. A
//! file that cannot serve leaves the old module where it is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::compile::Priority;
use crate::engine::Runtime;
use crate::handler::{Module, ModuleDigest};
use crate::lane::Lane;

/// How long a file must be left alone before it is read: a compiler writes it in pieces.
const SETTLE: Duration = Duration::from_millis(200);
/// Changes that wait to be looked at; more at once tell nothing more.
const QUEUE: usize = 64;

/// Watches the module files of all lanes, for as long as it is polled.
pub async fn watch(runtime: Runtime, lanes: Vec<Arc<Lane>>) {
    let (changed, mut changes) = mpsc::channel::<()>(QUEUE);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|e| !e.kind.is_access()) {
            // A full queue already says that something has changed.
            let _ = changed.try_send(());
        }
    });
    let mut watcher = match watcher {
        Ok(watcher) => watcher,
        Err(error) => return tracing::warn!(%error, "module files are not watched: a restart is needed to change one"),
    };
    // The folders, not the files: a file is often replaced by another of its name.
    let mut folders: Vec<PathBuf> = lanes
        .iter()
        .filter_map(|l| l.plan.module.parent().map(Path::to_owned))
        .collect();
    folders.sort();
    folders.dedup();
    for folder in folders {
        let folder = if folder.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            folder
        };
        if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
            tracing::warn!(folder = %folder.display(), %error, "this folder is not watched for changed modules");
        }
    }
    let mut refused: HashMap<PathBuf, ModuleDigest> = HashMap::new();
    while changes.recv().await.is_some() {
        while tokio::time::timeout(SETTLE, changes.recv())
            .await
            .is_ok_and(|change| change.is_some())
        {}
        for lane in &lanes {
            look(&runtime, lane, &mut refused).await;
        }
    }
}

/// Swaps a lane's module if its file has changed and can serve.
async fn look(runtime: &Runtime, lane: &Arc<Lane>, refused: &mut HashMap<PathBuf, ModuleDigest>) {
    let path = lane.plan.module.clone();
    let old = lane.module.load().digest.clone();
    let Ok(bytes) = std::fs::read(&path) else {
        tracing::warn!(handler = %lane.plan.name, module = %path.display(), %old,
            "the module file is gone; the loaded module goes on serving");
        return;
    };
    let new = ModuleDigest::of(&bytes);
    if new == old || refused.get(&path) == Some(&new) {
        return;
    }
    match Module::load(runtime, &path, Priority::Lowest).await {
        Ok(module) => {
            let new = module.digest.clone();
            lane.module.swap(Arc::new(module)).retire();
            tracing::info!(handler = %lane.plan.name, %old, %new, "module swapped");
        }
        Err(error) => {
            tracing::error!(handler = %lane.plan.name, %error, serving = %old,
                "the changed module cannot serve; the old one goes on");
            refused.insert(path, new);
        }
    }
}
