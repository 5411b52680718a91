mod kinds;
mod layers;
mod ledgers;
mod reference;

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

/// What the other two leave at its default, and what is awkward to write.
const FULL: &str = r#"
mesh = "m-1"
replicas = 3
relay = false
threads = 3
drain_timeout = "1m 1500us"
ledger_keep = "0s"

[log]
filter = "jetmesh=debug,info"
format = "json"

[admin]
listen = "[::1]:9464"

[nats]
url = " host:4222 , tls://[::1]:4223"
tls_first = true
inbox_prefix = "_INBOX_a"
js_api_prefix = "JS.acc"
js_event_prefix = "EV.acc"
timeout = "150ms"
wait = "0s"

[streams."ÖRDERS:eu"]
subjects = ["orders.*.new", "other"]
retention = "workqueue"
replicas = 5
max_age = "31d"
duplicate_window = "100ms"

[defaults]
instance = "reused"
recycle_after = 7
concurrency = 3
in_flight = 9

[handlers.A-1]
module = "/abs/\"q\" é.wasm"
stream = "ÖRDERS:eu"
subjects = ["orders.a.new", "orders.b.*"]
consumer = "other"
start = 2026-01-31T08:00:00.5Z
memory_max = "1048577B"
publish = ["a.>", "b.*.c"]

[handlers.A-1.settings]
"with space" = "tab\t \"quoted\" \\ \u007f\u0001"
"" = true
date = 2026-01-31
float = 1.5

[handlers.b]
module = "b.wasm"
stream = "KV_x"
start = "18446744073709551615"
ledger = true
identity = "message-id"
identity_window = "90m 5ms"
"#;

fn base() -> &'static Path {
    Path::new("")
}

