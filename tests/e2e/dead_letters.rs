//! Dead letters: complete, readable, one for each dead event, and replayed at most once.

use async_nats::jetstream::stream::RetentionPolicy;
use serde_json::{Value, json};

use crate::asked::ask;
use crate::mesh::{Config, Found, Mesh, says};
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{NatsServer, cli, eventually, modules};

/// The handler `inventory`, whose orders fail for want of stock.
fn inventory() -> Config {
    let lines = "bucket = \"inventory\"\npublish = [\"inventory.*\"]";
    Config::new().handler("inventory", &modules::handler("inventory"), lines)
}

async fn publish_order(mesh: &Mesh) {
    let order = json!({ "order_id": "o-1", "lines": [{ "sku": "sku-1", "qty": 5 }] });
    mesh.publish("orders.created", order.to_string()).await;
}

async fn listed(mesh: &Mesh) -> Vec<Value> {
    let list = mesh.jetmesh_ok(&["dlq", "ls", "--json"]).await;
    list.lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

#[tokio::test]
async fn a_rejected_event_is_dead_lettered_at_once_with_everything_that_is_known() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    let serving = host.wait_for_line(says(&["serving", "module="]), SOON).await;
    let orders = json!({ "op": "reject", "code": "no-such-thing", "message": "two\nlines" }).to_string();
    let headers = [
        ("Nats-Msg-Id", "o-1"),
        ("Trace", "a"),
        ("Trace", "b"),
        ("Mesh-Hops", "3"),
        ("Order-Kind", "gift"),
    ];
    let before = jiff::Timestamp::now().as_millisecond() - 1;
    let sequence = mesh.publish_with("orders.probe", &headers, orders.clone()).await;

    let letters = mesh.wait_letters(1).await;
    let after = jiff::Timestamp::now().as_millisecond();
    let letter = &letters[0];
    let decision = mesh.wait_decisions("probe", 1).await.remove(0);
    let event = decision["event"].as_str().expect("a decision names its event");
    assert_eq!(letter.subject, format!("$MESH.dead.ORDERS.probe.{event}"));
    assert_eq!(
        event.rsplit_once('.').map(|(_, seq)| seq.to_owned()),
        Some(sequence.to_string())
    );
    let expected = [
        ("Mesh-Handler", "probe"),
        ("Mesh-Stream", "ORDERS"),
        ("Mesh-Subject", "orders.probe"),
        ("Mesh-Sequence", &sequence.to_string()),
        ("Mesh-Event", event),
        ("Mesh-Cause", "rejected"),
        ("Mesh-Code", "no-such-thing"),
        ("Mesh-Error", "two lines"),
        ("Mesh-Attempts", "1"),
        (
            "Mesh-Module",
            serving.rsplit_once("module=").expect("the line tells the module").1,
        ),
        ("Mesh-Ledger", "probe"),
        ("Mesh-Death", "1"),
        ("Mesh-Original-Nats-Msg-Id", "o-1"),
        ("Mesh-Original-Mesh-Hops", "3"),
        ("Order-Kind", "gift"),
    ];
    for (name, value) in expected {
        assert_eq!(letter.header(name), Some(value), "{name}");
    }
    for name in ["Mesh-Time", "Mesh-First-Attempt", "Mesh-Last-Attempt"] {
        let time: jiff::Timestamp = letter.header(name).unwrap_or_default().parse().expect(name);
        assert!((before..=after).contains(&time.as_millisecond()), "{name}: {time}");
    }
    let traces: Vec<&str> = letter.headers.get_all("Trace").map(|value| value.as_str()).collect();
    assert_eq!(traces, ["a", "b"]);
    assert_eq!(letter.payload, orders);

    let view = cli::nats(
        &mesh.server,
        &["stream", "get", "MESH_DEAD", "--last-for", &letter.subject],
    )
    .await;
    if let Some(view) = view {
        for text in [
            "Mesh-Error: two lines",
            "Mesh-Code: no-such-thing",
            "Order-Kind: gift",
            &orders,
        ] {
            assert!(view.contains(text), "{text:?} is not in\n{view}");
        }
    }
    // The server was told, and its own advisory about it makes no second letter.
    mesh.wait_settled("ORDERS", "probe").await;
    eventually("the advisory to be dealt with", SOON, async || {
        let advisories = mesh.js.get_stream("MESH_ADVISORIES").await.expect("it is there");
        let count = advisories.cached_info().state.messages;
        let settled = mesh.settled("MESH_ADVISORIES", "mesh-advisories").await;
        (count == 1).then_some(()).and(settled)
    })
    .await;
    assert_eq!(mesh.decisions("probe").await.len(), 1);
    assert_eq!(mesh.messages("MESH_DEAD", ">").await.len(), 1);
}

