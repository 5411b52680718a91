//! Variables of the environment: which key each means, and which are none of ours.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

/// Whether Kubernetes says it of a Service whose name begins with `jetmesh`: it tells every pod of all of them
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>). `name` is without prefix.
pub fn is_service(name: &str, text: &str) -> bool {
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
pub fn resolve(name: &str, file: &Dict) -> Vec<String> {
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
pub fn variable_meant(
    sources: &BTreeMap<String, String>,
    known: &BTreeMap<String, String>,
    unknown: &str,
) -> Option<String> {
    let within = |key: &str| {
        key.strip_prefix(unknown)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let of_variable = |by: &str| by.starts_with("JETMESH_");
    let (key, _) = sources.iter().find(|(key, by)| within(key) && of_variable(by))?;
    let flat = key.replace('.', "_");
    known.keys().find_map(|known| {
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
