use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::reader::Reader;
use super::*;
use crate::plan::{Instance, Start};

const DEFAULT: &str = include_str!("../../../config/default.toml");

const SMALL: &str = r#"
[handlers.h]
module = "h.wasm"
stream = "ORDERS"
"#;

fn base() -> &'static Path {
    Path::new("")
}

fn problems(text: &str) -> String {
    parse(text, base()).expect_err("it is wrong").to_string()
}

#[test]
fn the_sample_says_every_key_that_the_code_knows() {
    let figment = Figment::from(Toml::string(DEFAULT));
    let mut reader = Reader::default();
    plan(figment.extract().unwrap(), base(), &mut reader);
    assert_eq!(reader.problems, []);
    let mut said = std::collections::BTreeSet::new();
    let mut table = String::new();
    for line in DEFAULT.lines() {
        let line = line.trim_start_matches("# ");
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            let mut parts: Vec<&str> = name.split('.').collect();
            if let ("streams" | "handlers", Some(name)) = (parts[0], parts.get_mut(1)) {
                *name = "*";
            }
            table = parts.join(".");
            said.insert(table.clone());
        } else if let Some((key, _)) = line.split_once(" = ") {
            let key = if table == "handlers.*.settings" { "*" } else { key };
            said.insert(if table.is_empty() {
                key.to_owned()
            } else {
                format!("{table}.{key}")
            });
        }
    }
    // A handler's limits are documented once, under [defaults].
    let documented = |key: &String| {
        said.contains(key)
            || key
                .strip_prefix("handlers.*.")
                .is_some_and(|k| said.contains(&format!("defaults.{k}")))
    };
    let missing: Vec<&String> = reader
        .known
        .iter()
        .filter(|k| *k != "streams" && *k != "handlers")
        .filter(|k| !documented(k))
        .collect();
    assert!(missing.is_empty(), "config/default.toml does not mention {missing:?}");
}

#[test]
fn what_the_sample_says_as_defaults_are_the_defaults() {
    let mut stripped = String::new();
    let mut keep = false;
    for line in DEFAULT.lines() {
        if line.starts_with('[') {
            keep = line.starts_with("[streams") || line.starts_with("[handlers");
        }
        let default = ["retention", "replicas", "duplicate_window", "consumer", "ledger"];
        if keep && !default.iter().any(|key| line.starts_with(&format!("{key} = "))) {
            stripped.push_str(line);
            stripped.push('\n');
        }
    }
    assert_eq!(parse(&stripped, base()).unwrap(), parse(DEFAULT, base()).unwrap());
}

#[test]
fn six_lines_make_a_handler() {
    let plan = parse(SMALL, base()).unwrap();
    let handler = &plan.handlers[0];
    assert_eq!((handler.consumer.as_str(), handler.ledger.as_deref()), ("h", None));
    assert_eq!(
        (handler.concurrency, handler.in_flight, handler.instance),
        (16, 64, Instance::Fresh)
    );
}

#[test]
fn who_has_a_ledger_is_fixed_by_the_plan() {
    let ledger = |more: &str| {
        parse(&format!("{SMALL}{more}"), base()).unwrap().handlers[0]
            .ledger
            .clone()
    };
    assert_eq!(ledger(""), None);
    assert_eq!(ledger("bucket = \"b\"").as_deref(), Some("b"));
    assert_eq!(ledger("publish = [\"a.b\"]").as_deref(), Some("mesh"));
    assert_eq!(ledger("ledger = true").as_deref(), Some("mesh"));
}

#[test]
fn a_start_is_a_word_a_sequence_or_a_time() {
    let start = |text: &str| parse(&format!("{SMALL}start = {text}"), base()).unwrap().handlers[0].start;
    assert_eq!(start("\"new\""), Some(Start::New));
    assert_eq!(start("17"), Some(Start::Sequence(17)));
    let time = std::time::UNIX_EPOCH + Duration::from_secs(60);
    assert_eq!(start("\"1970-01-01T00:01:00Z\""), Some(Start::Time(time)));
}

