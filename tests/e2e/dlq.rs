//! The commands that settle, keep and bring back dead letters, and what limits they warn of.

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh};
use crate::support::server::Options;
use crate::support::{NatsServer, cli};

/// Publishes an event for each code, which the probe rejects with it.
async fn reject(mesh: &Mesh, codes: &[&str]) {
    for code in codes {
        mesh.order(json!({ "op": "reject", "code": code, "message": "never" }))
            .await;
    }
}

#[tokio::test]
async fn discarded_letters_leave_the_list_their_deaths_stay_and_a_replay_does_nothing_and_says_so() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    reject(&mesh, &["a", "a", "b", "c"]).await;
    let letters = mesh.wait_letters(4).await;
    let decisions = mesh.decisions("probe").await;

    // The question is not answered with yes, so nothing happens.
    let (status, stdout, stderr) = mesh.jetmesh(&["dlq", "discard", "--code", "a"]).await;
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stdout.starts_with("2 dead letters: 2 of probe. Their events stay dead"),
        "{stdout}"
    );
    assert!(
        stderr.starts_with(
            "error: nothing is discarded: the command asks for confirmation, and standard input is not a terminal"
        ),
        "{stderr}"
    );
    let (status, _, stderr) = mesh.jetmesh(&["dlq", "discard", "--yes"]).await;
    assert_eq!(status.code(), Some(2), "{stderr}");
    // A condition that came out empty, as of a variable that is not set, does not mean all of them.
    for (option, empty) in [
        ("--text", ""),
        ("--code", ""),
        ("--group", ""),
        ("--digest", "sha256:"),
        ("--subject", ">.x"),
        ("--handler", "*"),
    ] {
        let (status, stdout, stderr) = mesh.jetmesh(&["dlq", "discard", option, empty, "--yes"]).await;
        assert_eq!((status.code(), stdout.as_str()), (Some(2), ""), "{option}");
        assert!(stderr.contains(&format!("for '{option} <")), "{stderr}");
    }
    assert_eq!(mesh.letters().await.len(), 4);

    let discard = ["dlq", "discard", "--code", "a", "--yes", "--reason", "asked\nfor twice"];
    assert_eq!(mesh.jetmesh_ok(&discard).await, "discarded 2 dead letters\n");
    assert_eq!(mesh.letters().await.len(), 2);
    assert_eq!(mesh.jetmesh_ok(&discard).await, "discarded 0 dead letters\n");
    let of_b = letters
        .iter()
        .find(|l| l.header("Mesh-Code") == Some("b"))
        .expect("it is there");
    let account = mesh
        .jetmesh(&["dlq", "discard", of_b.letter_id(), "probe.k.99", "--yes", "--json"])
        .await;
    assert_eq!(account.0.code(), Some(1), "one of them is not there");
    let account: Value = serde_json::from_str(&account.1).expect("JSON");
    assert_eq!(
        account,
        json!({ "discarded": 1, "changed": [], "missing": ["probe.k.99"], "failed": 0, "left": 0 })
    );
    let left = mesh.letters().await;
    assert_eq!((left.len(), left[0].header("Mesh-Code")), (1, Some("c")));

    let gone = letters[0].letter_id().to_owned();
    let (status, stdout, stderr) = mesh.jetmesh(&["dlq", "replay", &gone]).await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(
        stderr,
        format!("{gone} is already resolved: discarded: asked for twice\n")
    );
    assert_eq!(stdout, "no such dead letters: nothing to replay\n");
    let (status, _, stderr) = mesh.jetmesh(&["dlq", "replay", &gone, "probe.k.99", "--yes"]).await;
    assert_eq!(status.code(), Some(1));
    let unknown = "error: no dead letter `probe.k.99`; `jetmesh dlq ls` lists them\n";
    assert!(stderr.ends_with(unknown), "{stderr}");
    // Neither does one that is asked for behind the command's back.
    mesh.publish_with(
        &format!("$MESH.replay.{gone}"),
        &[("Mesh-Letter", &letters[0].subject)],
        "",
    )
    .await;
    mesh.wait_replayed().await;
    assert_eq!(mesh.decisions("probe").await, decisions, "the deaths are as they were");
}