#[tokio::test]
async fn a_replayed_letter_whose_cause_is_gone_is_done_once_and_leaves_the_list() {
    let (mesh, host) = Mesh::start(inventory()).await;
    mesh.put("inventory", "stock.sku-1", "4").await;
    publish_order(&mesh).await;
    let letters = mesh.wait_letters(1).await;
    let id = letters[0].letter_id().to_owned();
    let list = mesh.jetmesh_ok(&["dlq", "ls"]).await;
    for text in [
        &id,
        "rejected",
        "out-of-stock",
        "orders.created",
        "sku sku-1: 5 wanted, 4 left",
    ] {
        assert!(list.contains(text), "{text:?} is not in\n{list}");
    }
    let one = &listed(&mesh).await[0];
    assert_eq!(
        (&one["id"], &one["code"], &one["attempts"]),
        (&json!(id), &json!("out-of-stock"), &json!(1))
    );
    assert_eq!(
        mesh.jetmesh_ok(&["dlq", "ls", "--handler", "another"]).await,
        "no dead letters of this kind\n"
    );
    let show = mesh.jetmesh_ok(&["dlq", "show", &id]).await;
    for text in ["out-of-stock", "orders.created", "\"order_id\": \"o-1\""] {
        assert!(show.contains(text), "{text:?} is not in\n{show}");
    }

    // Nothing has changed yet: it fails again and stays as it is, with a line more in its history.
    let mark = host.lines().len();
    let (status, stdout, _) = mesh.jetmesh(&["dlq", "replay", &id]).await;
    assert_eq!(status.code(), Some(1));
    assert!(stdout.contains("1 failed again; they stay"), "{stdout}");
    host.wait_for_line_after(mark, says(&["dead", "out-of-stock"]), SOON)
        .await;
    mesh.wait_replayed().await;
    let mut still = listed(&mesh).await.remove(0);
    still["sequence"].clone_from(&one["sequence"]);
    assert_eq!(&still, one);
    let history = mesh.letters().await[0].header("Mesh-History").map(str::to_owned);
    let history: Value = serde_json::from_str(&history.expect("it has a history")).expect("it is JSON");
    let last = history
        .as_array()
        .and_then(|attempts| attempts.last())
        .expect("an attempt");
    assert_eq!((&last["replay"], &last["code"]), (&json!(true), &json!("out-of-stock")));
    assert_eq!(mesh.decisions("inventory").await.len(), 1);

    mesh.put("inventory", "stock.sku-1", "14").await;
    mesh.jetmesh_ok(&["dlq", "replay", &id]).await;
    mesh.wait_letters(0).await;
    mesh.wait_value("inventory", "stock.sku-1", "9").await;
    mesh.wait_emitted(1).await;
    assert_eq!(mesh.jetmesh_ok(&["dlq", "ls"]).await, "no dead letters\n");
    let decisions = mesh.decisions("inventory").await;
    assert_eq!(decisions.len(), 2, "{decisions:?}");
    assert_eq!(
        (&decisions[1]["verdict"], &decisions[1]["follows_death"]),
        (&json!("done"), &json!(1))
    );

    // There is nothing left to replay, neither through the command nor by asking behind its back.
    let (status, _, stderr) = mesh.jetmesh(&["dlq", "replay", &id]).await;
    assert_eq!(status.code(), Some(0), "none of them is a dead letter any more");
    assert_eq!(stderr, format!("{id} is already resolved: replayed\n"));
    let letter = letters[0].subject.clone();
    mesh.publish_with(&format!("$MESH.replay.{id}"), &[("Mesh-Letter", &letter)], "")
        .await;
    mesh.wait_replayed().await;
    assert_eq!(mesh.value("inventory", "stock.sku-1").await.as_deref(), Some("9"));
    assert_eq!(
        (mesh.emitted().await.len(), mesh.decisions("inventory").await.len()),
        (1, 2)
    );
}

