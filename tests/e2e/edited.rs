//! The payload of a dead letter that a person has corrected, and what people note about groups.

use std::io::Write as _;

use async_nats::jetstream::stream::RetentionPolicy;
use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, PATIENT};
use crate::schemas::assert_fits;
use crate::support::server::Options;
use crate::support::{cli, eventually, modules};

/// A probe that gives an event up at its first failure, and stores what follows for each event it has done.
fn config() -> Config {
    Config::probe_with("max_attempts = 1")
}

fn broken() -> Value {
    json!([{ "op": "add", "key": "sold", "by": 1 }, { "op": "reject", "code": "bad", "message": "no quantity" }])
}

fn corrected() -> String {
    let steps =
        json!([{ "op": "add", "key": "sold", "by": 7 }, { "op": "emit", "subject": "events.sold", "payload": 7 }]);
    json!({ "do": steps }).to_string()
}

/// The file, in the folder of the mesh.
fn file(mesh: &Mesh, text: &[u8]) -> String {
    let path = mesh.dir.path().join("payload");
    let mut file = std::fs::File::create(&path).expect("the test's folder is writable");
    file.write_all(text).expect("it can be written");
    path.to_str().expect("a temporary folder's path is UTF-8").to_owned()
}

async fn shown(mesh: &Mesh, id: &str) -> Value {
    let text = mesh.jetmesh_ok(&["dlq", "show", id, "--json"]).await;
    serde_json::from_str(&text).expect("JSON")
}

/// The versions of a payload that are kept, by the ends of their subjects.
async fn versions(mesh: &Mesh, letter: &str) -> Vec<(String, String)> {
    let found = mesh.messages("MESH_DEAD", &format!("{letter}.edit.*")).await;
    let version = |found: &crate::mesh::Found| {
        let number = found.subject.rsplit('.').next().unwrap_or_default().to_owned();
        (number, String::from_utf8_lossy(&found.payload).into_owned())
    };
    found.iter().map(version).collect()
}

#[tokio::test]
async fn a_corrected_payload_is_replayed_as_the_same_event_and_every_version_and_its_author_are_kept() {
    let (mesh, _host) = Mesh::start(config()).await;
    mesh.order(broken()).await;
    let letter = mesh.wait_letters(1).await.remove(0);
    let id = letter.letter_id();

    let typo = file(&mesh, br#"[{ "op": "reject" "#);
    let (status, _, stderr) = mesh.jetmesh(&["dlq", "edit", id, "--payload", &typo]).await;
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("its payload is JSON, and the new one is not: EOF while parsing")
            && stderr.contains("--not-json"),
        "{stderr}"
    );
    let first = String::from_utf8_lossy(&letter.payload).into_owned();
    let same = file(&mesh, first.as_bytes());
    let said = mesh.jetmesh_ok(&["dlq", "edit", id, "--payload", &same]).await;
    assert!(said.ends_with("is not edited: the payload is the same\n"), "{said}");
    assert_eq!(mesh.letters().await[0].sequence, letter.sequence, "nothing was written");
    assert_eq!(versions(&mesh, &letter.subject).await, []);

    // First a wrong one, which a rehearsal shows, and then the right one.
    let reason = ["--reason", "the shop sent no quantity"];
    let wrong = json!({ "op": "reject", "code": "worse", "message": "still none" }).to_string();
    let path = file(&mesh, wrong.as_bytes());
    let edit = mesh
        .jetmesh_ok(&[&["dlq", "edit", id, "--payload", &path, "--json"], &reason[..]].concat())
        .await;
    assert_fits(&mesh, "edit", &edit).await;
    let rehearsed = mesh.jetmesh(&["dlq", "rehearse", id]).await;
    assert!(
        rehearsed.1.contains("worse"),
        "the handler is given the new payload: {rehearsed:?}"
    );
    let failed = mesh.jetmesh(&["dlq", "replay", id]).await;
    assert_eq!(failed.0.code(), Some(1), "{failed:?}");
    let path = file(&mesh, corrected().as_bytes());
    let said = mesh
        .jetmesh_ok(&[&["dlq", "edit", id, "--payload", &path], &reason[..]].concat())
        .await;
    let sizes = format!("{} bytes before, {} bytes now", wrong.len(), corrected().len());
    assert!(said.contains(&sizes), "{said}");

    let told = shown(&mesh, id).await;
    assert_fits(&mesh, "show", &told.to_string()).await;
    let edits = told["edits"].as_array().expect("a list");
    assert_eq!(edits.len(), 2, "{told:#}");
    for edit in edits {
        assert_eq!(edit["reason"], "the shop sent no quantity");
        assert!(edit["by"].as_str().is_some_and(|by| by.contains('@')), "{edit}");
    }
    assert_eq!(told["payload"]["data"], corrected().as_str());
    assert_eq!(
        told["dead_since"].as_str(),
        mesh.letters().await[0].header("Mesh-Dead-Since"),
        "it died when it died"
    );
    let page = mesh.jetmesh_ok(&["dlq", "show", id]).await;
    assert!(
        page.contains("EDITS of the payload") && page.contains(&format!("{}.edit.0", letter.subject)),
        "{page}"
    );

    mesh.jetmesh_ok(&["dlq", "replay", id]).await;
    mesh.wait_value("probe", "sold", "7").await;
    mesh.wait_emitted(1).await;
    let decisions = mesh.decisions("probe").await;
    let done = decisions.last().expect("it is decided");
    assert_eq!(
        (
            &done["verdict"],
            format!("probe.{}", done["event"].as_str().unwrap_or_default()).as_str()
        ),
        (&json!("done"), id),
        "the same event is done: {done}"
    );
    let version = |number: &str, text: &str| (number.to_owned(), text.to_owned());
    assert_eq!(
        versions(&mesh, &letter.subject).await,
        [version("0", &first), version("1", &wrong), version("2", &corrected()),],
        "all of them are there although the letter is resolved"
    );
    let traced = mesh.jetmesh_ok(&["trace", id]).await;
    assert!(
        traced.contains("its payload was edited at ") && traced.contains("the shop sent no quantity"),
        "the payload of the stream is not what was done: {traced}"
    );
    assert_eq!(
        traced.matches("its payload was edited at ").count(),
        2,
        "each edit is told: {traced}"
    );
    let traced = mesh.jetmesh_ok(&["trace", id, "--json"]).await;
    let traced: Value = serde_json::from_str(&traced).expect("JSON");
    assert_fits(&mesh, "trace", &traced.to_string()).await;
}

