//! Payloads and headers of every kind reach handlers and dead letters unchanged.

use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::mesh::{Config, Found, Mesh};

/// The largest message of a server that is not configured otherwise.
const MIB: usize = 1 << 20;

/// FNV-1a with 32 bits, as the probe computes it.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// Bytes of every value, and no valid UTF-8.
fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 % 251) as u8 ^ 0x80).collect()
}

const ECHO: &str = r#"{"op":"echo","subject":"events.echo"}"#;
const REJECT: &str = r#"{"op":"reject","code":"no","message":"never"}"#;

/// The largest payload that goes with this one header.
fn largest(name: &str, value: &str) -> usize {
    // Format: `NATS/1.0`, then `name: value` for each header, then an empty line; each ends with two bytes.
    MIB - ("NATS/1.0".len() + 2) - (name.len() + 2 + value.len() + 2) - 2
}

/// The payload's length and hash that the probe has seen.
fn seen(echo: &Value) -> (u64, u64) {
    let number = |name: &str| echo[name].as_u64().expect("a number");
    (number("payload_bytes"), number("payload_fnv1a"))
}

#[tokio::test]
async fn payloads_of_every_size_reach_the_handler_unchanged() {
    let (mesh, _host) = Mesh::start(Config::probe_with("concurrency = 1\nin_flight = 1")).await;
    let payloads = [
        vec![],
        vec![0],
        noise(1000),
        "ü\r\n\0".into(),
        noise(largest("Probe", ECHO)),
    ];
    for payload in &payloads {
        mesh.publish_with("orders.probe", &[("Probe", ECHO)], payload.clone())
            .await;
    }
    let events = mesh.wait_emitted(payloads.len()).await;
    let seen: Vec<_> = events.iter().map(|event| seen(&event.json())).collect();
    let expected: Vec<_> = payloads.iter().map(|p| (p.len() as u64, u64::from(fnv1a(p)))).collect();
    assert_eq!(seen, expected);
    // No larger message could have been sent.
    let mut headers = HeaderMap::new();
    headers.insert("Probe", ECHO);
    let larger = noise(largest("Probe", ECHO) + 1);
    let sent = mesh
        .js
        .publish_with_headers("orders.probe", headers, larger.into())
        .await;
    assert!(
        sent.is_err() || sent.expect("checked").await.is_err(),
        "the server takes no more than 1 MiB"
    );
}

#[tokio::test]
async fn headers_of_every_kind_reach_the_handler_and_the_letter_unchanged() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    let odd = [
        ("Empty", ""),
        ("Several", "b"),
        ("Several", "a"),
        ("lower-case", "x"),
        ("Colons", "a: b:c"),
        ("Unicode", "您好 ü"),
        ("Quotes", "\"'\\"),
        ("X!#$%&*+.^_|~", "every sign that a name may have"),
        ("Nats-Msg-Id", "first"),
    ];
    let with = |orders: &'static str, id: &'static str| {
        let mut headers = odd.to_vec();
        headers.push(("Probe", orders));
        headers.retain(|(name, _)| *name != "Nats-Msg-Id");
        headers.push(("Nats-Msg-Id", id));
        headers
    };
    let sorted = |mut headers: Vec<(String, String)>| {
        // The order of different names has no meaning; that of one name's values has.
        headers.sort_by(|a, b| a.0.cmp(&b.0));
        headers
    };
    let owned = |headers: &[(&str, &str)]| -> Vec<(String, String)> {
        headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let sent = with(ECHO, "echo");
    mesh.publish_with("orders.probe", &sent, "").await;
    let events = mesh.wait_emitted(1).await;
    let seen: Vec<(String, String)> = serde_json::from_value(events[0].json()["headers"].clone()).expect("headers");
    assert_eq!(sorted(seen), sorted(owned(&sent)));

    let sent = with(REJECT, "reject");
    mesh.publish_with("orders.probe", &sent, noise(100)).await;
    let letters = mesh.wait_letters(1).await;
    let of_event = |letter: &Found| {
        let all = letter
            .headers
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        let all = all.map(|(name, value)| (name.to_string(), value.as_str().to_owned()));
        let kept = all.filter_map(|(name, value)| match name.strip_prefix("Mesh-Original-") {
            Some(original) => Some((original.to_owned(), value)),
            None if name.starts_with("Mesh-") || name.starts_with("Nats-") => None,
            None => Some((name, value)),
        });
        sorted(kept.collect())
    };
    assert_eq!(of_event(&letters[0]), sorted(owned(&sent)));
    assert_eq!(letters[0].header("Mesh-Original-Nats-Msg-Id"), Some("reject"));
    assert_eq!(letters[0].payload, noise(100));
}

