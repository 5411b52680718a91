//! Traces of events that were removed from their streams, are at work, were decided in company, were forgotten by a reset, or
//! are several hops away.

use async_nats::jetstream::stream::RetentionPolicy;
use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, PATIENT};
use crate::schemas::{assert_fits, object};
use crate::support::wait::SOON;
use crate::support::{Signal, eventually, modules};
use crate::trace::told;

pub async fn trace(mesh: &Mesh, args: &[&str]) -> String {
    told(&mesh.jetmesh_ok(&[&["trace"], args].concat()).await)
}

/// The one event of a trace as JSON, which is as the schema says.
pub async fn traced(mesh: &Mesh, args: &[&str]) -> Value {
    let text = object(mesh, &[&["trace", "--json"], args].concat()).await;
    assert_fits(mesh, "trace", &text).await;
    let mut all: Value = serde_json::from_str(&text).expect("JSON");
    all["events"][0].take()
}

/// Three probes: what the first emits the second reads, and what that emits the third.
fn chain() -> Config {
    let probe = modules::handler("probe");
    let lines = |name: &str, stream: &str, subject: &str| {
        format!("bucket = \"{name}\"\nstream = \"{stream}\"\nsubjects = [\"{subject}\"]\npublish = [\"events.>\"]")
    };
    Config::new()
        .handler("first", &probe, &lines("first", "ORDERS", "orders.first"))
        .handler("other", &probe, &lines("other", "ORDERS", "orders.other"))
        .handler("second", &probe, &lines("second", "EVENTS", "events.second"))
        .handler("third", &probe, &lines("third", "EVENTS", "events.third"))
}

fn set(key: &str, value: &str) -> Value {
    json!({ "op": "set", "key": key, "value": value })
}

pub fn emit(subject: &str, payload: Value) -> Value {
    json!({ "op": "emit", "subject": subject, "payload": payload })
}

/// Sets a key in each of the three, as the events go on.
fn through() -> Value {
    let third = json!({ "do": [set("c", "z")] });
    let second = json!({ "do": [set("b", "y"), emit("events.third", third)] });
    json!({ "do": [set("a", "x"), emit("events.second", second)] })
}

