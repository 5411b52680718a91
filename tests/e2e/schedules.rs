//! Schedules: the mesh emits an event at each due time, once, whichever hosts run meanwhile.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::delayed::lie_there;
use crate::mesh::{Config, Found, Mesh, PATIENT, says};
use crate::schemas::{assert_fits, object};
use crate::support::wait::SOON;
use crate::support::{Host, Signal, eventually, modules};

/// A mesh with one schedule `tick`, with these lines of its table, besides the probe.
fn ticking(lines: &str) -> Config {
    with_schedule(Config::probe(), "tick", lines)
}

fn with_schedule(config: Config, name: &str, lines: &str) -> Config {
    config.table(&format!("[schedules.{name}]\nsubject = \"events.{name}\"\n{lines}"))
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("it is past 1970").as_secs()
}

/// A time this many seconds from now.
fn at(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(now_s() + seconds)).to_string()
}

/// The state of a schedule as the mesh's bucket has it.
async fn state(mesh: &Mesh, name: &str) -> Value {
    let value = mesh.value("mesh", &format!("schedule.{name}")).await;
    value.map_or(Value::Null, |value| serde_json::from_str(&value).expect("it is JSON"))
}

#[track_caller]
fn wait_state(mesh: &Mesh, name: &'static str, wanted: impl Fn(&Value) -> bool) -> impl Future<Output = Value> {
    eventually("a schedule to come to a state", PATIENT, async move || {
        let state = state(mesh, name).await;
        wanted(&state).then_some(state)
    })
}

/// The due times of a schedule's events, in the order of the stream, in seconds since 1970.
async fn dues(mesh: &Mesh, subject: &str) -> Vec<u64> {
    let events = mesh.messages("EVENTS", subject).await;
    events.iter().map(due).collect()
}

fn due(event: &Found) -> u64 {
    let due = event.header("Mesh-Schedule-Due").expect("it names its due time");
    let due = humantime::parse_rfc3339(due).expect("a time");
    due.duration_since(UNIX_EPOCH).expect("past 1970").as_secs()
}

#[track_caller]
fn wait_dues(mesh: &Mesh, subject: &'static str, count: usize) -> impl Future<Output = Vec<u64>> {
    eventually("events of a schedule", PATIENT, async move || {
        let dues = dues(mesh, subject).await;
        (dues.len() >= count).then_some(dues)
    })
}

/// Each due time from the first to the last, this far apart, once and in order.
#[track_caller]
fn assert_whole(dues: &[u64], period: u64) {
    assert!(dues.windows(2).all(|pair| pair[1] - pair[0] == period), "{dues:?}");
}

/// What is wrong with the events of a schedule: each due time from the first to the last, this far apart in seconds, must have one,
/// in order, and none before its time.
async fn audit(mesh: &Mesh, subject: &str, period: u64) -> Vec<String> {
    let events = mesh.messages("EVENTS", subject).await;
    let mut problems = Vec::new();
    for event in &events {
        let due = due(event);
        if event.time_ms < i128::from(due) * 1000 {
            problems.push(format!(
                "{due} came {} ms early",
                i128::from(due) * 1000 - event.time_ms
            ));
        }
    }
    let dues: Vec<u64> = events.iter().map(due).collect();
    for pair in dues.windows(2) {
        if pair[1] != pair[0] + period {
            problems.push(format!("{} comes after {}", pair[1], pair[0]));
        }
    }
    problems
}

async fn stop(host: &Host) {
    host.signal(Signal::TERM);
    assert_eq!(host.wait_exit(SOON).await.code(), Some(0));
}

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
    stop(&host).await;
}

#[tokio::test]
async fn a_handler_is_given_the_event_of_a_schedule_like_any_other() {
    let lines = "at = \"AT\"\npayload = '{\"do\":[{\"op\":\"add\",\"key\":\"n\",\"by\":1}]}'".replace("AT", &at(8));
    let config = Config::probe().table(&format!("[schedules.once]\nsubject = \"orders.probe\"\n{lines}"));
    let (mesh, _host) = Mesh::start(config).await;
    mesh.wait_value("probe", "n", "1").await;
    let over = wait_state(&mesh, "once", |state| state["runs"] == 1).await;
    assert_eq!((&over["next"], &over["missed"]), (&Value::Null, &json!(0)));
}

