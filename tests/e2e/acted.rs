//! Each action of a person leaves a record: who, what, on what, why, by which command, and how it ended.

use serde_json::{Value, json};

use crate::console::wire::{log_in, post};
use crate::mesh::{Config, Mesh, says};
use crate::permissions::all_but;
use crate::schemas::assert_fits;
use crate::shop::OUTBOX;
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer, eventually, http};

async fn records(mesh: &Mesh, conditions: &[&str]) -> Vec<Value> {
    let text = mesh.jetmesh_ok(&[&["audit", "--json"], conditions].concat()).await;
    let line = |line: &str| serde_json::from_str(line).expect("each line is JSON");
    text.lines().map(line).collect()
}

/// A mesh in which each action finds something to do: dead letters, an event between two attempts, a schedule, a redrive, an outbox.
async fn ready() -> (Mesh, Host, Vec<String>) {
    let lines = "bucket = \"probe\"\nsubjects = [\"orders.probe\"]\npublish = [\"events.>\"]\nmax_attempts = 3";
    let config = Config::new()
        .handler("probe", &crate::support::modules::handler("probe"), lines)
        .table("[schedules.tick]\nsubject = \"events.tick\"\nevery = \"1h\"")
        .table("[redrive]\nevery = \"1h\"")
        .table(OUTBOX);
    let mesh = Mesh::new(config).await;
    mesh.jetmesh_ok(&["outbox", "init", "orders", "--yes"]).await;
    let host = mesh.host(&[]).await;
    for code in ["one", "two", "three"] {
        let reject = json!({ "op": "reject", "code": code, "message": "never" });
        mesh.order(reject).await;
    }
    let letters = mesh.wait_letters(3).await;
    let later = json!({ "op": "retry", "code": "later", "message": "busy", "delay_ms": 3_600_000 });
    mesh.order(later).await;
    for key in ["schedule.tick", "redrive.probe"] {
        eventually("it to be armed", SOON, async || mesh.value("mesh", key).await).await;
    }
    let ids = letters.iter().map(|letter| letter.letter_id().to_owned()).collect();
    (mesh, host, ids)
}

