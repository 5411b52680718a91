//! Streams, consumers and buckets that are removed or created again under a host: what is new is not taken for old, and what is
//! forgotten is reported.

use std::collections::BTreeSet;

use async_nats::jetstream::stream::RetentionPolicy;
use serde_json::{Value, json};

use crate::audit::{judge, publish_work, work};
use crate::hosts::{wait_at_work, wait_frozen};
use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::wait::SOON;
use crate::support::{Host, Signal, eventually, modules};

#[tokio::test]
async fn a_consumer_that_is_removed_is_made_again_and_nothing_is_done_twice() {
    let (mesh, host) = Mesh::start(Config::probe_with("start = \"all\"")).await;
    publish_work(&mesh, 5, 2).await;
    mesh.wait_decisions("probe", 5).await;
    let mark = host.lines().len();
    mesh.remove_consumer("ORDERS", "probe").await;
    host.wait_for_line_after(mark, says(&["serving", "handler=probe "]), PATIENT)
        .await;
    for number in 5..8 {
        mesh.order(work(number, 2)).await;
    }
    // The old events come again, and are answered from the ledger.
    judge(&mesh, 8, 2).await;
}

#[tokio::test]
async fn a_stream_that_is_made_anew_has_new_events_and_no_old_answers() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    mesh.wait_value("probe", "n", "1").await;
    let mark = host.lines().len();
    mesh.js.delete_stream("ORDERS").await.expect("it goes");
    host.wait_for_line_after(mark, says(&["serving", "handler=probe "]), PATIENT)
        .await;
    // The host has made it again; its first event has the old one's sequence.
    let sequence = mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    assert_eq!(sequence, 1);
    mesh.wait_value("probe", "n", "2").await;
    let decisions = mesh.decisions("probe").await;
    let events: Vec<_> = decisions.iter().filter_map(|d| d["event"].as_str()).collect();
    assert_eq!(events.len(), 2);
    assert_ne!(events[0], events[1], "another incarnation, another event");
    mesh.wait_settled("ORDERS", "probe").await;
}

#[tokio::test]
async fn a_stream_that_is_made_anew_is_told_of_once_with_the_name_that_it_has() {
    let mut config = Config::new();
    for n in 0..8 {
        let lines = format!("start = \"all\"\nbucket = \"b{n}\"");
        config = config.handler(&format!("h{n}"), &modules::handler("probe"), &lines);
    }
    let mesh = Mesh::new(config).await;
    let hosts = [mesh.host(&[]).await, mesh.host(&[]).await];
    let told = |hosts: &[Host]| -> Vec<String> {
        let lines = hosts.iter().flat_map(Host::lines);
        lines
            .filter(|line| line.contains("the source stream was deleted and created again"))
            .collect()
    };
    for round in 1..=3 {
        let marks = hosts.each_ref().map(|host| host.lines().len());
        mesh.js.delete_stream("ORDERS").await.expect("it goes");
        for (host, mark) in hosts.iter().zip(marks) {
            for n in 0..8 {
                host.wait_for_line_after(mark, says(&["serving", &format!("handler=h{n} ")]), PATIENT)
                    .await;
            }
        }
        let lines = told(&hosts);
        assert_eq!(lines.len(), round, "one line each time: {lines:#?}");
        let now = mesh.value("mesh", "incarnation.ORDERS").await.expect("it has a name");
        let now: Value = serde_json::from_str(&now).expect("JSON");
        let now = format!("now={}", now["token"].as_str().expect("a name"));
        assert!(lines.iter().any(|line| line.contains(&now)), "{now}: {lines:#?}");
    }
}

/// Each event that was decided, without its incarnation, and how many incarnations there are.
fn decided(decisions: &[Value]) -> (Vec<&str>, usize) {
    let events = decisions.iter().filter_map(|d| d["event"].as_str()?.split_once('.'));
    let (incarnations, mut sequences): (BTreeSet<&str>, Vec<&str>) = events.unzip();
    sequences.sort_unstable();
    (sequences, incarnations.len())
}

