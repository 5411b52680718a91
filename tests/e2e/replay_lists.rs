//! Dead letters that are replayed by the list: read and answered together, each run for itself.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use serde_json::{Value, json};

use crate::mesh::{Config, Found, Mesh, PATIENT};
use crate::poisoned::{config, fix, history, judge, poison, publish, replay, with_letters};
use crate::support::eventually;

/// Asks for letters, a line each.
async fn ask(mesh: &Mesh, name: &str, lines: &[&str]) {
    mesh.publish_with(&format!("$MESH.replay.probe.list.{name}"), &[], lines.join("\n"))
        .await;
}

/// The letters that wait to be replayed, as often as each does, and how many of them wait in lists.
async fn waiting(mesh: &Mesh) -> (Vec<String>, usize) {
    let stream = mesh.js.get_stream("MESH_REPLAY").await.expect("the stream is there");
    let subjects = stream.info_with_subjects(">").await.expect("it tells its subjects");
    let subjects: Vec<(String, usize)> = subjects.try_collect().await.expect("it tells them all");
    let (mut letters, mut listed) = (Vec::new(), 0);
    for (subject, _) in subjects {
        let replay = stream
            .get_last_raw_message_by_subject(&subject)
            .await
            .expect("it waits");
        if let Some(letter) = replay.headers.get("Mesh-Letter") {
            letters.push(letter.to_string());
            continue;
        }
        let list = String::from_utf8(replay.payload.to_vec()).expect("a list is text");
        listed += list.lines().count();
        letters.extend(list.lines().map(str::to_owned));
    }
    (letters, listed)
}

/// The letter of the order with this sequence.
fn letter_of(letters: &[Found], sequence: u64) -> &Found {
    let of = |letter: &&Found| letter.subject.ends_with(&format!(".{sequence}"));
    letters.iter().find(of).expect("its letter is there")
}

