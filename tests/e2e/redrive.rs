//! Redrive: dead letters that the mesh replays by itself.

use serde_json::{Value, json};

use crate::mesh::{Config, Found, Mesh, says};
use crate::poisoned::{fix, publish};
use crate::schemas::assert_fits;
use crate::support::wait::SOON;
use crate::support::{Host, eventually};

/// A probe that gives an event up at its first failure, and a redrive that looks each second.
fn config(redrive: &str) -> Config {
    let table = format!("[redrive]\nevery = \"1s\"\nafter = \"0s\"\nbackoff = \"1s\"\n{redrive}");
    Config::probe_with("max_attempts = 1").table(&table)
}

fn redriven(letter: &Found) -> &str {
    letter.header("Mesh-Redriven").unwrap_or("0")
}

/// Its replays, out of its history.
fn replays(letter: &Found) -> Vec<Value> {
    let history = letter.header("Mesh-History").expect("it has a history");
    let history: Vec<Value> = serde_json::from_str(history).expect("a history is JSON");
    history
        .into_iter()
        .filter(|attempt| attempt["replay"] == true)
        .collect()
}

async fn standing(mesh: &Mesh) -> Value {
    let text = mesh.jetmesh_ok(&["redrive", "status", "--json"]).await;
    serde_json::from_str(&text).expect("one handler has a redrive")
}

/// Waits until two more rounds were ordered, and are over.
async fn further_rounds(mesh: &Mesh) {
    let ordered = async || {
        let state = mesh.value("mesh", "redrive.probe").await.expect("it is armed");
        let state: Value = serde_json::from_str(&state).expect("a state is JSON");
        state["runs"].as_u64().expect("a number")
    };
    let before = ordered().await;
    eventually("further rounds", SOON, async || {
        (ordered().await >= before + 2).then_some(())
    })
    .await;
    mesh.wait_replayed().await;
}

/// The rounds that a host has made, by its log.
fn rounds(host: &Host) -> Vec<String> {
    let lines = host.lines();
    lines
        .into_iter()
        .filter(|line| says(&[" redrive ", "replayed=", "failed="])(line))
        .collect()
}

#[tokio::test]
async fn letters_of_what_comes_back_are_done_without_a_person() {
    const COUNT: usize = 30;
    let (mesh, host) = Mesh::start(config("max_times = 100")).await;
    publish(&mesh, 0, COUNT).await;
    for _ in 0..2 {
        mesh.order(json!({ "op": "reject", "code": "never", "message": "no" }))
            .await;
    }
    let letters = eventually("a letter to be redriven in vain", SOON, async || {
        let letters = mesh.letters().await;
        letters.iter().any(|letter| redriven(letter) != "0").then_some(letters)
    });
    let letters = letters.await;
    let tried = letters
        .iter()
        .find(|letter| redriven(letter) != "0")
        .expect("there is one");
    let asked_by = replays(tried)[0]["asked_by"].clone();
    assert!(
        asked_by.as_str().is_some_and(|run| run.starts_with("redrive")),
        "{asked_by}"
    );
    let page = mesh.jetmesh_ok(&["dlq", "show", tried.letter_id()]).await;
    assert!(page.contains("redrive 1 ") && page.contains("redriven"), "{page}");

    fix(&mesh).await;
    mesh.wait_emitted(COUNT).await;
    let left = mesh.wait_letters(2).await;
    // The cause of these is not named.
    assert!(
        left.iter()
            .all(|letter| redriven(letter) == "0" && letter.header("Mesh-Cause") == Some("rejected"))
    );
    assert_eq!(standing(&mesh).await["other"], 2);
    let done = mesh.decisions("probe").await;
    assert_eq!(done.iter().filter(|one| one["verdict"] == "done").count(), COUNT);
    // One to three were tried in each round while it was down.
    let failed = rounds(&host).into_iter().filter(|line| !line.contains("failed=0"));
    assert!(failed.clone().count() > 0);
    for line in failed {
        assert!(
            ["failed=1 ", "failed=2 ", "failed=3 "]
                .iter()
                .any(|few| line.contains(few)),
            "{line}"
        );
    }
}

