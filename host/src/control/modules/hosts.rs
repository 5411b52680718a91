//! Which hosts serve with what is promoted.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::broker::Connection;
use crate::micro;

/// How long hosts are given to fetch, compile and take up a version.
const TAKEN_WITHIN: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_millis(100);

/// A host that serves a handler with another version than the promoted one.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct HostBehind {
    pub host: String,
    pub handler: String,
    /// Null: it has not told; it may still fetch or compile it.
    pub why: Option<String>,
}

/// How hosts stand to what is promoted.
#[derive(Debug, Default)]
pub struct HostsTaken {
    /// Hosts that serve with it.
    pub hosts: usize,
    pub behind: Vec<HostBehind>,
}

/// Waits until all hosts that follow a name serve with a version, refuse it, or have had time for it. `None`: they cannot be asked.
pub async fn taken(connection: &Connection, mesh: &str, name: &str, short: &str) -> Option<HostsTaken> {
    let began = Instant::now();
    loop {
        let hosts = micro::hosts(connection, mesh).await.ok()?;
        let now = stand(&hosts, name, short);
        let waits = now.behind.iter().any(|one| one.why.is_none());
        if !waits || began.elapsed() >= TAKEN_WITHIN {
            return Some(now);
        }
        sleep(ASK_EVERY).await;
    }
}

fn stand(hosts: &[Value], name: &str, short: &str) -> HostsTaken {
    let origin = format!("registry:{name}");
    let mut taken = HostsTaken::default();
    for host in hosts {
        let endpoints = host["endpoints"].as_array().into_iter().flatten();
        let followers: Vec<&Value> = endpoints
            .filter(|one| one["data"]["module_origin"] == origin.as_str())
            .collect();
        let behind = followers.iter().filter(|one| one["data"]["module"] != short);
        let behind: Vec<HostBehind> = behind
            .map(|one| HostBehind {
                host: host["id"].as_str().unwrap_or_default().to_owned(),
                handler: one["name"].as_str().unwrap_or_default().to_owned(),
                why: one["data"]["module_not_taken"]["why"].as_str().map(str::to_owned),
            })
            .collect();
        taken.hosts += usize::from(!followers.is_empty() && behind.is_empty());
        taken.behind.extend(behind);
    }
    taken
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_host_is_behind_until_all_its_handlers_of_the_name_serve_with_the_version() {
        let one = |name: &str, origin: &str, module: &str, why: Option<&str>| json!({ "name": name, "data": { "module_origin": origin, "module": module, "module_not_taken": { "why": why } } });
        let hosts = [
            json!({ "id": "a", "endpoints": [one("x", "registry:n", "new", None), one("y", "registry:n", "old", Some("unsigned"))] }),
            json!({ "id": "b", "endpoints": [one("x", "registry:n", "new", None), one("z", "registry:m", "old", None)] }),
            json!({ "id": "c", "endpoints": [one("z", "z.wasm", "old", None)] }),
        ];
        let taken = stand(&hosts, "n", "new");
        assert_eq!(taken.hosts, 1);
        let [behind] = &taken.behind[..] else {
            panic!("{:?}", taken.behind)
        };
        let told = (behind.host.as_str(), behind.handler.as_str(), behind.why.as_deref());
        assert_eq!(told, ("a", "y", Some("unsigned")));
    }
}