#[tokio::test]
async fn an_event_that_a_work_queue_has_let_go_is_told_from_the_ledger_and_so_is_what_followed() {
    let mesh = Mesh::new(chain()).await;
    mesh.add_stream("ORDERS", &["orders.>"], RetentionPolicy::WorkQueue)
        .await;
    mesh.add_stream("EVENTS", &["events.>"], RetentionPolicy::WorkQueue)
        .await;
    let host = mesh.host(&[]).await;
    mesh.publish("orders.first", through().to_string()).await;
    mesh.wait_decisions("third", 1).await;
    for stream in ["ORDERS", "EVENTS"] {
        eventually("a work queue to be empty", SOON, async || {
            (mesh.messages_left(stream).await == 0).then_some(())
        })
        .await;
    }
    host.stop().await;
    let text = trace(&mesh, &["ORDERS:1"]).await;
    insta::assert_snapshot!(text, @r"
    ORDERS:1  event [event]
    ├─ not in its stream any more
    └─ first: done at [time], entry 1, attempt 1, module [digest]
       ├─ wrote a = x
       └─ emitted EVENTS:[n]  event [event]
          ├─ not in its stream any more
          └─ second: done at [time], entry 1, attempt 1, module [digest]
             ├─ wrote b = y
             └─ emitted EVENTS:[n]  event [event]
                ├─ not in its stream any more
                └─ third: done at [time], entry 1, attempt 1, module [digest]
                   └─ wrote c = z
    ");
    let emitted = traced(&mesh, &["ORDERS:1"]).await["handlers"][0]["follows"][0]["id"].take();
    let emitted = emitted.as_str().expect("an id");
    assert_eq!(
        trace(&mesh, &[emitted]).await,
        text,
        "an emitted event's id leads to what emitted it"
    );
    let (status, _, stderr) = mesh.jetmesh(&["trace", "ORDERS:2"]).await;
    assert_eq!(status.code(), Some(1));
    assert!(
        stderr.starts_with("error: no event ORDERS:2 is known: the last message of stream ORDERS is 1,"),
        "{stderr}"
    );
    // What no host has taken yet is found there, message by message.
    for n in 2..5 {
        mesh.publish("orders.first", json!({ "n": n }).to_string()).await;
    }
    let found = traced(&mesh, &["--key", "n=4"]).await;
    assert_eq!(
        (&found["sequence"], &found["handlers"][0]["stand"]["state"]),
        (&json!(4), &json!("waiting"))
    );
    let (status, _, stderr) = mesh.jetmesh(&["trace", "--key", "n=4", "--max-messages", "2"]).await;
    assert_eq!(status.code(), Some(1));
    let said = "searched ORDERS, messages read: 2; then the limit was reached, so not all that is new was read\n";
    assert!(stderr.ends_with(said), "{stderr}");
}

#[tokio::test]
async fn an_event_that_is_several_hops_away_is_followed_by_its_id() {
    let (mesh, host) = Mesh::start(chain()).await;
    let third = json!({ "do": [set("c", "z")] });
    let second = json!({ "do": [emit("events.third", third)] });
    // Ids that only begin alike: the eleventh is another one than the first.
    let mut steps: Vec<Value> = (0..11).map(|n| emit("events.none", json!(n))).collect();
    steps.push(emit("events.second", second));
    mesh.publish("orders.first", json!({ "do": steps }).to_string()).await;
    mesh.wait_value("third", "c", "z").await;
    mesh.wait_emitted(13).await;
    host.stop().await;
    let event = traced(&mesh, &["ORDERS:1"]).await;
    let id = |event: &Value| event["event"].as_str().expect("an event has an id").to_owned();
    let follows = event["handlers"][0]["follows"].as_array().expect("a list");
    let ids: Vec<&Value> = follows.iter().map(|f| &f["id"]).collect();
    let wanted: Vec<Value> = (0..12).map(|n| json!(format!("first.{}.{n}", id(&event)))).collect();
    assert_eq!(ids, wanted.iter().collect::<Vec<_>>());
    for (n, follow) in follows[..11].iter().enumerate() {
        let payload = &follow["whereabouts"]["traced"]["message"]["payload"];
        assert_eq!(*payload, json!({ "encoding": "text", "data": n.to_string() }));
    }
    let hop = &follows[11]["whereabouts"]["traced"];
    let second = &hop["handlers"][0];
    assert_eq!(
        (&second["handler"], &second["stand"]["state"]),
        (&json!("second"), &json!("done"))
    );
    assert_eq!(second["follows"][0]["id"], json!(format!("second.{}.0", id(hop))));
    let hop = &second["follows"][0]["whereabouts"]["traced"];
    let third = &hop["handlers"][0];
    assert_eq!(third["handler"], json!("third"));
    let write = &third["stand"]["decided"]["writes"][0];
    assert_eq!((&write["key"], &write["value"]["data"]), (&json!("c"), &json!("z")));
}

#[tokio::test]
async fn an_event_at_work_is_told_as_delivered_or_with_the_host_that_runs_its_next_attempt() {
    let (mesh, host) = Mesh::start(Config::probe_with("timeout = \"10m\"\nmax_attempts = 3")).await;
    let sleep = json!({ "op": "sleep", "ms": 600_000 });
    mesh.order(sleep.clone()).await;
    eventually("the event to be delivered", SOON, async || {
        (mesh.consumer("ORDERS", "probe").await["num_ack_pending"] == 1).then_some(())
    })
    .await;
    insta::assert_snapshot!(trace(&mesh, &["ORDERS:1"]).await, @r#"
    ORDERS:1  orders.probe  at [time]  event [event]
    ├─ {"ms":600000,"op":"sleep"}
    └─ probe: delivered to a host, which has not decided it yet
    "#);
    mesh.order(json!([{ "op": "fail_until", "attempt": 2 }, sleep])).await;
    let running = eventually("a second attempt to run", SOON, async || {
        let record = mesh.attempts().await.pop()?;
        (record["attempts"] == 2).then_some(record)
    })
    .await;
    let name = running["history"][1]["host"].as_str().expect("a host has a name");
    insta::assert_snapshot!(trace(&mesh, &["ORDERS:2"]).await.replace(name, "[host]"), @r#"
    ORDERS:2  orders.probe  at [time]  event [event]
    ├─ {"do":[{"attempt":2,"op":"fail_until"},{"ms":600000,"op":"sleep"}]}
    └─ probe: running on [host], attempt 2 of 3; the one before failed: not-yet: attempt 1 is before 2
    "#);
    let event = traced(&mesh, &["ORDERS:2"]).await;
    assert_eq!(event["handlers"][0]["stand"]["attempts"]["running_on"], json!(name));
    // Neither is decided for all that is there.
    assert_eq!(
        traced(&mesh, &["ORDERS:1"]).await["handlers"][0]["stand"]["state"],
        "delivered"
    );
    host.signal(Signal::KILL);
    host.wait_exit(PATIENT).await;
}

#[tokio::test]
async fn events_that_were_committed_together_show_what_each_of_them_wrote_and_emitted() {
    let mesh = Mesh::new(Config::probe_with("start = \"all\"")).await;
    mesh.add_stream("ORDERS", &["orders.>"], RetentionPolicy::Limits).await;
    for n in 0..40 {
        let own = set(&format!("k{n}"), &n.to_string());
        mesh.order(json!([own, set("shared", &n.to_string()), emit("events.n", json!(n))]))
            .await;
    }
    let host = mesh.host(&[]).await;
    mesh.wait_decisions("probe", 40).await;
    mesh.wait_emitted(40).await;
    host.stop().await;
    let entries = mesh.messages("KV_probe", "$MESH.state.probe.ledger.>").await;
    let several = |entry: &Value| entry["decisions"].as_array().is_some_and(|d| d.len() > 1);
    let entry = entries
        .iter()
        .map(|e| e.json())
        .find(several)
        .expect("some were committed together");
    let writes = entry["writes"].as_array().expect("a list");
    let shared = writes
        .iter()
        .find(|write| write["key"] == "shared")
        .expect("it is written");
    let last = shared["value"]["text"].as_str().expect("a number");
    let decisions = entry["decisions"].as_array().expect("a list");
    for decision in decisions {
        let id = decision["event"].as_str().expect("a decision names its event");
        let event = traced(&mesh, &[id]).await;
        let number = (event["sequence"].as_u64().expect("a number") - 1).to_string();
        let part = &event["handlers"][0];
        let written: Vec<_> = part["stand"]["decided"]["writes"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|write| (&write["key"], &write["value"]["data"], &write["writers"]))
            .collect();
        assert_eq!(
            written,
            [
                (&json!(format!("k{number}")), &json!(number), &json!(1)),
                (&json!("shared"), &json!(last), &json!(decisions.len()))
            ]
        );
        let follows = part["follows"].as_array().expect("a list");
        assert_eq!(follows.len(), 1, "only its own");
        assert_eq!(follows[0]["id"], json!(format!("probe.{id}.0")));
        assert_eq!(
            follows[0]["whereabouts"]["traced"]["message"]["payload"]["data"],
            json!(number)
        );
        let text = mesh.jetmesh_ok(&["trace", id]).await;
        let said = format!(
            "wrote shared = {last}, the last of {} writes of it that were committed together",
            decisions.len()
        );
        assert!(text.contains(&said), "{text}");
    }
}

#[tokio::test]
async fn what_was_decided_before_a_reset_is_told_as_such_and_what_it_emitted_is_there() {
    // One after the other, also when both come again after the reset: entries have the order of the orders.
    let config = Config::probe_with("start = \"all\"\nconcurrency = 1\nin_flight = 1");
    let (mesh, host) = Mesh::start(config).await;
    mesh.order(json!([set("a", "x"), emit("events.one", json!(1))])).await;
    mesh.wait_emitted(1).await;
    mesh.order(json!({ "op": "reject", "code": "no", "message": "not this one" }))
        .await;
    mesh.wait_letters(1).await;
    mesh.wait_settled("ORDERS", "probe").await;
    host.stop().await;
    mesh.jetmesh_ok(&["reset", "probe", "--yes"]).await;
    let both = async || trace(&mesh, &["ORDERS:1"]).await + &trace(&mesh, &["ORDERS:2"]).await;
    insta::assert_snapshot!(both().await, @r#"
    ORDERS:1  orders.probe  at [time]  event [event]
    ├─ {"do":[{"key":"a","op":"set","value":"x"},{"op":"emit","payload":1,"subject":"events.one"}]}
    └─ probe: waiting: its consumer does not exist; a running host creates it
       ├─ before it was reset at [time]: done at [time], entry 1, attempt 1, module [digest]
       └─ emitted EVENTS:[n]  events.one  at [time]
          ├─ 1
          └─ no handler of the configuration reads it
    ORDERS:2  orders.probe  at [time]  event [event]
    ├─ {"code":"no","message":"not this one","op":"reject"}
    └─ probe: waiting: its consumer does not exist; a running host creates it
       └─ before it was reset at [time]: dead: rejected: no: not this one, at [time], entry 2, attempt 1, module [digest]
    "#);
    traced(&mesh, &["ORDERS:1"]).await;
    let host = mesh.host(&[]).await;
    let letters = mesh.wait_letters(1).await;
    mesh.wait_settled("ORDERS", "probe").await;
    host.stop().await;
    assert_eq!(mesh.emitted().await.len(), 1, "it is known again by its id");
    let event = letters[0].header("Mesh-Event").expect("a letter names its event");
    insta::assert_snapshot!(both().await.replace(event, "[event]"), @r#"
    ORDERS:1  orders.probe  at [time]  event [event]
    ├─ {"do":[{"key":"a","op":"set","value":"x"},{"op":"emit","payload":1,"subject":"events.one"}]}
    └─ probe: done at [time], entry 5, attempt 1, module [digest]
       ├─ wrote a = x
       ├─ before it was reset at [time]: done at [time], entry 1, attempt 1, module [digest]
       └─ emitted EVENTS:[n]  events.one  at [time]
          ├─ 1
          └─ no handler of the configuration reads it
    ORDERS:2  orders.probe  at [time]  event [event]
    ├─ {"code":"no","message":"not this one","op":"reject"}
    └─ probe: dead: rejected: no: not this one
       ├─ at [time], entry 6, attempt 1, module [digest]
       └─ dead letter probe.[event]
    "#);
}
