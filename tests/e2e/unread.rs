//! A trace reports what it has left unread.

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh};
use crate::schemas::{assert_fits, object};
use crate::support::eventually;
use crate::support::wait::SOON;
use crate::whereabouts::{emit, trace, traced};

#[tokio::test]
async fn what_could_not_be_read_within_the_limit_is_said_everywhere() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    for n in 1..=4 {
        let orders = json!({ "do": [emit("events.n", json!(n))], "n": n });
        mesh.publish("orders.probe", orders.to_string()).await;
        mesh.wait_decisions("probe", n).await;
    }
    mesh.wait_emitted(4).await;
    host.stop().await;
    let mut said = String::new();
    for args in [
        &["ORDERS:1", "--max-messages", "1"][..],
        &["ORDERS:4", "--max-messages", "2"],
        &["ORDERS:4", "--max-time", "0s"],
    ] {
        said += &trace(&mesh, args).await;
    }
    insta::assert_snapshot!(said, @r#"
    ORDERS:1  orders.probe  at [time]  event [event]
    ├─ {"do":[{"op":"emit","payload":1,"subject":"events.n"}],"n":1}
    └─ probe: done at [time], entry 1, attempt 1, module [digest]
       ├─ emitted events.n: not found: the limit of what is read was reached
       └─ the limit of what is read was reached: whether its handler was reset since is not known

    not everything was read: the limit was reached after 1 messages; --max-messages and --max-time raise it
    ORDERS:4  orders.probe  at [time]  event [event]
    ├─ {"do":[{"op":"emit","payload":4,"subject":"events.n"}],"n":4}
    └─ probe: not found whether it is decided: the limit of what is read was reached

    not everything was read: the limit was reached after 2 messages; --max-messages and --max-time raise it
    ORDERS:4  orders.probe  at [time]  event [event]
    ├─ {"do":[{"op":"emit","payload":4,"subject":"events.n"}],"n":4}
    └─ probe: not found whether it is decided: the limit of what is read was reached

    not everything was read: the limit was reached after 0 messages; --max-messages and --max-time raise it
    "#);
    let (status, stdout, stderr) = mesh.jetmesh(&["trace", "--key", "n=4", "--max-messages", "2"]).await;
    assert_eq!((status.code(), stdout.as_str()), (Some(1), ""));
    insta::assert_snapshot!(stderr, @r"
    error: no event has n=4
    searched ORDERS, messages read: 2; then the limit was reached, so not all that is new was read
    ");
    let all = object(&mesh, &["trace", "--json", "ORDERS:4", "--max-messages", "2"]).await;
    assert_fits(&mesh, "trace", &all).await;
    let all: Value = serde_json::from_str(&all).expect("JSON");
    assert_eq!(
        (&all["messages_read"], &all["limit_reached"]),
        (&json!(2), &json!(true))
    );

    // Where a floor has passed it, that it is decided is known.
    let host = mesh.host(&[]).await;
    eventually("the floor to rise", SOON, async || {
        mesh.order(json!({ "op": "ok" })).await;
        let head = mesh.messages("KV_probe", "$MESH.state.probe.head").await.pop()?.json();
        (head["floors"]["probe"]["floor"].as_u64()? >= 4).then_some(())
    })
    .await;
    host.stop().await;
    insta::assert_snapshot!(trace(&mesh, &["ORDERS:4", "--max-messages", "2"]).await, @r#"
    ORDERS:4  orders.probe  at [time]  event [event]
    ├─ {"do":[{"op":"emit","payload":4,"subject":"events.n"}],"n":4}
    └─ probe: decided; when and how was not found: the limit of what is read was reached

    not everything was read: the limit was reached after 2 messages; --max-messages and --max-time raise it
    "#);
}

#[tokio::test]
async fn no_more_than_two_hundred_events_are_followed_and_the_others_are_named() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    mesh.order(json!({ "op": "emit_many", "subject": "events.n", "count": 202, "bytes": 1 }))
        .await;
    mesh.wait_emitted(202).await;
    host.stop().await;
    let event = traced(&mesh, &["ORDERS:1"]).await;
    let follows = event["handlers"][0]["follows"].as_array().expect("a list");
    let notes: Vec<&Value> = follows.iter().map(|f| &f["whereabouts"]["traced"]["note"]).collect();
    assert_eq!(notes[..199], [&Value::Null; 199]);
    assert_eq!(
        notes[199..],
        [&json!("not followed: the limit of 200 events is reached"); 3]
    );
}
