//! `[nats]`: how to reach NATS, from the file and, under it, a context of the `nats` CLI.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::context::{self, Context};
use super::layers::USER_FLAG;
use super::names::{check_name, check_prefix};
use super::reader::{Reader, Section};
use super::values::duration;
use crate::broker::login;
use crate::plan::{ConnectionsWanted, Nats};
use crate::text::secret::redact;

pub fn read(mut section: Section, reader: &mut Reader) -> Nats {
    let context = match section.text(reader, "context") {
        None => Context::default(),
        Some(name) => context::load(&name).unwrap_or_else(|why| {
            reader.problem("nats.context", why, "`nats context ls` lists them");
            Context::default()
        }),
    };
    let mut text = |name: &'static str, below: Option<String>| section.text(reader, name).or(below);
    let mut url = text("url", context.url).map_or_else(|| "nats://127.0.0.1:4222".to_owned(), |url| with_scheme(&url));
    // As for the `nats` CLI, a user without a password there is a token.
    let lonely = context.user.clone().filter(|_| context.password.is_none());
    let mut user = text("user", context.user);
    let password = text("password", context.password);
    let mut token = text("token", context.token);
    let file = |value: Option<String>| value.map(PathBuf::from);
    let creds = file(text("creds", context.creds));
    let nkey = file(text("nkey", context.nkey));
    let tls_ca = file(text("tls_ca", context.ca));
    let tls_cert = file(text("tls_cert", context.cert));
    let tls_key = file(text("tls_key", context.key));
    let inbox_prefix = text("inbox_prefix", context.inbox_prefix);
    let js_domain = text("js_domain", context.jetstream_domain);
    let js_api_prefix = text("js_api_prefix", context.jetstream_api_prefix);
    let js_event_prefix = text("js_event_prefix", context.jetstream_event_prefix);
    let wait = text("wait", None);
    let tls_first = section.boolean(reader, "tls_first", context.tls_first);
    let least = Duration::from_millis(100);
    let timeout = section.duration(reader, "timeout", least, Duration::from_secs(5));
    section.finish(reader);
    check_servers(reader, &url);
    if reader.sources.contains_key("nats.user") && !reader.sources.contains_key("nats.url") {
        // Who is named over the file is not the one in the file's address.
        url = url
            .split(',')
            .map(|one| login::address(one).server)
            .collect::<Vec<_>>()
            .join(",");
    }
    let by_flag = reader.sources.get("nats.user").is_some_and(|by| by == USER_FLAG);
    if (by_flag || user == lonely) && password.is_none() && token.is_none() {
        token = user.take();
    }
    if user.is_some() != password.is_some() {
        let (has, lacks) = if user.is_some() {
            ("user", "password")
        } else {
            ("password", "user")
        };
        let hint = if lacks == "password" {
            "a token alone is nats.token"
        } else {
            ""
        };
        reader.problem(format!("nats.{lacks}"), format!("nats.{has} needs it"), hint);
    }
    if tls_cert.is_some() != tls_key.is_some() {
        let (has, lacks) = if tls_cert.is_some() {
            ("tls_cert", "tls_key")
        } else {
            ("tls_key", "tls_cert")
        };
        reader.problem(format!("nats.{lacks}"), format!("nats.{has} needs it"), "");
    }
    if js_domain.is_some() && js_api_prefix.is_some() {
        reader.problem(
            "nats.js_api_prefix",
            "not together with nats.js_domain",
            "leave one of them out",
        );
    }
    if let Some(domain) = &js_domain {
        check_name(reader, "nats.js_domain", domain);
    }
    let prefixes = [
        ("inbox_prefix", &inbox_prefix),
        ("js_api_prefix", &js_api_prefix),
        ("js_event_prefix", &js_event_prefix),
    ];
    for (key, prefix) in prefixes {
        if let Some(prefix) = prefix {
            check_prefix(reader, &format!("nats.{key}"), prefix);
        }
    }
    let certificate = |path: &Path| login::check_pem(path, "CERTIFICATE", "certificate");
    let private = |path: &Path| login::check_pem(path, "PRIVATE KEY", "private key");
    let seed = |path: &Path| login::seed(path).map(|_| ());
    type Check<'a> = &'a dyn Fn(&Path) -> Result<(), String>;
    let files: [(&str, &Option<PathBuf>, Check<'_>); 5] = [
        ("creds", &creds, &login::check_credentials),
        ("nkey", &nkey, &seed),
        ("tls_ca", &tls_ca, &certificate),
        ("tls_cert", &tls_cert, &certificate),
        ("tls_key", &tls_key, &private),
    ];
    for (key, path, check) in files {
        let Some(path) = path else { continue };
        if let Err(why) = check(path) {
            let key = format!("nats.{key}");
            match path.is_file() {
                true => reader.problem(key, format!("{}: {why}", path.display()), ""),
                false => reader.problem(
                    key,
                    format!("there is no file {}", path.display()),
                    "a path, not its content",
                ),
            }
        }
    }
    let wait = match wait.as_deref() {
        None | Some("forever") => None,
        Some("0") => Some(Duration::ZERO),
        Some(text) => duration(text).map(Some).unwrap_or_else(|_| {
            reader.problem(
                "nats.wait",
                format!("\"{text}\" is not a duration"),
                "\"30s\", \"0s\" or \"forever\"",
            );
            None
        }),
    };
    Nats {
        url,
        user,
        password,
        token,
        creds,
        nkey,
        tls_ca,
        tls_cert,
        tls_key,
        tls_first,
        inbox_prefix,
        js_domain,
        js_api_prefix,
        js_event_prefix: js_event_prefix.unwrap_or_else(|| "$JS.EVENT".to_owned()),
        connections: ConnectionsWanted::default(),
        timeout,
        wait,
    }
}

/// Addresses as they are kept: each with its scheme, so that `redact` finds the user in all of them.
fn with_scheme(url: &str) -> String {
    let full = |one: &str| {
        if one.contains("://") {
            one.to_owned()
        } else {
            format!("nats://{one}")
        }
    };
    url.split(',').map(|one| full(one.trim())).collect::<Vec<_>>().join(",")
}

fn check_servers(reader: &mut Reader, url: &str) {
    for one in url.split(',') {
        let (scheme, rest) = one.split_once("://").unwrap_or_default();
        let host = rest.rsplit('@').next().unwrap_or_default().trim_end_matches('/');
        // The colons of an IPv6 address are inside brackets.
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
            _ => (host, None),
        };
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '/';
        if !["nats", "tls"].contains(&scheme) || name.is_empty() || name.contains(odd) {
            let what = format!("\"{}\" is not a server's address", redact(one).escape_debug());
            reader.problem(
                "nats.url",
                what,
                "nats://host:4222 or tls://host:4222, or several joined by commas",
            );
        } else if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            // What stands there may be the first half of a password, so it is not shown.
            let what = format!("what follows \"{scheme}://{name}:\" is not a port in 1..=65535");
            reader.problem("nats.url", what, "a comma or slash in a password is written %2C or %2F");
        }
    }
}