#[tokio::test]
async fn without_a_ledger_letters_are_stored_directly_and_a_replay_has_attempts_of_its_own() {
    let config = |attempts: u32| {
        Config::new().handler(
            "probe",
            &modules::handler("probe"),
            &format!("max_attempts = {attempts}"),
        )
    };
    let (mesh, host) = Mesh::start(config(2)).await;
    mesh.order(json!({ "op": "fail_until", "attempt": 3 })).await;
    mesh.order(json!({ "op": "reject", "code": "no", "message": "never" }))
        .await;
    let letters = mesh.wait_letters(2).await;
    let of = |code: &str| {
        letters
            .iter()
            .find(|l| l.header("Mesh-Code") == Some(code))
            .expect("its letter is there")
    };
    let (exhausted, rejected) = (of("not-yet"), of("no"));
    assert_eq!(
        (exhausted.header("Mesh-Cause"), exhausted.header("Mesh-Attempts")),
        (Some("exhausted"), Some("2"))
    );
    assert_eq!(
        (rejected.header("Mesh-Cause"), rejected.header("Mesh-Attempts")),
        (Some("rejected"), Some("1"))
    );
    assert_eq!(
        (exhausted.header("Mesh-Ledger"), exhausted.header("Mesh-Death")),
        (None, None)
    );
    mesh.wait_settled("ORDERS", "probe").await;
    assert_eq!(mesh.decisions("mesh").await, Vec::<Value>::new());

    // With three attempts it can be done, if the replay counts from the beginning.
    drop(host);
    let host = mesh.host_of(&config(3), &mesh.server.url(), &[]).await;
    mesh.jetmesh_ok(&["dlq", "replay", exhausted.letter_id()]).await;
    host.wait_for_line(says(&["done", "attempt=3"]), SOON).await;
    let left = mesh.wait_letters(1).await;
    assert_eq!(left[0].subject, rejected.subject);
    assert_eq!(mesh.attempts().await, Vec::<Value>::new());

    // What is left of resolved letters tells what became of their events, and nothing that is not known.
    let trace = async |letter: &Found| mesh.jetmesh_ok(&["trace", letter.letter_id()]).await;
    let state = async |letter: &Found| {
        let event = json!({ "id": letter.header("Mesh-Event") });
        let handler = ask(&mesh, &event).await.1["handlers"][0].clone();
        [&handler["state"], &handler["error"]].map(|text| text.as_str().map(str::to_owned))
    };
    let text = |text: &str| Some(text.to_owned());
    let told = trace(exhausted).await;
    assert!(
        told.contains("probe: done at ") && told.contains("by a replay of its dead letter"),
        "{told}"
    );
    assert_eq!(state(exhausted).await, [text("done"), None]);
    assert!(trace(rejected).await.contains("probe: dead: rejected: no: never"));
    assert_eq!(state(rejected).await, [text("dead"), text("never")]);
    let discard = ["dlq", "discard", rejected.letter_id(), "--yes", "--reason", "a test"];
    mesh.jetmesh_ok(&discard).await;
    let told = trace(rejected).await;
    assert!(
        told.contains("probe: dead\n") && told.contains("its dead letter was resolved at "),
        "{told}"
    );
    assert_eq!(state(rejected).await, [text("dead"), None]);
}

