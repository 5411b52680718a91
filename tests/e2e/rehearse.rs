//! Rehearsals: what would become of dead letters, told while nothing happens.

use std::fs;

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh};
use crate::support::server::Options;
use crate::support::{NatsServer, modules};

/// The sample's inventory, and a probe that may also publish where no stream is.
fn config() -> Config {
    let inventory = "bucket = \"inventory\"\npublish = [\"inventory.*\"]\nsubjects = [\"orders.created\"]";
    let probe = "bucket = \"probe\"\npublish = [\"events.>\", \"nowhere.*\"]\nsubjects = [\"orders.probe\"]\n\
                 timeout = \"500ms\"\nmax_attempts = 1";
    Config::new()
        .handler("inventory", &modules::handler("inventory"), inventory)
        .handler("probe", &modules::handler("probe"), probe)
}

/// Everything that a server knows of every stream, but what it is asked for by looking.
pub async fn everything(mesh: &Mesh) -> Value {
    let list: Value = mesh
        .js
        .request("STREAM.LIST", &json!({}))
        .await
        .expect("JetStream answers");
    let mut streams = serde_json::Map::new();
    for stream in list["streams"].as_array().expect("there are streams") {
        let name = stream["config"]["name"].as_str().expect("a stream has a name");
        let consumers: Value = mesh
            .js
            .request(format!("CONSUMER.LIST.{name}"), &json!({}))
            .await
            .expect("JetStream answers");
        let consumers = consumers["consumers"].as_array().expect("a list");
        let of = |c: &Value| {
            json!([
                c["name"],
                c["delivered"],
                c["ack_floor"],
                c["num_pending"],
                c["num_ack_pending"]
            ])
        };
        let state = json!({
            "config": stream["config"],
            "last_seq": stream["state"]["last_seq"],
            "messages": stream["state"]["messages"],
            "bytes": stream["state"]["bytes"],
            "consumers": consumers.iter().map(of).collect::<Vec<_>>(),
        });
        streams.insert(name.to_owned(), state);
    }
    Value::Object(streams)
}

/// What was printed, without names that are different each time.
fn told(mesh: &Mesh, letters: &[(u64, String)], text: &str) -> String {
    let mut text = text.replace(mesh.dir.path().to_str().expect("UTF-8"), "[dir]");
    for (_, event) in letters {
        let (incarnation, _) = event.split_once('.').expect("an event has a sequence");
        text = text.replace(incarnation, "INC");
    }
    // What the compiler has left of the functions around it is not promised.
    let stays = |line: &&str| !line.starts_with("    ") || !line.ends_with(" (probe)") || line.contains("::carry_out");
    hidden(
        &text
            .lines()
            .filter(stays)
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    )
}

/// Times and digests are different each time, and places in a source move.
pub fn hidden(text: &str) -> String {
    let hide = |word: &str| {
        let bare = word.trim_end_matches([',', ';', ':', ')']);
        let rest = &word[bare.len()..];
        let digest = bare.len() == 12 && bare.bytes().all(|b| b.is_ascii_hexdigit());
        let time = bare.len() == 24 && bare.ends_with('Z') && bare.parse::<jiff::Timestamp>().is_ok();
        if let Some((folder, _)) = bare.split_once("lib.rs:") {
            return format!("{folder}[place]{rest}");
        }
        match (digest, time) {
            (true, _) => format!("[digest]{rest}"),
            (_, true) => format!("[time]{rest}"),
            _ => word.to_owned(),
        }
    };
    let line = |line: &str| line.split(' ').map(hide).collect::<Vec<_>>().join(" ");
    text.lines().map(|l| line(l) + "\n").collect()
}

