//! Hosts and servers that die, freeze, or lose one another at the worst moment.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use serde_json::json;

use crate::audit::{judge, publish_work, work};
use crate::hosts::{wait_at_work, wait_frozen};
use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::wait::SOON;
use crate::support::{Direction, Host, Proxy, Signal, eventually, skipped};

/// A host is killed at the seventh pass of a point, another goes on: nothing lost, nothing twice.
#[cfg(feature = "failpoints")]
async fn killed_at(point: &str, nth: u32) {
    let mesh = Mesh::new(Config::probe()).await;
    let killed = mesh.host_with_fault(&format!("{point}:kill:{nth}")).await;
    publish_work(&mesh, 15, 3).await;
    let status = killed.wait_exit(PATIENT).await;
    assert_eq!(status.signal(), Some(9), "killed at {point}");
    let _host = mesh.host(&[]).await;
    judge(&mesh, 15, 3).await;
}

#[cfg(feature = "failpoints")]
macro_rules! killed {
    ($($name:ident: $point:literal, $nth:literal;)*) => {
        $(#[tokio::test]
        async fn $name() {
            killed_at($point, $nth).await;
        })*
    };
}

#[cfg(feature = "failpoints")]
killed! {
    a_host_killed_after_a_pull_loses_nothing: "after-pull", 7;
    a_host_killed_before_a_run_loses_nothing: "before-run", 7;
    a_host_killed_with_9_mid_run_loses_nothing: "after-run", 7;
    a_host_killed_before_its_commit_loses_nothing: "joined", 7;
    a_host_killed_with_half_a_batch_sent_loses_nothing: "batch-half-sent", 7;
    a_host_killed_with_its_commit_sent_loses_nothing: "commit-sent", 1;
    a_host_killed_after_a_commit_does_nothing_twice: "commit-confirmed", 1;
    a_host_killed_before_an_ack_does_nothing_twice: "before-ack", 7;
    a_host_killed_after_an_ack_does_nothing_twice: "ack-sent", 7;
    a_host_killed_after_its_relay_published_emits_nothing_twice: "relay-published", 7;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_that_dies_on_the_last_attempt_still_yields_exactly_one_dead_letter() {
    let mesh = Mesh::new(Config::probe_with("max_attempts = 2")).await;
    // The first attempt fails and is recorded; the second is recorded when it begins, and ends with the host.
    let killed = mesh.host_with_fault("before-run:kill:2").await;
    mesh.order(json!({ "op": "retry", "code": "later", "message": "not now" }))
        .await;
    assert_eq!(killed.wait_exit(PATIENT).await.signal(), Some(9));
    let _host = mesh.host(&[]).await;
    let letters = mesh.wait_letters(1).await;
    mesh.wait_settled("ORDERS", "probe").await;
    assert_eq!(letters[0].header("Mesh-Cause"), Some("exhausted"));
    assert_eq!(letters[0].header("Mesh-Attempts"), Some("2"));
    assert_eq!(letters[0].header("Mesh-Code"), Some("host-ended"));
    assert_eq!(mesh.decisions("probe").await.len(), 1);
    assert_eq!(mesh.letters().await.len(), 1);
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn the_advisory_alone_yields_the_dead_letter() {
    // The host never declares the event exhausted: only the server gives up, after 2 + 1 deliveries.
    let mesh = Mesh::new(Config::probe_with("max_attempts = 2\ndeliver_slack = 1")).await;
    let _host = mesh.host_with_fault("host-verdict:off").await;
    mesh.order(json!({ "op": "retry", "code": "later", "message": "not now" }))
        .await;
    let letters = mesh.wait_letters(1).await;
    // All its attempts have failed, whichever host writes the letter.
    assert_eq!(letters[0].header("Mesh-Cause"), Some("exhausted"));
    assert_eq!(letters[0].header("Mesh-Code"), Some("later"));
    let decisions = mesh.decisions("probe").await;
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    assert_eq!(decisions[0]["verdict"], "dead");
    assert_eq!(mesh.letters().await.len(), 1);
}

#[tokio::test]
async fn draining_redelivers_no_event_that_had_started() {
    let mesh = Mesh::new(Config::probe_with("concurrency = 3\nin_flight = 8")).await;
    let host = mesh.host(&[]).await;
    for number in 0..6 {
        let log = json!({ "op": "log", "level": "info", "message": format!("begins {number}") });
        let add = json!({ "op": "add", "key": format!("own.{number}"), "by": 1 });
        // Longer than two ack waits.
        mesh.order(json!([log, { "op": "sleep", "ms": 2500 }, add])).await;
    }
    // Three run, and the others wait; a guest's lines are written only when its run has ended, so the host tells.
    wait_at_work(&mesh, 6).await;
    host.signal(Signal::TERM);
    host.wait_for_line(says(&["draining"]), SOON).await;
    // This one takes what is handed back, and would take what the other lets go.
    let next = mesh.host(&[]).await;
    let status = host.wait_exit(PATIENT).await;
    assert_eq!(status.code(), Some(0), "a drain in time ends well");
    mesh.wait_decisions("probe", 6).await;
    mesh.wait_settled("ORDERS", "probe").await;
    // What it has begun in vain ends, too.
    next.stop().await;
    let begun = |lines: Vec<String>| -> Vec<char> {
        let marks = lines.iter().filter_map(|line| line.split_once("begins "));
        marks.filter_map(|(_, number)| number.chars().next()).collect()
    };
    // A host's lines come a moment after what they tell.
    let (first, then) = eventually("the lines of all runs", SOON, async || {
        let (first, then) = (begun(host.lines()), begun(next.lines()));
        (first.len() + then.len() >= 6).then_some((first, then))
    })
    .await;
    assert!((1..=3).contains(&first.len()), "at most three had started: {first:?}");
    let mut all = [first, then].concat();
    all.sort_unstable();
    assert_eq!(all, ['0', '1', '2', '3', '4', '5'], "each has run once");
    for number in 0..6 {
        assert_eq!(
            mesh.value("probe", &format!("own.{number}")).await.as_deref(),
            Some("1")
        );
    }
}

#[tokio::test]
async fn a_second_signal_leaves_at_once_when_a_second_has_passed() {
    let (mesh, host) = Mesh::start(Config::probe_with("timeout = \"30s\"")).await;
    mesh.order(json!({ "op": "sleep", "ms": 25_000 })).await;
    crate::hosts::wait_at_work(&mesh, 1).await;
    let began = std::time::Instant::now();
    let ended = eventually("the end by a later signal", SOON, async || {
        if host.ended().is_none() {
            host.signal(Signal::TERM);
        }
        host.ended()
    });
    assert_eq!(ended.await.code(), Some(130));
    assert!(began.elapsed() >= Duration::from_secs(1));
}

/// Terminals and wrappers send a signal on to whole groups of processes, so that one wish arrives as several.
#[tokio::test]
async fn signals_that_come_together_are_one_and_each_kind_drains() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        if signal == Signal::HUP && hangups_are_ignored() {
            skipped("these tests run under nohup, and so do their hosts: none of them drains by SIGHUP");
            continue;
        }
        let (mesh, host) = Mesh::start(Config::probe_with("timeout = \"30s\"")).await;
        mesh.order(json!([{ "op": "sleep", "ms": 2_000 }, { "op": "add", "key": "n", "by": 1 }]))
            .await;
        crate::hosts::wait_at_work(&mesh, 1).await;
        for _ in 0..3 {
            host.signal(signal);
        }
        assert_eq!(host.wait_exit(PATIENT).await.code(), Some(0), "{signal:?}");
        assert_eq!(mesh.value("probe", "n").await.as_deref(), Some("1"), "{signal:?}");
    }
}

