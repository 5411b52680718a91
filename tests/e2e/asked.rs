//! A service asks the hosts where an event of its own is.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::effects::shop;
use crate::mesh::{Config, Mesh};
use crate::support::wait::SOON;
use crate::support::{eventually, modules};

/// What a host answers to a request for a trace: its code, if it refuses, and the body.
pub async fn ask(mesh: &Mesh, request: &Value) -> (Option<u16>, Value) {
    let asked = mesh.client.request("jetmesh.trace", request.to_string().into());
    let answer = asked.await.expect("a host answers");
    let code = answer.headers.as_ref();
    let code = code.and_then(|headers| headers.get("Nats-Service-Error-Code"));
    let code = code.map(|code| code.as_str().parse().expect("a number"));
    (code, serde_json::from_slice(&answer.payload).unwrap_or_default())
}

/// Of each handler, the state and the code.
fn states(answer: &Value) -> Vec<String> {
    let handlers = answer["handlers"].as_array().expect("a list");
    let mut states: Vec<String> = handlers
        .iter()
        .map(|one| {
            [&one["handler"], &one["state"], &one["code"]]
                .map(|text| text.as_str().unwrap_or("-"))
                .join(" ")
        })
        .collect();
    states.sort();
    states
}

const REJECTED: [&str; 3] = ["inventory dead out-of-stock", "notify done -", "points done -"];

#[tokio::test]
async fn a_service_that_asks_is_told_by_one_host_what_each_handler_has_made_of_its_event() {
    let (mesh, _host) = Mesh::start(shop()).await;
    let _other = mesh.host(&[]).await;
    mesh.put("inventory", "stock.sku-1", "10").await;
    let order = |id: &str, qty: u32| {
        json!({ "order_id": id, "user_id": "u-7", "lines": [{ "sku": "sku-1", "qty": qty }], "total_cents": 100 })
            .to_string()
    };
    let before = json!({ "message_id": "order-2", "since": "2026-01-01T00:00:00Z" });
    assert_eq!(ask(&mesh, &before).await.0, Some(404), "it is not published");
    mesh.publish("orders.created", order("o-1", 1)).await;
    let sequence = mesh
        .publish_with("orders.created", &[("Nats-Msg-Id", "order-2")], order("o-2", 99))
        .await;
    let states_are = async |request: &Value, wanted: [&str; 3]| {
        eventually("every handler to have decided", SOON, async || {
            let (code, answer) = ask(&mesh, request).await;
            assert_eq!(code, None, "{answer}");
            let letters = answer.to_string().matches("\"inventory.").count();
            (states(&answer) == wanted && letters == usize::from(wanted == REJECTED)).then_some(answer)
        })
        .await
    };
    let by_message_id = states_are(&before, REJECTED).await;
    assert_eq!(by_message_id["sequence"], sequence);
    // By its place, and by the id that an answer has told.
    let by_place = states_are(&json!({ "id": format!("ORDERS:{sequence}") }), REJECTED).await;
    assert_eq!(by_place, by_message_id);
    let by_id = json!({ "id": by_place["event"] });
    assert_eq!(states_are(&by_id, REJECTED).await, by_message_id);
    let dead = by_place["handlers"].as_array().expect("a list");
    let dead = dead.iter().find(|one| one["state"] == "dead").expect("one is dead");
    let letter = dead["dead_letter"].as_str().expect("it has a dead letter");
    states_are(
        &json!({ "id": "ORDERS:1" }),
        ["inventory done -", "notify done -", "points done -"],
    )
    .await;
    // It is told also when its stream has removed it, and when a person has helped.
    let orders = mesh.js.get_stream("ORDERS").await.expect("it is there");
    mesh.put("inventory", "stock.sku-1", "100").await;
    mesh.jetmesh_ok(&["dlq", "replay", letter, "--yes"]).await;
    orders.delete_message(sequence).await.expect("it is there");
    let done = ["inventory done -", "notify done -", "points done -"];
    assert_eq!(states_are(&by_id, done).await["stored"], Value::Null);

    let since = |since: &str| json!({ "message_id": "order-2", "since": since });
    for (request, code) in [
        (json!("ORDERS:1"), 400),
        (json!({}), 400),
        (json!({ "id": "ORDERS:1", "since": "2026-01-01T00:00:00Z" }), 400),
        (json!({ "id": "ORDERS" }), 400),
        (json!({ "ids": ["ORDERS:1"] }), 400),
        (since("yesterday"), 400),
        (json!({ "id": "ORDERS:99" }), 404),
        (since("2026-01-01T00:00:00Z"), 404),
    ] {
        assert_eq!(ask(&mesh, &request).await, (Some(code), Value::Null), "{request}");
    }
    assert_eq!(answers(&mesh).await, REQUESTS);
    // A host that has other handlers answers about them.
    let lines = "subjects = [\"orders.created\"]\nstart = \"new\"";
    let config = Config::new().handler("another", &modules::handler("notify"), lines);
    let _third = mesh.host_of(&config, &mesh.server.url(), &[]).await;
    eventually("both answer", SOON, async || {
        (answers(&mesh).await == 2 * REQUESTS).then_some(())
    })
    .await;
}

/// How often the hosts are asked.
const REQUESTS: usize = 20;

/// How many answers these requests have.
async fn answers(mesh: &Mesh) -> usize {
    let inbox = mesh.client.new_inbox();
    let mut answers = mesh.client.subscribe(inbox.clone()).await.expect("connected");
    for _ in 0..REQUESTS {
        let asked = mesh
            .client
            .publish_with_reply("jetmesh.trace", inbox.clone(), "{}".into());
        asked.await.expect("connected");
    }
    // What has been asked before is answered when no answer comes for a while.
    let mut count = 0;
    while let Ok(answer) = tokio::time::timeout(Duration::from_millis(500), answers.next()).await {
        assert!(answer.is_some(), "connected");
        count += 1;
    }
    count
}
