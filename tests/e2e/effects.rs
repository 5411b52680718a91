//! Effects: state and emitted events, each exactly once, together or not at all.

use serde_json::{Value, json};

use crate::mesh::{Config, Found, Mesh, says};
use crate::support::wait::SOON;
use crate::support::{Signal, cli, eventually, modules};

/// Adds one to the key `n`, and emits.
fn add_and_emit() -> Value {
    json!([
        { "op": "add", "key": "n", "by": 1 },
        { "op": "emit", "subject": "events.added", "payload": "one more" },
    ])
}

/// The three sample handlers.
pub fn shop() -> Config {
    Config::new()
        .handler(
            "inventory",
            &modules::handler("inventory"),
            "bucket = \"inventory\"\npublish = [\"inventory.*\"]",
        )
        .handler(
            "points",
            &modules::handler("points"),
            "bucket = \"points\"\npublish = [\"points.*\"]\n[handlers.points.settings]\nper_100_cents = 2",
        )
        .handler("notify", &modules::handler("notify"), "publish = [\"notifications.*\"]")
}

fn codes(letters: &[Found]) -> Vec<(String, String)> {
    let of = |letter: &Found, name| letter.header(name).expect("a letter has it").to_owned();
    let mut codes: Vec<_> = letters
        .iter()
        .map(|l| (of(l, "Mesh-Handler"), of(l, "Mesh-Code")))
        .collect();
    codes.sort();
    codes
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn an_event_is_acked_only_after_its_effects_are_committed() {
    // It freezes before it has sent the batch: the server must still wait for an answer.
    let mesh = Mesh::new(Config::probe()).await;
    let host = mesh.host_with_fault("joined:stop").await;
    mesh.order(add_and_emit()).await;
    eventually("the event to be delivered", SOON, async || {
        (mesh.consumer("ORDERS", "probe").await["num_ack_pending"] == 1).then_some(())
    })
    .await;
    eventually("the host to be frozen", SOON, async || frozen(host.pid()).then_some(())).await;
    let info = mesh.consumer("ORDERS", "probe").await;
    assert_eq!(info["num_ack_pending"], 1);
    assert_eq!(
        (mesh.value("probe", "n").await, mesh.decisions("probe").await),
        (None, vec![])
    );

    host.signal(Signal::CONT);
    mesh.wait_settled("ORDERS", "probe").await;
    assert_eq!(mesh.value("probe", "n").await.as_deref(), Some("1"));
}

/// Whether every thread of the process is stopped.
fn frozen(pid: u32) -> bool {
    // Format: proc_pid_stat(5); the state follows the name in parentheses.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_redelivered_decided_event_is_acked_without_running() {
    let mesh = Mesh::new(Config::probe()).await;
    // A killed host's relay would keep its consequences from the next for a while.
    let without_relay = mesh.config.clone().top("relay = false");
    let killed = mesh
        .host_of(&without_relay, &mesh.server.url(), &[("MESH_FAULT", "before-ack:kill")])
        .await;
    let mut steps = add_and_emit();
    steps
        .as_array_mut()
        .expect("steps")
        .push(json!({ "op": "log", "level": "info", "message": "it runs" }));
    mesh.order(steps).await;
    killed.wait_exit(SOON).await;
    assert_eq!(
        mesh.value("probe", "n").await.as_deref(),
        Some("1"),
        "committed before the ack"
    );
    assert_eq!(
        mesh.consumer("ORDERS", "probe").await["num_ack_pending"],
        1,
        "and not acked"
    );

    let host = mesh.host(&[]).await;
    host.wait_for_line(says(&["already decided, acked without running", "probe"]), SOON)
        .await;
    mesh.wait_settled("ORDERS", "probe").await;
    mesh.wait_emitted(1).await;
    assert_eq!(mesh.value("probe", "n").await.as_deref(), Some("1"));
    let decisions = mesh.decisions("probe").await;
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    assert!(
        !host.lines().iter().any(|line| line.contains("it runs")),
        "it did not run again"
    );
    assert_eq!(mesh.attempts().await, Vec::<Value>::new());
}

#[tokio::test]
async fn state_and_emits_happen_together_or_not_at_all() {
    let (mesh, _host) = Mesh::start(Config::probe_with("max_attempts = 2")).await;
    let failures = [
        json!({ "op": "reject", "code": "no", "message": "not this one" }),
        json!({ "op": "retry", "code": "later", "message": "never" }),
        json!({ "op": "trap" }),
    ];
    for failure in &failures {
        let mut steps = add_and_emit();
        steps.as_array_mut().expect("steps").push(failure.clone());
        mesh.order(steps).await;
    }
    mesh.wait_letters(failures.len()).await;
    mesh.order(add_and_emit()).await;
    mesh.wait_emitted(1).await;
    mesh.wait_settled("ORDERS", "probe").await;
    assert_eq!(
        mesh.value("probe", "n").await.as_deref(),
        Some("1"),
        "only what succeeded has counted"
    );
    assert_eq!(mesh.emitted().await.len(), 1);
}

#[tokio::test]
async fn the_three_sample_handlers_do_an_orders_work() {
    let (mesh, _host) = Mesh::start(shop()).await;
    mesh.put("inventory", "stock.sku-1", "10").await;
    let order = |id: &str, locale: &str| {
        let lines = json!([{ "sku": "sku-1", "qty": 2 }]);
        json!({ "order_id": id, "user_id": "u-7", "locale": locale, "lines": lines, "total_cents": 2599 }).to_string()
    };
    if cli::nats(
        &mesh.server,
        &["publish", "--jetstream", "orders.created", &order("o-1", "en")],
    )
    .await
    .is_none()
    {
        return;
    }
    mesh.wait_emitted(3).await;
    // What a person writes in between is seen: ten more arrive.
    cli::nats(&mesh.server, &["kv", "put", "inventory", "stock.sku-1", "18"]).await;
    cli::nats(
        &mesh.server,
        &["publish", "--jetstream", "orders.created", &order("o-2", "zh-CN")],
    )
    .await;
    let events = mesh.wait_emitted(6).await;

    assert_eq!(
        cli::nats(&mesh.server, &["kv", "get", "inventory", "stock.sku-1", "--raw"])
            .await
            .unwrap()
            .trim(),
        "16"
    );
    assert_eq!(mesh.value("points", "balance.u-7").await.as_deref(), Some("100"));
    let mut seen: Vec<(String, Value)> = events.iter().map(|e| (e.subject.clone(), e.json())).collect();
    seen.sort_by_key(|(subject, body)| (body["order_id"].to_string(), subject.clone()));
    let of = |id: &str, left: u64, balance: u64, locale: &str, text: &str| {
        [
            (
                "inventory.reserved",
                json!({ "order_id": id, "lines": [{ "sku": "sku-1", "qty": 2, "left": left }] }),
            ),
            (
                "notifications.requested",
                json!({ "order_id": id, "user_id": "u-7", "locale": locale, "text": text }),
            ),
            (
                "points.added",
                json!({ "order_id": id, "user_id": "u-7", "points": 50, "balance": balance }),
            ),
        ]
        .map(|(subject, body)| (subject.to_owned(), body))
    };
    let expected = [
        of("o-1", 8, 50, "en", "Your order o-1 has been created"),
        of("o-2", 16, 100, "zh", "您的订单 o-2 已创建"),
    ];
    assert_eq!(seen, expected.concat());
    for event in &events {
        let header = |name| {
            event
                .header(name)
                .unwrap_or_else(|| panic!("{} has no {name}", event.subject))
        };
        let handler = header("Mesh-Cause-Handler");
        let id = format!("{handler}.{}.0", header("Mesh-Cause-Event"));
        assert_eq!(
            (header("Mesh-Event-Id"), header("Nats-Msg-Id")),
            (id.as_str(), id.as_str())
        );
        assert_eq!(header("Mesh-Hops"), "1");
    }
    assert_eq!(mesh.letters().await.len(), 0);
}

#[tokio::test]
async fn orders_that_cannot_be_done_are_rejected_with_their_reasons_and_change_nothing() {
    let (mesh, _host) = Mesh::start(shop()).await;
    mesh.put("inventory", "stock.sku-1", "3").await;
    let line = |sku: &str, qty: i64| json!({ "sku": sku, "qty": qty });
    let order =
        |lines: Value| json!({ "order_id": "o", "user_id": "u-1", "lines": lines, "total_cents": 100 }).to_string();
    let orders = [
        // The same sku twice is one wish, and more than there is.
        order(json!([line("sku-1", 2), line("sku-1", 2)])),
        order(json!([line("sku-1", 0)])),
        order(json!([line("sku-1", 1), line("no key", 1)])),
        order(json!([])),
        json!({ "order_id": "o", "user_id": "u-1", "lines": [line("sku-1", 1)] }).to_string(),
        "not an order".to_owned(),
    ];
    for order in &orders {
        mesh.publish("orders.created", order.clone()).await;
    }
    // The first five are fine for two handlers each, but for `inventory` only the fifth is.
    let letters = mesh.wait_letters(8).await;
    let expected = [
        ("inventory", "invalid-qty"),
        ("inventory", "invalid-sku"),
        ("inventory", "malformed-json"),
        ("inventory", "no-lines"),
        ("inventory", "out-of-stock"),
        ("notify", "malformed-json"),
        ("points", "malformed-json"),
        ("points", "missing-total"),
    ];
    assert_eq!(
        codes(&letters),
        expected.map(|(handler, code)| (handler.to_owned(), code.to_owned()))
    );
    let short = letters
        .iter()
        .find(|l| l.header("Mesh-Code") == Some("out-of-stock"))
        .expect("it is there");
    let text = short.header("Mesh-Error").expect("it is there");
    // The order that can be done may come first: there is no order of events.
    assert!(text.starts_with("sku sku-1: 4 wanted, "), "{text}");
    for handler in ["inventory", "points", "notify"] {
        mesh.wait_settled("ORDERS", handler).await;
    }
    assert_eq!(
        mesh.value("inventory", "stock.sku-1").await.as_deref(),
        Some("2"),
        "one order could be done"
    );
}

#[tokio::test]
async fn an_emit_that_is_not_granted_fails_and_names_the_grant() {
    let (mesh, _host) = Mesh::start(Config::probe_with("max_attempts = 1")).await;
    mesh.order(json!([
        { "op": "set", "key": "k", "value": "v" },
        { "op": "emit", "subject": "inventory.reserved", "payload": 1 },
    ]))
    .await;
    let letters = mesh.wait_letters(1).await;
    let error = letters[0].header("Mesh-Error").expect("a letter tells the error");
    for part in [
        "may not publish on `inventory.reserved`",
        "it may publish events.>",
        "`publish` in its configuration",
    ] {
        assert!(error.contains(part), "{error:?} has no {part:?}");
    }
    assert_eq!((mesh.value("probe", "k").await, mesh.emitted().await.len()), (None, 0));
}

#[tokio::test]
async fn handlers_that_feed_one_another_in_a_circle_end_after_sixteen_hops() {
    let config = Config::new().handler(
        "probe",
        &modules::handler("probe"),
        "bucket = \"probe\"\npublish = [\"orders.>\"]",
    );
    let (mesh, _host) = Mesh::start(config).await;
    let order = |inner: &Value| {
        json!({ "do": [
            { "op": "add", "key": "rounds", "by": 1 },
            { "op": "emit", "subject": "orders.round", "payload": inner },
        ] })
    };
    // Each event carries the next ones inside: more of them than may happen.
    let orders = (0..20).fold(json!({ "op": "ok" }), |inner, _| order(&inner));
    mesh.publish("orders.round", orders.to_string()).await;
    let letters = mesh.wait_letters(1).await;
    let header = |name| letters[0].header(name);
    assert_eq!(
        (header("Mesh-Code"), header("Mesh-Cause")),
        (Some("too-many-hops"), Some("rejected"))
    );
    assert_eq!(header("Mesh-Original-Mesh-Hops"), Some("17"));
    mesh.wait_settled("ORDERS", "probe").await;
    assert_eq!(
        mesh.value("probe", "rounds").await.as_deref(),
        Some("17"),
        "the first and sixteen hops"
    );
}

#[tokio::test]
async fn a_host_that_ends_first_carries_out_what_it_decided_last() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    // Publishing this many takes far longer than ending does.
    for _ in 0..10 {
        mesh.order(json!({ "op": "emit_many", "subject": "events.many", "count": 390, "bytes": 10 }))
            .await;
    }
    mesh.wait_decisions("probe", 10).await;
    host.stop().await;
    assert_eq!(mesh.emitted().await.len(), 3900);
}