#[test]
fn all_problems_are_said_at_once_with_their_fix() {
    let text = r#"
meshh = "a"
threads = -1

[nats]
url = "http://x"
user = "u"
wait = "soon"

[streams.KV_x]
subjects = ["a..b"]

[streams.ORDERS]
subjects = ["orders.>"]
retention = "forever"

[handlers.points]
module = 5
stream = "ORDERS"
subjects = ["order.created", "orders.*", "orders.created"]
concurrency = 0
backoff = "10 parsecs"
tiemout = "1s"
start = "yesterday"
bucket = "mesh"
publish = [">", "$JS.API.x"]

[handlers."a b"]
stream = "MESH_DEAD"
"#;
    insta::assert_snapshot!(problems(text), @r#"
    error: the configuration has 20 problems
      threads: -1 is not in 0..=256
        hint: leave it out for the default, 0
      nats.url: "http://x" is not a server's address
        hint: nats://host:4222, or several joined by commas
      nats.password: nats.user needs it
      nats.wait: "soon" is not a duration
        hint: "30s", "0s" or "forever"
      streams.KV_x: streams named MESH_… and KV_… are made by the mesh itself
        hint: use another name
      streams.KV_x.subjects: "a..b" is not a subject: a part between dots is empty
      streams.ORDERS.retention: "forever" is not one of "limits", "interest", "workqueue"
      handlers.a b: "a b" is not a name
        hint: 1 to 64 characters of A-Z a-z 0-9 - and _
      handlers.a b.module: it is missing
        hint: the component file, relative to this configuration
      handlers.a b.stream: streams named MESH_… are the mesh's own
        hint: consume one of yours
      handlers.points.concurrency: 0 is not in 1..=10000
        hint: leave it out for the default, 16
      handlers.points.backoff: "10 parsecs" is not a duration
        hint: a number and a unit: "500ms", "30s", "5m", "24h"
      handlers.points.subjects: `orders.created` overlaps with `orders.*`
        hint: an event would match twice: leave one of them out
      handlers.points.start: "yesterday" is not a start
        hint: "all", "new", a sequence from 1 on, or an RFC 3339 time
      handlers.points.bucket: "mesh" is the mesh's own
        hint: use another name
      handlers.points.publish: `>` would grant the server's and the mesh's subjects as well
        hint: name the subjects, or a prefix such as "inventory.>"
      handlers.points.publish: `$JS.API.x`: subjects of the server and the mesh are not granted
      handlers.points.tiemout: unknown key
        hint: did you mean `timeout`?
      handlers.points.subjects: `order.created` is not captured by stream ORDERS
        hint: it captures orders.>
      meshh: unknown key
        hint: did you mean `mesh`?
    "#);
}

#[test]
fn an_unknown_key_is_an_error_with_a_suggestion() {
    let text = problems(&format!("{SMALL}max_atempts = 3"));
    assert!(
        text.contains("handlers.h.max_atempts: unknown key\n    hint: did you mean `max_attempts`?"),
        "{text}"
    );
}

#[test]
fn limits_that_contradict_one_another_are_refused() {
    let text = problems(&format!(
        "{SMALL}concurrency = 100\nin_flight = 10\nack_pending_max = 5\nbackoff_max = \"1ms\""
    ));
    for key in [
        "in_flight: 10 is below concurrency, 100",
        "ack_pending_max: 5",
        "backoff_max: 1ms is below backoff, 1s",
    ] {
        assert!(text.contains(key), "{key} not in {text}");
    }
}

#[test]
fn the_effective_configuration_gives_the_same_plan() {
    for text in [DEFAULT, SMALL] {
        let plan = parse(text, base()).unwrap();
        assert_eq!(parse(&effective(&plan), base()).unwrap(), plan);
    }
}

#[test]
fn secrets_are_not_printed() {
    let text =
        format!("[nats]\nurl = \"nats://me:pw1@host\"\nuser = \"u\"\npassword = \"pw2\"\ntoken = \"pw3\"\n{SMALL}");
    let shown = effective(&parse(&text, base()).unwrap());
    assert!(!shown.contains("pw"), "{shown}");
}

#[test]
#[expect(clippy::result_large_err, reason = "figment's jail wants figment's errors")]
fn environment_and_flags_stand_over_the_file() {
    figment::Jail::expect_with(|jail| {
        jail.create_file(
            "m.toml",
            &format!("[nats]\nurl = \"nats://file\"\ntimeout = \"1s\"\n{SMALL}"),
        )?;
        jail.set_env("JETMESH_NATS__URL", "nats://env");
        jail.set_env("JETMESH_NATS__TIMEOUT", "2s");
        jail.set_env("JETMESH_HANDLERS__H__CONCURRENCY", "3");
        let flags = Overrides {
            nats_url: Some("nats://flag".into()),
            ..Overrides::default()
        };
        let plan = load(Some(Path::new("m.toml")), &flags).map_err(|e| e.to_string())?.plan;
        assert_eq!(
            (plan.nats.url.as_str(), plan.nats.timeout),
            ("nats://flag", Duration::from_secs(2))
        );
        assert_eq!(plan.handlers[0].concurrency, 3);
        Ok(())
    });
}

#[test]
#[expect(clippy::result_large_err, reason = "figment's jail wants figment's errors")]
fn a_context_of_the_cli_lies_under_the_file() {
    figment::Jail::expect_with(|jail| {
        jail.create_dir("nats/context")?;
        let file = "nats/context/prod.json";
        jail.create_file(
            file,
            r#"{"url":"nats://prod","user":"u","password":"p","token":"","jetstream_event_prefix":"EV"}"#,
        )?;
        jail.create_file("nats/context/nsc.json", r#"{"nsc":"nsc://a/b/c"}"#)?;
        let folder = jail.directory().display().to_string();
        jail.set_env("XDG_CONFIG_HOME", folder);
        jail.create_file("m.toml", &format!("[nats]\ncontext = \"prod\"\nuser = \"me\"\n{SMALL}"))?;
        let nats = load(Some(Path::new("m.toml")), &Overrides::default())
            .map_err(|e| e.to_string())?
            .plan
            .nats;
        assert_eq!(
            (nats.url.as_str(), nats.user.as_deref(), nats.token),
            ("nats://prod", Some("me"), None)
        );
        assert_eq!(nats.js_event_prefix, "EV");
        let refused = |name: &str| {
            let flags = Overrides {
                context: Some(name.into()),
                ..Overrides::default()
            };
            load(Some(Path::new("m.toml")), &flags)
                .expect_err("refused")
                .to_string()
        };
        assert!(refused("nsc").contains("nsc generate creds"), "{}", refused("nsc"));
        assert!(
            refused("none").contains("there is no context \"none\""),
            "{}",
            refused("none")
        );
        assert!(
            refused("../x").contains("is not a context's name"),
            "{}",
            refused("../x")
        );
        Ok(())
    });
}

#[test]
fn broken_toml_is_said_with_its_place() {
    let text = problems("mesh = \"a\nb\"");
    assert!(text.contains("not valid TOML") && text.contains("line 1"), "{text}");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,200}") {
        let _ = parse(&text, base());
    }

    #[test]
    fn no_value_of_a_known_key_makes_the_reader_panic(
        key in prop::sample::select(vec!["concurrency", "timeout", "memory_max", "start", "publish", "settings", "module", "instance", "ledger"]),
        value in prop::sample::select(vec!["-1", "1e300", "true", "[]", "{}", "\"\"", "\"9999999999999999999s\"", "[1, {}]", "1979-05-27T07:32:00Z", "9223372036854775807", "\"18446744073709551615GiB\""]),
    ) {
        let _ = parse(&format!("{SMALL}{key} = {value}"), base());
    }
}