#[tokio::test]
async fn a_discard_is_undone_with_an_export_once_its_empty_message_is_removed() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    mesh.order(json!({ "op": "take", "key": "stock" })).await;
    let letter = mesh.wait_letters(1).await.remove(0);
    let file = mesh.dir.path().join("letters.jsonl");
    let file = file.to_str().expect("a temporary folder's path is UTF-8");
    let id = letter.letter_id();
    mesh.jetmesh_ok(&["dlq", "export", id, "--output", file]).await;
    mesh.jetmesh_ok(&["dlq", "discard", id, "--yes"]).await;
    let import = async || mesh.jetmesh_ok(&["dlq", "import", file]).await;
    assert!(import().await.starts_with("0 restored, 0 already there, 1 resolved"));
    assert_eq!(mesh.letters().await.len(), 0);
    let shown = mesh.jetmesh_ok(&["trace", id]).await;
    assert!(
        shown.contains(r#"{"key":"stock","op":"take"}"#),
        "the payload is in its stream: {shown}"
    );
    let purge = ["stream", "purge", "MESH_DEAD", "--subject", &letter.subject, "--force"];
    if cli::nats(&mesh.server, &purge).await.is_none() {
        return;
    }
    assert!(import().await.starts_with("1 restored"));
    mesh.put("probe", "stock", "3").await;
    let replayed = mesh.jetmesh_ok(&["dlq", "replay", id]).await;
    assert!(replayed.contains("1 succeeded"), "{replayed}");
    mesh.wait_value("probe", "stock", "2").await;
    assert_eq!(mesh.letters().await.len(), 0);
}

#[tokio::test]
async fn an_export_brings_letters_back_after_a_disaster_and_they_can_be_replayed() {
    let options = Options {
        max_payload: Some(256 * 1024),
        ..Options::default()
    };
    let mesh = Mesh::over(NatsServer::start_with(&options).await, Config::probe()).await;
    let host = mesh.host(&[]).await;
    let take = json!({ "op": "take", "key": "stock" }).to_string();
    let headers = [("Probe", take.as_str()), ("Tenant", "acme"), ("Nats-Msg-Id", "o-1")];
    mesh.order(json!({ "op": "take", "key": "stock" })).await;
    mesh.publish_with("orders.probe", &headers, b"\x00\xff".to_vec()).await;
    // Its letter is longer than a message may be.
    let large = "x".repeat(256 * 1024 - 200);
    mesh.publish_with("orders.probe", &[("Probe", take.as_str())], large)
        .await;
    let mut letters = mesh.wait_letters(3).await;
    letters.sort_by(|a, b| a.subject.cmp(&b.subject));
    assert_eq!(letters[2].header("Mesh-Parts"), Some("2"));
    let listed = mesh.jetmesh_ok(&["dlq", "ls", "--json"]).await;
    let file = mesh.dir.path().join("letters.jsonl");
    let file = file.to_str().expect("UTF-8");
    let export = ["dlq", "export", "--all", "--output", file];
    let (status, stdout, stderr) = mesh.jetmesh(&export).await;
    assert_eq!((status.code(), stdout.as_str()), (Some(0), ""), "{stderr}");
    assert_eq!(stderr, format!("exported 3 dead letters to {file}\n"));
    assert_eq!(
        mesh.jetmesh(&export).await.0.code(),
        Some(1),
        "an export is not overwritten"
    );
    let whole = std::fs::read_to_string(file).expect("the export is there");
    assert_eq!(whole.lines().count(), 3);

    drop(host);
    let dead = mesh.js.get_stream("MESH_DEAD").await.expect("it is there");
    dead.purge().await.expect("the stream can be emptied");
    assert_eq!(mesh.jetmesh_ok(&["dlq", "ls"]).await, "no dead letters\n");
    let import = ["dlq", "import", file];
    let back = "3 restored, 0 already there, 0 resolved and not restored, 0 malformed\n";
    assert_eq!(mesh.jetmesh_ok(&import).await, back);
    let of = |list: &str| -> Vec<Value> {
        let line = |line: &str| -> Value {
            let mut line: Value = serde_json::from_str(line).expect("JSON");
            line["sequence"] = Value::Null;
            line
        };
        let mut list: Vec<Value> = list.lines().map(line).collect();
        list.sort_by_key(|letter| letter["id"].to_string());
        list
    };
    assert_eq!(
        of(&mesh.jetmesh_ok(&["dlq", "ls", "--json"]).await),
        of(&listed),
        "they are as they were"
    );
    assert_eq!(
        mesh.jetmesh_ok(&import).await,
        "0 restored, 3 already there, 0 resolved and not restored, 0 malformed\n"
    );
    // What was put back is exported as what was there before.
    let again = mesh.jetmesh_ok(&["dlq", "export", "--all"]).await;
    assert_eq!(of(&again), of(&whole));

    mesh.put("probe", "stock", "3").await;
    let _host = mesh.host(&[]).await;
    for letter in &letters {
        mesh.jetmesh_ok(&["dlq", "replay", letter.letter_id()]).await;
    }
    mesh.wait_letters(0).await;
    mesh.wait_value("probe", "stock", "0").await;
    let decisions = mesh.wait_decisions("probe", 6).await;
    assert!(
        decisions[3..]
            .iter()
            .all(|d| d["verdict"] == "done" && d["follows_death"].is_u64())
    );

    // Neither does an import bring back what is resolved; and a bad line says where and why.
    let line = whole.lines().next().expect("there are three");
    let text = format!("{line}\n\n{{}}\n{}\n", line.replace("Mesh-Code", "Nats-Rollup"));
    std::fs::write(file, text).expect("the test's folder is writable");
    let (status, stdout, stderr) = mesh.jetmesh(&import).await;
    assert_eq!(status.code(), Some(1));
    assert_eq!(
        stdout,
        "0 restored, 0 already there, 1 resolved and not restored, 2 malformed\n"
    );
    assert_eq!(
        stderr,
        "line 3: it is not an exported letter: missing field `id` at column 2\nline 4: a letter has no header Nats-Rollup\n"
    );
    assert_eq!(mesh.letters().await.len(), 0);
}

