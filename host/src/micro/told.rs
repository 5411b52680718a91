//! What hosts report of themselves, prepared for output.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::text::normalise::normalise;

/// What hosts report of a handler under this name, each value once.
pub fn said(endpoints: &[&Value], name: &str) -> Vec<Value> {
    let of = |endpoint: &&Value| endpoint["data"].get(name).filter(|said| !said.is_null()).cloned();
    let mut all: Vec<Value> = endpoints.iter().filter_map(of).collect();
    all.dedup_by(|a, b| a["why"] == b["why"]);
    all
}

/// What all hosts tell of their handlers.
pub fn endpoints(hosts: &[Value]) -> impl Iterator<Item = &Value> {
    hosts.iter().filter_map(|host| host["endpoints"].as_array()).flatten()
}

/// The circuits of a handler that are open, one for each host.
pub fn circuits(endpoints: &[&Value]) -> Vec<Value> {
    let of = |endpoint: &&Value| {
        Some(&endpoint["data"]["circuit"])
            .filter(|one| one.is_object())
            .cloned()
    };
    endpoints.iter().filter_map(of).collect()
}

/// What keeps events of a handler from going on, by reason, the oldest first. Hosts that share a reason have the same events, one
/// after the other.
pub fn hindered(endpoints: &[&Value]) -> Vec<Value> {
    let lists = endpoints
        .iter()
        .filter_map(|endpoint| endpoint["data"]["hindered"].as_array());
    let mut reasons: BTreeMap<String, Value> = BTreeMap::new();
    for one in lists.flatten() {
        let mut one = one.clone();
        let reason = normalise(one["why"].as_str().unwrap_or_default());
        if let Some(other) = reasons.get(&reason) {
            one["events"] = json!(one["events"].as_u64().max(other["events"].as_u64()));
            if other["since"].as_str() < one["since"].as_str() {
                one["since"] = other["since"].clone();
            }
        }
        reasons.insert(reason, one);
    }
    let mut reasons: Vec<Value> = reasons.into_values().collect();
    reasons.sort_by(|a, b| a["since"].as_str().cmp(&b["since"].as_str()));
    reasons
}

/// The same of every handler that has some, of all hosts.
pub fn hindered_by_handler(hosts: &[Value]) -> BTreeMap<&str, Vec<Value>> {
    let mut by_name: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for endpoint in endpoints(hosts) {
        let name = endpoint["name"].as_str().unwrap_or_default();
        by_name.entry(name).or_default().push(endpoint);
    }
    let all = by_name.into_iter().map(|(name, endpoints)| {
        let mut all = hindered(&endpoints);
        all.extend(circuits(&endpoints).iter().map(held_by));
        (name, all)
    });
    all.filter(|(_, hindered)| !hindered.is_empty()).collect()
}

/// An open circuit as what keeps events back.
fn held_by(circuit: &Value) -> Value {
    let text = |key: &str| circuit[key].as_str().unwrap_or("?");
    let why = format!("its circuit on host {} is open: {}", text("host"), text("why"));
    json!({ "why": why, "since": circuit["since"], "events": null })
}

/// One of these in words.
pub fn hindrance(one: &Value) -> String {
    let why = one["why"].as_str().unwrap_or("?");
    match one["events"].as_u64() {
        None => why.to_owned(),
        Some(0) => format!("what was lost is not looked for: {why}"),
        Some(1) => format!("1 event waits: {why}"),
        Some(events) => format!("{events} events wait: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reason_on_two_hosts_is_told_once_with_its_beginning() {
        let endpoint = |events: u64, since: &str| json!({ "data": { "hindered": [{ "why": "stream S takes nothing (10077)", "since": since, "events": events }] } });
        let (one, other) = (endpoint(3, "2026-01-02T00:00:00Z"), endpoint(2, "2026-01-01T00:00:00Z"));
        let all = hindered(&[&one, &other]);
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(hindrance(&all[0]), "3 events wait: stream S takes nothing (10077)");
        assert_eq!(all[0]["since"], "2026-01-01T00:00:00Z");
    }
}
