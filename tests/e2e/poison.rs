//! Messages that break the connection of their reader.

use serde_json::json;

use crate::audit::{judge_with_letters, work};
use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::Raw;

/// Publishes bytes that no client library would send.
pub fn publish_raw(mesh: &Mesh, subject: &[u8], headers: &[u8], payload: &[u8]) {
    let mut batch = Raw::default();
    batch.add(subject, headers, payload);
    batch.publish(&mesh.server);
}

#[tokio::test]
async fn one_poison_message_stops_nobody_else() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    // The client library refuses each of these, or panics over it, in a way of its own.
    let poison: [(&[u8], &[u8]); 10] = [
        (b"orders.probe", b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n"),
        (b"orders.probe", b"NATS/1.0\r\nno colon here\r\n\r\n"),
        (b"orders.probe", b"NATS/1.0\r\na name: with a space\r\n\r\n"),
        (b"orders.\xff\xfe", b"NATS/1.0\r\nA: b\r\n\r\n"),
        // A lone line feed ends a line, too.
        (b"orders.probe", b"NATS/1.0\r\nA: b\nno colon here\r\n\r\n"),
        // A lone carriage return does not, and no value may have one.
        (b"orders.probe", b"NATS/1.0\r\nA: b\rc\r\n\r\n"),
        // Nothing is there to be continued.
        (b"orders.probe", b"NATS/1.0\r\nA: b\r\n\r\n continued\r\n\r\n"),
        (b"orders.probe", b"NATS/2.0\r\nA: b\r\n\r\n"),
        (b"orders.probe", b"A: b\r\n\r\n"),
        // A space to Unicode, and none to the server.
        ("orders.a\u{a0}b".as_bytes(), b"NATS/1.0\r\nA: b\r\n\r\n"),
    ];
    let mut good = 0;
    for (subject, headers) in poison {
        for _ in 0..3 {
            mesh.order(work(good, 2)).await;
            good += 1;
        }
        publish_raw(&mesh, subject, headers, b"{\"op\":\"ok\"}");
    }
    mesh.order(work(good, 2)).await;
    good += 1;
    judge_with_letters(&mesh, good, 2, poison.len()).await;
    for letter in mesh.letters().await {
        assert_eq!(letter.header("Mesh-Code"), Some("malformed-message"), "{letter:?}");
    }
}

#[tokio::test]
async fn a_poison_replay_or_advisory_stops_nobody() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    let headers = b"NATS/1.0\r\nno colon here\r\n\r\n";
    let doors = [
        ("MESH_REPLAY", "probe", "$MESH.replay.probe.k.1"),
        (
            "MESH_ADVISORIES",
            "mesh-advisories",
            "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.ORDERS.probe",
        ),
    ];
    for (number, (stream, consumer, subject)) in doors.into_iter().enumerate() {
        publish_raw(&mesh, subject.as_bytes(), headers, b"");
        host.wait_for_line(
            says(&["a message that no client can read is taken away", stream]),
            PATIENT,
        )
        .await;
        mesh.order(work(number, 2)).await;
        mesh.wait_settled(stream, consumer).await;
    }
    judge_with_letters(&mesh, 2, 2, 0).await;
}

#[tokio::test]
async fn an_event_that_looks_like_a_word_from_the_server_is_an_event() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    let words: [&[u8]; 6] = [
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
        b"NATS/1.0 404 No Messages\r\n\r\n",
        b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 1\r\n\r\n",
        b"NATS/1.0 what\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
    ];
    for (i, headers) in words.into_iter().enumerate() {
        mesh.order(work(2 * i, 2)).await;
        let orders = json!({ "do": work(2 * i + 1, 2) }).to_string();
        publish_raw(&mesh, b"orders.probe", headers, orders.as_bytes());
    }
    judge_with_letters(&mesh, 12, 2, 0).await;
}

#[tokio::test]
async fn an_event_that_traps_its_handler_stops_nobody_else() {
    let (mesh, _host) = Mesh::start(Config::probe_with("max_attempts = 2")).await;
    mesh.order(json!({ "op": "trap" })).await;
    for number in 0..5 {
        mesh.order(work(number, 2)).await;
    }
    judge_with_letters(&mesh, 5, 2, 1).await;
    assert_eq!(mesh.letters().await[0].header("Mesh-Code"), Some("trap"));
}