#[tokio::test]
async fn limits_that_would_remove_letters_are_warned_of_with_the_command_that_lifts_them() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    reject(&mesh, &["a"]).await;
    mesh.wait_letters(1).await;
    let warnings = async || -> Vec<String> {
        let check = mesh.jetmesh_ok(&["check", "--connect"]).await;
        let status = mesh.jetmesh_ok(&["status"]).await;
        let of = |text: &str| -> Vec<String> {
            let lines = text
                .lines()
                .filter(|line| line.starts_with("warning: stream MESH_DEAD"));
            lines.map(str::to_owned).collect()
        };
        let json: Value = serde_json::from_str(&mesh.jetmesh_ok(&["status", "--json"]).await).expect("JSON");
        assert_eq!(json["warnings"].as_array().map(Vec::len), Some(of(&check).len()));
        assert_eq!(of(&status).len(), of(&check).len());
        of(&check)
    };
    assert_eq!(warnings().await, Vec::<String>::new(), "the mesh sets no limit");
    let edit = [
        "stream",
        "edit",
        "MESH_DEAD",
        "--max-age=1h",
        "--max-msgs=4",
        "--max-bytes=1048576",
        "-f",
    ];
    if cli::nats(&mesh.server, &edit).await.is_none() {
        return;
    }
    let told = warnings().await;
    let has = |text: &str| told.iter().any(|warning| warning.contains(text));
    assert!(
        has("has max_age 1h: dead letters expire, and the oldest is "),
        "{told:?}"
    );
    assert!(
        has("has max_msgs 4: a letter beyond it removes the oldest; 1 messages are there, 25 % of it"),
        "{told:?}"
    );
    assert!(has("has max_bytes 1048576:"), "{told:?}");
    for warning in &told {
        let command = warning.split("`nats ").nth(1).and_then(|rest| rest.strip_suffix('`'));
        let command = command.expect("a warning has a command");
        let arguments: Vec<&str> = command.split(' ').chain(["-f"]).collect();
        cli::nats(&mesh.server, &arguments).await;
    }
    assert_eq!(warnings().await, Vec::<String>::new(), "its commands lift them");
}

#[tokio::test]
async fn groups_are_counted_the_largest_first_and_may_be_limited() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    reject(&mesh, &["a", "b", "b", "c", "b", "a"]).await;
    mesh.wait_letters(6).await;
    let counted = async |limit: &[&str]| {
        let table = mesh.jetmesh_ok(&[&["dlq", "ls", "--group"], limit].concat()).await;
        let rows = table.lines().skip(1).take_while(|line| !line.is_empty());
        let counts: Vec<String> = rows
            .filter_map(|row| row.split_whitespace().nth(1).map(str::to_owned))
            .collect();
        (counts, table.lines().last().expect("it ends with a line").to_owned())
    };
    let (counts, last) = counted(&[]).await;
    assert_eq!(counts, ["3", "2", "1"]);
    assert!(last.starts_with("6 dead letters; those of one group"), "{last}");
    let (counts, last) = counted(&["--limit", "2"]).await;
    assert_eq!(counts, ["3", "2"]);
    assert!(last.starts_with("6 dead letters in 3 groups; those"), "{last}");
    let limited = ["dlq", "ls", "--group", "--json", "--limit", "1"];
    assert_eq!(mesh.jetmesh_ok(&limited).await.lines().count(), 1);
}
