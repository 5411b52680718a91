//! The environment and the command line, as layers over the file.

use super::variables::{is_service, resolve};
use std::collections::BTreeMap;

use figment::providers::Env;
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::Overrides;

/// Single values of one layer. They stay the texts that they are: a password `0123` or `[x]` must not be read as a number
/// or a list, so what a text means is left to the reader, which knows the key.
pub struct Layer {
    name: &'static str,
    values: Vec<Said>,
}

struct Said {
    /// The variable or the flag.
    by: String,
    path: Vec<String>,
    text: String,
}

/// The environment. An empty variable counts as not set, as compose files leave them behind.
pub fn environment(file: &Dict) -> Layer {
    // JETMESH_CONFIG names the file itself.
    let env = Env::prefixed("JETMESH_").ignore(&["CONFIG"]);
    let said = env
        .iter()
        .filter(|(name, text)| !text.is_empty() && !is_service(name.as_str(), text));
    let values = said.map(|(name, text)| {
        let name = name.as_str();
        Said {
            by: format!("JETMESH_{}", name.to_ascii_uppercase()),
            path: resolve(name, file),
            text,
        }
    });
    Layer {
        name: "environment",
        values: values.collect(),
    }
}

/// How an error names this source of a value.
pub const USER_FLAG: &str = "--user or NATS_USER";

/// The command line.
pub fn flags(overrides: &Overrides) -> Layer {
    let Overrides {
        nats_url,
        context,
        creds,
        nkey,
        user,
        password,
        wait,
        log_filter,
        log_format,
        admin,
    } = overrides;
    let file = |path: &Option<std::path::PathBuf>| path.as_ref().map(|p| p.display().to_string());
    let all = [
        ("--server or NATS_URL", "nats", "url", nats_url.clone()),
        ("--context", "nats", "context", context.clone()),
        ("--creds or NATS_CREDS", "nats", "creds", file(creds)),
        ("--nkey or NATS_NKEY", "nats", "nkey", file(nkey)),
        (USER_FLAG, "nats", "user", user.clone()),
        ("--password or NATS_PASSWORD", "nats", "password", password.clone()),
        ("--wait", "nats", "wait", wait.clone()),
        ("--log", "log", "filter", log_filter.clone()),
        ("--log-format", "log", "format", log_format.clone()),
        ("--admin", "admin", "listen", admin.clone()),
    ];
    let values = all.into_iter().filter_map(|(flag, table, key, text)| {
        Some(Said {
            by: flag.to_owned(),
            path: vec![table.to_owned(), key.to_owned()],
            text: text?,
        })
    });
    Layer {
        name: "command line",
        values: values.collect(),
    }
}

impl Layer {
    /// Notes for each key that this layer sets what has set it.
    pub fn sources(&self, into: &mut BTreeMap<String, String>) {
        into.extend(self.values.iter().map(|said| (said.path.join("."), said.by.clone())));
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for said in &self.values {
            insert(&mut root, &said.path, &said.text);
        }
        Ok(Profile::Default.collect(root))
    }
}

fn insert(table: &mut Dict, path: &[String], text: &str) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), Value::from(text));
        }
        [key, rest @ ..] => {
            let below = table.entry(key.clone()).or_insert_with(|| Value::from(Dict::new()));
            // A variable for a whole table beside one for a key of it: it stays, and is refused as not a table.
            if let Value::Dict(_, below) = below {
                insert(below, rest, text);
            }
        }
    }
}