#[tokio::test]
async fn a_stream_that_is_made_anew_while_a_host_has_no_request_open_has_new_events() {
    let one = "start = \"all\"\nconcurrency = 1\nin_flight = 1\ntimeout = \"30s\"\nack_wait = \"5s\"";
    let mesh = Mesh::new(Config::probe_with(one)).await;
    let busy = mesh.host(&[]).await;
    let add = json!({ "op": "add", "key": "n", "by": 1 });
    // With one event at work it asks for no other, and hears nothing.
    mesh.order(json!([{ "op": "sleep", "ms": 8000 }, add])).await;
    wait_at_work(&mesh, 1).await;
    let other = mesh.host(&[]).await;
    let mark = other.lines().len();
    mesh.js.delete_stream("ORDERS").await.expect("it goes");
    other
        .wait_for_line_after(mark, says(&["serving", "handler=probe "]), PATIENT)
        .await;
    // The other one is as busy with the first event, so the second waits for the one that knows nothing.
    mesh.order(json!([{ "op": "sleep", "ms": 12_000 }, add])).await;
    wait_at_work(&mesh, 2).await;
    assert_eq!(mesh.order(add).await, 2);
    mesh.wait_value("probe", "n", "3").await;
    mesh.wait_settled("ORDERS", "probe").await;
    let decisions = mesh.decisions("probe").await;
    assert_eq!(decided(&decisions), (vec!["1", "1", "2"], 2), "{decisions:?}");
    let of = |place: usize| decisions[place]["event"].as_str().and_then(|e| e.split('.').next());
    assert_eq!(
        of(1),
        of(2),
        "both events of the new stream are known as such: {decisions:?}"
    );
    drop((busy, other));
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_stream_that_is_made_anew_while_a_host_binds_has_new_events() {
    let (mesh, host) = Mesh::start(Config::probe_with("start = \"all\"")).await;
    let add = json!({ "op": "add", "key": "n", "by": 1 });
    mesh.order(add.clone()).await;
    mesh.wait_value("probe", "n", "1").await;
    host.stop().await;
    let config = mesh.config.text(&mesh.server.url());
    let next = Host::start(&config, mesh.dir.path(), &[("MESH_FAULT", "before-bind:stop")]);
    wait_frozen(&next).await;
    mesh.js.delete_stream("ORDERS").await.expect("it goes");
    mesh.add_stream("ORDERS", &["orders.>"], RetentionPolicy::Limits).await;
    assert_eq!(mesh.order(add).await, 1, "the sequence of the old one");
    next.signal(Signal::CONT);
    mesh.wait_value("probe", "n", "2").await;
    let decisions = mesh.decisions("probe").await;
    assert_eq!(decided(&decisions), (vec!["1", "1"], 2), "{decisions:?}");
}

#[tokio::test]
async fn a_consumer_that_counts_anew_is_bound_anew() {
    let (mesh, host) = Mesh::start(Config::probe_with("start = \"all\"\nconcurrency = 1\nin_flight = 1")).await;
    let add = json!({ "op": "add", "key": "n", "by": 1 });
    mesh.order(add.clone()).await;
    mesh.wait_value("probe", "n", "1").await;
    mesh.order(json!([{ "op": "sleep", "ms": 3000 }, add])).await;
    wait_at_work(&mesh, 1).await;
    // It is created again with everything that it contained: only its count shows it.
    let config = mesh.consumer("ORDERS", "probe").await["config"].clone();
    mesh.remove_consumer("ORDERS", "probe").await;
    let body = json!({ "stream_name": "ORDERS", "config": config, "action": "create" });
    let made: Value = mesh
        .js
        .request("CONSUMER.CREATE.ORDERS.probe", &body)
        .await
        .expect("JetStream answers");
    assert_eq!(made["name"], "probe", "{made}");
    host.wait_for_line(says(&["consumer probe on stream ORDERS is gone"]), SOON)
        .await;
    mesh.wait_value("probe", "n", "2").await;
    mesh.wait_settled("ORDERS", "probe").await;
}

#[tokio::test]
async fn a_bucket_that_is_made_anew_stops_its_handler_and_says_what_is_forgotten() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    mesh.wait_value("probe", "n", "1").await;
    host.stop().await;
    let bucket = mesh.js.get_stream("KV_probe").await.expect("it is there");
    bucket.purge().await.expect("it is purged");
    let config = mesh.config.text(&mesh.server.url());
    let next = Host::start(&config, mesh.dir.path(), &[]);
    let line = next
        .wait_for_line(
            says(&["the handler is stopped", "was purged, or deleted and created again"]),
            SOON,
        )
        .await;
    assert!(line.contains("jetmesh reset probe"), "{line}");
}