/// A mesh with a letter of each kind, whose host has ended; and, by sequence, the letters' events.
async fn with_letters() -> (Mesh, Vec<(u64, String)>) {
    let options = Options {
        max_payload: Some(128 * 1024),
        ..Options::default()
    };
    let server = NatsServer::start_with(&options).await;
    let mesh = Mesh::over(server, config()).await;
    let host = mesh.host(&[]).await;
    let order = json!({ "order_id": "o-1", "user_id": "u-7", "lines": [{ "sku": "sku-1", "qty": 5 }] });
    mesh.publish("orders.created", order.to_string()).await;
    mesh.wait_letters(1).await;
    // Whatever they would do, at first there is nothing to take.
    let probes = [
        json!([
            { "op": "take", "key": "n" },
            { "op": "set", "key": "a", "value": "new" },
            { "op": "delete", "key": "b" },
            { "op": "emit", "subject": "events.taken", "payload": { "left": 4 } },
            { "op": "emit_later", "subject": "events.later", "payload": 1, "after_ms": 3_600_000 },
        ]),
        json!([{ "op": "take", "key": "n" }, { "op": "emit", "subject": "nowhere.x", "payload": "y" }]),
        json!([{ "op": "take", "key": "n" }, { "op": "append", "key": "c", "text": "x", "with": "large" }]),
        json!([{ "op": "take", "key": "n" }, { "op": "log", "level": "info", "message": "now" }, { "op": "panic", "message": "of 7" }]),
        json!([{ "op": "take", "key": "n" }, { "op": "panic", "message": "of 8" }]),
        json!([{ "op": "take", "key": "n" }, { "op": "spin" }]),
        json!([{ "op": "take", "key": "n" }, { "op": "retry", "code": "later", "message": "not now" }]),
        json!([{ "op": "take", "key": "m" }]),
        json!([{ "op": "take", "key": "n" }]),
    ];
    // One after the other, so that they lie in this order.
    let mut letters = Vec::new();
    for (before, probe) in probes.into_iter().enumerate() {
        mesh.order(probe).await;
        letters = mesh.wait_letters(before + 2).await;
    }
    host.stop().await;
    mesh.put("inventory", "stock.sku-1", "7").await;
    for (key, value) in [("n", "5"), ("b", "old"), ("large", &"l".repeat(127 * 1024))] {
        mesh.put("probe", key, value).await;
    }
    let event = |letter: &crate::mesh::Found| {
        letter
            .header("Mesh-Event")
            .expect("a letter names its event")
            .to_owned()
    };
    let events = letters.iter().map(|letter| (letter.sequence, event(letter))).collect();
    (mesh, events)
}