/// Rejects an event of the largest size, and asserts that its letter has it whole.
async fn the_largest_letter(config: Config) {
    let (mesh, _host) = Mesh::start(config).await;
    let payload = noise(largest("Probe", REJECT));
    mesh.publish_with("orders.probe", &[("Probe", REJECT)], payload.clone())
        .await;
    let letters = mesh.wait_letters(1).await;
    let letter = &letters[0];
    assert!(letter.payload.is_empty());
    let parts = mesh.messages("MESH_DEAD", &format!("{}.part.*", letter.subject)).await;
    assert_eq!(letter.header("Mesh-Parts"), Some(parts.len().to_string().as_str()));
    let whole: Vec<Bytes> = parts.into_iter().map(|part| part.payload).collect();
    assert!(whole.concat() == payload, "the parts make the payload");

    let id = letter
        .subject
        .splitn(4, '.')
        .last()
        .expect("a letter's subject has an id");
    let show = mesh.jetmesh_ok(&["dlq", "show", id]).await;
    assert!(show.contains(&format!("PAYLOAD, {} bytes,", payload.len())), "{show}");
    let list = mesh.jetmesh_ok(&["dlq", "ls", "--json"]).await;
    assert_eq!(list.lines().count(), 1, "parts are no letters: {list}");
    let status: Value = serde_json::from_str(&mesh.jetmesh_ok(&["status", "--json"]).await).expect("JSON");
    assert_eq!(status["handlers"][0]["dead"], 1);
    mesh.wait_settled("ORDERS", "probe").await;
}

#[tokio::test]
async fn a_dead_event_of_the_largest_size_has_its_letter_in_parts() {
    the_largest_letter(Config::probe()).await;
}

#[tokio::test]
async fn without_a_ledger_too_a_dead_event_of_the_largest_size_has_its_letter_in_parts() {
    let probe = crate::support::modules::handler("probe");
    the_largest_letter(Config::new().handler("probe", &probe, "")).await;
}

#[tokio::test]
async fn a_handler_may_emit_and_keep_up_to_its_limits() {
    let (mesh, _host) = Mesh::start(Config::probe_with("max_attempts = 1")).await;
    mesh.order(json!({ "op": "emit_many", "subject": "events.large", "count": 1, "bytes": 900 * 1024 }))
        .await;
    let events = mesh.wait_emitted(1).await;
    assert_eq!(events[0].payload.len(), 900 * 1024);
    mesh.order(json!({ "op": "set", "key": "large", "value": "x".repeat(512 * 1024) }))
        .await;
    mesh.order(json!({ "op": "emit_many", "subject": "events.many", "count": 400, "bytes": 10 }))
        .await;
    mesh.wait_emitted(401).await;
    mesh.wait_settled("ORDERS", "probe").await;
    assert_eq!(
        mesh.value("probe", "large").await.map(|value| value.len()),
        Some(512 * 1024)
    );

    for orders in [
        json!({ "op": "emit_many", "subject": "events.many", "count": 401, "bytes": 10 }),
        json!({ "op": "emit_many", "subject": "events.large", "count": 2, "bytes": 600 * 1024 }),
        json!({ "op": "set", "key": "larger", "value": "x".repeat(512 * 1024 + 1) }),
    ] {
        mesh.order(orders).await;
    }
    let letters = mesh.wait_letters(3).await;
    for letter in &letters {
        let error = letter.header("Mesh-Error").expect("a letter has an error");
        assert!(
            ["over the limit", "over 1048576 bytes", "more than 400"]
                .iter()
                .any(|t| error.contains(t)),
            "{error}"
        );
    }
    assert_eq!(
        (mesh.emitted().await.len(), mesh.value("probe", "larger").await),
        (401, None)
    );
}

#[tokio::test]
async fn a_byte_order_mark_before_json_hides_nothing() {
    let (mesh, _host) = Mesh::start(crate::effects::shop()).await;
    mesh.put("inventory", "stock.sku-1", "10").await;
    let order =
        json!({ "order_id": "o-7", "user_id": "u-7", "lines": [{ "sku": "sku-1", "qty": 2 }], "total_cents": 100 });
    mesh.publish("orders.created", format!("\u{feff}{order}")).await;
    mesh.wait_value("inventory", "stock.sku-1", "8").await;
    mesh.wait_emitted(3).await;
    let found = mesh.jetmesh_ok(&["trace", "--key", "order_id=o-7"]).await;
    assert!(found.contains("ORDERS:1  orders.created"), "{found}");

    // A file of letters that an editor has saved: none is left out.
    mesh.publish("orders.created", "no order").await;
    mesh.wait_letters(3).await;
    let (_, lines, _) = mesh.jetmesh(&["dlq", "export", "--all"]).await;
    let file = mesh.dir.path().join("letters.jsonl");
    std::fs::write(&file, format!("\u{feff}{lines}")).expect("a writable folder");
    let account = mesh.jetmesh_ok(&["dlq", "import", file.to_str().expect("UTF-8")]).await;
    assert!(
        account.contains("3 already there") && account.contains("0 malformed"),
        "{account}"
    );
}

#[tokio::test]
async fn a_condition_that_names_no_handler_of_the_configuration_is_told() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    for args in [
        &["dlq", "ls", "--handler", "prob"][..],
        &["dlq", "export", "--handler", "prob"],
    ] {
        let (_, _, stderr) = mesh.jetmesh(args).await;
        let told = "warning: the configuration has no handler prob; it has probe";
        assert!(stderr.contains(told), "{args:?}: {stderr}");
    }
    let (_, _, stderr) = mesh.jetmesh(&["dlq", "ls", "--handler", "probe"]).await;
    assert_eq!(stderr, "");
}
