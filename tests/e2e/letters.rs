//! What a dead letter tells of its event's attempts, and how a person reads it.

use serde_json::{Value, json};

use crate::mesh::{Config, Found, Mesh, says};
use crate::support::modules;
use crate::support::wait::SOON;

/// The attempts that a letter tells of, oldest first.
fn history(letter: &Found) -> Vec<Value> {
    let text = letter.header("Mesh-History").expect("a letter has a history");
    serde_json::from_str(text).expect("it is a list")
}

fn without_ledger(lines: &str) -> Config {
    Config::new().handler("probe", &modules::handler("probe"), lines)
}

#[tokio::test]
async fn a_letter_tells_of_each_attempt_with_the_panic_the_log_and_the_functions_that_were_running() {
    for config in [
        Config::probe_with("max_attempts = 3"),
        without_ledger("max_attempts = 3"),
    ] {
        let (mesh, host) = Mesh::start(config).await;
        let serving = host.wait_for_line(says(&["serving", "module="]), SOON).await;
        let module = serving.rsplit_once("module=").expect("the line tells the module").1;
        mesh.order(json!([
            { "op": "log", "level": "info", "message": "hello" },
            { "op": "panic", "message": "the sky falls" },
        ]))
        .await;
        let letter = mesh.wait_letters(1).await.remove(0);
        let history = history(&letter);
        let numbers: Vec<&Value> = history.iter().map(|attempt| &attempt["attempt"]).collect();
        assert_eq!(numbers, [1, 2, 3], "{history:?}");
        for attempt in &history {
            assert_eq!(
                (&attempt["outcome"], &attempt["code"], &attempt["module"]),
                (&json!("trap"), &json!("trap"), &json!(module))
            );
            let message = attempt["message"].as_str().unwrap_or_default();
            assert!(
                message.starts_with("panicked at probe/src/lib.rs:") && message.ends_with(": the sky falls"),
                "{attempt}"
            );
            let log = attempt["log"].to_string();
            assert!(
                log.contains("INFO hello") && log.contains("ERROR panicked at"),
                "{attempt}"
            );
            let backtrace = attempt["backtrace"].as_array().expect("a trap has a backtrace");
            assert!(backtrace.contains(&json!("probe::carry_out (probe)")), "{attempt:#}");
            assert!(backtrace.len() <= 20, "{attempt}");
        }
        assert_eq!(letter.header("Mesh-Error"), history[2]["message"].as_str());
        assert_eq!(letter.header("Mesh-First-Attempt"), history[0]["at"].as_str());
        assert_eq!(letter.header("Mesh-Last-Attempt"), history[2]["at"].as_str());
    }
}

