//! Schedules: the mesh emits an event at each due time, once, whichever hosts run meanwhile.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster;
use crate::delayed::{lie_there, replayed_from_nowhere};
use crate::mesh::{Config, Found, Mesh, PATIENT, says};
use crate::schemas::object;
use crate::support::wait::SOON;
use crate::support::{Host, Signal, eventually, modules};

use crate::ticking::{assert_whole, at, audit, due, dues, now_s, state, ticking, wait_dues, wait_state, with_schedule};

#[tokio::test]
async fn a_schedule_emits_an_event_at_each_due_time() {
    let lines = "every = \"1s\"\npayload = '{\"due\":\"{due}\"}'\nheaders = { Kind = \"tick\" }\ncatch_up = \"all\"";
    let (mesh, host) = Mesh::start(ticking(lines)).await;
    let dues = wait_dues(&mesh, "events.tick", 4).await;
    assert_whole(&dues, 1);
    let events = mesh.messages("EVENTS", "events.tick").await;
    let event = &events[0];
    let text = event.header("Mesh-Schedule-Due").expect("it names its due time");
    assert_eq!(event.json(), json!({ "due": text }));
    assert_eq!(
        (event.header("Kind"), event.header("Mesh-Schedule")),
        (Some("tick"), Some("tick"))
    );
    let compact = text.replace(['-', ':'], "").replace(".000Z", "Z");
    let id = format!("schedule.tick.{compact}.0");
    assert_eq!(event.header("Nats-Msg-Id"), Some(&*id));
    assert_eq!(event.header("Mesh-Event-Id"), Some(&*id));
    // What is past leaves nothing behind but one timer.
    assert_eq!(lie_there(&mesh, "fired").await, Vec::<String>::new());
    assert!(lie_there(&mesh, "delay").await.len() <= 1);
    host.stop().await;
}

#[tokio::test]
async fn a_handler_is_given_the_event_of_a_schedule_like_any_other() {
    let lines = "at = \"AT\"\npayload = '{\"do\":[{\"op\":\"add\",\"key\":\"n\",\"by\":1}]}'".replace("AT", &at(8));
    let config = Config::probe().table(&format!("[schedules.once]\nsubject = \"orders.probe\"\n{lines}"));
    let (mesh, _host) = Mesh::start(config).await;
    mesh.wait_value("probe", "n", "1").await;
    let over = wait_state(&mesh, "once", |state| state["runs"] == 1).await;
    assert_eq!((&over["next"], &over["missed"]), (&Value::Null, &json!(0)));
    // What its handlers have made of it is shown with it, and under its id.
    let shown: Value =
        serde_json::from_str(&object(&mesh, &["schedule", "show", "once", "--json"]).await).expect("JSON");
    assert_eq!(shown["last_handlers"], json!([{ "handler": "probe", "state": "done" }]));
    let text = mesh.jetmesh_ok(&["schedule", "show", "once"]).await;
    assert!(text.contains("handlers  probe done\n"), "{text}");
    let traced = mesh
        .jetmesh_ok(&["trace", shown["last_event"].as_str().expect("its id")])
        .await;
    assert!(traced.contains("probe: done at "), "{traced}");
    let unknown = mesh.jetmesh(&["trace", "schedule.once.20300101T000000Z.0"]).await.2;
    assert!(
        unknown.contains("has message id schedule.once.20300101T000000Z.0 since 20"),
        "{unknown}"
    );
}

#[tokio::test]
async fn what_is_due_with_no_host_up_is_fired_by_a_host_that_does_not_know_the_schedule() {
    let (mesh, host) = Mesh::start(ticking(&format!("at = \"{}\"", at(8)))).await;
    wait_state(&mesh, "tick", |state| !state["next"].is_null()).await;
    eventually("the timer to be at the server", SOON, async || {
        (!lie_there(&mesh, "delay").await.is_empty()).then_some(())
    })
    .await;
    host.stop().await;
    eventually("the server to fire it", PATIENT, async || {
        (!lie_there(&mesh, "due").await.is_empty()).then_some(())
    })
    .await;
    assert!(mesh.emitted().await.is_empty());
    let other = Config::new().handler(
        "other",
        &modules::handler("probe"),
        "start = \"new\"\nbucket = \"other\"",
    );
    let _other = mesh.host_of(&other, &mesh.server.url(), &[]).await;
    mesh.wait_emitted(1).await;
    wait_state(&mesh, "tick", |state| state["runs"] == 1 && state["missed"] == 0).await;
}