#[tokio::test]
async fn each_action_leaves_one_record_with_who_what_why_and_how_it_ended() {
    let (mesh, host, ids) = ready().await;
    let file = |name: &str| mesh.dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (export, payload) = (file("export.jsonl"), file("payload"));
    std::fs::write(&payload, json!({ "op": "ok" }).to_string()).expect("the test's folder is writable");
    mesh.jetmesh_ok(&["dlq", "export", "--all", "--output", &export]).await;
    let groups = mesh.jetmesh_ok(&["dlq", "ls", "--group", "--json"]).await;
    let group: Value = serde_json::from_str(groups.lines().next().expect("a group")).expect("JSON");
    let group = group["group"].as_str().expect("an id").to_owned();
    let retrying = eventually("an attempt to fail", SOON, async || {
        let list = mesh.jetmesh_ok(&["retrying", "--json"]).await;
        Some(serde_json::from_str::<Value>(list.lines().next()?).expect("JSON")["id"].clone())
    });
    let retrying = retrying.await.as_str().expect("an id").to_owned();
    let (first, second) = (ids[0].as_str(), ids[1].as_str());
    let emit = json!({ "op": "emit_later", "subject": "events.later", "payload": 1, "after_ms": 3_600_000 });
    mesh.order(json!([emit, emit])).await;
    let delayed = eventually("events to be delayed", SOON, async || {
        let delayed = crate::delayed_orders::listed(&mesh).await;
        (delayed.len() == 2).then_some(delayed)
    });
    let delayed = delayed.await;
    let module = crate::support::modules::handler("probe")
        .to_str()
        .expect("UTF-8")
        .to_owned();
    let seed = file("seed");
    std::fs::write(&seed, nkeys::KeyPair::new_user().seed().expect("it has one"))
        .expect("the test's folder is writable");
    mesh.jetmesh_ok(&["modules", "push", &module, "--as", "other"]).await;
    // The command, what of it is recorded as done, and with which exit code it ends.
    let commands: [(&str, &[&str], Value, i32); 28] = [
        (
            "pause",
            &["pause", "probe", "--reason", "the stock is counted"],
            json!({ "paused": 1 }),
            0,
        ),
        ("resume", &["resume", "probe"], json!({ "resumed": 1 }), 0),
        ("dlq-note", &["dlq", "note", &group, "ticket 12"], json!({}), 0),
        (
            "dlq-edit",
            &["dlq", "edit", first, "--payload", &payload, "--reason", "typo"],
            json!({ "edited": 1 }),
            0,
        ),
        (
            "dlq-replay",
            &["dlq", "replay", "--code", "one", "--yes"],
            json!({ "succeeded": 1 }),
            0,
        ),
        (
            "dlq-discard",
            &["dlq", "discard", second, "--reason", "it's old", "--yes"],
            json!({ "discarded": 1 }),
            0,
        ),
        (
            "dlq-import",
            &["dlq", "import", &export],
            json!({ "already there": 1, "resolved": 2 }),
            0,
        ),
        (
            "retrying-now",
            &["retrying", "now", &retrying],
            json!({ "asked for": 1 }),
            0,
        ),
        (
            "retrying-give-up",
            &["retrying", "give-up", "--all", "--yes"],
            json!({}),
            0,
        ),
        (
            "delayed-now",
            &["delayed", "now", &delayed[0]],
            json!({ "due now": 1 }),
            0,
        ),
        (
            "delayed-cancel",
            &["delayed", "cancel", &delayed[1], "--reason", "sold", "--yes"],
            json!({ "cancelled": 1 }),
            0,
        ),
        (
            "schedule-pause",
            &["schedule", "pause", "tick"],
            json!({ "steps": 1 }),
            0,
        ),
        (
            "schedule-resume",
            &["schedule", "resume", "tick"],
            json!({ "steps": 1 }),
            0,
        ),
        ("schedule-run", &["schedule", "run", "tick"], json!({ "emitted": 1 }), 0),
        (
            "schedule-backfill",
            &[
                "schedule",
                "backfill",
                "tick",
                "--from",
                "2026-01-01T00:00:00Z",
                "--to",
                "2026-01-01T03:00:00Z",
                "--yes",
            ],
            json!({ "emitted": 4 }),
            0,
        ),
        ("redrive-pause", &["redrive", "pause"], json!({ "steps": 1 }), 0),
        (
            "redrive-resume",
            &["redrive", "resume", "probe"],
            json!({ "steps": 1 }),
            0,
        ),
        (
            "outbox-pause",
            &["outbox", "pause", "orders", "--reason", "x"],
            json!({ "paused": 1 }),
            0,
        ),
        (
            "outbox-resume",
            &["outbox", "resume", "orders"],
            json!({ "resumed": 1 }),
            0,
        ),
        ("outbox-skip", &["outbox", "skip", "orders", "7", "--yes"], json!({}), 1),
        (
            "modules-push",
            &["modules", "push", &module, "--as", "probe", "--version", "1"],
            json!({ "changed": 1 }),
            0,
        ),
        (
            "modules-sign",
            &["modules", "sign", "probe", "1", "--key", &seed],
            json!({ "changed": 1 }),
            0,
        ),
        (
            "modules-promote",
            &["modules", "promote", "probe", "1", "--note", "ticket 7"],
            json!({ "changed": 1 }),
            0,
        ),
        (
            "modules-hold",
            &["modules", "hold", "probe"],
            json!({ "changed": 1 }),
            0,
        ),
        (
            "modules-resume",
            &["modules", "resume", "probe"],
            json!({ "changed": 1 }),
            0,
        ),
        (
            "modules-rollback",
            &["modules", "rollback", "probe", "1"],
            json!({ "unchanged": 1 }),
            0,
        ),
        (
            "modules-prune",
            &["modules", "prune", "other", "--keep", "0", "--yes"],
            json!({ "removed": 1 }),
            0,
        ),
        ("reset", &["reset", "probe", "--yes"], json!(null), 0),
    ];
    let url = mesh.server.url();
    for (action, words, counts, code) in &commands {
        if *action == "reset" {
            host.stop().await;
        }
        let secret = ["--user", "hunter2", "--password", "hunter2", "-s", &url];
        let (status, _, stderr) = mesh.jetmesh(&[*words, &secret].concat()).await;
        assert_eq!(status.code(), Some(*code), "{action}: {stderr}");
        let all = records(&mesh, &[]).await;
        let last = all.last().expect("there is a record");
        assert_eq!(last["action"], *action, "{last:#}");
        assert_eq!(last["from"], "cli");
        // This server asks for no credentials: it would repeat any name.
        assert_eq!(last["user"], Value::Null, "{last:#}");
        // The name of the machine's user is a part of it.
        assert!(
            last["by"]
                .as_str()
                .is_some_and(|by| by.starts_with("hunter2 (") && by.contains('@')),
            "{last:#}"
        );
        let command = last["command"].as_str().expect("a command");
        assert!(
            command.starts_with(&format!("jetmesh {} {}", words[0], words[1])),
            "{command}"
        );
        assert!(
            !command.contains("hunter2") && !command.contains("nats://"),
            "{command}"
        );
        let ended = &last["end"];
        assert_eq!(ended["ok"], *code == 0, "{last:#}");
        if !counts.is_null() && *action != "retrying-give-up" {
            assert_eq!(ended["counts"], *counts, "{last:#}");
        }
    }
    // The first was for what is pruned.
    assert_eq!(records(&mesh, &[]).await.len(), commands.len() + 1, "each has one");
    // All that a command can do is in this list; stopping a replay and rehearsing on a viewer's module are orders of the console.
    let help = mesh.jetmesh_ok(&["audit", "--help"]).await;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, names) = help
        .split_once("[possible values: ")
        .expect("the help names the actions");
    let mut names: Vec<&str> = names.split(']').next().expect("an end").split(", ").collect();
    names.retain(|name| !["replay-stop", "dlq-rehearse"].contains(name));
    names.sort_unstable();
    let mut taken: Vec<&str> = commands.iter().map(|(action, ..)| *action).collect();
    taken.sort_unstable();
    assert_eq!(taken, names);
    let [discard] = &records(
        &mesh,
        &[
            "--action",
            "dlq-discard",
            "--on",
            "probe",
            "--by",
            "HUNTER2",
            "--since",
            "1h",
        ],
    )
    .await[..] else {
        panic!("one was discarded");
    };
    assert_eq!(
        (&discard["reason"], &discard["what"], &discard["on"]),
        (&json!("it's old"), &json!(second), &json!(["probe"]))
    );
    assert!(records(&mesh, &["--by", "another"]).await.is_empty());
    assert_eq!(records(&mesh, &["--limit", "2"]).await.len(), 2);
    assert_fits(&mesh, "audit", &mesh.jetmesh_ok(&["audit", "--json"]).await).await;
    let table = mesh.jetmesh_ok(&["audit", "--on", "probe"]).await;
    assert!(table.contains(", as claimed"), "{table}");
    assert!(
        table.contains("the stock is counted") && table.contains("record(s), back to "),
        "{table}"
    );
    // No client changes or removes a record, also one that may do all else.
    let stream = mesh.js.get_stream("MESH_AUDIT").await.expect("it is there");
    assert!(stream.delete_message(1).await.is_err() && stream.purge().await.is_err());
}

