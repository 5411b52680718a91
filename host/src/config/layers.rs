//! What the environment and the command line say, as layers over the file.

use std::collections::BTreeMap;

use figment::providers::Env;
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::Overrides;
use super::reader::Reader;

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

/// Whether Kubernetes says it of a Service whose name begins with `jetmesh`: it tells every pod of all of them
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>). `name` is without prefix.
fn is_service(name: &str, text: &str) -> bool {
    if name.contains("__") {
        // A key within a table: a setting of a handler may be called so.
        return false;
    }
    let name = format!("_{}", name.to_ascii_uppercase());
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = |rest: &str| {
        let mut parts = rest.split('_');
        is_number(parts.next().unwrap_or_default())
            && ["TCP", "UDP", "SCTP"].contains(&parts.next().unwrap_or_default())
            && ["", "PROTO", "PORT", "ADDR"].contains(&parts.next().unwrap_or_default())
            && parts.next().is_none()
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || (name.contains("_SERVICE_PORT_") && is_number(text))
        || (name.ends_with("_PORT")
            && ["tcp://", "udp://", "sctp://"]
                .iter()
                .any(|scheme| text.starts_with(scheme)))
        || name.rsplit_once("_PORT_").is_some_and(|(_, rest)| port(rest))
        || name
            .strip_suffix("_PORT")
            .and_then(|name| name.rsplit_once("_PORT_"))
            .is_some_and(|(_, rest)| port(rest))
}

/// The key that a variable means. A variable's name has no small letters and no `-`, but a stream, a handler or a setting
/// may: what is in the file is found whichever way it is written there.
fn resolve(name: &str, file: &Dict) -> Vec<String> {
    let mut table = Some(file);
    let mut path = Vec::new();
    for part in name.to_ascii_lowercase().split("__") {
        let plain = |key: &String| key.to_ascii_lowercase().replace('-', "_") == part;
        let keys = || table.into_iter().flat_map(Dict::keys);
        let key = keys()
            .find(|key| *key == part)
            .or_else(|| keys().find(|key| plain(key)));
        let key = key.cloned().unwrap_or_else(|| part.to_owned());
        table = table.and_then(|table| table.get(&key)).and_then(Value::as_dict);
        path.push(key);
    }
    path
}

/// The variable that was meant by one with the wrong number of `_` between a table and its key.
pub fn variable_meant(reader: &Reader, unknown: &str) -> Option<String> {
    let within = |key: &str| {
        key.strip_prefix(unknown)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let of_variable = |by: &str| by.starts_with("JETMESH_");
    let (key, _) = reader.sources.iter().find(|(key, by)| within(key) && of_variable(by))?;
    let flat = key.replace('.', "_");
    reader.known.keys().find_map(|known| {
        let meant = match known.replace('.', "_").split_once('*') {
            None => (known.replace('.', "_") == flat).then(|| known.clone()),
            Some((before, after)) => {
                let name = flat.strip_prefix(before)?.strip_suffix(after)?;
                (!name.is_empty()).then(|| known.replace('*', name))
            }
        }?;
        Some(format!("JETMESH_{}", meant.to_ascii_uppercase().replace('.', "__")))
    })
}

/// What the problem of a value from it says.
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