#[tokio::test]
async fn letters_of_what_stays_down_are_replayed_as_often_as_they_may_be_and_left_to_a_person() {
    const COUNT: usize = 4;
    let mesh = Mesh::new(config("max_times = 2\ncodes = [\"not-there\"]")).await;
    let (_one, _other) = (mesh.host(&[]).await, mesh.host(&[]).await);
    publish(&mesh, 0, COUNT).await;
    mesh.order(json!({ "op": "retry", "code": "another", "message": "busy" }))
        .await;
    let spent = |letters: &[Found]| letters.iter().filter(|letter| redriven(letter) == "2").count();
    eventually("the letters to be left to a person", SOON, async || {
        (spent(&mesh.letters().await) == COUNT).then_some(())
    })
    .await;
    // They leave them as they are.
    further_rounds(&mesh).await;
    let letters = mesh.letters().await;
    assert_eq!((letters.len(), spent(&letters)), (COUNT + 1, COUNT));
    for letter in &letters {
        let expected = if letter.header("Mesh-Code") == Some("another") {
            0
        } else {
            2
        };
        assert_eq!(replays(letter).len(), expected, "{letter:?}");
    }
    let told = standing(&mesh).await;
    assert_eq!(
        (&told["left"], &told["other"], &told["due"]),
        (&json!(COUNT), &json!(1), &json!(0)),
        "{told}"
    );
    assert_fits(&mesh, "redrive", &told.to_string()).await;
    let (_, status, _) = mesh.jetmesh(&["status"]).await;
    assert!(
        status.contains("4 of 5 dead letters of probe were replayed as often"),
        "{status}"
    );
    let list = mesh.jetmesh_ok(&["dlq", "ls"]).await;
    assert!(list.contains("4 of these were redriven as often"), "{list}");
}

#[tokio::test]
async fn a_paused_redrive_replays_nothing_over_a_restart_until_it_is_resumed() {
    let (mesh, host) = Mesh::start(config("max_times = 100")).await;
    publish(&mesh, 0, 3).await;
    mesh.wait_letters(3).await;
    let paused = mesh.jetmesh_ok(&["redrive", "pause"]).await;
    assert_eq!(paused, "the redrive of probe is paused\n");
    host.stop().await;
    fix(&mesh).await;
    let _host = mesh.host(&[]).await;
    // An order from before it was paused makes no round either.
    mesh.publish("$MESH.replay.probe.redrive", "").await;
    mesh.wait_replayed().await;
    assert_eq!(mesh.letters().await.len(), 3);
    let told = standing(&mesh).await;
    assert_eq!(
        (&told["state"], &told["next"]),
        (&json!("paused"), &Value::Null),
        "{told}"
    );
    assert!(
        mesh.jetmesh_ok(&["schedule", "ls"])
            .await
            .contains("there is no schedule")
    );
    mesh.jetmesh_ok(&["redrive", "resume", "probe"]).await;
    mesh.wait_letters(0).await;
    mesh.wait_emitted(3).await;
}