#[tokio::test]
async fn after_a_time_without_hosts_each_schedule_catches_up_as_it_says() {
    let names = ["last", "all", "none"];
    let config = names.iter().fold(Config::probe(), |config, name| {
        let window = if *name == "all" { "catch_up_window = \"1h\"" } else { "" };
        with_schedule(
            config,
            name,
            &format!("every = \"2s\"\ncatch_up = \"{name}\"\n{window}"),
        )
    });
    let (mesh, host) = Mesh::start(config).await;
    for subject in ["events.last", "events.all", "events.none"] {
        wait_dues(&mesh, subject, 1).await;
    }
    host.signal(Signal::KILL);
    host.wait_exit(SOON).await;
    let until = now_s() + 7;
    eventually("some due times to pass", PATIENT, async || {
        (now_s() > until).then_some(())
    })
    .await;
    let _host = mesh.host(&[]).await;
    for (name, subject) in [("last", "events.last"), ("none", "events.none")] {
        let state = wait_state(&mesh, name, |state| state["missed"].as_u64() >= Some(2)).await;
        wait_dues(&mesh, subject, 2).await;
        let dues = dues(&mesh, subject).await;
        assert!(
            dues.windows(2).any(|pair| pair[1] - pair[0] >= 6),
            "{name}: {dues:?} {state}"
        );
    }
    let all = wait_dues(&mesh, "events.all", 5).await;
    assert_whole(&all, 2);
    assert_eq!(state(&mesh, "all").await["missed"], 0);
}

#[tokio::test]
async fn events_of_a_schedule_do_not_overlap_if_they_must_not() {
    for (overlap, passed) in [("skip", "skipped"), ("one", "skipped")] {
        // Each is decided after two attempts: it is dead then.
        let lines = "backoff = \"4s\"\nmax_attempts = 2\nbucket = \"probe\"";
        let config = Config::new()
            .handler("probe", &modules::handler("probe"), lines)
            .table(&format!(
                "[schedules.slow]\nsubject = \"orders.slow\"\nevery = \"1s\"\noverlap = \"{overlap}\"\n\
             payload = '{{\"do\":[{{\"op\":\"retry\",\"code\":\"later\",\"message\":\"not yet\"}}]}}'"
            ));
        let (mesh, _host) = Mesh::start(config).await;
        if overlap == "one" {
            wait_state(&mesh, "slow", |state| state["held"].is_string()).await;
            let shown = mesh.jetmesh_ok(&["schedule", "ls"]).await;
            assert!(shown.contains("slow is held: since "), "{shown}");
        }
        let state = wait_state(&mesh, "slow", |state| state["runs"].as_u64() >= Some(3)).await;
        assert!(state[passed].as_u64() >= Some(2), "{state}");
        let events = mesh.messages("ORDERS", "orders.slow").await;
        let dues: Vec<u64> = events.iter().map(due).collect();
        assert!(
            dues.windows(2).all(|pair| pair[1] - pair[0] >= 2),
            "{overlap}: {dues:?}"
        );
        let letters = mesh.letters().await;
        assert!(letters.len() + 1 >= events.len(), "at most one is open");
    }
}