#[tokio::test]
async fn the_letters_of_a_list_are_each_done_retried_or_left_as_if_they_were_replayed_alone() {
    let mesh = Mesh::new(config()).await;
    let host = mesh.host(&[]).await;
    let add = |key: &str| json!({ "op": "add", "key": key, "by": 1 });
    let need = json!({ "op": "need", "key": "fix" });
    let good = mesh.order(json!([need, add("good")])).await;
    let reject = json!({ "op": "reject", "code": "never", "message": "no" });
    let bad = mesh.order(json!([reject])).await;
    let late = mesh
        .order(json!([{ "op": "fail_until", "attempt": 3 }, add("late")]))
        .await;
    let gone = mesh.order(json!([need, add("gone")])).await;
    let letters = mesh.wait_letters(4).await;
    drop(host);
    fix(&mesh).await;
    let subject = |sequence| letter_of(&letters, sequence).subject.as_str();
    mesh.publish_with(subject(gone), &[("Mesh-Settled", "discarded")], "")
        .await;
    let patient = Config::probe_with("max_attempts = 3\nbackoff = \"200ms\"");
    let host = mesh.host_of(&patient, &mesh.server.url(), &[]).await;
    let others = subject(good).replace(".probe.", ".another.");
    let absent = subject(good).replace(&format!(".{good}"), ".4000");
    let lines = [
        subject(good),
        subject(bad),
        "",
        subject(late),
        subject(gone),
        &others,
        &absent,
        "not a letter",
        subject(good),
    ];
    ask(&mesh, "byhand", &lines).await;
    mesh.wait_replayed().await;

    let left = mesh.wait_letters(1).await;
    assert_eq!(left[0].subject, subject(bad));
    // The list came three times, for the one that was late; the one that failed was not run again with it.
    assert_eq!(history(&left[0]).len(), 1);
    let value = async |key| mesh.value("probe", key).await;
    assert_eq!(value("good").await.as_deref(), Some("1"));
    assert_eq!(value("late").await.as_deref(), Some("1"));
    assert_eq!(value("gone").await, None, "a discarded letter is not replayed");
    let decisions = mesh.decisions("probe").await;
    let done: Vec<_> = decisions.iter().filter(|one| one["verdict"] == "done").collect();
    assert_eq!(done.len(), 2, "{decisions:?}");
    let event = letter_of(&letters, late)
        .header("Mesh-Event")
        .expect("it names its event");
    let last = done.iter().find(|one| one["event"] == event);
    assert_eq!(last.expect("it is done")["attempt"], 3);
    let warned = |line: &String| line.contains("is left out of a replay");
    let warnings = host.lines().into_iter().filter(warned).count();
    assert_eq!(warnings, 1, "the second is counted");
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_list_whose_host_is_killed_is_done_by_another_and_its_letters_are_not_asked_for_again() {
    const COUNT: usize = 150;
    let config = || Config::probe_with("max_attempts = 1\nack_wait = \"2s\"");
    let mesh = Mesh::new(config()).await;
    let host = mesh.host(&[]).await;
    publish(&mesh, 0, COUNT).await;
    mesh.wait_letters(COUNT).await;
    drop(host);
    fix(&mesh).await;
    let host = mesh.host_with_fault("joined:kill:40").await;
    // It continues until it has seen twice that no host serves the handler.
    let (code, account) = replay(&mesh, &["--all"]).await;
    host.wait_exit(PATIENT).await;
    assert_eq!((code, &account["end"]), (Some(6), &json!("unserved")), "{account}");
    let (letters, listed) = waiting(&mesh).await;
    assert!(listed > 0, "{letters:?}");
    let undecided = account["undecided"].as_u64().expect("it is a number");
    assert!(letters.len() as u64 >= undecided, "{account} {letters:?}");
    let once: BTreeSet<&String> = letters.iter().collect();
    assert_eq!(once.len(), letters.len(), "asked for again: {letters:?}");

    let _host = mesh.host(&[]).await;
    mesh.wait_replayed().await;
    let (code, account) = replay(&mesh, &["--all"]).await;
    assert_eq!(code, Some(0), "{account}");
    judge(&mesh, COUNT).await;
}

#[tokio::test]
async fn a_letter_in_two_lists_and_by_itself_is_done_once() {
    let (mesh, host) = with_letters(40).await;
    drop(host);
    fix(&mesh).await;
    let letters = mesh.letters().await;
    let lines: Vec<&str> = letters.iter().map(|letter| letter.subject.as_str()).collect();
    ask(&mesh, "one", &lines).await;
    ask(&mesh, "other", &lines).await;
    for letter in &letters[..10] {
        let waits = format!("$MESH.replay.{}", letter.letter_id());
        mesh.publish_with(&waits, &[("Mesh-Letter", &letter.subject)], "").await;
    }
    let _hosts = (mesh.host(&[]).await, mesh.host(&[]).await);
    mesh.wait_replayed().await;
    judge(&mesh, 40).await;
}

#[tokio::test]
async fn what_waits_in_a_list_is_said_by_a_trace_and_forgotten_by_a_reset() {
    let (mesh, host) = with_letters(3).await;
    drop(host);
    let letters = mesh.letters().await;
    let lines: Vec<&str> = letters[..2].iter().map(|letter| letter.subject.as_str()).collect();
    ask(&mesh, "waits", &lines).await;
    for (letter, waits) in letters.iter().zip([true, true, false]) {
        let event = letter.header("Mesh-Event").expect("it names its event");
        let told = mesh.jetmesh_ok(&["trace", event]).await;
        assert_eq!(told.contains("a replay was requested"), waits, "{told}");
    }
    mesh.jetmesh_ok(&["reset", "probe", "--yes"]).await;
    assert_eq!(mesh.messages_left("MESH_REPLAY").await, 0);
}

/// Letters that do not fit one answer of a replica are read one by one.
#[tokio::test]
async fn letters_too_large_to_be_read_together_are_replayed_all_the_same() {
    const COUNT: usize = 12;
    let (mesh, _host) = Mesh::start(config()).await;
    for number in 0..COUNT {
        let order = json!({ "do": poison(number), "pad": "x".repeat(900 * 1024) });
        mesh.publish("orders.probe", order.to_string()).await;
    }
    mesh.wait_letters(COUNT).await;
    fix(&mesh).await;
    let letters = mesh.letters().await;
    let lines: Vec<&str> = letters.iter().map(|letter| letter.subject.as_str()).collect();
    ask(&mesh, "large", &lines).await;
    mesh.wait_replayed().await;
    judge(&mesh, COUNT).await;
}

#[tokio::test]
async fn a_handler_takes_no_more_events_than_may_be_in_flight_while_it_replays() {
    const MOST: u64 = 3;
    let config = Config::probe_with(&format!("max_attempts = 1\nin_flight = {MOST}\nconcurrency = {MOST}"));
    let mesh = Mesh::new(config).await;
    let host = mesh.host(&[]).await;
    publish(&mesh, 0, 60).await;
    let letters = mesh.wait_letters(60).await;
    // The acks of this host do not count among those of the next one.
    mesh.wait_settled("ORDERS", "probe").await;
    drop(host);
    fix(&mesh).await;
    let lines: Vec<&str> = letters.iter().map(|letter| letter.subject.as_str()).collect();
    for (number, lines) in lines.chunks(10).enumerate() {
        ask(&mesh, &format!("n{number}"), lines).await;
    }
    for _ in 0..30 {
        mesh.order(json!({ "op": "sleep", "ms": 150 })).await;
    }
    let _host = mesh.host(&[]).await;
    let in_flight = |events: &Value| events["num_ack_pending"].as_u64().expect("it is a number");
    let mut seen = 0;
    eventually("the events and the replays to be over", PATIENT, async || {
        let mut events = mesh.consumer("ORDERS", "probe").await;
        let mut least = in_flight(&events);
        // The server may act on a request before the acks that were sent ahead of it. That is over after a few answers, and an
        // event that is taken too early is not.
        for _ in 0..5 {
            if least > MOST {
                events = mesh.consumer("ORDERS", "probe").await;
                least = least.min(in_flight(&events));
            }
        }
        seen = seen.max(least);
        let over = events["num_pending"] == 0 && events["num_ack_pending"] == 0;
        (over && mesh.messages_left("MESH_REPLAY").await == 0).then_some(())
    })
    .await;
    assert_eq!(seen, MOST, "events of one handler at a time");
    mesh.wait_letters(0).await;
}
