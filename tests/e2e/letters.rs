//! What a dead letter tells of its event's attempts, and the commands with which a person works on dead letters.

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