/// Whether this process ignores SIGHUP, as its children then do: the first bit of the kernel's mask.
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = u64::from_str_radix(mask.expect("a mask").trim(), 16).expect("a hexadecimal number");
    mask & 1 == 1
}

#[tokio::test]
async fn a_host_that_was_started_with_nohup_does_not_end_with_its_terminal() {
    let mesh = Mesh::new(Config::probe()).await;
    let plain = crate::support::host::command(mesh.dir.path());
    let mut command = std::process::Command::new("nohup");
    command
        .arg(plain.get_program())
        .args(["run", "--config"])
        .arg(mesh.write_config());
    command.current_dir(mesh.dir.path());
    let host = Host::start_program(command);
    host.wait_for_line(says(&["serving", "handler=probe "]), SOON).await;
    host.signal(Signal::HUP);
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    mesh.wait_value("probe", "n", "1").await;
    host.stop().await;
    let drains = host.lines().iter().filter(|line| line.contains("draining")).count();
    assert_eq!(drains, 1, "not by the first signal, which comes before the order");
}

#[tokio::test]
async fn a_server_killed_and_started_again_loses_nothing_and_repeats_nothing() {
    let mut mesh = Mesh::new(Config::probe()).await;
    let _host = mesh.host(&[]).await;
    publish_work(&mesh, 20, 4).await;
    let first = mesh.server.pid();
    mesh.server.kill9();
    mesh.server.restart().await;
    assert_ne!(mesh.server.pid(), first, "it is another process");
    judge(&mesh, 20, 4).await;
}

