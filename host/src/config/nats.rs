//! `[nats]`: how to reach NATS, from the file and, under it, a context of the `nats` CLI.

use std::path::PathBuf;
use std::time::Duration;

use super::context::{self, Context};
use super::reader::{Reader, Section};
use crate::broker::connection::redact;
use crate::plan::Nats;

pub fn read(mut section: Section, reader: &mut Reader) -> Nats {
    let context = match section.text(reader, "context") {
        None => Context::default(),
        Some(name) => context::load(&name).unwrap_or_else(|why| {
            reader.problem("nats.context", why, "`nats context ls` lists them");
            Context::default()
        }),
    };
    let mut text = |name: &'static str, below: Option<String>| section.text(reader, name).or(below);
    let url = text("url", context.url).unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned());
    let user = text("user", context.user);
    let password = text("password", context.password);
    let token = text("token", context.token);
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
    for one in url.split(',') {
        let host = one.trim().rsplit('/').next().unwrap_or_default();
        let scheme = one.trim().split_once("://").map_or("nats", |(scheme, _)| scheme);
        if host.is_empty() || host.contains(' ') || !["nats", "tls", "ws", "wss"].contains(&scheme) {
            let what = format!("\"{}\" is not a server's address", redact(one.trim()));
            reader.problem("nats.url", what, "nats://host:4222, or several joined by commas");
        }
    }
    if user.is_some() != password.is_some() {
        let (has, lacks) = if user.is_some() {
            ("user", "password")
        } else {
            ("password", "user")
        };
        reader.problem(format!("nats.{lacks}"), format!("nats.{has} needs it"), "");
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
    for (key, path) in [
        ("creds", &creds),
        ("nkey", &nkey),
        ("tls_ca", &tls_ca),
        ("tls_cert", &tls_cert),
        ("tls_key", &tls_key),
    ] {
        if let Some(path) = path.as_ref().filter(|path| !path.is_file()) {
            reader.problem(
                format!("nats.{key}"),
                format!("there is no file {}", path.display()),
                "",
            );
        }
    }
    let wait = match wait.as_deref() {
        None | Some("forever") => None,
        Some("0") => Some(Duration::ZERO),
        Some(text) => humantime::parse_duration(text).map(Some).unwrap_or_else(|_| {
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
        timeout,
        wait,
    }
}