#[tokio::test]
async fn an_edit_never_gets_in_the_way_of_a_replay_and_says_so() {
    let (mesh, host) = Mesh::start(config()).await;
    mesh.order(broken()).await;
    let letter = mesh.wait_letters(1).await.remove(0);
    let id = letter.letter_id();
    mesh.jetmesh_ok(&["pause", "probe"]).await;
    mesh.publish_with(&format!("$MESH.replay.{id}"), &[("Mesh-Letter", &letter.subject)], "")
        .await;
    let path = file(&mesh, corrected().as_bytes());
    let (status, _, stderr) = mesh.jetmesh(&["dlq", "edit", id, "--payload", &path]).await;
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("a replay of it waits or runs"), "{stderr}");
    assert_eq!(mesh.letters().await[0].sequence, letter.sequence);
    mesh.jetmesh_ok(&["resume", "probe"]).await;
    mesh.wait_replayed().await;

    // What the editor of a person leaves is taken: laid out for reading, and on one line again.
    let script = mesh.dir.path().join("editor.sh");
    std::fs::write(
        &script,
        "#!/bin/sh\ncp \"$2\" \"$2.seen\"; mv \"$2.seen\" \"$1\"; sed -i 's/reject/ok/' \"$2\"\n",
    )
    .expect("the test's folder is writable");
    let seen = mesh.dir.path().join("seen");
    let editor = format!("sh {} {}", script.display(), seen.display());
    let config = mesh.write_config();
    let config = config.to_str().expect("UTF-8");
    let (status, stdout, stderr) = cli::jetmesh_with(
        mesh.dir.path(),
        &["dlq", "edit", id, "--config", config],
        &[("EDITOR", &editor)],
    )
    .await;
    assert!(status.success(), "{stdout}{stderr}");
    let seen = std::fs::read_to_string(seen).expect("the editor has seen it");
    assert!(seen.lines().count() > 5 && seen.ends_with("}\n"), "{seen}");
    let now = shown(&mesh, id).await;
    let first = String::from_utf8_lossy(&letter.payload).into_owned();
    assert_eq!(now["payload"]["data"], first.replace("reject", "ok"));
    let (status, _, stderr) = cli::jetmesh_with(
        mesh.dir.path(),
        &["dlq", "edit", id, "--config", config],
        &[("EDITOR", "false"), ("VISUAL", "")],
    )
    .await;
    assert_eq!(status.code(), Some(1));
    assert!(
        stderr.contains("the editor `false` ended with exit status: 1; nothing is edited"),
        "{stderr}"
    );

    // What does not fit a message with the letter's headers is not taken.
    let large = file(&mesh, &vec![b'1'; 1024 * 1024 - 100]);
    let (status, _, stderr) = mesh.jetmesh(&["dlq", "edit", id, "--payload", &large]).await;
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("the payload has 1048476 bytes, and "), "{stderr}");
    drop(host);

    // A payload may be empty. What a person has removed is not said to be there.
    let empty = file(&mesh, b"");
    let edit = ["dlq", "edit", id, "--payload", &empty, "--not-json"];
    mesh.jetmesh_ok(&[&edit[..], &["--reason", "two\nlines"]].concat())
        .await;
    let page = mesh.jetmesh_ok(&["dlq", "show", id]).await;
    assert!(
        page.contains("\nPAYLOAD, empty\n") && page.contains(&format!("{}.edit.0", letter.subject)),
        "{page}"
    );
    assert!(
        page.contains(": two lines; "),
        "a reason is one line of the list: {page}"
    );
    let versions = format!("{}.edit.*", letter.subject);
    let dead = mesh.js.get_stream("MESH_DEAD").await.expect("it is there");
    dead.purge().filter(versions).await.expect("they are removed");
    let page = mesh.jetmesh_ok(&["dlq", "show", id]).await;
    assert!(
        page.contains("before the first edit; its payload is not kept any more") && !page.contains(".edit."),
        "{page}"
    );
}

