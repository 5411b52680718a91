//! What to try next, as it fits the configuration that runs.

use std::fmt::Write as _;
use std::path::Path;

use super::{STOCK, server};
use crate::event::subject::subject_matches;
use crate::plan::Plan;
use crate::text::secret;

/// The subject of orders in the sample, and one of them.
const ORDERS: &str = "orders.created";
const ORDER: &str = r#"{"order_id":"n-{{Count}}","user_id":"u-7","locale":"en","lines":[{"sku":"sku-1","qty":2,"price_cents":1250}],"total_cents":2500}"#;

/// The commands to try, each on a line.
pub fn text(plan: &Plan, config: Option<&Path>) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "jetmesh".to_owned());
    let nats = server::find("nats").map(|path| match path.starts_with(".tools/bin") {
        true => path.display().to_string(),
        false => "nats".to_owned(),
    });
    lines(plan, &program, config, nats.as_deref())
}

/// Where the `nats` CLI, and a configuration that says nothing, look for NATS.
const USUAL: &str = "nats://127.0.0.1:4222";

/// What to print if other commands look for NATS elsewhere than at `url`. `configured`: where this configuration looks.
pub fn elsewhere(url: &str, configured: &str) -> Option<String> {
    let place = |url: &str| url.trim_start_matches("nats://").replace("localhost", "127.0.0.1");
    if place(url) == place(USUAL) && place(url) == place(configured) {
        return None;
    }
    Some(format!(
        "`nats` connects to {USUAL} by default, and `jetmesh` with this configuration to {}.\n\
         For both to connect to this server, enter this in their terminal:\n  export NATS_URL={url}",
        secret::hide(configured)
    ))
}

/// `nats`: how the `nats` CLI is called here, if it is there.
fn lines(plan: &Plan, program: &str, config: Option<&Path>, nats: Option<&str>) -> String {
    let mut text = String::new();
    let mut line = |command: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {command}");
    };
    let url = &plan.nats.url;
    let of_nats = format!("{} -s {url}", nats.unwrap_or("nats"));
    let samples = plan.handlers.iter().any(|h| h.bucket.as_deref() == Some("inventory"))
        && plan
            .handlers
            .iter()
            .any(|h| takes(plan, &h.stream, &h.subjects, ORDERS));
    if samples {
        line(format!("{of_nats} pub {ORDERS} '{ORDER}'"));
        line(format!("{of_nats} pub {ORDERS} 'not an order'"));
        line(format!("{of_nats} kv get inventory {}", STOCK[0].0));
        line(format!("{of_nats} kv put inventory stock.sku-9 10"));
    } else {
        for handler in &plan.handlers {
            if let Some(subject) = subjects(plan, &handler.stream, &handler.subjects).first() {
                line(format!("{of_nats} pub {} '…'", example(subject)));
                break;
            }
        }
        if let Some(bucket) = plan.handlers.iter().find_map(|h| h.bucket.as_deref()) {
            line(format!("{of_nats} kv ls {bucket}"));
        }
    }
    let is_source = |name: &str| plan.handlers.iter().any(|h| h.stream == name);
    for stream in plan.streams.iter().filter(|s| !is_source(&s.name)) {
        line(format!("{of_nats} stream view {}", stream.name));
    }
    line(format!("{of_nats} stream view MESH_DEAD"));
    line(format!("{of_nats} micro stats jetmesh"));
    let config = config.map_or(String::new(), |path| format!(" -c {}", path.display()));
    let of_jetmesh = format!("{program}{config} -s {url}");
    line(format!("{of_jetmesh} status"));
    line(format!("{of_jetmesh} dlq ls"));
    if samples {
        line(format!("{of_jetmesh} trace --key order_id=o-3"));
    }
    let missing = match nats {
        Some(_) => "",
        None => " (`nats` is the nats CLI, which is not on the PATH: https://github.com/nats-io/natscli)",
    };
    format!("\ntry next, in another terminal{missing}:\n{text}Ctrl-C ends all of it.\n\n")
}

/// What a handler is given: its own subjects, else all of its stream's.
fn subjects<'a>(plan: &'a Plan, stream: &str, own: &'a [String]) -> &'a [String] {
    if !own.is_empty() {
        return own;
    }
    let of_stream = plan.streams.iter().find(|s| s.name == stream);
    of_stream.map_or(&[], |s| &s.subjects)
}

fn takes(plan: &Plan, stream: &str, own: &[String], subject: &str) -> bool {
    subjects(plan, stream, own).iter().any(|s| subject_matches(s, subject))
}

/// A subject that matches a pattern.
fn example(pattern: &str) -> String {
    let part = |token: &str| match token {
        "*" | ">" => "example".to_owned(),
        token => token.to_owned(),
    };
    pattern.split('.').map(part).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn a_server_where_other_commands_do_not_look_is_told() {
        assert_eq!(elsewhere(USUAL, "nats://localhost:4222"), None);
        assert_eq!(elsewhere(USUAL, "127.0.0.1:4222"), None);
        let other = "nats://127.0.0.1:4223";
        for (url, configured) in [
            (other, USUAL),
            (other, other),
            (USUAL, "nats://u:hunter2@nats.example:4222"),
        ] {
            let said = elsewhere(url, configured).expect("they look elsewhere");
            assert!(said.ends_with(&format!("\n  export NATS_URL={url}")), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn what_to_try_next_fits_the_configuration() {
        let sample = parse(include_str!("../../../../config/default.toml"), Path::new("config")).expect("it is valid");
        let sample = lines(&sample, "jetmesh", None, Some(".tools/bin/nats"));
        assert!(
            sample.contains(
                "  .tools/bin/nats -s nats://127.0.0.1:4222 pub orders.created '{\"order_id\":\"n-{{Count}}\""
            )
        );
        assert!(sample.contains("kv get inventory stock.sku-1"), "{sample}");
        let own = "[streams.IN]\nsubjects = [\"in.>\"]\n[streams.OUT]\nsubjects = [\"out.*\"]\n\
                   [handlers.h]\nmodule = \"h.wasm\"\nstream = \"IN\"\nbucket = \"things\"\npublish = [\"out.a\"]";
        let own = parse(own, Path::new("")).expect("it is valid");
        insta::assert_snapshot!(lines(&own, "jetmesh", Some(Path::new("own.toml")), None), @r"

        try next, in another terminal (`nats` is the nats CLI, which is not on the PATH: https://github.com/nats-io/natscli):
          nats -s nats://127.0.0.1:4222 pub in.example '…'
          nats -s nats://127.0.0.1:4222 kv ls things
          nats -s nats://127.0.0.1:4222 stream view OUT
          nats -s nats://127.0.0.1:4222 stream view MESH_DEAD
          nats -s nats://127.0.0.1:4222 micro stats jetmesh
          jetmesh -c own.toml -s nats://127.0.0.1:4222 status
          jetmesh -c own.toml -s nats://127.0.0.1:4222 dlq ls
        Ctrl-C ends all of it.
        ");
    }
}
