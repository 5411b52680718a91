//! Modules: which host serves which handler with which, and the hosts themselves.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::micro;

/// A handler's module on the hosts that serve with it.
#[derive(Debug, Default, Serialize)]
struct ModuleTold {
    hosts: Vec<ModuleHost>,
}

#[derive(Debug, Serialize)]
struct ModuleHost {
    host: Value,
    /// When it took the module up.
    since: Value,
    state: Value,
    /// Why its file has another one that is not taken.
    not_taken: Value,
    /// What takes over from it step by step.
    rollout: Value,
}

/// By handler and digest, and what each host tells of itself.
pub async fn modules(session: &ViewerSession) -> Result<Value, ConsoleError> {
    let connection = session.connection().await?;
    let hosts = micro::hosts(&connection, &session.plan.mesh).await?;
    let mut handlers: BTreeMap<&str, BTreeMap<&str, ModuleTold>> = BTreeMap::new();
    for host in &hosts {
        for endpoint in host["endpoints"].as_array().into_iter().flatten() {
            let (name, data) = (endpoint["name"].as_str().unwrap_or_default(), &endpoint["data"]);
            let digest = data["module"].as_str().unwrap_or_default();
            let modules = handlers.entry(name).or_default();
            modules.entry(digest).or_default().hosts.push(ModuleHost {
                host: host["id"].clone(),
                since: data["module_since"].clone(),
                state: data["state"].clone(),
                not_taken: data["module_not_taken"]["why"].clone(),
                rollout: data["rollout"].clone(),
            });
        }
    }
    let told: Vec<Value> = hosts
        .iter()
        .map(|host| {
            let data = &host["data"];
            let count = |list: &Value| list.as_array().map_or(0, Vec::len);
            json!({
                "host": host["id"], "version": host["version"], "started": host["started"],
                "handlers": count(&host["endpoints"]), "clock_ahead_ms": data["clock_ahead_ms"],
                "log_lines_lost": data["log_lines_lost"], "panics": data["panics"],
            })
        })
        .collect();
    let files = session.plan.handlers.iter();
    let files: BTreeMap<&str, String> = files
        .map(|handler| (handler.name.as_str(), handler.module.to_string()))
        .collect();
    Ok(json!({ "handlers": handlers, "files": files, "hosts": told }))
}
