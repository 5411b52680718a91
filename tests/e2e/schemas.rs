//! The published JSON schemas against what the commands print.

use serde_json::{Value, json};

use crate::asked::ask;
use crate::mesh::{Config, Mesh};
use crate::rollout;
use crate::shop::OUTBOX;
use crate::support::wait::SOON;
use crate::support::{Signal, eventually, modules};

/// The schema, and wherever it says what an object is made of, that it is made of nothing else.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.values_mut().for_each(strict);
            if object.contains_key("properties") && !object.contains_key("additionalProperties") {
                object.insert("unevaluatedProperties".to_owned(), json!(false));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(strict),
        _ => {}
    }
}

/// Holds every line of an output against the published schema of that name.
pub async fn assert_fits(mesh: &Mesh, name: &str, output: &str) {
    let mut schema: Value = serde_json::from_str(&mesh.jetmesh_ok(&["schema", name]).await).expect("JSON");
    assert!(schema["title"].is_string(), "{name} says what it is of");
    strict(&mut schema);
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.enable_format_assertions();
    compiler.add_resource("schema.json", schema).expect("its own name");
    let compiled = compiler.compile("schema.json", &mut schemas).expect("it is a schema");
    assert!(!output.is_empty(), "{name}");
    for line in output.lines() {
        let line: Value = serde_json::from_str(line).expect("each line is JSON");
        if let Err(error) = schemas.validate(&line, compiled) {
            panic!("{name}: {error:#}\n{line:#}");
        }
    }
}

/// What a command prints as one object over several lines, on one.
pub async fn object(mesh: &Mesh, args: &[&str]) -> String {
    let text = mesh.jetmesh_ok(args).await;
    let object: Value = serde_json::from_str(&text).expect("one object");
    object.to_string()
}

