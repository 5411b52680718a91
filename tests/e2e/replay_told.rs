//! What `jetmesh dlq replay` reports of handlers that no host serves, and of letters that another run replays as well.

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::mesh::{Mesh, PATIENT};
use crate::poisoned::{fix, judge, replay, with_letters};
use crate::support::cli::on_terminal;
use crate::support::server::round_trip;
use crate::support::wait::SOON;
use crate::support::{Host, Signal, eventually};

/// The last sequence that was ever asked for.
async fn asked(mesh: &Mesh) -> u64 {
    let stream = mesh.js.get_stream("MESH_REPLAY").await.expect("the stream is there");
    stream.cached_info().state.last_sequence
}

#[tokio::test]
async fn without_a_host_and_a_terminal_nothing_is_sent_and_the_code_says_so() {
    let (mesh, host) = with_letters(2).await;
    host.signal(Signal::KILL);
    host.wait_exit(SOON).await;
    let letters = mesh.letters().await;
    let before = asked(&mesh).await;
    for which in [letters[0].letter_id(), "--all"] {
        let (status, stdout, stderr) = mesh.jetmesh(&["dlq", "replay", which]).await;
        assert_eq!(status.code(), Some(6), "{which}: {stdout}{stderr}");
        assert!(!stdout.contains("replayed") && !stdout.contains("sent"), "{stdout}");
        for text in [
            "no host serves handler probe",
            "nothing is sent; with --yes the replays are sent",
        ] {
            assert!(stderr.contains(text), "{which}: {stderr}");
        }
    }
    assert_eq!(asked(&mesh).await, before);
}

#[tokio::test]
async fn on_a_terminal_it_asks_before_it_sends_what_nobody_serves() {
    let (mesh, host) = with_letters(1).await;
    fix(&mesh).await;
    host.signal(Signal::KILL);
    host.wait_exit(SOON).await;
    let before = asked(&mesh).await;
    let file = mesh.write_config();
    let file = file.to_str().expect("a temporary folder's path is UTF-8");
    let args = ["dlq", "replay", "--all", "--config", file];
    let Some((status, shown)) = on_terminal(mesh.dir.path(), 80, &args, "n\n").await else {
        return;
    };
    assert_eq!(status.code(), Some(1), "{shown}");
    assert!(shown.contains("no host serves handler probe"), "{shown}");
    assert!(shown.contains("Replay 1 dead letter anyway? [y/N]"), "{shown}");
    assert!(shown.contains("nothing is replayed"), "{shown}");
    assert_eq!(asked(&mesh).await, before);
    // With a yes it waits for a host, which comes.
    let yes = on_terminal(mesh.dir.path(), 80, &args, "y\n");
    let comes = async {
        eventually("the letter to be asked for", SOON, async || {
            (asked(&mesh).await > before).then_some(())
        })
        .await;
        mesh.host(&[]).await
    };
    let (yes, _host) = tokio::join!(yes, comes);
    let (status, shown) = yes.expect("there is a terminal");
    assert_eq!(status.code(), Some(0), "{shown}");
    assert!(shown.contains("sent 1 of 1 dead letter, decided 1 in "), "{shown}");
    judge(&mesh, 1).await;
}

#[tokio::test]
async fn a_handler_that_is_stopped_is_told_of_with_the_reason() {
    let (mesh, _host) = with_letters(1).await;
    mesh.js.delete_stream("KV_probe").await.expect("it goes");
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    eventually("the handler to be stopped", PATIENT, async || {
        let (_, status, _) = mesh.jetmesh(&["status", "--json"]).await;
        let status: Value = serde_json::from_str(&status).expect("JSON");
        (status["handlers"][0]["state"] == "stopped").then_some(())
    })
    .await;
    let (status, _, stderr) = mesh.jetmesh(&["dlq", "replay", "--all"]).await;
    assert_eq!(status.code(), Some(6), "{stderr}");
    assert!(stderr.starts_with("no host serves handler probe: "), "{stderr}");
}

#[tokio::test]
async fn of_two_who_replay_the_same_letters_each_is_told_of_its_own() {
    const COUNT: u64 = 50;
    let (mesh, host) = with_letters(50).await;
    fix(&mesh).await;
    let mut asks = mesh.client.subscribe("$MESH.replay.>").await.expect("connected");
    round_trip(&mesh.client).await;
    // Both ask before anything is decided.
    host.signal(Signal::STOP);
    let file = mesh.write_config();
    let file = file.to_str().expect("a temporary folder's path is UTF-8");
    let args = ["dlq", "replay", "--all", "--yes", "--json", "--config", file];
    let both = [(); 2].map(|()| Host::start_command(&args, mesh.dir.path(), &[]));
    for _ in 0..2 {
        let heard = tokio::time::timeout(SOON, asks.next()).await;
        heard.expect("both ask").expect("connected");
    }
    host.signal(Signal::CONT);
    let mut accounts = Vec::new();
    for one in &both {
        assert_eq!(one.wait_exit(PATIENT).await.code(), Some(0), "{:?}", one.lines());
        let account: Value = serde_json::from_str(one.lines().last().expect("an account")).expect("JSON");
        accounts.push(account);
    }
    let sum = |name: &str| -> u64 {
        let of = |account: &Value| account[name].as_u64().unwrap_or_else(|| panic!("{name} in {account}"));
        accounts.iter().map(of).sum()
    };
    assert_eq!(sum("succeeded"), COUNT, "each succeeded for one of them: {accounts:?}");
    assert_eq!(sum("succeeded_for_others"), COUNT, "{accounts:?}");
    assert_eq!(sum("decided"), 2 * COUNT, "{accounts:?}");
    judge(&mesh, 50).await;
}

#[tokio::test]
async fn a_letter_that_fails_for_another_is_told_as_such_and_stays() {
    let (mesh, host) = with_letters(1).await;
    let letter = mesh.letters().await.remove(0);
    // Another one's replay waits already, so that asking does nothing.
    host.signal(Signal::STOP);
    let headers = [("Mesh-Letter", letter.subject.as_ref()), ("Mesh-Asked-By", "another")];
    let waits = format!("$MESH.replay.{}", letter.letter_id());
    let mut asks = mesh.client.subscribe(waits.clone()).await.expect("connected");
    mesh.publish_with(&waits, &headers, "").await;
    let told = replay(&mesh, &["--all"]);
    let goes_on = async {
        for _ in 0..2 {
            tokio::time::timeout(SOON, asks.next()).await.expect("both ask");
        }
        host.signal(Signal::CONT);
    };
    let ((code, account), ()) = tokio::join!(told, goes_on);
    assert_eq!(code, Some(1), "{account}");
    assert_eq!(
        (&account["failed_for_others"], &account["failed_again"]),
        (&json!(1), &json!(0)),
        "{account}"
    );
    let (_, shown, _) = mesh.jetmesh(&["dlq", "show", letter.letter_id(), "--json"]).await;
    assert!(shown.contains("\"asked_by\""), "{shown}");
}
