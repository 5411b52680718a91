//! Replays by the thousand, at a pace: each dead letter goes back once, and it is known what became of it.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::hosts::wait_frozen;
use crate::mesh::{Config, Found, Mesh, PATIENT};
use crate::poisoned::{NEW, by_subject, config, fix, history, judge, poison, publish, replay, whole, with_letters};
use crate::support::server::{Options, round_trip};
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer, Signal, eventually, modules};

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn ten_thousand_poison_events_die_once_under_every_fault_and_are_done_once_by_a_replay() {
    const COUNT: usize = 10_000;
    // A line for each of ten thousand is too much to read.
    const QUIET: (&str, &str) = (
        "JETMESH_LOG__FILTER",
        "off,jetmesh=error,jetmesh::handler_task::serve=info",
    );
    let many = Config::probe_with("max_attempts = 1\nin_flight = 512");
    let config = many.handler("other", &modules::handler("probe"), "");
    let mut mesh = Mesh::new(config).await;
    // It ends while it dead-letters.
    let host = mesh.host(&[QUIET, ("MESH_FAULT", "death-decided:kill:2000")]).await;
    publish(&mesh, 0, COUNT).await;
    host.wait_exit(PATIENT).await;
    let host = mesh.host(&[QUIET]).await;
    let deleted = mesh.js.delete_stream("MESH_ADVISORIES").await;
    deleted.expect("the stream is there to be deleted");
    eventually("half of the letters", PATIENT, async || {
        (mesh.messages_left("MESH_DEAD").await > COUNT as u64 / 2).then_some(())
    })
    .await;
    mesh.server.kill9();
    mesh.server.restart().await;
    eventually("all letters", PATIENT, async || {
        let found = mesh.js.get_stream("MESH_DEAD").await.ok()?;
        (found.cached_info().state.messages >= COUNT as u64).then_some(())
    })
    .await;
    mesh.wait_settled("ORDERS", "probe").await;
    assert_eq!(mesh.letters().await.len(), COUNT);
    drop(host);

    fix(&mesh).await;
    let _host = mesh.host(&[QUIET]).await;
    mesh.wait_settled("ORDERS", "other").await;
    let others = mesh.consumer("ORDERS", "other").await["delivered"].clone();
    let groups = mesh.jetmesh_ok(&["dlq", "ls", "--group", "--json"]).await;
    let group: Value = serde_json::from_str(&groups).expect("all of them are one group");
    assert_eq!(group["count"], COUNT);
    let group = group["group"].as_str().expect("a group has an id");
    let (code, account) = replay(&mesh, &["--group", group]).await;
    assert_eq!(code, Some(0), "{account}");
    assert_eq!(
        (&account["succeeded"], &account["end"]),
        (&json!(COUNT), &json!("over"))
    );
    judge(&mesh, COUNT).await;
    assert_eq!(mesh.consumer("ORDERS", "other").await["delivered"], others);
    assert_eq!(mesh.messages_left("MESH_REPLAY").await, 0);

    // A second replay of the same finds nothing.
    let entries = mesh.decisions("probe").await.len();
    let said = mesh.jetmesh_ok(&["dlq", "replay", "--group", group, "--yes"]).await;
    assert_eq!(said, "no such dead letters: nothing to replay\n");
    assert_eq!(mesh.decisions("probe").await.len(), entries);
}

#[tokio::test]
async fn a_replay_stops_when_too_many_fail_and_the_same_command_goes_on_after_the_fix() {
    let (mesh, _host) = with_letters(60).await;
    let (code, account) = replay(&mesh, &["--handler", "probe"]).await;
    assert_eq!(code, Some(1));
    assert_eq!(account["end"], "too-many-failures");
    let number = |name: &str| account[name].as_u64().expect("it is a number");
    let failed = number("failed_again");
    assert!((2..=15).contains(&failed), "{account}");
    assert_eq!((failed + number("not_sent"), number("undecided")), (60, 0), "{account}");
    assert_eq!(account["failures"][0]["code"], "not-there");
    let letters = mesh.letters().await;
    let tried = letters.iter().filter(|letter| !history(letter).is_empty()).count();
    assert_eq!((letters.len(), tried as u64), (60, failed), "the others were not tried");

    fix(&mesh).await;
    let (code, account) = replay(&mesh, &["--handler", "probe"]).await;
    assert_eq!((code, &account["succeeded"]), (Some(0), &json!(60)), "{account}");
    judge(&mesh, 60).await;
}

