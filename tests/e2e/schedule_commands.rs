//! What a person does with schedules: the configuration, and the commands.

use std::time::Duration;

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, says};
use crate::schemas::{assert_fits, object};
use crate::support::wait::SOON;

use crate::ticking::{state, ticking, wait_dues, wait_state, with_schedule};

#[tokio::test]
async fn an_edited_schedule_is_armed_again_a_removed_one_is_disarmed_and_one_that_comes_back_goes_on() {
    let (mesh, host) = Mesh::start(ticking("every = \"1h\"")).await;
    let first = wait_state(&mesh, "tick", |state| !state["next"].is_null()).await;
    host.stop().await;

    // The same configuration changes nothing.
    let host = mesh.host(&[]).await;
    host.wait_for_line(says(&["host started"]), SOON).await;
    host.stop().await;
    assert_eq!(state(&mesh, "tick").await["n"], first["n"]);

    let edited = ticking("every = \"1s\"");
    let host = mesh.host_of(&edited, &mesh.server.url(), &[]).await;
    wait_dues(&mesh, "events.tick", 2).await;
    host.stop().await;

    // A configuration without the table leaves all schedules alone. One with another schedule disarms this one.
    let silent = mesh.host_of(&Config::probe(), &mesh.server.url(), &[]).await;
    wait_dues(&mesh, "events.tick", 3).await;
    silent.stop().await;
    let other = with_schedule(Config::probe(), "other", "every = \"1h\"");
    let host = mesh.host_of(&other, &mesh.server.url(), &[]).await;
    host.wait_for_line(says(&["schedule disarmed", "tick"]), SOON).await;
    let gone = state(&mesh, "tick").await;
    assert_eq!(gone["next"], Value::Null);
    let mesh_of_other = Mesh { config: other, ..mesh };
    let status = mesh_of_other.jetmesh(&["status"]).await.1;
    assert!(status.contains("schedule tick is disarmed: since "), "{status}");
    let mesh = mesh_of_other;
    host.stop().await;

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
    let id = shown["last_event"].as_str().expect("it names its last event");
    let traced = mesh.jetmesh_ok(&["trace", id]).await;
    assert!(
        traced.contains("events.tick") && traced.contains("no handler of the configuration reads it"),
        "{traced}"
    );
    let (status, _, said) = mesh.jetmesh(&["trace", "schedule.tick.20300101T000000Z.0"]).await;
    assert!(
        !status.success() && said.contains("no event in a stream of the configuration has"),
        "{said}"
    );
    let backwards = ["--from", "2030-01-02T00:00:00Z", "--to", "2030-01-01T00:00:00Z"];
    let backfill = [&["schedule", "backfill", "tick"][..], &backwards].concat();
    let (status, _, said) = mesh.jetmesh(&backfill).await;
    assert!(
        status.code() == Some(2) && said.contains("is later than --to"),
        "{said}"
    );
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
            ["schedule", "pause", "missing"],
            "there is no schedule missing: the configuration has tick",
        ),
        (["schedule", "show", "missing"], "there is no schedule missing"),
        (["schedule", "next", "missing"], "there is no schedule missing"),
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