/// The status, which ends with another code where something does not serve.
async fn status(mesh: &Mesh) -> String {
    let (_, text, stderr) = mesh.jetmesh(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{stderr}"));
    status.to_string()
}

/// What the commands of the registry print.
async fn registry(mesh: &Mesh) -> Vec<(&'static str, String)> {
    let module = modules::handler("probe");
    let module = module.to_str().expect("UTF-8");
    let push = [
        "modules",
        "push",
        module,
        "--as",
        "probe",
        "--version",
        "1",
        "--label",
        "a=b",
        "--json",
    ];
    let mut outputs = vec![("module-push", mesh.jetmesh_ok(&push).await)];
    let changes: [&[&str]; 3] = [
        &["promote", "probe", "1"],
        &["hold", "probe", "--note", "x"],
        &["resume", "probe"],
    ];
    for change in changes {
        let args = [&["modules"], change, &["--json"]].concat();
        outputs.push(("module-change", mesh.jetmesh(&args).await.1));
    }
    for command in ["ls", "show"] {
        let args = ["modules", command, "probe", "--json"];
        outputs.push(("module-version", object(mesh, &args).await));
    }
    let history = ["modules", "history", "probe", "--json"];
    outputs.push(("module-history", mesh.jetmesh_ok(&history).await));
    let prune = ["modules", "prune", "probe", "--dry-run", "--json"];
    outputs.push(("module-prune", mesh.jetmesh_ok(&prune).await));
    outputs
}

#[tokio::test]
async fn what_is_printed_as_json_is_as_the_published_schemas_say() {
    let lines = "bucket = \"probe\"\npublish = [\"events.>\", \"nowhere.*\"]\nmax_attempts = 2";
    let schedule = "[schedules.tick]\nsubject = \"events.tick\"\nevery = \"1h\"";
    let config = Config::new()
        .handler("probe", &modules::handler("probe"), lines)
        .table(schedule)
        .table("[redrive]\nevery = \"1h\"");
    let (mut mesh, host) = Mesh::start(config).await;
    let reject = json!({ "op": "reject", "code": "a", "message": "never" });
    mesh.order(reject.clone()).await;
    mesh.order(json!({ "op": "panic", "message": "no price" })).await;
    let text = reject.to_string();
    mesh.publish_with("orders.probe", &[("Probe", &text)], b"\xff".to_vec())
        .await;
    let letters = mesh.wait_letters(3).await;
    let file = mesh.dir.path().join("letters.jsonl");
    let file = file.to_str().expect("UTF-8");
    let mut outputs: Vec<(&str, String)> = vec![
        ("ls", mesh.jetmesh_ok(&["dlq", "ls", "--json"]).await),
        ("group", mesh.jetmesh_ok(&["dlq", "ls", "--group", "--json"]).await),
        ("export", mesh.jetmesh_ok(&["dlq", "export", "--all"]).await),
    ];
    for letter in &letters {
        let id = letter.letter_id();
        outputs.push(("show", object(&mesh, &["dlq", "show", id, "--json"]).await));
        outputs.push(("trace", object(&mesh, &["trace", id, "--json"]).await));
    }
    std::fs::write(file, "bad\n").expect("the test's folder is writable");
    outputs.push(("import", mesh.jetmesh(&["dlq", "import", file, "--json"]).await.1));
    let effects = mesh
        .order(json!([
            { "op": "set", "key": "a", "value": "x" },
            { "op": "delete", "key": "b" },
            { "op": "emit", "subject": "events.one", "payload": 1, "headers": { "A": "b" } },
            { "op": "emit_later", "subject": "events.later", "payload": 2, "after_ms": 3_600_000 },
            { "op": "emit", "subject": "nowhere.x", "payload": 3 },
            { "op": "need", "key": "now" },
        ]))
        .await;
    mesh.wait_letters(4).await;
    mesh.put("probe", "now", "yes").await;
    outputs.push((
        "rehearse",
        mesh.jetmesh(&["dlq", "rehearse", "--all", "--json"]).await.1,
    ));
    mesh.order(json!([
        { "op": "emit", "subject": "events.one", "payload": 1 },
        { "op": "emit_later", "subject": "events.later", "payload": 2, "after_ms": 3_600_000 },
        { "op": "emit", "subject": "nowhere.x", "payload": 3 },
    ]))
    .await;
    mesh.wait_letters(5).await;
    outputs.push((
        "trace",
        object(&mesh, &["trace", &format!("ORDERS:{}", effects + 1), "--json"]).await,
    ));
    let question = json!({ "id": format!("ORDERS:{}", effects + 1) });
    outputs.push(("trace-answer", ask(&mesh, &question).await.1.to_string()));
    outputs.push(("trace-request", question.to_string()));
    let payload = mesh.dir.path().join("payload");
    std::fs::write(&payload, text.replace("never", "still not")).expect("the test's folder is writable");
    let payload = payload.to_str().expect("UTF-8");
    let edit = ["dlq", "edit", letters[0].letter_id(), "--payload", payload, "--json"];
    outputs.push(("edit", mesh.jetmesh_ok(&edit).await));
    let groups: Value = serde_json::from_str(outputs[1].1.lines().next().unwrap_or_default()).expect("JSON");
    let note = [
        "dlq",
        "note",
        groups["group"].as_str().expect("an id"),
        "ticket 12",
        "--json",
    ];
    outputs.push(("note", mesh.jetmesh_ok(&note).await));
    let dry_run = ["dlq", "replay", "--all", "--dry-run", "--json"];
    outputs.push(("dry-run", object(&mesh, &dry_run).await));
    let replay = mesh
        .jetmesh(&["dlq", "replay", letters[0].letter_id(), "--yes", "--json"])
        .await;
    outputs.push(("replay", replay.1));
    let later = mesh
        .order(json!({ "op": "retry", "code": "later", "message": "busy", "delay_ms": 60_000 }))
        .await;
    let retrying = eventually("an attempt to fail", SOON, async || {
        let list = mesh.jetmesh_ok(&["retrying", "--json"]).await;
        (!list.is_empty()).then_some(list)
    });
    outputs.push(("retrying", retrying.await));
    outputs.push((
        "trace",
        object(&mesh, &["trace", &format!("ORDERS:{later}"), "--json"]).await,
    ));
    let question = json!({ "id": format!("ORDERS:{later}") });
    outputs.push(("trace-answer", ask(&mesh, &question).await.1.to_string()));
    let discard = mesh
        .jetmesh(&["dlq", "discard", letters[0].letter_id(), "probe.k.9", "--yes", "--json"])
        .await;
    outputs.push(("discard", discard.1));
    outputs.push(("schedule", mesh.jetmesh_ok(&["schedule", "ls", "--json"]).await));
    outputs.push((
        "schedule-next",
        mesh.jetmesh_ok(&["schedule", "next", "tick", "--json"]).await,
    ));
    mesh.order(json!({ "op": "emit_later", "subject": "events.later", "payload": 1, "after_ms": 3_600_000 }))
        .await;
    let delayed = eventually("an event to be delayed", SOON, async || {
        let list = mesh.jetmesh_ok(&["delayed", "--json"]).await;
        (!list.is_empty()).then_some(list)
    });
    outputs.push(("delayed", delayed.await));
    let act = ["delayed", "cancel", "probe.k.9.0", "--yes", "--json"];
    outputs.push(("delayed-acted", mesh.jetmesh(&act).await.1));
    let act = ["retrying", "now", "--handler", "probe", "--yes", "--json"];
    outputs.push(("retrying-acted", mesh.jetmesh_ok(&act).await));
    for command in ["pause", "resume"] {
        outputs.push((command, mesh.jetmesh_ok(&[command, "probe", "--json"]).await));
    }
    outputs.push(("audit", mesh.jetmesh_ok(&["audit", "--json"]).await));
    outputs.push(("redrive", mesh.jetmesh_ok(&["redrive", "status", "--json"]).await));
    outputs.push(("status", status(&mesh).await));
    mesh.config = mesh.config.clone().table(OUTBOX);
    outputs.push(("outbox", mesh.jetmesh(&["outbox", "status", "--json"]).await.1));
    outputs.push(("trace", object(&mesh, &["trace", "--key", "op=retry", "--json"]).await));
    outputs.extend(registry(&mesh).await);
    outputs.push(("module-why", rollout::told_as_json().await));
    outputs.push(("module-rehearse", rollout::rehearsal_as_json().await));
    host.signal(Signal::KILL);
    let waits = mesh.order(json!({ "op": "ok" })).await;
    let waits = format!("ORDERS:{waits}");
    outputs.push(("trace", object(&mesh, &["trace", &waits, "--json"]).await));
    mesh.remove_consumer("ORDERS", "probe").await;
    outputs.push(("trace", object(&mesh, &["trace", &waits, "--json"]).await));
    outputs.push(("status", status(&mesh).await));

    let mut names: Vec<&str> = outputs.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    let list = mesh.jetmesh_ok(&["schema"]).await;
    let mut listed: Vec<&str> = list.lines().filter_map(|line| line.split(' ').next()).collect();
    listed.sort_unstable();
    assert_eq!(listed, names, "each schema is held against real output");
    for (name, output) in outputs {
        assert_fits(&mesh, name, &output).await;
    }
    let (status, _, stderr) = mesh.jetmesh(&["schema", "no-such"]).await;
    assert_eq!(status.code(), Some(2));
    assert!(
        stderr.starts_with("error: there is no schema no-such; there are status, "),
        "{stderr}"
    );
}
