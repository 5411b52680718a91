//! A service asks the hosts where an event of its own is.

use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};

use crate::effects::shop;
use crate::mesh::Mesh;
use crate::support::eventually;
use crate::support::wait::SOON;

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
            (states(&answer) == wanted).then_some(answer)
        })
        .await
    };
    let rejected = ["inventory dead out-of-stock", "notify done -", "points done -"];
    let by_message_id = states_are(&before, rejected).await;
    assert_eq!(by_message_id["sequence"], sequence);
    // By its place, and by the id that an answer has told.
    let by_place = states_are(&json!({ "id": format!("ORDERS:{sequence}") }), rejected).await;
    assert_eq!(by_place, by_message_id);
    let by_id = json!({ "id": by_place["event"] });
    assert_eq!(states_are(&by_id, rejected).await, by_message_id);
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
    assert!(answered_once(&mesh).await);
}

/// Whether each of some requests has one answer.
async fn answered_once(mesh: &Mesh) -> bool {
    const REQUESTS: usize = 20;
    let inbox = mesh.client.new_inbox();
    let mut answers = mesh.client.subscribe(inbox.clone()).await.expect("connected");
    for _ in 0..REQUESTS {
        let asked = mesh
            .client
            .publish_with_reply("jetmesh.trace", inbox.clone(), "{}".into());
        asked.await.expect("connected");
    }
    for _ in 0..REQUESTS {
        let answer = tokio::time::timeout(SOON, answers.next()).await;
        answer.expect("there are as many answers as requests");
    }
    // What each host answers later comes behind.
    ask(mesh, &json!({ "id": "ORDERS:1" })).await;
    answers.next().now_or_never().is_none()
}