#[tokio::test]
async fn a_letter_whose_replay_failed_has_one_more_line_of_history_and_is_otherwise_as_it_was() {
    let options = Options {
        max_payload: Some(64 * 1024),
        ..Options::default()
    };
    let mesh = Mesh::over(NatsServer::start_with(&options).await, config()).await;
    let _host = mesh.host(&[]).await;
    let headers = [("Nats-Msg-Id", "o-1"), ("Trace", "a"), ("Trace", "b")];
    let small = json!({ "do": poison(0) }).to_string();
    mesh.publish_with("orders.probe", &headers, small).await;
    // The second letter just fits one message, and with a history it does not.
    let large = json!({ "do": poison(1), "pad": "x".repeat(63 * 1024) }).to_string();
    mesh.publish("orders.probe", large).await;
    let before = by_subject(&mesh, 2).await;
    let since = mesh.jetmesh_ok(&["dlq", "ls", "--json"]).await;
    for round in 1..=2 {
        let (code, account) = replay(&mesh, &["--all", "--max-failures", "100"]).await;
        assert_eq!((code, &account["failed_again"]), (Some(1), &json!(2)), "{account}");
        for (was, is) in before.iter().zip(by_subject(&mesh, 2).await) {
            let line = history(&is);
            assert_eq!(line.len(), round, "one line for each replay");
            let last = &line[round - 1];
            assert_eq!((&last["replay"], &last["code"]), (&json!(true), &json!("not-there")));
            assert_eq!(
                (&last["outcome"], &last["message"]),
                (&json!("retry"), &json!("there is no fix"))
            );
            assert_eq!(
                (&was.subject, whole(&mesh, was).await),
                (&is.subject, whole(&mesh, &is).await)
            );
            let kept = |letter: &Found| {
                let own = |name: &str| name.starts_with("Nats-") || NEW.contains(&name);
                let all = letter.headers.iter().filter(|(name, _)| !own(name.as_ref()));
                all.map(|(name, values)| format!("{name}: {values:?}"))
                    .collect::<BTreeSet<_>>()
            };
            assert_eq!(kept(was), kept(&is));
        }
    }
    let again = mesh.jetmesh_ok(&["dlq", "ls", "--json"]).await;
    let times = |list: &str| -> Vec<String> {
        let lines = list
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let mut times: Vec<String> = lines
            .map(|letter| format!("{} {}", letter["id"], letter["dead_since"]))
            .collect();
        times.sort();
        times
    };
    assert_eq!(times(&since), times(&again), "they died when they died");
    fix(&mesh).await;
    let ids: Vec<String> = before.iter().map(|letter| letter.letter_id().to_owned()).collect();
    let (code, account) = replay(&mesh, &[&ids[0], &ids[1]]).await;
    assert_eq!((code, &account["succeeded"]), (Some(0), &json!(2)), "{account}");
    assert_eq!(mesh.letters().await.len(), 0);
    let left = mesh.messages("MESH_DEAD", ">").await;
    assert_eq!(left.len(), 2, "nothing but what settles them: the parts are gone");
}

/// Where a letter's replay waits.
fn waits_on(letter: &Found) -> String {
    format!("$MESH.replay.{}", letter.letter_id())
}

