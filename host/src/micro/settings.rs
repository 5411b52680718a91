//! Whether the hosts of a mesh serve a handler with the same settings. Each tells digests of what they must agree on, so that the
//! others can name the keys that differ; values are not told.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::plan::Handler;

/// What a host tells of a handler's settings: `key=digest`, with spaces between.
pub fn of(handler: &Handler) -> String {
    let all = handler.settings_digests();
    let all: Vec<String> = all.iter().map(|(key, digest)| format!("{key}={digest}")).collect();
    all.join(" ")
}

/// The keys that two hosts do not agree on.
fn differ<'a>(one: &'a str, other: &'a str) -> BTreeSet<&'a str> {
    let read =
        |text: &'a str| -> BTreeMap<&str, &str> { text.split(' ').filter_map(|one| one.split_once('=')).collect() };
    let (one, other) = (read(one), read(other));
    let keys = one.keys().chain(other.keys());
    keys.filter(|key| one.get(*key) != other.get(*key)).copied().collect()
}

/// A host, one of its handlers, and what it tells of its settings.
struct SettingsTold<'a> {
    host: &'a str,
    handler: &'a str,
    settings: &'a str,
}

fn told(hosts: &[Value]) -> impl Iterator<Item = SettingsTold<'_>> {
    hosts.iter().flat_map(|host| {
        let endpoints = host["endpoints"].as_array().into_iter().flatten();
        endpoints.filter_map(|endpoint| {
            Some(SettingsTold {
                host: host["id"].as_str()?,
                handler: endpoint["name"].as_str()?,
                settings: endpoint["metadata"]["settings"].as_str()?,
            })
        })
    })
}

/// What hosts do not agree on about a handler.
#[derive(Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Difference {
    /// Keys of the handler's configuration.
    #[schemars(with = "Vec<String>")]
    pub keys: BTreeSet<String>,
    /// The hosts with other settings than the first of them, by its id.
    #[schemars(with = "Vec<String>")]
    pub hosts: BTreeSet<String>,
    /// The host that they are compared with.
    pub than: String,
}

/// The handlers that hosts do not agree on.
pub fn differences(hosts: &[Value]) -> BTreeMap<&str, Difference> {
    let mut firsts: BTreeMap<&str, SettingsTold<'_>> = BTreeMap::new();
    let mut all: Vec<SettingsTold<'_>> = told(hosts).collect();
    all.sort_by_key(|told| told.host);
    let mut differences: BTreeMap<&str, Difference> = BTreeMap::new();
    for one in all {
        let Some(first) = firsts.get(one.handler) else {
            firsts.insert(one.handler, one);
            continue;
        };
        let keys = differ(first.settings, one.settings);
        if !keys.is_empty() {
            let difference = differences.entry(one.handler).or_default();
            first.host.clone_into(&mut difference.than);
            difference.hosts.insert(one.host.to_owned());
            difference.keys.extend(keys.into_iter().map(str::to_owned));
        }
    }
    differences
}

/// The hosts that serve a handler of this one with other settings, as far as it was said.
#[derive(Default)]
pub struct Unlike(BTreeMap<(String, String), SettingsApart>);

struct SettingsApart {
    keys: String,
    /// Looks in a row that have not shown it: an answer may be late.
    unseen: u8,
}

#[derive(Debug, PartialEq)]
pub enum SettingsNews {
    Unlike {
        handler: String,
        host: String,
        /// The keys of the configuration.
        keys: String,
    },
    /// No host that answers has other settings any more.
    Alike { handler: String },
}

impl Unlike {
    /// Compares what this host, `own`, has with what the others tell.
    pub fn look(&mut self, own: &str, hosts: &[Value], handlers: &[(String, String)]) -> Vec<SettingsNews> {
        let mut said = Vec::new();
        self.0.values_mut().for_each(|standing| standing.unseen += 1);
        for other in told(hosts).filter(|other| other.host != own) {
            let Some((handler, settings)) = handlers.iter().find(|(name, _)| name == other.handler) else {
                continue;
            };
            let keys = differ(settings, other.settings)
                .into_iter()
                .collect::<Vec<_>>()
                .join(", ");
            let about = (handler.clone(), other.host.to_owned());
            if keys.is_empty() {
                continue;
            }
            let known = self.0.insert(
                about,
                SettingsApart {
                    keys: keys.clone(),
                    unseen: 0,
                },
            );
            if known.is_none_or(|known| known.keys != keys) {
                let (handler, host) = (handler.clone(), other.host.to_owned());
                said.push(SettingsNews::Unlike { handler, host, keys });
            }
        }
        let over: Vec<(String, String)> = self
            .0
            .extract_if(.., |_, one| one.unseen > 1)
            .map(|(about, _)| about)
            .collect();
        let over: BTreeSet<String> = over.into_iter().map(|(handler, _)| handler).collect();
        let alike = over
            .into_iter()
            .filter(|handler| !self.0.keys().any(|(name, _)| name == handler));
        said.extend(alike.map(|handler| SettingsNews::Alike { handler }));
        said
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn host(id: &str, settings: &str) -> Value {
        json!({ "id": id, "endpoints": [{ "name": "a", "metadata": { "settings": settings } }] })
    }

    #[test]
    fn keys_that_differ_are_named_with_their_host_once_and_it_is_over_when_that_host_is_gone() {
        let own = [("a".to_owned(), "stream=1 backoff=2 publish=3".to_owned())];
        let mut unlike = Unlike::default();
        let hosts = [
            host("me", "stream=9"),
            host("same", "stream=1 backoff=2 publish=3"),
            host("other", "stream=1 backoff=7 publish=4"),
        ];
        let said = vec![SettingsNews::Unlike {
            handler: "a".into(),
            host: "other".into(),
            keys: "backoff, publish".into(),
        }];
        assert_eq!(unlike.look("me", &hosts, &own), said);
        assert_eq!(unlike.look("me", &hosts, &own), []);
        assert_eq!(unlike.look("me", &hosts[..2], &own), [], "its answer may be late");
        assert_eq!(
            unlike.look("me", &hosts[..2], &own),
            [SettingsNews::Alike { handler: "a".into() }]
        );
        assert_eq!(unlike.look("me", &hosts[..2], &own), []);
        let all = differences(&hosts[1..]);
        assert_eq!(all["a"].than, "other");
        assert_eq!(all["a"].hosts, ["same".to_owned()].into());
        assert_eq!(all["a"].keys, ["backoff".to_owned(), "publish".to_owned()].into());
    }
}