#[tokio::test]
async fn two_hosts_fire_each_due_time_once() {
    let (mesh, _host) = Mesh::start(ticking("every = \"1s\"\ncatch_up = \"all\"")).await;
    let _other = mesh.host(&[]).await;
    let dues = wait_dues(&mesh, "events.tick", 6).await;
    assert_whole(&dues, 1);
    assert_eq!(state(&mesh, "tick").await["missed"], 0);
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn hosts_whose_clocks_jump_by_an_hour_fire_each_due_time_once_and_in_time() {
    let mesh = Mesh::new(ticking("every = \"1s\"\ncatch_up = \"all\"")).await;
    let host = mesh.host_with_fault("clock-jumps-ms:3600000").await;
    let _behind = mesh.host_with_fault("clock-behind-ms:3600000").await;
    wait_dues(&mesh, "events.tick", 8).await;
    // Whatever it had in hand is the other one's.
    host.signal(Signal::KILL);
    host.wait_exit(SOON).await;
    let before = dues(&mesh, "events.tick").await.len();
    wait_dues(&mesh, "events.tick", before + 3).await;
    assert_eq!(audit(&mesh, "events.tick", 1).await, Vec::<String>::new());
    assert_eq!(state(&mesh, "tick").await["missed"], 0);
    let late = |event: &Found| event.time_ms - i128::from(due(event)) * 1000;
    let events = mesh.messages("EVENTS", "events.tick").await;
    // The other host has what was in hand after the acknowledgement wait.
    let latest = events.iter().map(late).max();
    assert!(latest < Some(60_000), "{latest:?} ms late");
}

#[tokio::test]
async fn a_leader_that_dies_while_schedules_wait_neither_loses_a_due_time_nor_doubles_one() {
    let (mut cluster, mut mesh) = cluster::mesh(ticking("every = \"1s\"\ncatch_up = \"all\"")).await;
    let _host = mesh.host_of(&mesh.config, &cluster.urls, &[]).await;
    let _other = mesh.host_of(&mesh.config, &cluster.urls, &[]).await;
    for stream in ["KV_mesh", "MESH_DELAYED"] {
        let before = dues(&mesh, "events.tick").await.len();
        wait_dues(&mesh, "events.tick", before + 3).await;
        let killed = cluster.kill_leader(&mut mesh, stream).await;
        let before = dues(&mesh, "events.tick").await.len();
        wait_dues(&mesh, "events.tick", before + 5).await;
        cluster.server(&mut mesh, killed).restart().await;
    }
    // A target without a leader takes nothing for a moment. What waits for it is tried one by one, so a later event can be first (0014).
    let mut dues = dues(&mesh, "events.tick").await;
    dues.sort_unstable();
    assert_whole(&dues, 1);
    assert_eq!(state(&mesh, "tick").await["missed"], 0);
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_killed_at_any_step_of_a_schedule_neither_loses_a_due_time_nor_doubles_one() {
    let points = [
        "schedule-armed:kill",
        "schedule-due:kill:2",
        "committer:kill:3",
        "commit-confirmed:kill:3",
        "schedule-fired:kill:2",
        "event-due:kill:2",
        "event-scheduled:kill:2",
        "relay-confirmed:kill:2",
        "batch-half-sent:kill:2",
    ];
    for three in points.chunks(3) {
        futures_util::future::join_all(three.iter().map(|point| killed_at(point))).await;
    }
}

#[cfg(feature = "failpoints")]
async fn killed_at(point: &str) {
    let mesh = Mesh::new(ticking("every = \"1s\"\ncatch_up = \"all\"")).await;
    let config = mesh.config.text(&mesh.server.url());
    let killed = Host::start(&config, mesh.dir.path(), &[("MESH_FAULT", point)]);
    let ended = eventually("the host to be killed", PATIENT, async || killed.ended()).await;
    assert_eq!(ended.signal(), Some(9), "{point}");
    let _host = mesh.host(&[]).await;
    let before = dues(&mesh, "events.tick").await.len();
    // What the killed host had in hand comes again by then.
    wait_dues(&mesh, "events.tick", before + 12).await;
    assert_eq!(audit(&mesh, "events.tick", 1).await, Vec::<String>::new(), "{point}");
    assert_eq!(state(&mesh, "tick").await["missed"], 0, "{point}");
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn the_audit_finds_a_timer_that_is_taken_for_another_one() {
    let mesh = Mesh::new(ticking("every = \"1s\"\ncatch_up = \"all\"")).await;
    let killed = mesh.host_with_fault("schedule-fired:kill:3").await;
    assert_eq!(killed.wait_exit(PATIENT).await.signal(), Some(9));
    let _host = mesh.host(&[("MESH_MISTAKE", "armed-twice")]).await;
    eventually("the mistake to be found", PATIENT, async || {
        (!audit(&mesh, "events.tick", 1).await.is_empty()).then_some(())
    })
    .await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_timer_that_was_purged_is_armed_again() {
    let mesh = Mesh::new(ticking("every = \"1h\"")).await;
    let host = mesh.host_with_fault("schedules-looked-at:2000").await;
    let armed = wait_state(&mesh, "tick", |state| !state["next"].is_null()).await;
    let delayed = mesh.js.get_stream("MESH_DELAYED").await.expect("it is there");
    eventually("the timer to be at the server", SOON, async || {
        (!lie_there(&mesh, "delay").await.is_empty()).then_some(())
    })
    .await;
    delayed.purge().await.expect("it can be purged");
    host.wait_for_line(
        says(&["timer was lost and is armed again", "tick"]),
        Duration::from_secs(150),
    )
    .await;
    let again = state(&mesh, "tick").await;
    assert_eq!(again["next"]["due"], armed["next"]["due"]);
    eventually("the new timer to be at the server", SOON, async || {
        (lie_there(&mesh, "delay").await.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_killed_while_a_schedule_waits_still_fires_each_due_time_once() {
    let mut mesh = Mesh::new(ticking("every = \"2s\"\ncatch_up = \"all\"")).await;
    let _host = mesh.host(&[]).await;
    wait_dues(&mesh, "events.tick", 1).await;
    mesh.server.kill9();
    mesh.server.restart().await;
    let dues = wait_dues(&mesh, "events.tick", 4).await;
    assert_whole(&dues, 2);
}

#[tokio::test]
async fn an_event_of_a_schedule_that_no_stream_takes_becomes_a_dead_letter_that_can_be_replayed() {
    let lines = format!(
        "[schedules.lost]\nsubject = \"nowhere.x\"\npayload = \"p\"\nat = \"{}\"",
        at(8)
    );
    let (mesh, _host) = Mesh::start(Config::probe().table(&lines)).await;
    let said = mesh.jetmesh(&["check", "--connect"]).await.1;
    assert!(said.contains("schedule lost: no stream captures `nowhere.x`"), "{said}");
    let found = replayed_from_nowhere(&mesh, "KV_mesh").await;
    assert_eq!((found.len(), &found[0].payload[..]), (1, &b"p"[..]));
}