#[tokio::test]
async fn a_server_that_freezes_for_a_while_loses_nothing_and_repeats_nothing() {
    let (mesh, host) = Mesh::start(Config::probe().nats("timeout = \"500ms\"")).await;
    publish_work(&mesh, 20, 4).await;
    mesh.server.pause();
    // Requests run into their limit meanwhile; what came of them is unknown.
    let mark = host.lines().len();
    let _ = host
        .wait_for_line_after(mark, says(&["host-fault"]), Duration::from_secs(30))
        .await;
    mesh.server.resume();
    judge(&mesh, 20, 4).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_read_that_nats_does_not_answer_is_not_the_events_fault() {
    let mesh = Mesh::new(Config::probe_with("max_attempts = 1")).await;
    let proxy = Proxy::start(mesh.server.addr());
    let host = mesh
        .host_of(&mesh.config, &proxy.url(), &[("MESH_FAULT", "after-run:stop")])
        .await;
    mesh.order(json!([{ "op": "sleep", "ms": 1000 }, { "op": "add", "key": "n", "by": 1 }]))
        .await;
    wait_at_work(&mesh, 1).await;
    proxy.refuse();
    proxy.cut();
    // Its read has failed. Another attempt must follow, although the handler may have one only.
    wait_frozen(&host).await;
    proxy.accept();
    host.signal(Signal::CONT);
    mesh.wait_value("probe", "n", "1").await;
    mesh.wait_settled("ORDERS", "probe").await;
    assert!(mesh.letters().await.is_empty());
}

#[tokio::test]
async fn a_time_limit_that_runs_out_in_a_slow_read_is_not_the_events_fault() {
    let mesh = Mesh::new(Config::probe_with("max_attempts = 1\ntimeout = \"2s\"")).await;
    let proxy = Proxy::start(mesh.server.addr());
    let host = mesh.host_of(&mesh.config, &proxy.url(), &[]).await;
    mesh.order(json!([{ "op": "sleep", "ms": 500 }, { "op": "add", "key": "n", "by": 1 }]))
        .await;
    wait_at_work(&mesh, 1).await;
    // NATS is slow, but not slower than a request may take.
    proxy.pause(Direction::ToServer);
    host.wait_for_line(says(&["host-fault", "a read had not come back"]), SOON)
        .await;
    proxy.resume(Direction::ToServer);
    mesh.wait_value("probe", "n", "1").await;
    mesh.wait_settled("ORDERS", "probe").await;
    assert!(mesh.letters().await.is_empty());
}

#[tokio::test]
async fn a_connection_that_is_cut_under_load_loses_nothing_and_repeats_nothing() {
    let mesh = Mesh::new(Config::probe()).await;
    let proxy = Proxy::start(mesh.server.addr());
    let _host = mesh.host_of(&mesh.config, &proxy.url(), &[]).await;
    for number in 0..40 {
        mesh.order(work(number, 2)).await;
        // What is on its way then is lost, in whichever direction it goes.
        match number {
            10 => proxy.pause(Direction::ToServer),
            25 => proxy.pause(Direction::FromServer),
            _ => continue,
        }
        proxy.cut();
        proxy.resume(Direction::ToServer);
        proxy.resume(Direction::FromServer);
    }
    judge(&mesh, 40, 2).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_commit_that_is_cut_in_the_middle_of_its_batch_happens_once() {
    let mesh = Mesh::new(Config::probe()).await;
    let proxy = Proxy::start(mesh.server.addr());
    let fault = [("MESH_FAULT", "batch-half-sent:stop:10")];
    let host = mesh.host_of(&mesh.config, &proxy.url(), &fault).await;
    publish_work(&mesh, 10, 2).await;
    // Its third batch has four messages before the last one, and two of them are sent.
    wait_frozen(&host).await;
    proxy.cut();
    host.signal(Signal::CONT);
    judge(&mesh, 10, 2).await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_cut_happens_once() {
    let mesh = Mesh::new(Config::probe()).await;
    let proxy = Proxy::start(mesh.server.addr());
    let _host = mesh.host_of(&mesh.config, &proxy.url(), &[]).await;
    // They read first and commit later; they have no key in common.
    for number in 0..5 {
        let mut steps = work(number, 6);
        let steps = steps.as_array_mut().expect("a list of steps");
        steps.push(json!({ "op": "sleep", "ms": 1500 }));
        mesh.order(json!(steps)).await;
    }
    // Once the last one is done, the others have read.
    mesh.order(work(5, 6)).await;
    mesh.wait_decisions("probe", 1).await;
    proxy.pause(Direction::FromServer);
    assert_eq!(mesh.decisions("probe").await.len(), 1, "the others still run");
    // The server has stored one more, and the host does not hear of it.
    mesh.wait_decisions("probe", 2).await;
    proxy.cut();
    proxy.resume(Direction::FromServer);
    judge(&mesh, 6, 6).await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_told_of_within_seconds_and_so_is_its_return() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    mesh.server.pause();
    let line = host
        .wait_for_line(says(&["WARN", "NATS does not answer: no events come"]), SOON)
        .await;
    let silent = line.split("silent=").nth(1).expect("it says for how long");
    // Before a time limit of five seconds, or the heartbeat of a pull, could have told.
    assert!(silent.starts_with("3."), "{line}");
    assert!(line.contains(&mesh.server.url()) && !line.contains("about="), "{line}");
    mesh.server.resume();
    host.wait_for_line(says(&["INFO", "NATS answers again"]), SOON).await;
    mesh.order(serde_json::json!({ "op": "emit", "subject": "events.a", "payload": 1 }))
        .await;
    mesh.wait_emitted(1).await;
}