#[tokio::test]
async fn the_version_of_another_edit_is_never_overwritten() {
    let (mesh, _host) = Mesh::start(config()).await;
    mesh.order(broken()).await;
    let letter = mesh.wait_letters(1).await.remove(0);
    // Another person's command has stored its version, and has not put it into the letter yet, or never will.
    mesh.publish(&format!("{}.edit.1", letter.subject), "of another").await;
    let path = file(&mesh, corrected().as_bytes());
    mesh.jetmesh_ok(&["dlq", "edit", letter.letter_id(), "--payload", &path])
        .await;
    let mut all = versions(&mesh, &letter.subject).await;
    all.sort();
    let first = String::from_utf8_lossy(&letter.payload).into_owned();
    let version = |number: &str, text: &str| (number.to_owned(), text.to_owned());
    assert_eq!(
        all,
        [
            version("0", &first),
            version("1", "of another"),
            version("2", &corrected())
        ]
    );
    let now = shown(&mesh, letter.letter_id()).await;
    assert_eq!(now["edits"][0]["number"], 2, "{now:#}");
}

#[tokio::test]
async fn an_event_too_large_for_the_server_is_corrected_and_published_as_the_same_event() {
    let mut mesh = Mesh::new(config()).await;
    let without = mesh.config.clone().top("relay = false");
    let first = mesh.host_of(&without, &mesh.server.url(), &[]).await;
    mesh.order(json!({ "op": "emit_many", "subject": "events.big", "count": 1, "bytes": 70_000 }))
        .await;
    mesh.wait_decisions("probe", 1).await;
    first.stop().await;
    mesh.server.stop().await;
    let small = Options {
        max_payload: Some(65_536),
        ..Options::default()
    };
    mesh.server.restart_with(&small).await;
    let _second = mesh.host(&[]).await;
    let letter = mesh.wait_letters(1).await.remove(0);
    let id = letter.letter_id();

    let page = mesh.jetmesh_ok(&["dlq", "show", id]).await;
    assert!(page.contains(&format!("  jetmesh dlq edit {id}\n")), "{page}");
    let path = file(&mesh, b"small");
    let edit = ["dlq", "edit", id, "--payload", &path, "--not-json"];
    let said = mesh.jetmesh_ok(&edit).await;
    assert!(
        said.contains(&format!("`jetmesh dlq replay {id}` publishes it")) && !said.contains("rehearse"),
        "no handler is run: {said}"
    );
    mesh.jetmesh_ok(&["dlq", "replay", id]).await;
    let emitted = mesh.wait_emitted(1).await.remove(0);
    assert_eq!(
        (emitted.payload.as_ref(), emitted.header("Mesh-Event-Id")),
        (&b"small"[..], letter.header("Mesh-Event"))
    );
}

