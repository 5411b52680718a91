//! What others have written and a terminal would act on: it is written out wherever people read it.

use serde_json::json;

use crate::mesh::{Config, Mesh, says};
use crate::support::modules;
use crate::support::wait::SOON;

#[tokio::test]
async fn nothing_that_turns_text_around_or_is_not_seen_reaches_the_log_or_a_terminal() {
    let (mesh, host) = Mesh::start(Config::probe_with("max_attempts = 1")).await;
    let (turn, isolate) = ('\u{202e}', '\u{2066}');
    // Zero-width characters, a soft hyphen, separators of lines, and the controls that a terminal knows besides ESC.
    let unseen = "\u{200b}\u{200d}\u{2060}\u{feff}\u{ad}\u{2028}\u{2029}\u{e0041}\u{7f}\u{9b}";
    let orders = json!({ "do": [
        { "op": "log", "level": "warn", "message": format!("logged {turn}txt.exe{unseen}") },
        { "op": "stderr", "message": format!("printed {isolate}txt.exe") },
        { "op": "reject", "code": "no", "message": format!("rejected {turn}txt.exe{unseen}") },
    ], "note": unseen });
    let subject = format!("orders.{turn}pro\u{200b}\u{ad}\u{feff}be");
    let header = ("Note", format!("{isolate}note"));
    mesh.publish_with(&subject, &[(header.0, header.1.as_str())], orders.to_string())
        .await;
    let letter = mesh.wait_letters(1).await.remove(0);
    for text in [
        r"logged \u202etxt.exe",
        r"printed \u2066txt.exe",
        r"rejected \\u202etxt.exe",
    ] {
        host.wait_for_line(says(&[text]), SOON).await;
    }
    let lines = host.lines().join("\n");
    assert!(
        lines.contains(r"\u200d\u2060\ufeff\u00ad\u2028\u2029\udb40\udc41\u007f\u009b"),
        "{lines}"
    );
    let mut told = vec![("the log", lines)];
    let id = letter.letter_id();
    let event = id.split_once('.').expect("an id begins with a handler").1;
    for args in [
        &["dlq", "ls"][..],
        &["dlq", "ls", "--json"],
        &["dlq", "ls", "--group"],
        &["dlq", "show", id],
        &["dlq", "show", id, "--json"],
        &["dlq", "rehearse", id],
        &["dlq", "replay", id, "--dry-run"],
        &["dlq", "export", id],
        &["trace", event],
        &["trace", event, "--json"],
    ] {
        let (_, stdout, stderr) = mesh.jetmesh(args).await;
        told.push((args[1], stdout + &stderr));
    }
    for (what, text) in told {
        assert!(text.contains("txt.exe") || text.contains("probe"), "{what}: {text}");
        assert!(!text.contains([turn, isolate]), "{what}: {text:?}");
        assert!(!text.contains(|c| unseen.contains(c)), "{what}: {text:?}");
    }
    // JSON keeps what was there.
    let (_, shown, _) = mesh.jetmesh(&["dlq", "show", id, "--json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["subject"], json!(letter.subject));
    assert_eq!(shown["payload"]["data"], json!(orders.to_string()));
    assert_eq!(shown["event_subject"], json!(subject));
    // What was typed is quoted.
    let (status, _, stderr) = mesh.jetmesh(&[&format!("dan{unseen}ce")]).await;
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains(r"dan\u200b") && !stderr.contains(|c| unseen.contains(c)),
        "{stderr:?}"
    );
}

#[tokio::test]
async fn causes_that_a_trap_does_not_name_and_codes_that_are_changed_are_told() {
    let (mesh, host) = Mesh::start(Config::probe_with("max_attempts = 1")).await;
    mesh.order(json!({ "op": "recurse" })).await;
    let letter = mesh.wait_letters(1).await.remove(0);
    let error = letter.header("Mesh-Error").expect("a letter has its error");
    assert!(error.contains("overflowed its stack"), "{error}");
    mesh.order(json!({ "op": "reject", "code": "Bad Code!", "message": "no" }))
        .await;
    let changed = "the code `Bad Code!` is written as `bad-code-`";
    host.wait_for_line(says(&["WARN", "handler=probe", changed]), SOON)
        .await;
}

#[tokio::test]
async fn a_refused_emit_in_javascript_says_what_was_refused() {
    let Some(javascript) = modules::js_handler() else {
        return;
    };
    let lines = "bucket = \"points\"\npublish = [\"other.*\"]\nmax_attempts = 1\ntimeout = \"30s\"";
    let (mesh, _host) = Mesh::start(Config::new().handler("points", &javascript, lines)).await;
    mesh.publish(
        "orders.created",
        json!({ "order_id": "o-1", "user_id": "u-7" }).to_string(),
    )
    .await;
    let letter = mesh.wait_letters(1).await.remove(0);
    let error = letter.header("Mesh-Error").expect("a letter has its error");
    for part in ["not-granted", "points.added", "other.*"] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}