/// A handler that has a bucket of its own, one that has none, and one whose bucket was never there.
fn neighbours() -> Config {
    let probe = modules::handler("probe");
    Config::probe_with("start = \"all\"")
        .handler("second", &probe, "bucket = \"probe\"\nstart = \"all\"")
        .handler("plain", &probe, "start = \"all\"")
}

#[tokio::test]
async fn a_start_makes_no_bucket_anew_in_which_something_was_decided_and_says_what_would_be_forgotten() {
    let (mut mesh, host) = Mesh::start(neighbours()).await;
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    mesh.wait_value("probe", "n", "2").await;
    mesh.wait_settled("ORDERS", "second").await;
    host.stop().await;
    mesh.js.delete_stream("KV_probe").await.expect("it goes");
    let others = mesh.config.clone();
    mesh.config = others.handler("new", &modules::handler("probe"), "bucket = \"new\"\nstart = \"all\"");
    let next = Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &[]);
    for name in ["probe", "second"] {
        let named = format!("handler={name} ");
        let line = next
            .wait_for_line(
                says(&["the handler is stopped", "bucket probe does not exist any more", &named]),
                SOON,
            )
            .await;
        assert!(
            line.contains("the decisions of its handlers are lost") && line.contains("jetmesh reset HANDLER"),
            "{line}"
        );
    }
    // Neither another handler nor an unknown bucket is held up.
    for name in ["plain", "new"] {
        next.wait_for_line(says(&["serving", &format!("handler={name} ")]), SOON)
            .await;
    }
    mesh.wait_settled("ORDERS", "new").await;
    assert!(mesh.js.get_stream("KV_probe").await.is_err(), "it is not made");
    let (_, checked, _) = mesh.jetmesh(&["check", "--connect"]).await;
    assert!(
        checked.contains("error: bucket probe does not exist any more, and its keys"),
        "{checked}"
    );
    next.stop().await;
    // As long as one of them has not given it up, it is not made.
    mesh.jetmesh_ok(&["reset", "probe", "--yes"]).await;
    let next = Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &[]);
    next.wait_for_line(
        says(&[
            "the handler is stopped",
            "bucket probe does not exist any more",
            "handler=second ",
        ]),
        SOON,
    )
    .await;
    next.stop().await;
    mesh.jetmesh_ok(&["reset", "second", "--yes"]).await;
    let _next = mesh.host(&[]).await;
    mesh.wait_value("probe", "n", "2").await;
}

#[tokio::test]
async fn a_bucket_that_goes_while_its_host_runs_leaves_its_events_undecided() {
    let (mesh, host) = Mesh::start(Config::probe_with("max_attempts = 2")).await;
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    mesh.wait_value("probe", "n", "1").await;
    mesh.js.delete_stream("KV_probe").await.expect("it goes");
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    let line = host
        .wait_for_line(
            says(&["the handler is stopped", "bucket probe does not exist any more"]),
            PATIENT,
        )
        .await;
    assert!(
        line.contains("the decisions of its handlers are lost") && line.contains("jetmesh reset"),
        "{line}"
    );
    let consumer = mesh.consumer("ORDERS", "probe").await;
    assert_eq!(consumer["num_ack_pending"], 1, "what cannot be committed is not acked");
    assert!(mesh.letters().await.is_empty());
    assert_eq!(
        mesh.value("probe", "n").await,
        None,
        "no host has created the bucket again"
    );
}

#[tokio::test]
async fn the_mesh_bucket_can_go_and_no_event_is_taken_for_a_new_one() {
    let (mesh, host) = Mesh::start(Config::probe_with("start = \"all\"")).await;
    publish_work(&mesh, 4, 2).await;
    judge(&mesh, 4, 2).await;
    host.stop().await;
    // The incarnation of the stream is lost with it; the consumer has it too.
    mesh.js.delete_stream("KV_mesh").await.expect("it goes");
    mesh.remove_consumer("ORDERS", "probe").await;
    // Everything is delivered again.
    let _host = mesh.host(&[]).await;
    mesh.order(work(4, 2)).await;
    judge(&mesh, 5, 2).await;
}