#[tokio::test]
async fn a_letter_of_a_first_attempt_tells_of_it_without_a_record() {
    for config in [Config::probe(), without_ledger("")] {
        let (mesh, _host) = Mesh::start(config).await;
        mesh.order(json!([
            { "op": "stderr", "message": "looked at it" },
            { "op": "reject", "code": "no", "message": "never" },
        ]))
        .await;
        let letter = mesh.wait_letters(1).await.remove(0);
        let history = history(&letter);
        assert_eq!(history.len(), 1, "{history:?}");
        let attempt = &history[0];
        assert_eq!(
            (
                &attempt["attempt"],
                &attempt["outcome"],
                &attempt["code"],
                &attempt["message"]
            ),
            (&json!(1), &json!("reject"), &json!("no"), &json!("never"))
        );
        assert_eq!(attempt["log"], json!(["WARN looked at it"]));
        assert_eq!(attempt["backtrace"], Value::Null);
        let records = mesh.js.get_stream("KV_mesh_attempts").await.expect("it is there");
        assert_eq!(
            records.cached_info().state.last_sequence,
            0,
            "nothing was ever recorded"
        );
    }
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_letter_tells_of_an_attempt_during_which_the_host_ended() {
    let mesh = Mesh::new(Config::probe_with("max_attempts = 2")).await;
    let host = mesh.host_with_fault("after-run:kill:2").await;
    mesh.order(json!({ "op": "fail_until", "attempt": 9 })).await;
    host.wait_exit(SOON).await;
    let _next = mesh.host(&[]).await;
    let letter = mesh.wait_letters(1).await.remove(0);
    assert_eq!(letter.header("Mesh-Code"), Some("host-ended"));
    let outcomes: Vec<Value> = history(&letter)
        .iter()
        .map(|attempt| attempt["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["retry", "running"]);
}

/// What a command printed, with the same times, names and digests in each run.
fn steady(text: &str, letter: &Found) -> String {
    let event = letter.header("Mesh-Event").expect("a letter names its event");
    let (incarnation, _) = event.split_once('.').expect("an event has an incarnation");
    let host = history(letter)[0]["host"]
        .as_str()
        .expect("an attempt has a host")
        .to_owned();
    let text = text
        .replace(incarnation, "inc123")
        .replace(letter.header("Mesh-Module").unwrap_or_default(), "0123456789ab")
        .replace(&host, "host12345678");
    let steady = |word: &str| match word.trim_end_matches(',') {
        time if time.ends_with("Z") && time.contains('T') => word.replace(time, "2026-01-01T00:00:00.000Z"),
        time if time.ends_with("Z") && time.contains(':') => word.replace(time, "00:00:00.000Z"),
        place if place.starts_with("probe/src/lib.rs:") => "probe/src/lib.rs:1:1:".to_owned(),
        _ => word.to_owned(),
    };
    let line = |line: &str| {
        let words: Vec<String> = line.split(' ').map(steady).collect();
        let line = words.join(" ");
        match (line.rsplit_once(", "), line.rsplit_once("group ")) {
            (Some((before, ago)), _) if ago.ends_with(" ago") => format!("{before}, 1s ago"),
            (_, Some((before, _))) => format!("{before}group 01234567"),
            _ => line,
        }
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

#[tokio::test]
async fn show_tells_a_person_what_died_when_and_why_and_what_to_do_next() {
    let (mesh, _host) = Mesh::start(Config::probe_with("max_attempts = 2")).await;
    let orders = json!({ "order_id": "o-1", "do": [
        { "op": "log", "level": "info", "message": "looking at o-1" },
        { "op": "panic", "message": "no price" },
    ] });
    let headers = [("Nats-Msg-Id", "o-1"), ("Tenant", "acme")];
    mesh.publish_with("orders.probe", &headers, orders.to_string()).await;
    let letter = mesh.wait_letters(1).await.remove(0);
    let page = mesh.jetmesh_ok(&["dlq", "show", letter.letter_id()]).await;
    insta::assert_snapshot!(steady(&page, &letter), @r#"
    probe.inc123.1

      dead since  2026-01-01T00:00:00.000Z, 1s ago
      cause       exhausted: all of its attempts failed
      code        trap
      error       panicked at probe/src/lib.rs:1:1: no price
      handler     probe, module 0123456789ab
      event       orders.probe, message 1 of stream ORDERS, from 2026-01-01T00:00:00.000Z
      attempts    2, from 2026-01-01T00:00:00.000Z to 2026-01-01T00:00:00.000Z
      decided     by entry 1 of ledger probe
      letter      $MESH.dead.ORDERS.probe.inc123.1, message 1 of stream MESH_DEAD
      same fault  group 01234567

    ATTEMPTS
      #  BEGAN          HOST          MODULE        OUTCOME  CODE  ERROR
      1  00:00:00.000Z  host12345678  0123456789ab  trap     trap  panicked at probe/src/lib.rs:1:1: no price
      2  00:00:00.000Z  host12345678  0123456789ab  trap     trap  panicked at probe/src/lib.rs:1:1: no price

    LOG OF THE LAST ATTEMPT
      INFO looking at o-1
      ERROR panicked at probe/src/lib.rs:1:1: no price

    FUNCTIONS OF THE LAST ATTEMPT, innermost first
      core::panicking::panic_fmt (probe)
      probe::carry_out (probe)
      jetmesh:handler/handler@0.1.0#handle (probe)

    HEADERS
      Nats-Msg-Id: o-1
      Tenant: acme

    PAYLOAD, 116 bytes, JSON
      {
        "do": [
          {
            "level": "info",
            "message": "looking at o-1",
            "op": "log"
          },
          {
            "message": "no price",
            "op": "panic"
          }
        ],
        "order_id": "o-1"
      }

    WHAT NEXT
      # see all that died of the same fault
      jetmesh dlq ls --group 01234567
      # correct its payload
      jetmesh dlq edit probe.inc123.1
      # see what a fixed module would do with it; changes nothing
      jetmesh dlq rehearse probe.inc123.1 --module FIXED.wasm
      # give it back to handler probe, and to no other
      jetmesh dlq replay probe.inc123.1
      # or resolve it without running it
      jetmesh dlq discard probe.inc123.1 --reason WHY
    "#);
}

#[tokio::test]
async fn show_of_a_payload_that_is_no_text_is_readable_and_obeyed_by_no_terminal() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    let reject = json!({ "op": "reject", "code": "no", "message": "never" }).to_string();
    let probe = [("Probe", reject.as_str())];
    mesh.publish_with("orders.probe", &probe, b"\x00\xff\x1b[2J text".to_vec())
        .await;
    mesh.publish_with("orders.probe", &probe, "first\n\u{1b}[2J\u{9b}2J last")
        .await;
    let letters = mesh.wait_letters(2).await;
    let mut pages = String::new();
    for letter in &letters {
        let page = mesh.jetmesh_ok(&["dlq", "show", letter.letter_id()]).await;
        let payload = page
            .split_once("\nPAYLOAD")
            .and_then(|(_, rest)| rest.split_once("\nWHAT NEXT"));
        pages += payload.expect("a page has a payload").0;
    }
    insta::assert_snapshot!(pages, @r"
    , 11 bytes, not text
      00000000  00 ff 1b 5b 32 4a 20 74 65 78 74                 |...[2J text|
    , 19 bytes, text
      first
       [2J\u009b2J last
    ");
}
