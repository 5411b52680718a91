//! Whether the hosts of a mesh serve a handler with the same module and the same settings. During a rolling update the modules
//! differ; if they differ for longer than that, a host was forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::broker::Connection;
use crate::failpoint;
use crate::micro::settings::{self, SettingsNews, Unlike};
use crate::micro::{Host, answers};

/// How often a host asks the others.
const LOOK: Duration = Duration::from_secs(60);
/// When a host asks them first.
const FIRST: Duration = Duration::from_secs(5);
/// After this it is no rolling update any more: those drain a host in half a minute, and there are some tens of hosts.
const LONG: Duration = Duration::from_secs(15 * 60);

/// A handler's name, and the digest of a module that serves it.
type Served = (String, String);

/// Compares this host's modules with those of the others, for as long as it is polled.
pub async fn watch(connection: &Connection, host: &Host, apart: &mut Apart, unlike: &mut Unlike) {
    let or = |name: &str, usual: Duration| failpoint::number(name).map_or(usual, Duration::from_millis);
    let (look, long) = (or("peers-look-ms", LOOK), or("peers-long-ms", LONG));
    let settings: Vec<(String, String)> = host
        .lanes
        .iter()
        .map(|lane| (lane.plan.name.clone(), settings::of(&lane.plan)))
        .collect();
    let mut pause = look.min(FIRST);
    loop {
        tokio::time::sleep(pause).await;
        pause = look;
        let own = |lane: &std::sync::Arc<crate::handler_task::lane::Lane>| {
            let digest = lane.runner.digest().to_string();
            (lane.plan.name.clone(), digest)
        };
        let own: Vec<Served> = host.lanes.iter().map(own).collect();
        let Ok(answers) = answers(connection, &host.plan.mesh, "INFO").await else {
            continue;
        };
        let others = answers
            .iter()
            .filter(|other| other["id"] != *host.name)
            .flat_map(served);
        for said in unlike.look(&host.name, &answers, &settings) {
            match said {
                SettingsNews::Unlike {
                    handler,
                    host: other,
                    keys,
                } => tracing::warn!(
                    handler,
                    keys,
                    host = other,
                    "another host serves this handler with other settings: give all hosts the same configuration"
                ),
                SettingsNews::Alike { handler } => {
                    tracing::info!(
                        handler,
                        "all hosts that answer serve this handler with the same settings again"
                    );
                }
            }
        }
        for said in apart.look(&own, others, Instant::now(), long) {
            match said {
                ModuleNews::Apart { handler, own, others } => {
                    tracing::warn!(handler, module = own, others, since = ?long,
                    "other hosts serve this handler with another module, for longer than a rolling update takes: give all of \
                     them the same module file")
                }
                ModuleNews::Together { handler } => {
                    tracing::info!(handler, "all hosts serve this handler with the same module again");
                }
            }
        }
    }
}

/// The handlers that a host reports.
fn served(host: &Value) -> impl Iterator<Item = Served> {
    let endpoints = host["endpoints"].as_array().into_iter().flatten();
    endpoints.filter_map(|endpoint| {
        let digest = endpoint["metadata"]["module"].as_str()?;
        Some((endpoint["name"].as_str()?.to_owned(), digest.to_owned()))
    })
}

/// The handlers that other hosts serve with another module.
#[derive(Default)]
pub struct Apart(BTreeMap<String, ModuleApart>);

struct ModuleApart {
    since: Instant,
    told: bool,
    /// Looks in a row that have not shown it: an answer may be late.
    unseen: u8,
}

#[derive(Debug, PartialEq)]
enum ModuleNews {
    Apart {
        handler: String,
        own: String,
        /// The other digests.
        others: String,
    },
    Together {
        handler: String,
    },
}

impl Apart {
    fn look(
        &mut self,
        own: &[Served],
        others: impl Iterator<Item = Served>,
        now: Instant,
        long: Duration,
    ) -> Vec<ModuleNews> {
        let mut seen: BTreeMap<&str, (&str, BTreeSet<String>)> = BTreeMap::new();
        for (handler, digest) in others {
            if let Some((name, mine)) = own.iter().find(|(name, mine)| *name == handler && *mine != digest) {
                seen.entry(name)
                    .or_insert_with(|| (mine, BTreeSet::new()))
                    .1
                    .insert(digest);
            }
        }
        let mut said = Vec::new();
        for (handler, (mine, digests)) in &seen {
            let standing = self.0.entry((*handler).to_owned()).or_insert(ModuleApart {
                since: now,
                told: false,
                unseen: 0,
            });
            standing.unseen = 0;
            if now - standing.since >= long && !standing.told {
                standing.told = true;
                said.push(ModuleNews::Apart {
                    handler: (*handler).to_owned(),
                    own: (*mine).to_owned(),
                    others: digests.iter().cloned().collect::<Vec<_>>().join(","),
                });
            }
        }
        self.0.retain(|handler, standing| {
            standing.unseen += u8::from(!seen.contains_key(handler.as_str()));
            let over = standing.unseen > 1;
            if over && standing.told {
                said.push(ModuleNews::Together {
                    handler: handler.clone(),
                });
            }
            !over
        });
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn other_modules_are_told_of_once_after_a_while_and_once_when_it_is_over() {
        let (began, minute) = (Instant::now(), Duration::from_secs(60));
        let served = |digest: &str| ("a".to_owned(), digest.to_owned());
        let mut apart = Apart::default();
        let mut look = |minutes: u32, others: &[&str]| {
            let others = others.iter().map(|digest| served(digest));
            apart.look(&[served("1")], others, began + minutes * minute, 15 * minute)
        };
        let told = |others: &str| {
            vec![ModuleNews::Apart {
                handler: "a".into(),
                own: "1".into(),
                others: others.into(),
            }]
        };
        // A rolling update.
        assert_eq!(look(0, &["1", "2"]), []);
        assert_eq!(look(10, &["2"]), []);
        assert_eq!(look(11, &["1"]), []);
        assert_eq!(look(12, &["1"]), []);
        // One that was forgotten, whose answer is late once.
        assert_eq!(look(13, &["2", "2"]), []);
        assert_eq!(look(20, &[]), []);
        assert_eq!(look(28, &["2", "3", "1"]), told("2,3"));
        assert_eq!(look(29, &["2"]), []);
        assert_eq!(look(30, &["1"]), []);
        assert_eq!(look(31, &["1"]), vec![ModuleNews::Together { handler: "a".into() }]);
        assert_eq!(look(32, &["1"]), []);
    }
}