#[tokio::test]
async fn letters_whose_stream_was_removed_are_stored_in_a_new_one() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    let reject = json!({ "op": "reject", "code": "no", "message": "never" });
    mesh.order(reject.clone()).await;
    mesh.wait_letters(1).await;
    mesh.js.delete_stream("MESH_DEAD").await.expect("it goes");
    mesh.order(reject).await;
    let letters = eventually("the second letter", PATIENT, async || {
        let letters = mesh.letters().await;
        (!letters.is_empty()).then_some(letters)
    });
    assert_eq!(letters.await.len(), 1, "what somebody has removed stays so");
    let decisions = mesh.decisions("probe").await;
    assert_eq!(decisions.len(), 2, "each death is decided once: {decisions:?}");
}

#[tokio::test]
async fn an_answer_that_outlives_its_stream_settles_no_event_of_the_new_one() {
    let (mesh, host) = Mesh::start(Config::probe_with("backoff = \"8s\"")).await;
    mesh.order(json!([{ "op": "add", "key": "old", "by": 1 }, { "op": "sleep", "ms": 4000 }]))
        .await;
    wait_at_work(&mesh, 1).await;
    let mark = host.lines().len();
    mesh.js.delete_stream("ORDERS").await.expect("it goes");
    host.wait_for_line_after(mark, says(&["serving", "handler=probe "]), PATIENT)
        .await;
    // The new stream's first event waits for its second attempt, 4 s or more, while the old one ends.
    let sequence = mesh
        .order(json!([{ "op": "fail_until", "attempt": 2 }, { "op": "add", "key": "new", "by": 1 }]))
        .await;
    assert_eq!(sequence, 1, "the sequence of the old one");
    host.wait_for_line_after(mark, says(&["will be retried"]), PATIENT)
        .await;
    assert_eq!(mesh.value("probe", "old").await, None, "the old one still runs");
    mesh.wait_value("probe", "old", "1").await;
    // Acked by the old one's answer, it would not be delivered again.
    mesh.wait_value("probe", "new", "1").await;
    mesh.wait_settled("ORDERS", "probe").await;
}

/// The mesh creates its own streams and buckets again when it misses them, and logs what was lost with them.
async fn says_again(host: &crate::support::Host, stream: &str) {
    let line = says(&["WARN", "is created again"]);
    host.wait_for_line(move |text| line(text) && text.contains(stream), PATIENT)
        .await;
}

#[tokio::test]
async fn attempt_records_whose_bucket_was_removed_are_kept_in_a_new_one() {
    let (mesh, host) = Mesh::start(Config::probe_with("max_attempts = 9\nbackoff = \"10ms\"")).await;
    mesh.js.delete_stream("KV_mesh_attempts").await.expect("it goes");
    mesh.order(json!([{ "op": "fail_until", "attempt": 3 }, { "op": "add", "key": "n", "by": 1 }]))
        .await;
    mesh.wait_value("probe", "n", "1").await;
    mesh.wait_settled("ORDERS", "probe").await;
    says_again(&host, "KV_mesh_attempts").await;
}

#[tokio::test]
async fn delayed_events_whose_stream_was_removed_are_kept_in_a_new_one_and_nothing_waits_behind_them() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    mesh.js.delete_stream("MESH_DELAYED").await.expect("it goes");
    mesh.order(json!([
        { "op": "emit_later", "subject": "events.later", "payload": 1, "after_ms": 100 },
        { "op": "emit", "subject": "events.now", "payload": 1 },
    ]))
    .await;
    mesh.wait_emitted(2).await;
    says_again(&host, "MESH_DELAYED").await;
    host.stop().await;
}

#[tokio::test]
async fn letters_of_a_handler_without_a_ledger_are_stored_in_a_new_stream_too() {
    let config = Config::new().handler("probe", &crate::support::modules::handler("probe"), "");
    let (mesh, host) = Mesh::start(config).await;
    mesh.js.delete_stream("MESH_DEAD").await.expect("it goes");
    mesh.order(json!({ "op": "reject", "code": "no", "message": "never" }))
        .await;
    mesh.wait_letters(1).await;
    says_again(&host, "MESH_DEAD").await;
}

#[tokio::test]
async fn the_streams_of_replays_and_advisories_are_made_again_and_serve() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    for stream in ["MESH_REPLAY", "MESH_ADVISORIES"] {
        mesh.js.delete_stream(stream).await.expect("it goes");
        says_again(&host, stream).await;
    }
    mesh.order(json!({ "op": "reject", "code": "no", "message": "never" }))
        .await;
    mesh.wait_letters(1).await;
    let (_, account, _) = mesh.jetmesh(&["dlq", "replay", "--all", "--yes"]).await;
    assert!(account.contains("1 failed again"), "{account}");
}