fn problems(text: &str) -> String {
    parse(text, base()).expect_err("it is wrong").to_string()
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
fn a_start_is_a_word_a_sequence_or_a_time() {
    let start = |text: &str| parse(&format!("{SMALL}start = {text}"), base()).unwrap().handlers[0].start;
    assert_eq!(start("\"new\""), Some(Start::New));
    assert_eq!(start("17"), Some(Start::Sequence(17)));
    let time = std::time::UNIX_EPOCH + Duration::from_secs(60);
    assert_eq!(start("\"1970-01-01T00:01:00Z\""), Some(Start::Time(time)));
}

// Long: one configuration with every problem, and all that is said of it.
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
        hint: nats://host:4222 or tls://host:4222, or several joined by commas
      nats.password: nats.user needs it
        hint: a token alone is nats.token
      nats.wait: "soon" is not a duration
        hint: "30s", "0s" or "forever"
      streams.KV_x: streams named MESH_… and KV_… are made by the mesh itself
        hint: use another name
      streams.KV_x.subjects: "a..b" is not a subject: a part between dots is empty
      streams.ORDERS.retention: "forever" is not one of "limits", "interest", "workqueue"
      handlers.a b: "a b" is not a name
        hint: 1 to 64 characters of A-Z a-z 0-9 - and _
      handlers.a b.module: it is missing
        hint: the component file, relative to this configuration, or "registry"
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
fn a_mistake_in_the_defaults_is_one_problem() {
    let two = SMALL.replace("handlers.h", "handlers.i");
    let text = problems(&format!("[defaults]\nbackoff_max = \"1ms\"\n{SMALL}{two}"));
    assert!(text.contains("has 1 problem\n  defaults.backoff_max"), "{text}");
}

#[test]
fn what_is_empty_is_missing() {
    let text = problems("[handlers.h]\nmodule = \"\"\nstream = \"\"");
    assert!(
        text.contains("h.module: it is missing") && text.contains("h.stream: it is missing"),
        "{text}"
    );
}

#[test]
fn subjects_of_streams_overlap_neither_within_one_nor_between_two() {
    let text = problems(&format!(
        "[streams.A]\nsubjects = [\"a.*\", \"a.b\"]\n[streams.B]\nsubjects = [\"a.c\"]\n{SMALL}"
    ));
    assert!(text.contains("streams.A.subjects: `a.b` overlaps with `a.*`"), "{text}");
    assert!(
        text.contains("streams.B.subjects: `a.c` overlaps with stream A"),
        "{text}"
    );
}

#[test]
fn two_handlers_never_share_a_consumer() {
    let two = SMALL.replace("handlers.h", "handlers.i");
    let text = problems(&format!("{SMALL}{two}consumer = \"h\""));
    assert!(
        text.contains("handlers.i.consumer: \"h\" is already the consumer of handler h"),
        "{text}"
    );
}

#[test]
fn addresses_that_the_client_cannot_use_are_refused() {
    let url = |url: &str| parse(&format!("[nats]\nurl = \"{url}\"\n{SMALL}"), base()).map(|plan| plan.nats.url);
    assert_eq!(url("a:1, u:p@b").unwrap(), "nats://a:1,nats://u:p@b");
    assert_eq!(url("tls://[::1]:4222/").unwrap(), "tls://[::1]:4222/");
    // Websockets are not compiled in; the client would speak plain TCP to such a port.
    for bad in [
        "",
        "ws://h:1",
        "nats://",
        "nats://:4222",
        "nats://h:0",
        "nats://h:99999",
        "nats://h/x",
        "a,,b",
    ] {
        assert!(url(bad).is_err(), "{bad:?} was taken");
    }
    let halved = url("nats://u:secret,x@h").unwrap_err().to_string();
    assert!(halved.contains("%2C") && !halved.contains("secret"), "{halved}");
}

#[test]
fn prefixes_and_domains_are_checked() {
    let text = problems(&format!(
        "[nats]\ninbox_prefix = \"_INBOX.>\"\njs_event_prefix = \"\"\njs_domain = \"a.b\"\n{SMALL}"
    ));
    for key in ["nats.inbox_prefix", "nats.js_event_prefix", "nats.js_domain"] {
        assert!(text.contains(key), "{key} not in {text}");
    }
}

#[test]
fn the_effective_configuration_gives_the_same_plan() {
    for text in [DEFAULT, SMALL, FULL] {
        let plan = parse(text, base()).unwrap();
        assert_eq!(parse(&effective(&plan), base()).unwrap(), plan);
    }
}

#[test]
fn secrets_are_not_printed() {
    for url in ["nats://me:pw1@host", "me:pw1@host, tls://me:pw1@other"] {
        let text = format!("[nats]\nurl = \"{url}\"\nuser = \"u\"\npassword = \"pw2\"\ntoken = \"pw3\"\n{SMALL}");
        let shown = effective(&parse(&text, base()).unwrap());
        assert!(!shown.contains("pw"), "{shown}");
    }
    for line in ["password = \"pw", "token = pw", "url = \"nats://me:pw@h"] {
        let text = problems(&format!("[nats]\n{line}"));
        assert!(text.contains("line 2") && !text.contains("pw"), "{text}");
    }
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
    fn no_lines_make_the_reader_panic(lines in prop::collection::vec(prop::sample::select(vec![
        "[nats]", "[defaults]", "[streams.A]", "[handlers.h]", "[handlers.h.settings]", "[[handlers]]", "nats = 1",
        "handlers = [1]", "subjects = []", "subjects = [\"a.>\", 1]", "subjects = \"[a,,\"", "url = \"@:/\"", "start = 07:32:00",
        "start = \"9999-12-31T23:59:59Z\"", "start = \"-009999-01-02T01:59:59Z\"", "timeout = -1", "memory_max = \"é\"",
        "wait = 0", "module = \"\\u0000\"", "stream = \"A\"", "concurrency = 1e9", "settings.a.b = 1", "publish = [\"*\"]",
    ]), 0..12)) {
        if let Ok(plan) = parse(&lines.join("\n"), base()) {
            prop_assert_eq!(parse(&effective(&plan), base()).unwrap(), plan);
        }
    }

    #[test]
    fn no_value_of_a_known_key_makes_the_reader_panic(
        key in prop::sample::select(vec!["concurrency", "timeout", "memory_max", "start", "publish", "settings", "module", "instance", "ledger"]),
        value in prop::sample::select(vec!["-1", "1e300", "true", "[]", "{}", "\"\"", "\"9999999999999999999s\"", "[1, {}]", "1979-05-27T07:32:00Z", "9223372036854775807", "\"18446744073709551615GiB\""]),
    ) {
        let _ = parse(&format!("{SMALL}{key} = {value}"), base());
    }
}