#[tokio::test]
async fn a_redrive_that_left_the_configuration_is_disarmed_by_a_host_that_serves_the_handler() {
    let (mesh, host) = Mesh::start(config("max_times = 100")).await;
    host.wait_for_line(says(&["schedule armed", "redrive.probe"]), SOON)
        .await;
    host.stop().await;
    let off = Config::probe_with("max_attempts = 1").table("[redrive]\nenabled = false");
    let host = mesh.host_of(&off, &mesh.server.url(), &[]).await;
    host.wait_for_line(says(&["schedule disarmed", "redrive.probe"]), SOON)
        .await;
    assert_eq!(standing(&mesh).await["state"], "disarmed");
    let (status, _, stderr) = mesh.jetmesh(&["redrive", "pause", "other"]).await;
    assert_eq!(status.code(), Some(2));
    assert!(
        stderr.contains("there is no redrive of other: there is one of probe"),
        "{stderr}"
    );
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_that_is_killed_in_a_round_of_redrive_is_followed_by_another_and_nothing_is_replayed_twice() {
    use crate::mesh::PATIENT;

    const COUNT: usize = 12;
    // At the beginning of a round, and at the fifth replay of it: each death was a commit as well.
    for (fault, fixed_before) in [("redrive-begun:kill", false), ("joined:kill:17", true)] {
        let mesh = Mesh::new(config("max_times = 100")).await;
        let host = mesh.host_with_fault(fault).await;
        publish(&mesh, 0, COUNT).await;
        if fixed_before {
            mesh.wait_letters(COUNT).await;
            fix(&mesh).await;
        }
        host.wait_exit(PATIENT).await;
        if !fixed_before {
            fix(&mesh).await;
        }
        let _host = mesh.host(&[]).await;
        mesh.wait_emitted(COUNT).await;
        mesh.wait_letters(0).await;
        mesh.wait_replayed().await;
        let decisions = mesh.decisions("probe").await;
        let done = decisions.iter().filter(|one| one["verdict"] == "done").count();
        assert_eq!(done, COUNT, "{fault}: {decisions:?}");
        assert_eq!(mesh.emitted().await.len(), COUNT, "{fault}");
    }
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_replay_whose_host_is_killed_before_its_letter_is_written_counts_once() {
    use crate::mesh::PATIENT;

    let mesh = Mesh::new(config("max_times = 1")).await;
    let host = mesh.host_with_fault("before-history:kill").await;
    publish(&mesh, 0, 1).await;
    host.wait_exit(PATIENT).await;
    let _host = mesh.host(&[]).await;
    let letters = eventually("the replay to be written", SOON, async || {
        let letters = mesh.letters().await;
        letters.iter().any(|letter| redriven(letter) == "1").then_some(letters)
    });
    assert_eq!(letters.await.len(), 1);
    further_rounds(&mesh).await;
    let letters = mesh.letters().await;
    assert_eq!((redriven(&letters[0]), replays(&letters[0]).len()), ("1", 1));
}

#[tokio::test]
async fn a_letter_that_is_asked_for_twice_as_it_was_read_is_replayed_once() {
    let mesh = Mesh::new(Config::probe_with("max_attempts = 1")).await;
    let _host = mesh.host(&[]).await;
    publish(&mesh, 0, 2).await;
    let letters = mesh.wait_letters(2).await;
    let lines: Vec<String> = letters
        .iter()
        .map(|letter| format!("{} {}", letter.subject, letter.sequence))
        .collect();
    for list in ["a", "b"] {
        let subject = format!("$MESH.replay.probe.list.{list}");
        mesh.publish_with(&subject, &[("Mesh-Asked-By", "redriveone")], lines.join("\n"))
            .await;
        mesh.wait_replayed().await;
    }
    // Also if it is asked for by itself.
    let alone = async |letter: &Found| {
        let subject = format!("$MESH.replay.{}", letter.letter_id());
        let sequence = letter.sequence.to_string();
        let headers = [
            ("Mesh-Asked-By", "redriveone"),
            ("Mesh-Letter", letter.subject.as_str()),
            ("Mesh-Letter-Sequence", sequence.as_str()),
        ];
        mesh.publish_with(&subject, &headers, "").await;
        mesh.wait_replayed().await;
    };
    alone(&letters[0]).await;
    let counted = |letters: &[Found]| {
        letters
            .iter()
            .map(|letter| redriven(letter).to_owned())
            .collect::<Vec<_>>()
    };
    let letters = mesh.letters().await;
    assert_eq!(counted(&letters), ["1", "1"], "{letters:?}");
    assert!(letters.iter().all(|letter| replays(letter).len() == 1));
    // As it is now, it is replayed.
    alone(&letters[0]).await;
    let most = mesh.letters().await.iter().map(|letter| replays(letter).len()).max();
    assert_eq!(most, Some(2));
}