/// One letter, whose replay is asked for; returns when the host has frozen over it.
async fn replayed_until_frozen(mesh: &Mesh, host: &Host) -> Found {
    publish(mesh, 0, 1).await;
    let letter = mesh.wait_letters(1).await.remove(0);
    mesh.publish_with(&waits_on(&letter), &[("Mesh-Letter", &letter.subject)], "")
        .await;
    wait_frozen(host).await;
    letter
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_failed_replay_brings_no_letter_back_that_was_settled_or_removed_meanwhile() {
    for purge in [false, true] {
        let mesh = Mesh::new(config()).await;
        let host = mesh.host_with_fault("before-history:stop").await;
        let letter = replayed_until_frozen(&mesh, &host).await;
        if purge {
            let dead = mesh.js.get_stream("MESH_DEAD").await.expect("the stream is there");
            dead.purge().await.expect("it can be purged");
        } else {
            mesh.publish_with(&letter.subject, &[("Mesh-Settled", "discarded")], "")
                .await;
        }
        host.signal(Signal::CONT);
        mesh.wait_replayed().await;
        assert_eq!(mesh.letters().await.len(), 0, "purged: {purge}");
    }
}

/// The host freezes between the end of a replay and its ack: asking then does nothing.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_letter_that_is_asked_for_while_another_replay_of_it_ends_is_asked_for_once_more() {
    let mesh = Mesh::new(Config::probe_with("max_attempts = 1\nack_wait = \"30s\"")).await;
    // The first ack is that of its death.
    let host = mesh.host_with_fault("before-ack:stop:2").await;
    let letter = replayed_until_frozen(&mesh, &host).await;
    assert_eq!(history(&mesh.letters().await[0]).len(), 1, "it has failed");
    let file = mesh.write_config();
    let file = file.to_str().expect("a temporary folder's path is UTF-8");
    // A subscriber gets the request, though the stream does not take it.
    let mut asked = mesh.client.subscribe(waits_on(&letter)).await.expect("connected");
    round_trip(&mesh.client).await;
    let args = ["dlq", "replay", "--all", "--yes", "--config", file];
    let command = Host::start_command(&args, mesh.dir.path(), &[]);
    let heard = tokio::time::timeout(SOON, asked.next()).await;
    assert!(heard.is_ok(), "the command asks");
    assert_eq!(mesh.messages_left("MESH_REPLAY").await, 1);
    fix(&mesh).await;
    host.signal(Signal::CONT);
    let status = command.wait_exit(SOON).await;
    assert_eq!(status.code(), Some(0), "{:?}", command.lines());
    judge(&mesh, 1).await;
}

#[tokio::test]
async fn a_replay_says_when_no_host_serves_the_handler_and_what_waits_is_done_when_one_does() {
    let (mesh, host) = with_letters(3).await;
    fix(&mesh).await;
    drop(host);
    let (status, stdout, stderr) = mesh.jetmesh(&["dlq", "replay", "--all", "--yes"]).await;
    assert_eq!(status.code(), Some(6));
    for text in [
        "sent 1 of 3 dead letters, and nothing is decided after ",
        "       1 sent and not decided: no host serves probe, so they wait for one\n",
        "       2 not sent: more are sent only when those before are decided\n",
    ] {
        assert!(stdout.contains(text), "{stdout}");
    }
    assert!(!stdout.contains("replayed"), "{stdout}");
    assert!(
        stderr.contains("no host serves handler probe; the replays that were sent wait for one, see `jetmesh status`"),
        "{stderr}"
    );
    let _host = mesh.host(&[]).await;
    mesh.wait_letters(2).await;
    let (code, account) = replay(&mesh, &["--all"]).await;
    assert_eq!((code, &account["succeeded"]), (Some(0), &json!(2)), "{account}");
    judge(&mesh, 3).await;
}