#[tokio::test]
async fn a_rehearsal_tells_what_would_become_of_each_letter_and_changes_nothing_in_nats() {
    let (mesh, letters) = with_letters().await;
    let before = everything(&mesh).await;
    let (status, stdout, stderr) = mesh.jetmesh(&["dlq", "rehearse", "--all"]).await;
    assert_eq!((status.code(), stderr.as_str()), (Some(1), ""));
    insta::assert_snapshot!(told(&mesh, &letters, &stdout), @r#"
    inventory.INC.1  would succeed
      write stock.sku-1: 7 → 2
      emit inventory.reserved {"lines":[{"left":2,"qty":5,"sku":"sku-1"}],"order_id":"o-1"}
    probe.INC.2  would succeed
      write a: (none) → new
      delete b: old → (none)
      write n: 5 → 4
      emit events.taken {"left":4}
      emit in 1h, at [time], events.later 1
    probe.INC.3  would succeed
      write n: 5 → 4
      emit nowhere.x "y"
        it would become a dead letter: no stream captures nowhere.x
    probe.INC.4  would be rejected: too-large: $KV.probe.c of 130056 bytes does not fit the server's max_payload of 131072
    probe.INC.5  would trap: trap: panicked at probe/src/[place]: of 7
      log INFO now
      log ERROR panicked at probe/src/[place]: of 7
      functions, innermost first
        probe::carry_out (probe)
    probe.INC.6  would trap: trap: panicked at probe/src/[place]: of 8
      log ERROR panicked at probe/src/[place]: of 8
      functions, innermost first
        probe::carry_out (probe)
    probe.INC.7  would time out: timeout: still running after 500ms
    probe.INC.8  would be tried again: later: not now
    probe.INC.9  would be rejected as before: sold-out: nothing is left of m
    probe.INC.10  would succeed
      write n: 5 → 4

    what would go wrong:
    COUNT  OUTCOME  CODE           SAMPLE          ERROR
    2      trap     trap           probe.INC.5  panicked at probe/src/[place]: of 7
    1      done     undeliverable  probe.INC.3  no stream captures nowhere.x
    1      reject   sold-out       probe.INC.9  nothing is left of m
    1      reject   too-large      probe.INC.4  $KV.probe.c of 130056 bytes does not fit the server's max_payload of 131072
    1      retry    later          probe.INC.8  not now
    1      timeout  timeout        probe.INC.7  still running after 500ms

    4 would succeed, 1 would be tried again, 2 would be rejected, 2 would trap, 1 would time out, 1 of them as before, 1 of them would emit an event that no stream stores; nothing has happened
    inventory: rehearsed on module [digest]
    probe: rehearsed on module [digest]
    "#);
    let (_, stdout, _) = mesh.jetmesh(&["dlq", "rehearse", "--all", "--json"]).await;
    let lines: Vec<Value> = stdout.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(lines.len(), letters.len() + 1);
    assert_eq!(everything(&mesh).await, before);
    assert_eq!(
        lines[1]["writes"][0],
        json!({ "key": "a", "old": null, "new": { "encoding": "text", "data": "new" } })
    );
    let due = &lines[1]["emits"][1]["due"];
    assert!(
        due.as_str().is_some_and(|due| due.parse::<jiff::Timestamp>().is_ok()),
        "{due}"
    );
    let functions = lines[4]["backtrace"].as_array().expect("a trap has a backtrace");
    assert!(functions.contains(&json!("probe::carry_out (probe)")), "{functions:?}");
    let summary = &lines[letters.len()]["summary"];
    assert_eq!(
        (&summary["rehearsed"], &summary["all_succeed"]),
        (&json!(10), &json!(false))
    );
}

/// The probe in its second version, in the mesh's folder.
fn second_version(mesh: &Mesh) {
    let mut bytes = fs::read(modules::handler("probe")).expect("the probe is readable");
    let at = bytes
        .windows(15)
        .position(|w| w == b"probe-version=1")
        .expect("it says its version");
    bytes[at + 14] = b'2';
    fs::write(mesh.dir.path().join("new.wasm"), bytes).expect("the test's folder is writable");
}

#[tokio::test]
async fn a_rehearsal_is_of_one_module_and_ends_with_success_only_if_all_would_succeed() {
    let (mesh, letters) = with_letters().await;
    let (_, event) = &letters[1];
    let id = format!("probe.{event}");
    second_version(&mesh);
    let usual = mesh.jetmesh_ok(&["dlq", "rehearse", &id]).await;
    let new = mesh.jetmesh_ok(&["dlq", "rehearse", &id, "--module", "new.wasm"]).await;
    assert_eq!(told(&mesh, &letters, &usual), told(&mesh, &letters, &new));
    assert_ne!(usual.lines().last(), new.lines().last(), "the module is another one");
    // Undelivered events are no success, nor is nothing at all where something was to be run.
    let (_, undelivered) = &letters[2];
    let (status, _, _) = mesh
        .jetmesh(&["dlq", "rehearse", &format!("probe.{undelivered}")])
        .await;
    assert_eq!(status.code(), Some(1));
    let only = ["dlq", "rehearse", "--handler", "probe", "--limit", "1"];
    let newest = mesh.jetmesh_ok(&only).await;
    assert!(newest.contains("1 would succeed; nothing has happened"), "{newest}");
    let none = mesh.jetmesh_ok(&["dlq", "rehearse", "--code", "no-such"]).await;
    assert_eq!(none, "no dead letters of this kind\n");

    fs::write(mesh.dir.path().join("garbage.wasm"), "hello").expect("the test's folder is writable");
    let wrong = [
        &["--handler", "probe", "--module", "garbage.wasm"][..],
        &["--all", "--module", "new.wasm"],
        &[],
        &["probe.x"],
        &["probe.none.9"],
    ];
    let mut said = String::new();
    for args in wrong {
        let (status, stdout, stderr) = mesh.jetmesh(&[&["dlq", "rehearse"], args].concat()).await;
        assert_eq!(stdout, "");
        said += &format!("{}: {stderr}", status.code().expect("it ends by itself"));
    }
    insta::assert_snapshot!(said, @r"
    2: error: garbage.wasm: not a WebAssembly file (it does not begin with \0asm); a handler is a component that exports jetmesh:handler/handler@0.1.0
    2: error: a module is one handler's, and the letters are of inventory, probe: add --handler
    2: error: select dead letters: with an ID, --group, a condition such as --handler, or --all
    2: error: `probe.x` is not HANDLER.INCARNATION.SEQUENCE, as `jetmesh dlq ls` prints it
    1: error: no dead letter `probe.none.9`; `jetmesh dlq ls` lists them
    ");
}

#[tokio::test]
async fn what_has_nothing_to_run_is_skipped_and_said() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    host.stop().await;
    let of = |cause: &'static str, handler: &'static str, event: &'static str| {
        [
            ("Mesh-Handler", handler),
            ("Mesh-Event", event),
            ("Mesh-Cause", cause),
            ("Mesh-Subject", "orders.probe"),
        ]
    };
    for (subject, headers) in [
        ("$MESH.dead.ORDERS.probe.k.1", of("lost", "probe", "k.1")),
        (
            "$MESH.dead.KV_probe.probe.k.2-0",
            of("undeliverable", "probe", "probe.k.2.0"),
        ),
        ("$MESH.dead.ORDERS.gone.k.3", of("exhausted", "gone", "k.3")),
    ] {
        mesh.publish_with(subject, &headers, "").await;
    }
    let (status, stdout, _) = mesh.jetmesh(&["dlq", "rehearse", "--all"]).await;
    assert_eq!(status.code(), Some(1), "nothing was run");
    insta::assert_snapshot!(hidden(&stdout), @r"
    probe.k.1  skipped: the event was lost with its payload
    probe.k.2-0  skipped: no handler failed on it: it is an emitted event that no stream took
    gone.k.3  skipped: handler gone is not in the configuration

    3 skipped; nothing has happened
    ");
    mesh.publish_with("$MESH.dead.ORDERS.probe.k.4", &of("rejected", "probe", "k.4"), "")
        .await;
    mesh.jetmesh_ok(&["dlq", "rehearse", "--all"]).await;
}
