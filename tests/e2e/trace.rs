//! Where is order 42? What each handler has made of an event, and what has followed from it.

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh};
use crate::rehearse::{everything, hidden};
use crate::support::wait::SOON;
use crate::support::{eventually, modules};

/// The sample's three handlers, one that reads what the inventory emits, and a probe with retries that are far apart.
fn config() -> Config {
    let probe = modules::handler("probe");
    let slow = "backoff = \"1h\"\nbackoff_max = \"1h\"\nmax_attempts = 3";
    let created = "subjects = [\"orders.created\"]\n";
    Config::new()
        .handler(
            "inventory",
            &modules::handler("inventory"),
            &format!("{created}bucket = \"inventory\"\npublish = [\"inventory.*\"]"),
        )
        .handler(
            "points",
            &modules::handler("points"),
            &format!("{created}bucket = \"points\"\npublish = [\"points.*\"]"),
        )
        .handler(
            "notify",
            &modules::handler("notify"),
            &format!("{created}publish = [\"notifications.*\"]"),
        )
        .handler(
            "watch",
            &probe,
            "stream = \"EVENTS\"\nsubjects = [\"inventory.*\"]\nbucket = \"watch\"",
        )
        .handler(
            "probe",
            &probe,
            &format!(
                "subjects = [\"orders.probe\"]\nbucket = \"probe\"\npublish = [\"events.>\", \"nowhere.*\"]\n{slow}"
            ),
        )
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn publish_order(mesh: &Mesh, id: &str, qty: u32) -> u64 {
    publish_order_with(mesh, &[], id, qty).await
}

async fn publish_order_with(mesh: &Mesh, headers: &[(&str, &str)], id: &str, qty: u32) -> u64 {
    let order = json!({ "order_id": id, "user_id": "u-7", "lines": [{ "sku": "sku-1", "qty": qty }] });
    mesh.publish_with("orders.created", headers, order.to_string()).await
}

/// What was printed, without what is different each time.
pub fn told(text: &str) -> String {
    let mut before = String::new();
    let mut hide = |word: &str| {
        let hidden = match before.as_str() {
            "event" => "[event]".to_owned(),
            _ if word.starts_with("EVENTS:") && word.len() > 7 => "EVENTS:[n]".to_owned(),
            _ => word.to_owned(),
        };
        word.clone_into(&mut before);
        hidden
    };
    let mut line = |line: &str| line.split(' ').map(&mut hide).collect::<Vec<_>>().join(" ");
    hidden(&text.lines().map(|l| line(l) + "\n").collect::<String>())
}

#[tokio::test]
async fn an_order_is_traced_across_handlers_with_what_it_wrote_and_what_followed() {
    let mesh = Mesh::new(config()).await;
    let host = mesh.host(&[]).await;
    mesh.put("inventory", "stock.sku-1", "7").await;
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    publish_order_with(&mesh, &[("traceparent", &traceparent)], "o-42", 5).await;
    mesh.wait_emitted(3).await;
    mesh.wait_decisions("watch", 1).await;
    let second = publish_order(&mesh, "o-43", 5).await;
    mesh.wait_emitted(5).await;
    let letters = mesh.wait_letters(1).await;
    host.stop().await;
    let before = everything(&mesh).await;
    let done = mesh.jetmesh_ok(&["trace", "--key", "order_id=o-42"]).await;
    insta::assert_snapshot!(told(&done), @r#"
    ORDERS:1  orders.created  at [time]  event [event]
    ├─ {"lines":[{"qty":5,"sku":"sku-1"}],"order_id":"o-42","user_id":"u-7"}
    ├─ inventory: done at [time], entry 1, attempt 1, module [digest]
    │  ├─ wrote stock.sku-1 = 2
    │  └─ emitted EVENTS:[n]  inventory.reserved  at [time]  event [event]
    │     ├─ {"lines":[{"left":2,"qty":5,"sku":"sku-1"}],"order_id":"o-42"}
    │     └─ watch: done at [time], entry 1, attempt 1, module [digest]
    ├─ notify: done at [time], entry 1, attempt 1, module [digest]
    │  └─ emitted EVENTS:[n]  notifications.requested  at [time]  event [event]
    │     ├─ {"locale":"en","order_id":"o-42","text":"Your order o-42 has been created","user_id":"u-7"}
    │     └─ no handler of the configuration reads it
    └─ points: done at [time], entry 1, attempt 1, module [digest]
       ├─ wrote balance.u-7 = 10
       └─ emitted EVENTS:[n]  points.added  at [time]  event [event]
          ├─ {"balance":10,"order_id":"o-42","points":10,"user_id":"u-7"}
          └─ no handler of the configuration reads it

    searched EVENTS, messages read: 1; everything within the time of --since
    searched ORDERS, messages read: 2; everything within the time of --since
    "#);
    // What followed from it is of the same trace, and is told with it.
    let by_trace = mesh.jetmesh_ok(&["trace", "--trace-id", &TRACE.to_uppercase()]).await;
    assert_eq!(by_trace, done);
    let by_subject = mesh
        .jetmesh_ok(&["trace", "--subject", "orders.*", "--limit", "1"])
        .await;
    assert!(
        by_subject.starts_with(&format!("ORDERS:{second}  orders.created")),
        "{by_subject}"
    );
    let dead = mesh.jetmesh_ok(&["trace", &format!("ORDERS:{second}")]).await;
    insta::assert_snapshot!(told(&dead).replace(letters[0].header("Mesh-Event").expect("its event"), "[event]"), @r#"
    ORDERS:2  orders.created  at [time]  event [event]
    ├─ {"lines":[{"qty":5,"sku":"sku-1"}],"order_id":"o-43","user_id":"u-7"}
    ├─ inventory: dead: rejected: out-of-stock: sku sku-1: 5 wanted, 2 left
    │  ├─ at [time], entry 2, attempt 1, module [digest]
    │  └─ dead letter inventory.[event]
    ├─ notify: done at [time], entry 2, attempt 1, module [digest]
    │  └─ emitted EVENTS:[n]  notifications.requested  at [time]  event [event]
    │     ├─ {"locale":"en","order_id":"o-43","text":"Your order o-43 has been created","user_id":"u-7"}
    │     └─ no handler of the configuration reads it
    └─ points: done at [time], entry 2, attempt 1, module [digest]
       ├─ wrote balance.u-7 = 20
       └─ emitted EVENTS:[n]  points.added  at [time]  event [event]
          ├─ {"balance":20,"order_id":"o-43","points":10,"user_id":"u-7"}
          └─ no handler of the configuration reads it
    "#);
    let event = letters[0].header("Mesh-Event").expect("a letter names its event");
    for id in [event, &format!("inventory.{event}")] {
        assert_eq!(mesh.jetmesh_ok(&["trace", id]).await, dead);
    }
    let text = mesh
        .jetmesh_ok(&["trace", "--key", "lines.0.sku=sku-1", "--json"])
        .await;
    let found: Value = serde_json::from_str(&text).expect("JSON");
    let sequences: Vec<&Value> = found["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| &e["sequence"])
        .collect();
    assert_eq!(sequences, [&json!(2), &json!(1)], "the newest first");
    assert_eq!(everything(&mesh).await, before, "it only reads");

    let mut said = String::new();
    for args in [
        &["--key", "order_id=o-44"][..],
        &["ORDERS:99"],
        &["nobody.1"],
        &["o-42"],
        &["--key", "o-42"],
        &["--trace-id", "4bf9"],
        &["--trace-id", &"1".repeat(32)],
        &["--subject", "orders..created"],
    ] {
        let (status, stdout, stderr) = mesh.jetmesh(&[&["trace"], args].concat()).await;
        assert_eq!(stdout, "");
        said += &format!("{}: {stderr}", status.code().expect("it ends by itself"));
    }
    insta::assert_snapshot!(said, @r"
    1: error: no event has order_id=o-44
    searched EVENTS, messages read: 1; everything within the time of --since
    searched ORDERS, messages read: 2; everything within the time of --since
    1: error: no event ORDERS:99 is known: the last message of stream ORDERS is 2, and no ledger, attempt record or dead letter of a configured handler mentions it
    1: error: no event nobody.1 is known: no stream that a configured handler reads has, or had, this incarnation
    2: error: `o-42` is not INCARNATION.SEQUENCE, STREAM:SEQUENCE or HANDLER.INCARNATION.SEQUENCE; to find an event by its payload: --key field=value
    2: error: invalid value 'o-42' for '--key <FIELD=VALUE>': not field=value, such as order_id=42

    For more information, try '--help'.
    2: error: invalid value '4bf9' for '--trace-id <ID>': not a trace id, which is 32 hex digits that are not all zero

    For more information, try '--help'.
    1: error: no event has the trace id 11111111111111111111111111111111
    searched EVENTS, messages read: 1; everything within the time of --since
    searched ORDERS, messages read: 2; everything within the time of --since
    2: error: invalid value 'orders..created' for '--subject <SUBJECT>': not a subject: a part between dots is empty

    For more information, try '--help'.
    ");
}

#[tokio::test]
async fn what_is_not_done_yet_is_told_as_it_stands() {
    let mesh = Mesh::new(config()).await;
    let host = mesh.host(&[]).await;
    let retried = mesh
        .order(json!({ "op": "retry", "code": "later", "message": "no stock" }))
        .await;
    let emitted = mesh
        .order(json!([
            { "op": "set", "key": "a", "value": "x" },
            { "op": "delete", "key": "b" },
            { "op": "emit_later", "subject": "events.later", "payload": 1, "after_ms": 3_600_000 },
            { "op": "emit", "subject": "nowhere.x", "payload": 2 },
        ]))
        .await;
    mesh.wait_letters(1).await;
    eventually("the record of the failed attempt", SOON, async || {
        (mesh.attempts().await.first()?["next"].is_string()).then_some(())
    })
    .await;
    host.stop().await;
    let waiting = mesh.order(json!({ "op": "ok" })).await;
    let mut all = String::new();
    for sequence in [retried, emitted, waiting] {
        all += &mesh.jetmesh_ok(&["trace", &format!("ORDERS:{sequence}")]).await;
    }
    let (begin, end) = all.split_once("the next is due in ").expect("it is retried");
    let (_, end) = end.split_once("Z: ").expect("a time ends");
    let letter = "dead letter probe.";
    let (mid, rest) = end.split_once(letter).expect("one is not delivered");
    let (_, rest) = rest.split_once('\n').expect("a line ends");
    let all = format!("{begin}the next is due [time]: {mid}{letter}[event]-1\n{rest}");
    insta::assert_snapshot!(told(&all), @r#"
    ORDERS:1  orders.probe  at [time]  event [event]
    ├─ {"code":"later","message":"no stock","op":"retry"}
    └─ probe: attempt 1 of 3 failed, the next is due [time]: later: no stock
    ORDERS:2  orders.probe  at [time]  event [event]
    ├─ {"do":[{"key":"a","op":"set","value":"x"},{"key":"b","op":"delete"},{"after_ms":3600000,"op":"emit_later","payload":1,"subject":"events.later"},{"op":"emit","payload":2,"subject":"nowhere.x"}]}
    └─ probe: done at [time], entry 1, attempt 1, module [digest]
       ├─ wrote a = x
       ├─ deleted b
       ├─ emitted events.later: delayed until [time]
       └─ emitted nowhere.x: not delivered: no stream captures nowhere.x; dead letter probe.[event]-1
    ORDERS:3  orders.probe  at [time]  event [event]
    ├─ {"op":"ok"}
    └─ probe: waiting: its consumer has delivered up to 2
    "#);
}

#[tokio::test]
async fn of_what_the_ledger_has_forgotten_that_is_said_and_what_followed_is_found_by_its_cause() {
    let mesh = Mesh::new(config()).await;
    let host = mesh.host(&[]).await;
    mesh.put("inventory", "stock.sku-1", "7").await;
    let first = publish_order(&mesh, "o-42", 5).await;
    mesh.wait_emitted(3).await;
    mesh.wait_decisions("watch", 1).await;
    host.stop().await;
    // Another host's start sweeps, and the next entry tells of the floor.
    let host = mesh.host(&[]).await;
    eventually("the floor to rise", SOON, async || {
        publish_order(&mesh, "o-43", 1).await;
        let head = mesh
            .messages("KV_inventory", "$MESH.state.inventory.head")
            .await
            .pop()?
            .json();
        (head["floors"]["inventory"]["floor"].as_u64()? >= 1).then_some(())
    })
    .await;
    host.stop().await;
    for of in ["ledger", "out"] {
        let purge = json!({ "filter": format!("$MESH.state.inventory.{of}.>") });
        let _: Value = mesh
            .js
            .request("STREAM.PURGE.KV_inventory", &purge)
            .await
            .expect("JetStream answers");
    }
    let text = mesh.jetmesh_ok(&["trace", &format!("ORDERS:{first}")]).await;
    let inventory = text.split_once("├─ inventory").expect("its part").1;
    let (inventory, _) = inventory.split_once("\n├─ ").expect("others follow");
    insta::assert_snapshot!(told(inventory), @r#"
    : decided; the ledger does not keep the details any more
    │  └─ emitted EVENTS:[n]  inventory.reserved  at [time]  event [event]
    │     ├─ {"lines":[{"left":2,"qty":5,"sku":"sku-1"}],"order_id":"o-42"}
    │     └─ watch: done at [time], entry 1, attempt 1, module [digest]
    "#);
}

#[tokio::test]
async fn a_key_is_found_by_its_number_as_written_and_payloads_that_are_no_json_are_told() {
    let mesh = Mesh::new(Config::probe_with("subjects = [\"orders.none\"]")).await;
    let host = mesh.host(&[]).await;
    host.stop().await;
    for payload in ["{\"do\":[],\"price\":12.50,\"id\":98765432109876543210987}", "no JSON"] {
        mesh.publish("orders.none", payload).await;
    }
    for key in ["price=12.50", "price=12.5", "id=98765432109876543210987"] {
        let told = mesh.jetmesh_ok(&["trace", "--key", key]).await;
        assert!(told.starts_with("ORDERS:1 "), "{told}");
        let searched = "searched ORDERS, messages read: 2, of which 1 is not JSON and was not searched; everything";
        assert!(told.contains(searched), "{told}");
    }
    let (_, _, stderr) = mesh.jetmesh(&["trace", "--key", "price=13"]).await;
    assert!(stderr.contains("of which 1 is not JSON"), "{stderr}");
}