#[tokio::test]
async fn only_the_relay_writes_dead_letters() {
    let config = "
        authorization { users = [
            { user: all, password: p }
            { user: mute, password: p, permissions: { publish: { deny: [\"$MESH.dead.>\", \"events.>\"] } } }
        ] }
        no_auth_user: all";
    let options = Options {
        config: config.to_owned(),
        ..Options::default()
    };
    let mesh = Mesh::over(NatsServer::start_with(&options).await, Config::probe()).await;
    let mute = mesh
        .config
        .clone()
        .top("relay = false")
        .nats("user = \"mute\"")
        .nats("password = \"p\"");
    let first = mesh.host_of(&mute, &mesh.server.url(), &[]).await;
    mesh.order(json!({ "op": "reject", "code": "no", "message": "never" }))
        .await;
    mesh.order(json!({ "op": "emit", "subject": "events.e", "payload": 1 }))
        .await;
    let decisions = mesh.wait_decisions("probe", 2).await;
    mesh.wait_settled("ORDERS", "probe").await;
    let mut verdicts: Vec<&Value> = decisions.iter().map(|decision| &decision["verdict"]).collect();
    verdicts.sort_by_key(|verdict| verdict.to_string());
    assert_eq!(verdicts, [&json!("dead"), &json!("done")]);
    assert_eq!((mesh.letters().await.len(), mesh.emitted().await.len()), (0, 0));
    assert!(
        mesh.consumer("KV_probe", "mesh-relay").await.is_null(),
        "a host without relay tries nothing"
    );

    let _second = mesh.host(&[]).await;
    let letters = mesh.wait_letters(1).await;
    assert_eq!(letters[0].header("Mesh-Code"), Some("no"));
    mesh.wait_emitted(1).await;
    assert_eq!(mesh.decisions("probe").await.len(), 2);
    drop(first);
}

#[tokio::test]
async fn an_emitted_event_that_no_stream_takes_becomes_a_letter_and_is_published_by_a_replay() {
    let lines = "bucket = \"probe\"\npublish = [\"events.>\", \"nowhere.>\"]";
    let (mesh, _host) = Mesh::start(Config::new().handler("probe", &modules::handler("probe"), lines)).await;
    mesh.order(json!([
        { "op": "emit", "subject": "nowhere.x", "payload": { "n": 1 }, "headers": { "Kind": "test" } },
        { "op": "emit", "subject": "events.after", "payload": 2 },
    ]))
    .await;
    let letters = mesh.wait_letters(1).await;
    // The relay goes on behind it.
    mesh.wait_emitted(1).await;
    let letter = &letters[0];
    let header = |name| letter.header(name);
    assert_eq!(
        (header("Mesh-Cause"), header("Mesh-Subject")),
        (Some("undeliverable"), Some("nowhere.x"))
    );
    assert_eq!(header("Mesh-Error"), Some("no stream captures nowhere.x"));
    assert_eq!((header("Kind"), header("Mesh-Handler")), (Some("test"), Some("probe")));
    assert_eq!(letter.json(), json!({ "n": 1 }));
    assert_eq!(mesh.decisions("probe").await[0]["verdict"], "done");

    let id = letter.letter_id().to_owned();
    let (status, _, stderr) = mesh.jetmesh(&["dlq", "replay", &id]).await;
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_eq!(listed(&mesh).await.len(), 1, "nobody takes it, so it stays");
    mesh.add_stream("NOWHERE", &["nowhere.>"], RetentionPolicy::Limits)
        .await;
    mesh.jetmesh_ok(&["dlq", "replay", &id]).await;
    let published = mesh.messages("NOWHERE", ">").await;
    assert_eq!((published.len(), published[0].json()), (1, json!({ "n": 1 })));
    assert_eq!(
        (published[0].header("Kind"), published[0].header("Mesh-Hops")),
        (Some("test"), Some("1"))
    );
    assert!(
        published[0].header("Mesh-Cause").is_none(),
        "what its letter said is not in it"
    );
    assert_eq!(mesh.letters().await.len(), 0);
    let said = mesh.jetmesh_ok(&["dlq", "replay", &id]).await;
    assert_eq!(said, "no such dead letters: nothing to replay\n");
    assert_eq!(mesh.messages("NOWHERE", ">").await.len(), 1);
}