#[tokio::test]
async fn what_is_due_with_no_host_up_is_fired_by_a_host_that_does_not_know_the_schedule() {
    let (mesh, host) = Mesh::start(ticking(&format!("at = \"{}\"", at(8)))).await;
    wait_state(&mesh, "tick", |state| !state["next"].is_null()).await;
    eventually("the timer to be at the server", SOON, async || {
        (!lie_there(&mesh, "delay").await.is_empty()).then_some(())
    })
    .await;
    stop(&host).await;
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

#[tokio::test]
async fn an_edited_schedule_is_armed_again_a_removed_one_is_disarmed_and_one_that_comes_back_goes_on() {
    let (mesh, host) = Mesh::start(ticking("every = \"1h\"")).await;
    let first = wait_state(&mesh, "tick", |state| !state["next"].is_null()).await;
    stop(&host).await;

    // The same configuration changes nothing.
    let host = mesh.host(&[]).await;
    host.wait_for_line(says(&["host started"]), SOON).await;
    stop(&host).await;
    assert_eq!(state(&mesh, "tick").await["n"], first["n"]);

    let edited = ticking("every = \"1s\"");
    let host = mesh.host_of(&edited, &mesh.server.url(), &[]).await;
    wait_dues(&mesh, "events.tick", 2).await;
    stop(&host).await;

    // Without the table nothing is said of schedules; with another one in it, this one is gone.
    let silent = mesh.host_of(&Config::probe(), &mesh.server.url(), &[]).await;
    wait_dues(&mesh, "events.tick", 3).await;
    stop(&silent).await;
    let other = with_schedule(Config::probe(), "other", "every = \"1h\"");
    let host = mesh.host_of(&other, &mesh.server.url(), &[]).await;
    host.wait_for_line(says(&["schedule disarmed", "tick"]), SOON).await;
    let gone = state(&mesh, "tick").await;
    assert_eq!(gone["next"], Value::Null);
    let mesh_of_other = Mesh { config: other, ..mesh };
    let status = mesh_of_other.jetmesh(&["status"]).await.1;
    assert!(status.contains("schedule tick is disarmed: since "), "{status}");
    let mesh = mesh_of_other;
    stop(&host).await;

    let _host = mesh.host_of(&edited, &mesh.server.url(), &[]).await;
    let runs = gone["runs"].as_u64().expect("a number");
    let back = wait_state(&mesh, "tick", |state| state["runs"].as_u64() > Some(runs)).await;
    assert_eq!((&back["token"], &back["disarmed"]), (&first["token"], &Value::Null));
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn hosts_with_different_configurations_do_not_take_turns() {
    let mesh = Mesh::new(ticking("every = \"1h\"")).await;
    let first = mesh.host_with_fault("schedules-looked-at:1000").await;
    wait_state(&mesh, "tick", |state| !state["next"].is_null()).await;
    let other = ticking("every = \"2h\"");
    let _other = mesh.host_of(&other, &mesh.server.url(), &[]).await;
    let armed = wait_state(&mesh, "tick", |state| {
        state["spec"]["timetable"]["when"]["every"] == 7200
    })
    .await;
    first
        .wait_for_line(
            says(&["hosts do not agree on a schedule", "tick"]),
            Duration::from_secs(90),
        )
        .await;
    assert_eq!(state(&mesh, "tick").await["n"], armed["n"]);
    let shown = mesh.jetmesh_ok(&["schedule", "ls"]).await;
    assert!(
        shown.contains("this configuration has it otherwise than host"),
        "{shown}"
    );
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
    let letters = mesh.wait_letters(1).await;
    let header = |name| letters[0].header(name);
    assert_eq!(
        (header("Mesh-Cause"), header("Mesh-Subject"), header("Mesh-Stream")),
        (Some("undeliverable"), Some("nowhere.x"), Some("KV_mesh"))
    );
    let said = mesh.jetmesh(&["check", "--connect"]).await.1;
    assert!(said.contains("schedule lost: no stream captures `nowhere.x`"), "{said}");
    mesh.add_stream(
        "NOWHERE",
        &["nowhere.>"],
        async_nats::jetstream::stream::RetentionPolicy::Limits,
    )
    .await;
    let (_, id) = letters[0]
        .subject
        .split_once("KV_mesh.")
        .expect("it lies under its ledger");
    mesh.jetmesh_ok(&["dlq", "replay", id]).await;
    let found = mesh.messages("NOWHERE", ">").await;
    assert_eq!((found.len(), &found[0].payload[..]), (1, &b"p"[..]));
}

#[tokio::test]
async fn a_person_pauses_resumes_runs_and_backfills_a_schedule() {
    let (mesh, _host) = Mesh::start(ticking("every = \"1s\"")).await;
    wait_dues(&mesh, "events.tick", 1).await;
    let said = mesh.jetmesh_ok(&["schedule", "pause", "tick"]).await;
    assert!(said.contains("schedule tick is paused"), "{said}");
    assert!(
        mesh.jetmesh_ok(&["schedule", "pause", "tick"])
            .await
            .contains("already")
    );
    let paused = state(&mesh, "tick").await;
    assert_eq!(paused["next"], Value::Null);
    let before = wait_dues(
        &mesh,
        "events.tick",
        paused["runs"].as_u64().expect("a number") as usize,
    )
    .await;
    assert_fits(&mesh, "schedule", &mesh.jetmesh_ok(&["schedule", "ls", "--json"]).await).await;
    let shown: Value =
        serde_json::from_str(&object(&mesh, &["schedule", "show", "tick", "--json"]).await).expect("JSON");
    assert_eq!(
        (&shown["state"], &shown["when"]),
        (&json!("paused"), &json!("every 1s"))
    );
    let text = mesh.jetmesh_ok(&["schedule", "show", "tick"]).await;
    let (_, place) = text
        .split_once("jetmesh trace ")
        .expect("it says where its last event is");
    let place = place.lines().next().expect("a line");
    assert_eq!(shown["last_place"], place);
    let traced = mesh.jetmesh_ok(&["trace", place]).await;
    assert!(traced.contains("events.tick"), "{traced}");
    let next = mesh
        .jetmesh_ok(&["schedule", "next", "tick", "-n", "3", "--json"])
        .await;
    assert_fits(&mesh, "schedule-next", &next).await;
    assert_eq!(next.lines().count(), 3);

    let said = mesh
        .jetmesh_ok(&["schedule", "run", "tick", "--at", "2030-01-01T00:00:00Z"])
        .await;
    assert!(said.contains("emitted schedule.tick.20300101T000000Z."), "{said}");
    let period = [
        "--from",
        "2030-01-01T00:00:00Z",
        "--to",
        "2030-01-01T00:04:59Z",
        "--yes",
    ];
    mesh.jetmesh_ok(&[&["schedule", "backfill", "tick"][..], &period[..]].concat())
        .await;
    let dues = wait_dues(&mesh, "events.tick", before.len() + 301).await;
    assert_eq!(dues.len(), before.len() + 301, "paused: nothing but what was asked for");
    let extra = &dues[before.len()..];
    assert_eq!((extra[0], extra[1], extra[300] - extra[1]), (extra[0], extra[0], 299));

    let said = mesh.jetmesh_ok(&["schedule", "resume", "tick"]).await;
    assert!(said.contains("is resumed; it is due next at 20"), "{said}");
    wait_dues(&mesh, "events.tick", dues.len() + 2).await;
    assert_eq!(state(&mesh, "tick").await["missed"], 0);
    for (args, why) in [
        (
            ["schedule", "pause", "nobody"],
            "there is no schedule nobody: the configuration has tick",
        ),
        (["schedule", "show", "nobody"], "there is no schedule nobody"),
        (["schedule", "next", "nobody"], "there is no schedule nobody"),
    ] {
        let (status, _, stderr) = mesh.jetmesh(&args).await;
        assert!(!status.success() && stderr.contains(why), "{stderr}");
    }
}

#[tokio::test]
async fn check_names_what_is_wrong_with_a_schedule_and_shows_when_a_good_one_is_due() {
    let good = ticking("cron = \"0 2 * * *\"\nzone = \"Asia/Shanghai\"\nstart = \"2040-06-01T00:00:00Z\"");
    let mesh = Mesh::new(good).await;
    let said = mesh.jetmesh_ok(&["check"]).await;
    let line = "tick: a schedule; 0 2 * * * (Asia/Shanghai), due next: 2040-06-01T18:00:00Z, 2040-06-02T18:00:00Z, \
                2040-06-03T18:00:00Z";
    assert!(said.contains(line), "{said}");
    for (lines, wanted) in [
        (
            "cron = \"0 25 * * *\"",
            "schedules.tick.cron: \"0 25 * * *\": `25` in the hour field is not 0-23",
        ),
        (
            "cron = \"0 2 * * *\"\nzone = \"Asia/Shanghay\"",
            "schedules.tick.zone: \"Asia/Shanghay\": it is not a time zone",
        ),
        (
            "every = \"500ms\"",
            "schedules.tick.every: 500ms is not between 1s and a year",
        ),
        (
            "every = \"1500ms\"",
            "schedules.tick.every: 1s 500ms is no whole number of seconds",
        ),
        ("at = \"tomorrow\"", "schedules.tick.at: \"tomorrow\" is not a time"),
        ("", "schedules.tick: it is never due"),
        (
            "every = \"1m\"\nat = \"2030-01-01T00:00:00Z\"",
            "schedules.tick: it has every and at",
        ),
        (
            "every = \"1m\"\nzone = \"UTC\"",
            "schedules.tick.zone: it goes with cron only",
        ),
        (
            "every = \"10s\"\njitter = \"10s\"",
            "schedules.tick.jitter: 10s is not below the period",
        ),
        (
            "every = \"1m\"\nheaders = { Nats-X = \"1\" }",
            "schedules.tick.headers.Nats-X: `Nats-X`: headers that begin",
        ),
        (
            "every = \"1m\"\ncatch_up = \"some\"",
            "schedules.tick.catch_up: \"some\" is not one of",
        ),
        (
            "every = \"1m\"\nstart = \"2030-01-02T00:00:00Z\"\nend = \"2030-01-01T00:00:00Z\"",
            "schedules.tick.end: 2030-01-01T00:00:00.000Z is before start",
        ),
        ("every = \"1m\"\npace = 1", "schedules.tick.pace: unknown key"),
    ] {
        let mesh = Mesh {
            config: ticking(lines),
            ..Mesh::new(Config::probe()).await
        };
        let (status, _, stderr) = mesh.jetmesh(&["check"]).await;
        assert!(!status.success() && stderr.contains(wanted), "{lines}: {stderr}");
    }
    let past = Mesh {
        config: ticking("at = \"2020-01-01T00:00:00Z\""),
        ..mesh
    };
    let said = past.jetmesh_ok(&["check"]).await;
    assert!(
        said.contains("warning: schedules.tick: it is not due any more"),
        "{said}"
    );
}
