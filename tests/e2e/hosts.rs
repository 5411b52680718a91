//! Several hosts of one mesh.

use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::{judge, publish_work, publish_work_from};
use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::modules::second_version;
use crate::support::wait::SOON;
use crate::support::{Host, Signal, eventually, modules};

/// The hosts in `status --json`.
async fn hosts(mesh: &Mesh) -> Vec<Value> {
    let status: Value = serde_json::from_str(&mesh.jetmesh(&["status", "--json"]).await.1).expect("JSON");
    status["hosts"].as_array().expect("a list").clone()
}

/// Waits until the hosts work on this number of events; the first of them run then, as far as there are instances.
pub async fn wait_at_work(mesh: &Mesh, count: u64) {
    eventually("the events to be at work", SOON, async || {
        let hosts = hosts(mesh).await;
        let at_work = hosts
            .iter()
            .filter_map(|host| host["endpoints"][0]["data"]["in_flight"].as_u64());
        (at_work.sum::<u64>() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_hosts_two_processes_share_the_work_on_one_bucket() {
    let mesh = Mesh::new(Config::probe()).await;
    let (first, second) = (mesh.host(&[]).await, mesh.host(&[]).await);
    // How they share the work is the server's choice: more orders come until both have had some, and one was too late for its turn.
    let mut count = 0;
    loop {
        publish_work_from(&mesh, count, count + 120, 3).await;
        count += 120;
        judge(&mesh, count, 3).await;
        let numbers: Vec<(u64, u64)> = hosts(&mesh)
            .await
            .iter()
            .map(|host| {
                let data = &host["endpoints"][0]["data"];
                let number = |name: &str| data[name].as_u64().expect("a number");
                (number("done"), number("refused_commits"))
            })
            .collect();
        assert_eq!(numbers.len(), 2, "both hosts answer: {numbers:?}");
        let (done, refused): (Vec<u64>, Vec<u64>) = numbers.into_iter().unzip();
        assert_eq!(
            done.iter().sum::<u64>(),
            count as u64,
            "each order is counted by one host: {done:?}"
        );
        if !done.contains(&0) && refused.iter().sum::<u64>() > 0 {
            break;
        }
        assert!(
            count < 1_200,
            "both work, and get in each other's way: {done:?} {refused:?}"
        );
    }
    drop((first, second));
}

/// The one order of a test, which adds one to `n` and emits, is done once and is not dead.
async fn done_once(mesh: &Mesh) {
    let decisions = mesh.decisions("probe").await;
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    assert_eq!(decisions[0]["verdict"], "done");
    assert_eq!(mesh.value("probe", "n").await.as_deref(), Some("1"));
    assert_eq!(mesh.wait_emitted(1).await.len(), 1);
    assert!(mesh.letters().await.is_empty());
}

/// A host freezes in its last attempt, with its effects ready; another host does the event; the first one wakes.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn an_event_is_done_or_dead_never_both() {
    let mesh = Mesh::new(Config::probe_with("max_attempts = 1")).await;
    let frozen = mesh.host_with_fault("joined:stop").await;
    mesh.order(json!([
        { "op": "add", "key": "n", "by": 1 },
        { "op": "emit", "subject": "events.worked", "payload": 1 },
    ]))
    .await;
    eventually("the frozen host to have it", SOON, async || {
        (mesh.consumer("ORDERS", "probe").await["num_ack_pending"] == 1).then_some(())
    })
    .await;
    let other = mesh.host(&[]).await;
    // Once the frozen host's requests have run out, the other one gets it. The frozen one must find that out.
    mesh.wait_decisions("probe", 1).await;
    mesh.wait_settled("ORDERS", "probe").await;
    frozen.signal(Signal::CONT);
    frozen.wait_for_line(says(&["already decided"]), PATIENT).await;
    done_once(&mesh).await;
    drop(other);
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn an_event_that_another_host_has_dead_lettered_is_not_done_by_the_one_that_wakes() {
    // The first attempt fails, the second and last one freezes between its run and its commit.
    let mesh = Mesh::new(Config::probe_with("max_attempts = 2")).await;
    let frozen = mesh.host_with_fault("joined:stop").await;
    mesh.order(json!([
        { "op": "add", "key": "n", "by": 1 },
        { "op": "emit", "subject": "events.worked", "payload": 1 },
        { "op": "fail_until", "attempt": 2 },
    ]))
    .await;
    eventually("the last attempt to have begun", SOON, async || {
        let attempts = mesh.attempts().await;
        (attempts.first()?["attempts"] == 2).then_some(())
    })
    .await;
    // Redelivered to this host, it has no attempt left.
    let _other = mesh.host(&[]).await;
    let letters = mesh.wait_letters(1).await;
    assert_eq!(letters[0].header("Mesh-Cause"), Some("exhausted"));
    frozen.signal(Signal::CONT);
    frozen.wait_for_line(says(&["already decided"]), PATIENT).await;
    let decisions = mesh.decisions("probe").await;
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    assert_eq!(decisions[0]["verdict"], "dead");
    assert_eq!(
        mesh.value("probe", "n").await,
        None,
        "nothing of the frozen attempt has happened"
    );
    assert!(mesh.emitted().await.is_empty());
    assert_eq!(mesh.letters().await.len(), 1);
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn an_event_that_a_frozen_host_has_done_is_not_dead_lettered_by_one_that_does_not_know() {
    let mesh = Mesh::new(Config::probe_with("max_attempts = 2")).await;
    let doer = mesh.host_with_fault("commit-confirmed:stop").await;
    // This one has read the ledger, and sleeps over what is appended to it.
    let other = mesh.host(&[]).await;
    other.signal(Signal::STOP);
    mesh.order(json!([
        { "op": "add", "key": "n", "by": 1 },
        { "op": "emit", "subject": "events.worked", "payload": 1 },
        { "op": "fail_until", "attempt": 2 },
    ]))
    .await;
    // Done in the last attempt, and never acked.
    mesh.wait_decisions("probe", 1).await;
    wait_frozen(&doer).await;
    other.signal(Signal::CONT);
    // To it the event has no attempt left; when it dead-letters the event, it finds out that the event is done.
    other.wait_for_line(says(&["already decided"]), PATIENT).await;
    mesh.wait_settled("ORDERS", "probe").await;
    doer.signal(Signal::CONT);
    doer.wait_for_line(says(&[" done "]), PATIENT).await;
    done_once(&mesh).await;
}

/// Waits until each thread of a host stands still.
pub async fn wait_frozen(host: &Host) {
    let path = format!("/proc/{}/stat", host.pid());
    eventually("the host to be frozen", SOON, async || {
        let text = std::fs::read_to_string(&path).expect("a process that lives");
        text.rsplit(')').next()?.trim_start().starts_with('T').then_some(())
    })
    .await;
}

/// Waits until the stream `EVENTS` no longer recognises the ids of what it holds.
pub async fn wait_forgotten(mesh: &Mesh) {
    // What was published before is forgotten when this is.
    let forgotten = async || {
        let map =
            async_nats::HeaderMap::from_iter([("Nats-Msg-Id".parse().expect("a name"), "a".parse().expect("a value"))]);
        let ack = mesh.js.publish_with_headers("events.window", map, "".into()).await;
        let ack = ack.expect("the server takes it").await.expect("a stream takes it");
        (!ack.duplicate).then_some(())
    };
    forgotten().await.expect("it is the first");
    eventually("the target to forget", SOON, forgotten).await;
    let target = mesh.js.get_stream("EVENTS").await.expect("it is there");
    target.purge().filter("*.window").await.expect("it is purged");
}

/// A relay freezes half-way through what it has fetched; another one carries all of it out; the target forgets the ids.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_relay_that_wakes_after_its_targets_duplicate_window_repeats_nothing() {
    let mesh = Mesh::new(Config::probe()).await;
    let target = async_nats::jetstream::stream::Config {
        name: "EVENTS".to_owned(),
        subjects: vec!["events.>".to_owned()],
        duplicate_window: Duration::from_secs(2),
        ..Default::default()
    };
    mesh.js.create_stream(target).await.expect("the stream can be made");
    let frozen = mesh.host_with_fault("relay-published:stop").await;
    mesh.order(json!({ "op": "emit_many", "subject": "events.many", "count": 5, "bytes": 10 }))
        .await;
    wait_frozen(&frozen).await;
    let _other = mesh.host(&[]).await;
    let many = async || mesh.messages("EVENTS", "events.many").await.len();
    eventually("the other relay to do it", PATIENT, async || {
        (many().await == 5).then_some(())
    })
    .await;
    wait_forgotten(&mesh).await;
    frozen.signal(Signal::CONT);
    eventually("both hosts to be awake", SOON, async || {
        (hosts(&mesh).await.len() == 2).then_some(())
    })
    .await;
    frozen.stop().await;
    assert_eq!(many().await, 5, "each is there once");
}

#[tokio::test]
async fn a_host_that_goes_leaves_its_work_to_the_other() {
    let mesh = Mesh::new(Config::probe()).await;
    let first = mesh.host(&[]).await;
    let _second = mesh.host(&[]).await;
    publish_work(&mesh, 20, 2).await;
    first.signal(Signal::KILL);
    first.wait_exit(Duration::from_secs(5)).await;
    judge(&mesh, 20, 2).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_with_other_settings_for_a_handler_than_the_others_says_so() {
    let mesh = Mesh::new(Config::probe()).await;
    let soon = [("MESH_FAULT", "peers-look-ms:200")];
    let url = mesh.server.url();
    let one = mesh.host(&soon).await;
    // How much of it a host runs, and where its module lies, is its own affair.
    let more = mesh.host_of(&Config::probe_with("concurrency = 3"), &url, &soon).await;
    let config = Config::probe_with("max_attempts = 7\nack_wait = \"2s\"");
    let other = mesh.host_of(&config, &url, &soon).await;
    let id = |host: &Host| {
        let started = host.lines().into_iter().find(|line| line.contains("host started"));
        let started = started.expect("a host says its name");
        let id = started.split("host=").nth(1).and_then(|rest| rest.split(' ').next());
        id.expect("a host says its name").to_owned()
    };
    let than = format!("host=\"{}\"", id(&other));
    let keys = "keys=\"ack_wait, max_attempts\"";
    let told = [
        "WARN",
        "another host serves this handler with other settings",
        keys,
        &than,
    ];
    for host in [&one, &more] {
        host.wait_for_line(says(&told), SOON).await;
    }
    let warnings = |host: &Host| {
        host.lines()
            .iter()
            .filter(|line| line.contains("with other settings"))
            .count()
    };
    let status: Value = serde_json::from_str(&mesh.jetmesh(&["status", "--json"]).await.1).expect("JSON");
    let differ = &status["handlers"][0]["settings_differ"];
    assert_eq!(
        differ["keys"],
        serde_json::json!(["ack_wait", "max_attempts"]),
        "{status:#}"
    );
    let text = mesh.jetmesh_ok(&["status"]).await;
    assert!(text.contains("probe is served with other settings by "), "{text}");
    // It is over when that host has ended, and a host that starts then does not report it.
    other.stop().await;
    let over = says(&["all hosts that answer serve this handler with the same settings again"]);
    for host in [&one, &more] {
        host.wait_for_line(&over, SOON).await;
        assert_eq!(warnings(host), 1, "{:?}", host.lines());
    }
    let last = mesh.host(&soon).await;
    eventually("it to have looked", SOON, async || {
        let text = mesh.jetmesh_ok(&["status"]).await;
        text.contains("3 host(s)").then_some(())
    })
    .await;
    assert_eq!(warnings(&last), 0, "{:?}", last.lines());
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn hosts_that_serve_a_handler_with_different_modules_for_long_say_so_and_when_it_is_over() {
    let mesh = Mesh::new(Config::probe()).await;
    let soon = [("MESH_FAULT", "peers-look-ms:200,peers-long-ms:600")];
    let url = mesh.server.url();
    let one = mesh.host(&soon).await;
    let same = mesh.host(&soon).await;
    let module = mesh.dir.path().join("other.wasm");
    std::fs::write(&module, second_version()).expect("the test's folder is writable");
    let newer = Config::new().handler("probe", &module, "bucket = \"probe\"\npublish = [\"events.>\"]");
    let other = mesh.host_of(&newer, &url, &soon).await;
    let apart = says(&[
        "WARN",
        "other hosts serve this handler with another module",
        "handler=\"probe\"",
    ]);
    let times = |host: &Host| host.lines().iter().filter(|line| apart(line)).count();
    for host in [&one, &same, &other] {
        host.wait_for_line(&apart, SOON).await;
    }
    let status: Value = serde_json::from_str(&mesh.jetmesh(&["status", "--json"]).await.1).expect("JSON");
    let told = status["handlers"][0]["modules"].as_array().expect("a list").clone();
    let mut hosts: Vec<u64> = told.iter().filter_map(|one| one["hosts"].as_u64()).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, [1, 2], "{told:?}");
    assert!(told.iter().all(|one| one["since"].is_string()), "{told:?}");
    let text = mesh.jetmesh(&["status"]).await.1;
    let says_which = text.contains("probe is served with 2 modules: ");
    assert!(says_which && text.contains("on 2 host(s) (for "), "{text}");
    std::fs::copy(modules::handler("probe"), &module).expect("the test's folder is writable");
    for host in [&one, &same, &other] {
        host.wait_for_line(says(&["all hosts serve this handler with the same module again"]), SOON)
            .await;
        assert_eq!(times(host), 1, "{:?}", host.lines());
    }
}