#[tokio::test]
async fn a_note_on_a_group_is_seen_by_everybody_who_looks_at_it_until_it_is_removed() {
    let (mesh, _host) = Mesh::start(config()).await;
    mesh.order(broken()).await;
    let letter = mesh.wait_letters(1).await.remove(0);
    let groups = async || -> Value {
        let line = mesh.jetmesh_ok(&["dlq", "ls", "--group", "--json"]).await;
        assert_fits(&mesh, "group", line.trim()).await;
        serde_json::from_str(&line).expect("JSON")
    };
    let told = groups().await;
    assert_eq!(told["note"], Value::Null);
    let group = told["group"].as_str().expect("an id").to_owned();
    let note = async |args: &[&str]| mesh.jetmesh(&[&["dlq", "note", &group], args].concat()).await;

    let (status, _, stderr) = mesh.jetmesh(&["dlq", "note", "00000000", "x"]).await;
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("no dead letter is of group 00000000"), "{stderr}");
    assert!(note(&[]).await.1.ends_with("has no note\n"));
    assert!(note(&["ticket 12"]).await.0.success());
    let (_, said, _) = note(&["--owner", "shop team", "--json"]).await;
    assert_fits(&mesh, "note", said.trim()).await;
    let told = groups().await;
    assert_eq!(
        (&told["note"]["text"], &told["note"]["owner"]),
        (&json!("ticket 12"), &json!("shop team")),
        "the one does not remove the other: {told}"
    );
    let table = mesh.jetmesh_ok(&["dlq", "ls", "--group"]).await;
    assert!(
        table.contains(&format!("NOTES\n{group}: owner shop team: ticket 12 (")),
        "{table}"
    );
    let page = mesh.jetmesh_ok(&["dlq", "show", letter.letter_id()]).await;
    assert!(page.contains("owner shop team: ticket 12"), "{page}");
    assert!(note(&["--remove"]).await.0.success());
    let (status, said, stderr) = note(&[]).await;
    assert!(status.success() && said.ends_with("has no note\n"), "{said}{stderr}");
    assert_eq!(groups().await["note"], Value::Null);
}

#[tokio::test]
async fn the_edit_of_an_event_that_no_stream_took_is_told_by_its_trace_before_and_after_its_replay() {
    let lines = "bucket = \"probe\"\npublish = [\"events.>\", \"nowhere.>\"]";
    let (mesh, _host) = Mesh::start(Config::new().handler("probe", &modules::handler("probe"), lines)).await;
    let emit = |subject: &str| json!({ "op": "emit", "subject": subject, "payload": 1 });
    let order = mesh.order(json!([emit("nowhere.a"), emit("nowhere.b")])).await;
    let letters = eventually("undeliverable letters", PATIENT, async || {
        let letters = mesh.letters().await;
        (letters.len() == 2).then_some(letters)
    })
    .await;
    let file = mesh.dir.path().join("payload");
    std::fs::write(&file, "2").expect("the test's folder is writable");
    let payload = file.to_str().expect("UTF-8");
    mesh.jetmesh_ok(&[
        "dlq",
        "edit",
        letters[0].letter_id(),
        "--payload",
        payload,
        "--reason",
        "one too few",
    ])
    .await;
    let traced = async || mesh.jetmesh_ok(&["trace", &format!("ORDERS:{order}")]).await;
    let before = traced().await;
    assert_eq!(before.matches("one too few").count(), 1, "{before}");
    mesh.add_stream("NOWHERE", &["nowhere.>"], RetentionPolicy::Limits)
        .await;
    mesh.jetmesh_ok(&["dlq", "replay", "--all", "--yes"]).await;
    let there = mesh.messages("NOWHERE", ">").await;
    assert_eq!(there.len(), 2);
    let after = traced().await;
    assert_eq!(after.matches("one too few").count(), 1, "{after}");
    let json = mesh.jetmesh_ok(&["trace", &format!("ORDERS:{order}"), "--json"]).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_fits(&mesh, "trace", &json.to_string()).await;
}
