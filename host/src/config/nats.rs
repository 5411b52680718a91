//! `[nats]`: how to reach NATS, from the file and, under it, a context of the `nats` CLI.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::context::{self, Context};
use super::files::check_file;
use super::layers::USER_FLAG;
use super::names::{check_name, check_prefix};
use super::reader::{Reader, Section};
use super::values::duration;
use crate::broker::login;
use crate::plan::{ConnectionsWanted, Nats};
use crate::text::secret::redact;

/// The prefix of the server's events, unless an account maps it.
const EVENT_PREFIX: &str = "$JS.EVENT";

pub fn read(mut section: Section, reader: &mut Reader) -> Nats {
    let context = match section.text(reader, "context") {
        None => Context::default(),
        Some(name) => context::load(&name).unwrap_or_else(|why| {
            reader.problem("nats.context", why, "`nats context ls` lists them");
            Context::default()
        }),
    };
    // As for the `nats` CLI, a user without a password there is a token.
    let lonely = context.user.clone().filter(|_| context.password.is_none());
    let wait = section.text(reader, "wait");
    let mut nats = said(&mut section, context, reader);
    section.finish(reader);
    check_servers(reader, &nats.url);
    choose_login(&mut nats, lonely, reader);
    check_together(&nats, reader);
    check_names(&nats, reader);
    check_files(&nats, reader);
    nats.wait = wait_of(wait.as_deref(), reader);
    nats
}

/// The values of the section; where it has none, those of the context. They are not checked yet.
fn said(section: &mut Section, context: Context, reader: &mut Reader) -> Nats {
    let mut text = |name: &'static str, below: Option<String>| section.text(reader, name).or(below);
    let file = |value: Option<String>| value.map(PathBuf::from);
    let nats = Nats {
        url: text("url", context.url).map_or_else(|| "nats://127.0.0.1:4222".to_owned(), |url| with_scheme(&url)),
        user: text("user", context.user),
        password: text("password", context.password),
        token: text("token", context.token),
        creds: file(text("creds", context.creds)),
        nkey: file(text("nkey", context.nkey)),
        tls_ca: file(text("tls_ca", context.ca)),
        tls_cert: file(text("tls_cert", context.cert)),
        tls_key: file(text("tls_key", context.key)),
        inbox_prefix: text("inbox_prefix", context.inbox_prefix),
        js_domain: text("js_domain", context.jetstream_domain),
        js_api_prefix: text("js_api_prefix", context.jetstream_api_prefix),
        js_event_prefix: text("js_event_prefix", context.jetstream_event_prefix)
            .unwrap_or_else(|| EVENT_PREFIX.to_owned()),
        tls_first: false,
        given: None,
        connections: ConnectionsWanted::default(),
        timeout: Duration::ZERO,
        wait: None,
    };
    let least = Duration::from_millis(100);
    Nats {
        tls_first: section.boolean(reader, "tls_first", context.tls_first),
        timeout: section.duration(reader, "timeout", least, Duration::from_secs(5)),
        ..nats
    }
}

/// Who logs in, where that is said in several places. `lonely`: the context's user, if it has no password there.
fn choose_login(nats: &mut Nats, lonely: Option<String>, reader: &Reader) {
    if reader.sources.contains_key("nats.user") && !reader.sources.contains_key("nats.url") {
        // Who is named over the file is not the one in the file's address.
        let servers = nats.url.split(',').map(|one| login::address(one).server);
        nats.url = servers.collect::<Vec<_>>().join(",");
    }
    let by_flag = reader.sources.get("nats.user").is_some_and(|by| by == USER_FLAG);
    if (by_flag || nats.user == lonely) && nats.password.is_none() && nats.token.is_none() {
        nats.token = nats.user.take();
    }
}

/// What needs something else beside it, or excludes it.
fn check_together(nats: &Nats, reader: &mut Reader) {
    let mut both = |first: (&str, bool), second: (&str, bool), hint: &str| {
        if first.1 != second.1 {
            let (has, lacks) = if first.1 {
                (first.0, second.0)
            } else {
                (second.0, first.0)
            };
            let hint = if lacks == "password" { hint } else { "" };
            reader.problem(format!("nats.{lacks}"), format!("nats.{has} needs it"), hint);
        }
    };
    let (user, password) = (nats.user.is_some(), nats.password.is_some());
    both(("user", user), ("password", password), "a token alone is nats.token");
    let (cert, key) = (nats.tls_cert.is_some(), nats.tls_key.is_some());
    both(("tls_cert", cert), ("tls_key", key), "");
    if nats.js_domain.is_some() && nats.js_api_prefix.is_some() {
        reader.problem(
            "nats.js_api_prefix",
            "not together with nats.js_domain",
            "leave one of them out",
        );
    }
}

fn check_names(nats: &Nats, reader: &mut Reader) {
    if let Some(domain) = &nats.js_domain {
        check_name(reader, "nats.js_domain", domain);
    }
    let prefixes = [
        ("inbox_prefix", nats.inbox_prefix.as_ref()),
        ("js_api_prefix", nats.js_api_prefix.as_ref()),
        ("js_event_prefix", Some(&nats.js_event_prefix)),
    ];
    for (key, prefix) in prefixes {
        if let Some(prefix) = prefix {
            check_prefix(reader, &format!("nats.{key}"), prefix);
        }
    }
}

fn check_files(nats: &Nats, reader: &mut Reader) {
    let certificate = |path: &Path| login::check_pem(path, "CERTIFICATE", "certificate");
    let private = |path: &Path| login::check_pem(path, "PRIVATE KEY", "private key");
    let seed = |path: &Path| login::seed(path).map(|_| ());
    type FileCheck<'a> = &'a dyn Fn(&Path) -> Result<(), String>;
    let files: [(&str, &Option<PathBuf>, FileCheck<'_>); 5] = [
        ("creds", &nats.creds, &login::check_credentials),
        ("nkey", &nats.nkey, &seed),
        ("tls_ca", &nats.tls_ca, &certificate),
        ("tls_cert", &nats.tls_cert, &certificate),
        ("tls_key", &nats.tls_key, &private),
    ];
    for (key, path, check) in files {
        check_file(reader, &format!("nats.{key}"), path.as_deref(), check);
    }
}

/// How long a host waits for NATS at its start. `None`: for ever.
fn wait_of(text: Option<&str>, reader: &mut Reader) -> Option<Duration> {
    match text {
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