#[tokio::test]
async fn an_action_that_cannot_be_recorded_is_not_taken() {
    let server = NatsServer::start_with(&all_but("$MESH.audit.>")).await;
    let config = Config::probe().nats("user = \"host\"").nats("password = \"pw\"");
    let mut mesh = Mesh::over(server, config).await;
    let host = mesh.host(&[("JETMESH_ADMIN__LISTEN", "127.0.0.1:0")]).await;
    let address = http::address(&host.wait_for_line(says(&["the admin address answers"]), SOON).await);
    let (status, _, stderr) = mesh.jetmesh(&["pause", "probe"]).await;
    assert_eq!(status.code(), Some(4), "{stderr}");
    let told = "nothing is done, because it cannot be recorded in stream MESH_AUDIT: this user is not allowed to publish to \
                `$MESH.audit.pause.probe.";
    assert!(stderr.contains(told), "{stderr}");
    let (cookie, csrf) = log_in(address, &json!({ "way": "user", "user": "host", "password": "pw" })).await;
    let refused = post(address, "pause", &[&cookie, &csrf], &json!({ "handler": "probe" })).await;
    assert!(
        refused.status >= 400 && refused.body.contains("because it cannot be recorded"),
        "{refused:?}"
    );
    assert_eq!(mesh.value("mesh", "paused").await, None);
    // Who may, also makes the stream if it is not there.
    mesh.server.restart_with(&all_but("nothing.>")).await;
    mesh.js.delete_stream("MESH_AUDIT").await.expect("it goes");
    mesh.jetmesh_ok(&["pause", "probe"]).await;
    let paused = records(&mesh, &[]).await;
    assert!(
        paused.len() == 1 && paused[0]["end"]["counts"]["paused"] == 1,
        "{paused:?}"
    );
    // What a viewer orders is recorded with the viewer's name, and shown.
    let (cookie, csrf) = log_in(address, &json!({ "way": "user", "user": "host", "password": "pw" })).await;
    let resumed = post(address, "resume", &[&cookie, &csrf], &json!({ "handler": "probe" })).await;
    assert_eq!(resumed.status, 200, "{resumed:?}");
    let all = records(&mesh, &[]).await;
    let told = ["by", "user", "from", "command"].map(|name| all[1][name].as_str());
    let wanted = ["host", "host", "console", "jetmesh resume probe"];
    assert_eq!(told, wanted.map(Some));
    assert_eq!(
        all[0]["user"], "host",
        "the server has authenticated who has paused by command"
    );
    let page = crate::console::wire::get(address, "audit?by=host", &cookie)
        .await
        .json();
    assert_eq!(
        (&page["records"][0], &page["ended"][0]),
        (&all[1], &json!("1 resumed")),
        "{page:#}"
    );
}