#[tokio::test]
async fn without_a_yes_and_in_a_dry_run_nothing_is_asked_for() {
    let (mesh, _host) = with_letters(3).await;
    let last = async |stream: &str| {
        let found = mesh.js.get_stream(stream).await.expect("the stream is there");
        found.cached_info().state.last_sequence
    };
    let before = (last("MESH_REPLAY").await, last("MESH_DEAD").await);
    let dry = mesh.jetmesh_ok(&["dlq", "replay", "--all", "--dry-run"]).await;
    let group = &dry.lines().nth(3).expect("a line of the table")[..8];
    insta::assert_snapshot!(dry.replace(group, "[group] "), @r"
    would be replayed:

    GROUP     COUNT  HANDLER  CAUSE      CODE       NEWEST ERROR
    [group]   3      probe    exhausted  not-there  there is no fix
    ");
    let (status, stdout, stderr) = mesh.jetmesh(&["dlq", "replay", "--all"]).await;
    assert_eq!(
        (status.code(), stderr.as_str()),
        (
            Some(1),
            "error: nothing is replayed: the command asks for confirmation, and standard input is not a terminal; --yes does \
             not ask\n"
        )
    );
    insta::assert_snapshot!(stdout.replace(group, "[group] "), @r"
    these dead letters will be given back to the handlers that failed on them:

    GROUP     COUNT  HANDLER  CAUSE      CODE       NEWEST ERROR
    [group]   3      probe    exhausted  not-there  there is no fix
    ");
    assert_eq!((last("MESH_REPLAY").await, last("MESH_DEAD").await), before);
    let (status, _, stderr) = mesh.jetmesh(&["dlq", "replay"]).await;
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("select dead letters: with an ID, --group"), "{stderr}");
}

#[tokio::test]
async fn two_replays_of_the_same_letters_at_once_do_each_of_them_once() {
    let (mesh, _host) = with_letters(50).await;
    fix(&mesh).await;
    let ((first, one), (second, other)) = tokio::join!(replay(&mesh, &["--all"]), replay(&mesh, &["--all"]));
    assert_eq!((first, second), (Some(0), Some(0)), "{one}\n{other}");
    judge(&mesh, 50).await;
}

#[tokio::test]
async fn a_replay_that_is_tried_again_within_itself_has_not_failed_yet() {
    let mesh = Mesh::new(config()).await;
    let host = mesh.host(&[]).await;
    mesh.order(json!({ "op": "fail_until", "attempt": 3 })).await;
    mesh.wait_letters(1).await;
    drop(host);
    let patient = Config::probe_with("max_attempts = 3");
    let _host = mesh.host_of(&patient, &mesh.server.url(), &[]).await;
    let (code, account) = replay(&mesh, &["--all"]).await;
    assert_eq!((code, &account["succeeded"]), (Some(0), &json!(1)), "{account}");
    let decisions = mesh.decisions("probe").await;
    assert_eq!(decisions.len(), 2, "{decisions:?}");
    assert_eq!(decisions[1]["attempt"], 3);
}

/// Header of a letter: the sequence of its death's record.
const RECORD: &str = "Mesh-Death-Record";

/// A letter as it was, but for the record of its death that it names; `None`: it names none, like those of earlier builds.
async fn names_another_record(mesh: &Mesh, letter: &Found, record: Option<u64>) {
    let own = |name: &str| name.starts_with("Nats-") || name == RECORD;
    let mut headers: Vec<(String, String)> = letter
        .headers
        .iter()
        .filter(|(name, _)| !own(name.as_ref()))
        .flat_map(|(name, values)| values.iter().map(move |value| (name.to_string(), value.to_string())))
        .collect();
    headers.extend(record.map(|record| (RECORD.to_owned(), record.to_string())));
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    mesh.publish_with(&letter.subject, &headers, letter.payload.clone())
        .await;
}

#[tokio::test]
async fn a_letter_names_the_record_of_its_death_and_one_that_names_another_is_replayed_once_all_the_same() {
    let (mesh, host) = with_letters(6).await;
    let letters = by_subject(&mesh, 6).await;
    let records = mesh.messages("KV_probe", "$MESH.state.probe.dead.>").await;
    for letter in &letters {
        let of = format!("$MESH.state.probe.dead.{}", letter.letter_id());
        let record = records.iter().find(|record| record.subject == of).expect(&of);
        assert_eq!(
            letter.header(RECORD),
            Some(record.sequence.to_string().as_str()),
            "{of}"
        );
    }
    let another = letters[5].header(RECORD).and_then(|record| record.parse().ok());
    names_another_record(&mesh, &letters[0], another).await;
    names_another_record(&mesh, &letters[1], Some(1_000_000)).await;
    names_another_record(&mesh, &letters[2], None).await;
    names_another_record(&mesh, &letters[3], Some(0)).await;
    fix(&mesh).await;
    let (code, account) = replay(&mesh, &["--all"]).await;
    assert_eq!((code, &account["succeeded"]), (Some(0), &json!(6)), "{account}");
    judge(&mesh, 6).await;
    let stopped = host
        .lines()
        .into_iter()
        .find(|line| line.contains("the ledger is stopped"));
    assert_eq!(stopped, None, "it hinders nobody else");
}
